"""The picture of how fast Megapixel MNIST is learnt is made of what is kept in the repository."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RESULTS = [EXPERIMENTS / "results" / name for name in ("megapixel-mnist", "megapixel-mnist-noise-over")]


def test_it_draws_and_prints_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures" / "course.png"
    monkeypatch.setattr(sys, "argv", ["megapixel_mnist_course.py", *map(str, RESULTS), "--out", str(out)])
    runpy.run_path(str(EXPERIMENTS / "megapixel_mnist_course.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    kept = [path for folder in RESULTS for path in folder.glob("ats-10/*/predictions.json")]
    assert len(lines) == len(kept) >= 4
    assert lines[0] == "megapixel-mnist seed 0: 60 epochs, 24.9 minutes, test error 0.015"
    with Image.open(out) as picture:
        assert picture.size[0] > picture.size[1] > 400
