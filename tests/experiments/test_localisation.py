"""The table and the figure of runs side by side, on tiny runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from foveate.config.files import merge_settings
from foveate.config.training import RunSettings
from foveate.datasets import open_dataset
from foveate.datasets.types import Resplit
from foveate.explain import score_maps
from foveate.explain.localisation import average_scores
from foveate.models import load_model
from foveate.training.folds import write_splits
from foveate.training.loop import train
from foveate.training.progress import SilentProgress

FILE = Path(__file__).parents[2] / "experiments" / "localisation.py"

SETTINGS = merge_settings(
    RunSettings(),
    {
        "data": {"source": "megapixel-mnist", "canvas": [120, 170], "train_images": 12, "test_images": 5, "noise": 1},
        "model": {
            "view": {"longest_side": 40},
            "patch": [30, 26],
            "patches": 3,
            "attention": {"widths": [4], "stride": 4},
            "features": {"width": 6},
        },
        "training": {"epochs": 1, "batch": 6},
    },
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of attention sampling, and one of Deep MIL."""
    folder = tmp_path_factory.mktemp("runs")
    train(SETTINGS, folder / "ats", progress=SilentProgress())
    train(replace(SETTINGS, model=replace(SETTINGS.model, name="deep-mil")), folder / "mil", progress=SilentProgress())
    return folder


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]


def test_two_runs_on_the_same_images(
    script: Any, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps.png"
    script.main([f"ATS={runs / 'ats'}", str(runs / "mil"), "--out", str(out), "--images", "2", "--samples", "2"])
    head, line, ats, mil = rows(capsys.readouterr().out)
    assert len(head) == len(line) == len(ats) == len(mil) == 9
    assert (ats[:3], mil[:3]) == (["ATS", "5", "5.0"], ["mil", "5", "5.0"])
    assert mil[-2:] == ["–", "–"], "Deep MIL draws nothing"
    rows_to_columns = SETTINGS.data.canvas[0] / SETTINGS.data.canvas[1]
    with Image.open(out) as picture:
        assert picture.width / picture.height == pytest.approx(3 * 2.4 / (2 * (2.4 * rows_to_columns + 0.3)), abs=0.02)
    (trained,) = script.open_runs([str(runs / "ats")], "test")["ats"]
    scores = dict(score_maps(load_model(str(runs / "ats")), trained.dataset, list(trained.indices.values()), 2))
    told = average_scores(list(scores.values()), [None] * 5).scores["mass"]
    assert told is not None
    assert ats[3] == f"{told.mean:.3f} ({told.interval[0]:.3f}–{told.interval[1]:.3f})"


def test_folds_are_taken_together(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = open_dataset(SETTINGS.data, SETTINGS.seed)
    for fold in (0, 1):
        examples = [
            replace(one, split="validation") if one.split == "test" and number % 2 == fold else one
            for number, one in enumerate(images.examples)
        ]
        folder = tmp_path / f"fold-{fold + 1}"
        write_splits(folder, examples, "again")
        train(SETTINGS, folder, dataset=Resplit(images, examples), resume=True, progress=SilentProgress())
    folds = [f"ATS={tmp_path / f'fold-{fold}'}" for fold in (1, 2)]
    counts = [len(script.open_runs([fold], "test")["ATS"][0].indices) for fold in folds]
    assert sorted(counts) == [2, 3]
    script.main(folds)
    _, _, ats = rows(capsys.readouterr().out)
    assert ats[:3] == ["ATS", "5", "5.0"]


def test_what_has_nothing_in_common_is_refused(script: Any, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main([str(runs / "ats"), "--split", "none"])
    assert "no image with an object is in the none split of every name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main([str(runs / "ats"), "--ids", "nobody"])
    assert "nobody is not among the 5 images in common" in capsys.readouterr().err
