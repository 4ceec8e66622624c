"""The figure that compares models: what is there stands in the first column, each map in its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pointing import digit_canvas, pointing_model

from foveate.explain import Explanation, explain
from foveate.images import ArraySource
from foveate.models import Model
from foveate.types import Box

FILE = Path(__file__).parents[2] / "experiments" / "localisation.py"


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("objects", [[Box(106, 416, 28, 28)], [Box(100, 50, 1, 1), Box(300, 500, 1, 1)]], ids=str)
def test_what_is_there_is_in_the_first_column(objects: list[Box], script: Any, tmp_path: Path) -> None:
    source = ArraySource(digit_canvas((417, 605), (120, 430)))
    seen = {name: [explain(model, model.look(source))] for name, model in models().items()}
    script.draw_side_by_side(tmp_path / "with.png", [source], [objects], seen)
    script.draw_side_by_side(tmp_path / "without.png", [source], [[]], seen)
    with_them, without = drawn(tmp_path / "with.png"), drawn(tmp_path / "without.png")
    assert with_them.shape == without.shape
    columns = np.flatnonzero((with_them != without).any((0, 2)))
    assert columns.size > 0
    assert columns.max() < with_them.shape[1] / 4


def test_each_map_is_in_its_own_column(script: Any, tmp_path: Path) -> None:
    sources = [ArraySource(digit_canvas((417, 605), (120, 430))), ArraySource(digit_canvas((300, 200), (200, 60)))]
    seen = {name: [explain(model, model.look(one)) for one in sources] for name, model in models().items()}
    script.draw_side_by_side(tmp_path / "all.png", sources, [[], []], seen)
    whole = drawn(tmp_path / "all.png")
    others = models((40, 52))
    for number, (name, other_model) in enumerate(others.items(), start=1):
        changed: dict[str, list[Explanation]] = {
            **seen,
            name: [explain(other_model, other_model.look(one)) for one in sources],
        }
        script.draw_side_by_side(tmp_path / "other.png", sources, [[], []], changed)
        other = drawn(tmp_path / "other.png")
        assert other.shape == whole.shape
        columns = np.flatnonzero((other != whole).any((0, 2))) / whole.shape[1] * 4
        assert number <= columns.min() + 0.1
        assert columns.max() - 0.1 < number + 1


def test_wide_images_leave_no_gaps_between_rows(script: Any, tmp_path: Path) -> None:
    sources = [ArraySource(digit_canvas((200, 800), (120, 430)))] * 3
    model = pointing_model()
    script.draw_side_by_side(
        tmp_path / "wide.png", sources, [[]] * 3, {"ATS": [explain(model, model.look(sources[0]))] * 3}
    )
    picture = drawn(tmp_path / "wide.png")
    assert picture.shape[0] < picture.shape[1]
    blank = (picture == 255).all((1, 2))
    gaps = np.diff(np.flatnonzero(~blank), prepend=-1)
    assert gaps.max() < 0.5 * picture.shape[0] / 3


def models(patch: tuple[int, int] = (28, 36)) -> dict[str, Model]:
    names = {"ATS": "attention-sampling", "Deep MIL": "deep-mil", "U": "uniform"}
    return {title: pointing_model(name=name, patch=patch) for title, name in names.items()}
