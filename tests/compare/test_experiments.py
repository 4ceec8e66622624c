"""The configurations whose results the documentation shows."""

from pathlib import Path

import pytest

from foveate.compare import load_comparison
from foveate.models import build_model

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted(file for file in EXPERIMENTS.glob("*.yaml") if "methods:" in file.read_text())


def test_there_are_some() -> None:
    assert FILES


@pytest.mark.one_in(3)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_method_can_be_built(file: Path) -> None:
    for method in load_comparison(file).resolved():
        data = method.settings.data
        assert data.published is data.manifest is None, "where the images lie is said with --data"
        channels = data.channels if data.source == "megapixel-mnist" else 3
        model = build_model(method.settings.model, ("a", "b"), channels, image_size=(400, 500))
        assert model.parameter_count > 0
