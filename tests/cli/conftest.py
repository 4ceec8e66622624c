"""Images and settings that commands are given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY = """
model:
  view: {longest_side: 24}
  patch: [26, 28]
  patches: 3
  attention: {widths: [4], stride: 2}
  features: {width: 6}
training: {epochs: 2, batch: 4, log_every: 1}
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A manifest of twenty small RGB images, none square."""
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(20):
        pixels = random.integers(0, 60, (52 + number % 3, 90, 3), dtype=np.uint8)
        pixels[10:24, 20 + number : 34 + number, number % 2] = 250
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{('red', 'green')[number % 2]}")
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "images.csv"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve images of two classes and six patients, no two alike."""
    lines = ["path,label,group,stain"]
    for i in range(12):
        Image.fromarray(np.full((4, 6), i, np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},p{i // 2},s{i}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
