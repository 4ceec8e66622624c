"""`foveate predict` over a long manifest, some files of which cannot be read."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from PIL import Image

from foveate.__main__ import main
from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.models import build_model, save_model

ROWS = 1000
EVERY = 50
"""One file in so many cannot be read: 2 %."""


def _write(path: Path, noise: np.random.Generator, index: int) -> None:
    size = tuple(int(side) for side in noise.integers(35, 420, 2))
    pixels = noise.integers(0, 256, size if index % 3 == 0 else (*size, 3), dtype=np.uint8)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOILERS: tuple[Callable[[Path], object], ...] = (
    _cut_off,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("<html>404 Not Found</html>"),
    Path.unlink,
)


def _records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_thousand_rows_of_which_some_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(20190612)
    names = [f"images/{i:04d}{('.png', '.jpg', '.bmp', '.npy')[i % 4]}" for i in range(ROWS)]
    (tmp_path / "images").mkdir()
    for i, name in enumerate(names):
        _write(tmp_path / name, noise, i)
    broken = [names[7 + EVERY * n + n // 4] for n in range(ROWS // EVERY)]  # n // 4: every fault in every format
    for n, name in enumerate(broken):
        SPOILERS[n % len(SPOILERS)](tmp_path / name)
    (tmp_path / "images.csv").write_text("\n".join(["path,label", *(f"{name},unknown" for name in names)]))
    settings = ModelSettings(
        view=ViewSettings(longest_side=64), patch=(29, 24), patches=5, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), tmp_path / "model", None)
    out = tmp_path / "results" / "predictions.csv"
    started = perf_counter()
    code = main(["predict", str(tmp_path / "model"), str(tmp_path / "images.csv"), "--out", str(out)])
    assert perf_counter() - started < 150
    assert code == 3
    assert "Traceback" not in capsys.readouterr().err
    predictions, errors = _records(out), _records(out.with_name("errors.csv"))
    assert Counter(row["path"] for row in errors) == Counter(broken)
    assert len(broken) == ROWS // EVERY
    assert [row["path"] for row in predictions] == [name for name in names if name not in broken]
    for row in predictions:
        assert row["predicted"] in ("left", "right")
        assert float(row["p_left"]) + float(row["p_right"]) == pytest.approx(1, abs=1e-6)
    assert all(row["message"] and "\n" not in row["message"] for row in errors)
