"""Coverage against definitions written out anew, by enumeration of what may be covered."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.config.settings import AttentionSettings, DataSettings, FeatureSettings, ModelSettings, ViewSettings
from foveate.datasets import megapixel_mnist
from foveate.datasets.types import Example, Resplit
from foveate.evaluation.coverage import covered, covered_objects, majority_error, object_coverage
from foveate.evaluation.evaluate import evaluate
from foveate.images import ArraySource, Source
from foveate.models import DrawOptions, Model, build_model, make_batch
from foveate.pipeline.loader import LoadOptions
from foveate.types import Box

boxes = st.builds(Box, st.integers(-20, 60), st.integers(-20, 60), st.integers(1, 30), st.integers(1, 30))


def pixels(box: Box) -> set[tuple[int, int]]:
    return set(itertools.product(range(box.top, box.bottom), range(box.left, box.right)))


@given(
    objects=st.lists(boxes, max_size=4), patches=st.lists(boxes, max_size=4), share=st.sampled_from([0.25, 0.5, 1.0])
)
@settings(max_examples=60, deadline=None)
def test_covered_is_a_share_of_pixels_within_one_patch(objects: list[Box], patches: list[Box], share: float) -> None:
    corners = np.array([(one.top, one.left, one.height, one.width) for one in patches], np.int64).reshape(-1, 4)
    expected = tuple(
        any(len(pixels(one) & pixels(patch)) >= share * len(pixels(one)) for patch in patches) for one in objects
    )
    assert covered(objects, corners, share) == expected


def test_two_patches_with_a_half_each_are_not_added_up() -> None:
    patches = np.array([[0, 0, 12, 30], [16, 0, 12, 30]])
    assert covered([Box(0, 0, 28, 28)], patches) == (False,)


def guessing_error(names: tuple[str, ...], seen: tuple[bool, ...], label: str, classes: list[str]) -> float:
    """Every class that no other outnumbers among the seen is said equally often."""
    counts = {name: sum(one for one, of in zip(seen, names, strict=True) if of == name) for name in classes}
    answers = [name for name in classes if counts[name] == max(counts.values())]
    return sum(answer != label for answer in answers) / len(answers)


@pytest.mark.parametrize("names", [("7", "7", "7", "1", "2"), ("7", "7", "7", "1", "1"), ("3", "3", "0")])
def test_the_error_of_every_set_that_may_be_covered(names: tuple[str, ...]) -> None:
    classes = [str(digit) for digit in range(10)]
    for seen in itertools.product((False, True), repeat=len(names)):
        expected = guessing_error(names, seen, names[0], classes)
        assert majority_error(names, seen, names[0], 10) == pytest.approx(expected, abs=1e-12)
    assert majority_error(names, [True] * len(names), names[0], 10) == 0
    assert majority_error(names, [False] * len(names), names[0], 10) == pytest.approx(0.9)


@dataclass(frozen=True)
class Known:
    """Blank images of one size, and objects in them."""

    things: tuple[tuple[tuple[str, Box], ...], ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...] = ("a", "b", "c")
    multi_label: bool = False

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(Example(f"image{number}", label, "test") for number, label in enumerate(self.labels))

    def open(self, index: int) -> Source:
        return ArraySource(np.full((60, 90, 1), 9 * index, np.uint8))

    def objects(self, index: int) -> tuple[tuple[str, Box], ...]:
        return self.things[index]


BOX = Box(0, 0, 8, 9)
THINGS = ((("a", BOX), ("a", BOX), ("b", BOX)), (("c", BOX),), ())


def test_all_images_together_by_hand() -> None:
    known = Known(THINGS, (0, 2, 1))
    found = object_coverage(known, (0, 1, 2), [(True, False, True), (False,), ()])
    assert found is not None
    assert (found.images, found.objects_per_image, found.covered_per_image, found.complete) == (2, 2.0, 1.0, 0.0)
    assert found.error_floor == pytest.approx((1 / 2 + 2 / 3) / 2)  # a or b; anything
    whole = object_coverage(known, (0, 1), [(True, True, True), (True,)])
    assert whole is not None
    assert (whole.complete, whole.error_floor) == (1.0, 0.0)
    other = object_coverage(Known(THINGS, (1, 2, 1)), (0, 1), [(True, True, True), (True,)])
    assert other is not None
    assert other.error_floor is None, "the first image's class is not that of most of its objects"
    assert object_coverage(known, (2,), [()]) is None
    assert object_coverage(known, (0,), [None]) is None


def model_of(name: str = "attention-sampling", patches: int = 4) -> Model:
    chosen = ModelSettings(
        name=name,  # type: ignore[arg-type]
        view=ViewSettings(scale=0.2),
        patch=(22, 30),
        patches=patches,
        attention=AttentionSettings(widths=(4,), stride=2),
        features=FeatureSettings(width=4),
    )
    return build_model(chosen, ("a", "b", "c"), 1)


def test_evaluation_counts_what_the_patches_it_read_cover() -> None:
    # The map of 12×18 view pixels has 6×9 cells, 10 pixels apart.
    things = tuple((("a", Box(top, left, 8, 9)),) for top in (0, 20, 50) for left in (0, 40, 78))
    known = Known(things, (0,) * len(things))
    indices = tuple(range(len(things)))
    everything = evaluate(model_of(patches=54), known, indices).coverage
    assert everything is not None
    assert (everything.covered_per_image, everything.error_floor) == (1.0, 0.0)
    model = model_of()
    result = evaluate(model, known, indices, DrawOptions(seed=3), loading=LoadOptions(4))
    expected = []
    for index in indices:
        prediction = model.predict(known.open(index), seed=3)
        corners = np.array([(one.top, one.left, one.height, one.width) for one in prediction.boxes])
        expected += covered([things[index][0][1]], corners)
    assert result.coverage is not None
    assert 0 < result.coverage.covered_per_image < 1, "else nothing is shown"
    several = evaluate(model, known, indices, DrawOptions(6)).coverage
    assert several is not None
    assert several.covered_per_image >= result.coverage.covered_per_image
    plain: Any = result.plain()
    assert plain["coverage"]["covered_per_image"] == result.coverage.covered_per_image
    assert evaluate(model_of("cnn"), known, indices).coverage is None
    renamed = Resplit(known, tuple(known.examples))
    assert evaluate(model, renamed, indices, DrawOptions(seed=3), loading=LoadOptions(4)).coverage == result.coverage


def test_patches_that_were_not_read_cover_nothing() -> None:
    known = Known(((("a", Box(0, 0, 60, 90)),),), (0,))
    model = model_of(patches=60).eval()
    batch = make_batch([known.open(0)], model.view, [0])
    output = model(batch)
    assert not output.read.all()
    output.boxes[~output.read] = torch.tensor([0, 0, 60, 90])
    assert covered_objects(known, (0,), batch, output) == [(False,)]


def test_the_digits_of_megapixel_mnist_are_its_objects() -> None:
    data = megapixel_mnist(DataSettings(canvas=(200, 300), train_images=3, test_images=2))
    assert data.objects(4) == data.digits(4)
    seen = [tuple(number < 4 for number in range(5))] * 5  # the three of its class, and one more
    found = object_coverage(data, tuple(range(5)), seen)
    assert found is not None
    assert (found.objects_per_image, found.covered_per_image, found.error_floor) == (5.0, 4.0, 0.0)


def test_a_data_set_without_objects_has_no_coverage(squares: Any) -> None:
    assert not hasattr(Resplit(squares, squares.examples), "objects")
    model = build_model(ModelSettings(view=ViewSettings(scale=0.3), patch=(22, 24)), ("blue", "red"), 3)
    result = evaluate(model, squares, (0, 1))
    assert result.coverage is None
    assert "coverage" not in result.plain()


def test_a_run_says_how_many_objects_its_validation_covered(tmp_path: Path) -> None:
    from foveate.config.files import merge_settings, preset
    from foveate.training.loop import train
    from foveate.training.progress import SilentProgress
    from foveate.training.run_folder import read_metrics

    data = {"canvas": [200, 240], "train_images": 12, "test_images": 2, "noise": 0}
    changes = {"data": data, "training": {"epochs": 1, "batch": 6, "watch": 0}}
    train(merge_settings(preset("megapixel-mnist"), changes), tmp_path / "run", progress=SilentProgress())
    (epoch,) = read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert 0 <= epoch["validation_covered"] <= 5
