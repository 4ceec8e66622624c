"""Tiny classifiers of red and green squares, and the squares in every form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from squares import unchecked
from tiny import TINY

from foveate import Classifier

__all__ = ["unchecked"]


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Classifier]:
    """Makes a tiny classifier; keywords are its parameters, dotted keys settings."""

    def make(**more: Any) -> Classifier:
        return Classifier(**{"preset": "smoke", "verbose": False, "device": "cpu", **TINY, **more})

    return make


@pytest.fixture(scope="session")
def squares() -> list[np.ndarray]:
    """Eight small RGB images, none square, of a red or a green square each, alternately."""
    random = np.random.default_rng(0)
    images = []
    for number in range(8):
        pixels = random.integers(0, 60, (52 + number % 3, 90, 3), dtype=np.uint8)
        pixels[10:24, 20 + number : 34 + number, number % 2] = 250
        images.append(pixels)
    return images


@pytest.fixture(scope="session")
def colours() -> list[str]:
    """Labels of the squares."""
    return ["red", "green"] * 4


@pytest.fixture(scope="session")
def fitted(tiny: Callable[..., Classifier], squares: list[np.ndarray], colours: list[str]) -> Classifier:
    """A classifier that was fitted to the squares; not to be fitted again."""
    return tiny().fit(squares, colours)
