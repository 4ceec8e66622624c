"""A tiny model and images of two colours, as files that commands are given."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TINY: dict[str, Any] = {
    "model.view.longest_side": 24,
    "model.patch": (26, 28),
    "model.patches": 3,
    "model.attention.widths": (4,),
    "model.attention.stride": 2,
    "model.features.width": 6,
    "training.max_steps": 2,
    "training.batch": 4,
    "data.cache": "off",
}
"""Settings over the preset smoke that make a fit a matter of a tenth of a second."""


def tiny_config(epochs: int) -> str:
    """Settings of a tiny model."""
    return f"""
model:
  view: {{longest_side: 24}}
  patch: [26, 28]
  patches: 3
  attention: {{widths: [4], stride: 2}}
  features: {{width: 6}}
training: {{epochs: {epochs}, batch: 4, log_every: 1}}
"""


def write_coloured(folder: Path, count: int) -> Path:
    """A manifest of small RGB images, none square, of a red or a green square each."""
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(count):
        pixels = random.integers(0, 60, (52 + number % 3, 90, 3), dtype=np.uint8)
        pixels[10:24, 20 + number : 34 + number, number % 2] = 250
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{('red', 'green')[number % 2]}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    return folder / "images.csv"
