"""Small models; a tiny one and images of two colours, as files that commands are given."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from foveate.config.heads import HeadSettings, MilSettings
from foveate.config.settings import (
    AttentionSettings,
    FeatureSettings,
    ModelSettings,
    PriorSettings,
    ViewSettings,
)
from foveate.images import ArraySource
from foveate.models import Model, make_batch
from foveate.models.types import Batch

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


HEADS = {
    "": HeadSettings(),
    "cross-attention": HeadSettings(pool="cross-attention", heads=4),
    "ordinal": HeadSettings(kind="ordinal"),
}


def small_settings(name: str = "attention-sampling", **changes: object) -> ModelSettings:
    """Settings of a small model of any name, some of them replaced; of a name and a head: "cnn + ordinal"."""
    name, _, head = name.partition(" + ")
    given = {
        "name": name,
        "head": HEADS[head],
        "view": ViewSettings(scale=0.25),
        "patch": (22, 26),
        "patches": 4,
        "attention": AttentionSettings(widths=(4,), stride=2),
        "prior": PriorSettings(contrast=1.5),
        "features": FeatureSettings(width=6),
        "mil": MilSettings(hidden=5, chunk=7),
    } | changes
    return ModelSettings(**given)  # type: ignore[arg-type]


def sharp(model: Model) -> Model:
    """A model whose attention differs from cell to cell."""
    for number, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.4, generator=torch.Generator().manual_seed(number))
    return model


def batch_of(model: Model, sources: list[ArraySource], seed: int = 5) -> Batch:
    """Images as a model takes them, each with a seed of its own."""
    return make_batch(sources, model.view, [seed + row for row in range(len(sources))])


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
