"""A task of a few small images, none square, that a tiny model can learn."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from foveate.config.files import merge_settings
from foveate.config.training import RunSettings
from foveate.datasets.types import Example
from foveate.errors import ImageError
from foveate.images import ArraySource, Source
from foveate.training.loop import train
from foveate.training.progress import LineProgress

SIZES = ((60, 80), (52, 90))


@dataclass(frozen=True)
class Squares:
    """Images of noise with one bright square: red or blue says the class. Sizes differ, ids are not in order."""

    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ("blue", "red")
    broken: str = ""
    multi_label: bool = False

    def open(self, index: int) -> Source:
        if self.examples[index].id == self.broken:
            raise ImageError(f"{self.broken} cannot be read: replace it")
        number = int(self.examples[index].id[5:])
        random = np.random.default_rng(number)
        pixels = random.integers(0, 60, (*SIZES[number % 2], 3), dtype=np.uint8)
        top, left = random.integers(0, 40), random.integers(0, 64)
        label = self.examples[index].label
        for band in label if isinstance(label, tuple) else (0 if label else 2,):
            pixels[top : top + 12, left : left + 12, band] = 250
        return ArraySource(pixels)


def make_squares(train: int = 14, validation: int = 7, test: int = 5) -> Squares:
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    examples = [Example(f"image{17 * i % 101}", i % 2, split) for i, split in enumerate(splits)]
    return Squares(tuple(examples))


def make_colours(train: int = 12, validation: int = 6, test: int = 4) -> Squares:
    """Images with squares of any of three colours, or none: several labels each, in groups of two."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    labels = [(), (0,), (1, 2), (0, 1), (2,), (0, 1, 2)]
    examples = [
        Example(f"image{17 * i % 101}", labels[i // 2 % 6], split, f"scene {i // 2}") for i, split in enumerate(splits)
    ]
    return Squares(tuple(examples), ("red", "green", "blue"), multi_label=True)


@dataclass(frozen=True)
class Brightness:
    """Images of noise with one square: how bright it is says the number. Sizes differ, ids are not in order."""

    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ()
    multi_label: bool = False

    def open(self, index: int) -> Source:
        number, label = int(self.examples[index].id[5:]), self.examples[index].label
        random = np.random.default_rng(number)
        pixels = random.integers(0, 40, (*SIZES[number % 2], 3), dtype=np.uint8)
        top, left = random.integers(0, 28), random.integers(0, 52)
        assert isinstance(label, float)
        pixels[top : top + 24, left : left + 24] = np.uint8(np.clip(60 + 190 * (label - 1000) / 40, 0, 255))
        return ArraySource(pixels)


def make_brightness(train: int = 24, validation: int = 8, test: int = 6) -> Brightness:
    """Numbers from 1000 to 1040."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    values = np.random.default_rng(0).uniform(1000, 1040, len(splits)).round(2).tolist()
    return Brightness(tuple(Example(f"image{17 * i % 101}", values[i], split) for i, split in enumerate(splits)))


def make_settings(**changes: Any) -> RunSettings:
    """A model of 1,000 weights; four steps to an epoch of 14 images."""
    small: dict[str, Any] = {
        "seed": 3,
        "model": {
            "view": {"longest_side": 24},
            "patch": [26, 28],
            "patches": 3,
            "attention": {"widths": [4], "stride": 2},
            "features": {"width": 6},
        },
        "augment": {"flip": True, "turn": True, "translate": [2, 3], "gain": [0.9, 1.1]},
        "training": {"epochs": 2, "batch": 4, "watch": 2, "log_every": 1, "learning_rate": 5e-3},
    }
    return merge_settings(merge_settings(RunSettings(), small), changes)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of `make_settings()` on `make_squares()`, with its printed lines beside it: only to be read."""
    folder, printed = tmp_path_factory.mktemp("plain"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        train(make_settings(), folder / "run", dataset=make_squares(), progress=LineProgress())
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder / "run"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes are not checked: many steps take a fraction of the time, and other tests take the same steps checked."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def squares() -> Squares:
    return make_squares()


@pytest.fixture(scope="session")
def squares_of() -> Callable[..., Squares]:
    return make_squares


@pytest.fixture
def colours() -> Squares:
    return make_colours()


@pytest.fixture(scope="session")
def settings_of() -> Callable[..., RunSettings]:
    return make_settings


@pytest.fixture
def tensors_of() -> Callable[[Path], dict[str, np.ndarray]]:
    """The weights, moments and averages in a run's state."""

    def read(run: Path) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        return load_file(run / "state" / "state.safetensors")

    return read
