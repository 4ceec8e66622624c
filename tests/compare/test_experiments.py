"""The configurations whose results the documentation shows."""

from dataclasses import replace
from pathlib import Path

import pytest

from foveate.compare import load_comparison
from foveate.compare.contenders import as_of_now, lasting
from foveate.compare.store import read_predictions
from foveate.models import build_model

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted(EXPERIMENTS.glob("*.yaml"))
KEPT = sorted(path.parent for path in (EXPERIMENTS / "results").rglob("predictions.json"))


def test_there_are_some() -> None:
    assert FILES
    assert KEPT


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_method_can_be_built(file: Path) -> None:
    for entrant in load_comparison(file).entrants():
        data = entrant.settings.data
        assert data.published is data.manifest is None, "where the images lie is said with --data"
        channels = data.channels if data.source == "megapixel-mnist" else 3
        model = build_model(entrant.settings.model, ("a", "b"), channels, image_size=(400, 500))
        assert model.parameter_count > 0


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: str(folder.relative_to(EXPERIMENTS / "results")))
def test_what_was_kept_still_counts(folder: Path) -> None:
    """Predictions of older versions are read, and their settings are those that the configuration gives now."""
    kept = read_predictions(folder)
    assert kept is not None
    name, method, *_ = folder.relative_to(EXPERIMENTS / "results").parts
    comparison = load_comparison(EXPERIMENTS / f"{name}.yaml")
    (entrant,) = (one for one in comparison.entrants() if one.name == method)
    wanted = lasting(replace(entrant.settings, seed=kept.seed))
    assert kept.minutes == comparison.minutes
    if comparison.minutes is not None:  # how many steps these are differs from run to run
        assert kept.steps == kept.settings["training"]["max_steps"]
        wanted["training"] |= {key: kept.settings["training"][key] for key in ("epochs", "max_steps")}
    assert as_of_now(kept.settings) == wanted
