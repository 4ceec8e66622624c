"""The model that comes with foveate reads canvases of digits and of strokes that no training canvas shows."""

import subprocess
import sys
from pathlib import Path

import other_strokes
import pytest

from foveate.config.settings import DataSettings
from foveate.evaluation.evaluate import Evaluation
from foveate.models import shipped_models
from foveate.models.store import shipped_model

NAME = "megapixel-mnist"
MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist.npz"
SEED = 20261126
"""Of the canvases and their strokes: not the one that the training canvases were generated with."""

IMAGES = 300
"""Canvases of each measurement."""

BUNDLED, OF_MNIST = 0.03, 0.06
"""Largest errors on 300 canvases; on 1,000 of another seed, strokes over the digits, 0.017, and 0.026 of MNIST's."""

OTHER = {"lines": 0.03, "pens": 0.36}
"""The same among strokes of other generators, which no training was chosen by: 0.010 and 0.284."""


def measured(digits: str, noise_over_digits: bool, strokes: str = "own") -> Evaluation:
    """What the model makes of freshly generated test canvases, each with strokes of its own."""
    settings = DataSettings(digits=digits, test_images=IMAGES, noise_over_digits=noise_over_digits, generator_seed=SEED)
    result = other_strokes.measured(NAME, settings, strokes)
    assert result.n == IMAGES
    return result


def test_it_is_small_and_on_the_shelf() -> None:
    assert shipped_models() == (NAME,)
    folder = shipped_model(NAME)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000


@pytest.mark.parametrize(("strokes", "bar"), OTHER.items())
@pytest.mark.slow
def test_it_reads_digits_among_strokes_of_other_kinds(strokes: str, bar: float) -> None:
    assert measured("bundled", True, strokes).error <= bar


@pytest.mark.parametrize("noise_over_digits", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_reads_the_bundled_digits(noise_over_digits: bool) -> None:
    result = measured("bundled", noise_over_digits)
    assert result.error <= BUNDLED
    assert result.coverage is not None
    assert result.coverage.covered_per_image >= 4.5


@pytest.mark.one_in(2)
@pytest.mark.skipif(not MNIST.exists(), reason="shared data mnist.npz is not here")
@pytest.mark.parametrize("noise_over_digits", [True, False])
def test_it_reads_mnist(noise_over_digits: bool) -> None:
    result = measured(str(MNIST), noise_over_digits)
    assert result.error <= OF_MNIST
    assert result.coverage is not None
    assert result.coverage.covered_per_image >= 4.5


def test_predict_works_on_the_first_try(tmp_path: Path) -> None:
    """As the README has it, in processes of their own."""
    foveate = [sys.executable, "-m", "foveate"]
    make = ["data", "megapixel-mnist", "--out", "digits", "--train", "20", "--test", "5", "--seed", str(SEED)]
    subprocess.run([*foveate, *make], cwd=tmp_path, check=True, capture_output=True)
    images = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "digits" / "images").glob("test-*"))
    words = ["predict", NAME, *images, "--out", "predictions.csv"]
    subprocess.run([*foveate, *words], cwd=tmp_path, check=True, capture_output=True)
    header, *rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert header.startswith("path,predicted,p_0")
    assert len(rows) == 5
