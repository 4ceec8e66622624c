"""A task of a few small images, and comparisons of tiny models on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from foveate.compare import CompareSettings
from foveate.config.serial import from_plain
from foveate.datasets.types import Example
from foveate.images import ArraySource, Source

BASE: dict[str, Any] = {
    "data": {"validation": 0.2, "test": 0.3},
    "model": {
        "view": {"scale": 0.5},
        "patch": [24, 22],
        "patches": 3,
        "attention": {"widths": [4], "stride": 3},
        "features": {"width": 8},
    },
    "training": {"epochs": 1, "batch": 6, "log_every": 1},
}
CNN: dict[str, Any] = {"settings": {"model": {"name": "cnn"}}}


@dataclass(frozen=True)
class Spots:
    """Images of noise, dark or bright; their ids are not in order."""

    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ("bright", "dark")
    multi_label: bool = False

    def open(self, index: int) -> Source:
        random = np.random.default_rng(index)
        low = 120 if self.examples[index].label == 0 else 0
        return ArraySource(random.integers(low, low + 100, (60, 70, 1), dtype=np.uint8))


def make_spots(count: int = 18, groups: bool = False, splits: bool = False) -> Spots:
    names = ["train", "train", "validation", "test", "test", "train"]
    return Spots(
        tuple(
            Example(
                f"image{17 * i % 101}",
                i // 2 % 2,
                names[i % 6] if splits else None,
                f"scene {i // 2}" if groups else None,
            )
            for i in range(count)
        )
    )


def make_settings(**changes: Any) -> CompareSettings:
    """Two methods, one split, one seed, no process of their own, few resamples."""
    plain = {
        "base": BASE,
        "methods": {"ats-3": {}, "cnn": CNN},
        "cost": {"batch": 4, "rounds": 2, "warm_up": 0, "process": False},
        "resamples": 200,
        **changes,
    }
    return from_plain(CompareSettings, plain)


@pytest.fixture(scope="session")
def spots_of() -> Callable[..., Spots]:
    return make_spots


@pytest.fixture(scope="session")
def settings_of() -> Callable[..., CompareSettings]:
    return make_settings
