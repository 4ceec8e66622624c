from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny import small_settings

from foveate.images import ArraySource
from foveate.models import Model, build_model

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def make_source() -> Callable[..., ArraySource]:
    def make(size: tuple[int, int], channels: int = 2, seed: int = 0) -> ArraySource:
        pixels = np.random.default_rng([seed, *size]).integers(0, 256, (*size, channels), dtype=np.uint8)
        return ArraySource(pixels, name=f"image-{seed}-{size[0]}x{size[1]}.png")

    return make


@pytest.fixture
def make_model() -> Callable[..., Model]:
    """Small models of every name; `attention` and other keywords replace settings, `extras` go to `build_model`."""

    def make(
        name: str = "attention-sampling",
        channels: int = 2,
        extras: dict[str, Any] | None = None,
        classes: tuple[str, ...] = CLASSES,
        **changes: object,
    ) -> Model:
        return build_model(small_settings(name, **changes), classes, channels, **extras or {})

    return make
