"""Images and settings that commands are given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config, write_coloured


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A manifest of twenty small RGB images, none square."""
    return write_coloured(tmp_path, 20)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(tiny_config(epochs=2))
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
