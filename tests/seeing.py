"""Grey photographs with a bright square or none, none of them square, and small models that see cells by a backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from foveate.config.settings import AttentionSettings, FeatureSettings, ModelSettings, ViewSettings
from foveate.datasets.types import Example
from foveate.images import ArraySource, Source
from foveate.models import Model, build_model

BACKBONE = "timm:test_resnet"
"""A small network, whose weights the seed of the model draws."""

SIZES = ((96, 128), (88, 136))
SIDE, COLOURS = 14, {"spot": (240, 240, 240), "red": (240, 40, 40), "blue": (40, 40, 240)}


def marked(number: int, marks: Sequence[str], seed: int = 0) -> tuple[np.ndarray, tuple[int, int]]:
    """Grey noise with a square of each colour; and (top, left) of the last one."""
    random = np.random.default_rng([seed, number])
    size = SIZES[number % 2]
    pixels = random.integers(80, 130, (*size, 1)) + random.integers(-6, 7, (*size, 3))
    top = left = 0
    for mark in marks:
        top, left = (int(random.integers(0, side - SIDE)) for side in size)
        pixels[top : top + SIDE, left : left + SIDE] = COLOURS[mark]
    return pixels.astype(np.uint8), (top, left)


@dataclass(frozen=True)
class Marks:
    """Such photographs in memory; a class is called like what it shows, any other shows nothing."""

    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    multi_label: bool = False
    seed: int = 0

    def shown(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        label = self.examples[index].label
        names = [self.classes[one] for one in (label if isinstance(label, tuple) else (label,)) if one is not None]
        return marked(index, [name.split("-")[0] for name in names if name.split("-")[0] in COLOURS], self.seed)

    def open(self, index: int) -> Source:
        return ArraySource(self.shown(index)[0], name=self.examples[index].id)


def make_marks(
    train: int, validation: int, classes: tuple[str, ...] = ("none", "spot"), labels: Sequence[Any] | None = None
) -> Marks:
    """Photographs to train and to validate on, whose classes (or `labels`) take turns."""
    splits = ["train"] * train + ["validation"] * validation
    turns = range(len(classes)) if labels is None else labels
    examples = [Example(f"{i:03d}.png", turns[i // 2 % len(turns)], split) for i, split in enumerate(splits)]
    return Marks(tuple(examples), classes, labels is not None)


def write_marks(folder: Path, dataset: Marks) -> Path:
    """The photographs as PNG files, and a manifest of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,label,split"]
    for index, one in enumerate(dataset.examples):
        Image.fromarray(dataset.shown(index)[0]).save(folder / one.id, compress_level=1)
        assert isinstance(one.label, int)
        lines.append(f"{one.id},{dataset.classes[one.label]},{one.split}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


def seeing_settings(name: str = "evidence", attention: dict[str, Any] | None = None, **changes: Any) -> ModelSettings:
    """A model with a backbone over views of half size."""
    eyes = {"name": BACKBONE, "stages": (2, 3), "stride": 6, "hidden": 8} | (attention or {})
    given = {
        "name": name,
        "view": ViewSettings(scale=0.5),
        "patch": (22, 26),
        "patches": 4,
        "attention": AttentionSettings(**eyes),
        "features": FeatureSettings(width=6),
    }
    return ModelSettings(**given | changes)  # type: ignore[arg-type]


def seeing_model(
    name: str = "evidence",
    classes: tuple[str, ...] = ("none", "spot"),
    attention: dict[str, Any] | None = None,
    channels: int = 3,
    seed: int = 0,
    multi_label: bool = False,
    **changes: Any,
) -> Model:
    """Such a model, built without fetching anything."""
    settings = seeing_settings(name, attention, **changes)
    return build_model(settings, classes, channels, seed, pretrained=False, multi_label=multi_label)


def noted_looks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The views that any model's eyes see from now on; the list grows."""
    seen: list[Tensor] = []
    cells_of = Model.cells_of

    def noted(self: Model, view: Tensor) -> Tensor:
        seen.append(view)
        return cells_of(self, view)

    monkeypatch.setattr(Model, "cells_of", noted)
    return seen
