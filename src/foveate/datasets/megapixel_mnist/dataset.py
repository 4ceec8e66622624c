"""Megapixel MNIST: canvases of any size with five handwritten digits, three of them of the class, among pen strokes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveate.config.settings import DataSettings
from foveate.datasets.manifest.write import write_images
from foveate.datasets.megapixel_mnist.digits import SIDE, Pool, load_pools
from foveate.datasets.megapixel_mnist.strokes import Uniforms, draw_strokes, draw_varied_strokes
from foveate.datasets.types import Example
from foveate.errors import DataError
from foveate.images import Canvas
from foveate.types import Box, Size

DIGITS, TARGETS = 5, 3
"""Digits on a canvas, and how many of them are of its class."""

STROKES = 50
"""Noise patterns in the bank of a split, from which every stroke of its canvases is chosen."""

_Draw = Callable[[Uniforms, int, int], npt.NDArray[np.uint8]]

_TRIES, _RESTARTS = 200, 200
"""Places tried for a digit before all are taken off again, and how often that is done."""


@dataclass(frozen=True)
class MegapixelMnist:
    """Megapixel MNIST: what is where on each canvas, and the stamps to paste; pixels are made when read.

    Attributes:
        classes: "0" to "9".
        examples: the training canvases, then the test canvases, with ids such as "train-00012".
        size: (height, width) of a canvas.
        channels: values per pixel, all alike.
        noise_over_digits: whether strokes are pasted over digits or under them.
        stamps: (S, 28, 28) every digit shown and every noise pattern of the banks.
        stamp_labels: (S,) value of the digit, or −1 for a noise pattern.
        stamp_index: (n, 5 + noise) stamps on each canvas, its five digits first, the three of its class leading;
            (n, 5) if its strokes are drawn when it is opened.
        positions: (n, 5 + noise, 2) their top left corners (row, column).
        stroke_seed: seed of the strokes that a canvas draws for itself when it is opened; None if they are of a bank.
        varied_strokes: whether these are of many kinds.
        multi_label: False.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    size: Size
    channels: int
    noise_over_digits: bool
    stamps: npt.NDArray[np.uint8]
    stamp_labels: npt.NDArray[np.int8]
    stamp_index: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    stroke_seed: int | None = None
    varied_strokes: bool = False
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Canvas:
        """The canvas of example `index`: (height, width, channels) uint8, black but for its stamps."""
        positions = self.positions[index]
        order = np.arange(len(positions))
        if not self.noise_over_digits:
            order = np.roll(order, -DIGITS)
        name, stamps = self.examples[index].id, self.stamps[self.stamp_index[index]]
        later = None
        if self.stroke_seed is not None:
            draw = draw_varied_strokes if self.varied_strokes else draw_strokes
            later = partial(_with_strokes, stamps, draw, (self.stroke_seed, name, "strokes"), order)
        return Canvas(later or stamps[order], positions[order], self.size, name=name, channels=self.channels)

    def digits(self, index: int) -> tuple[tuple[str, Box], ...]:
        """The five digits of example `index`: their class and the square they are pasted on, in pixels."""
        shown = zip(self.stamp_index[index, :DIGITS], self.positions[index, :DIGITS], strict=True)
        return tuple(
            (self.classes[self.stamp_labels[stamp]], Box(int(row), int(column), SIDE, SIDE))
            for stamp, (row, column) in shown
        )

    objects = digits
    """The name by which every data set is asked for what lies where (see `ImageDataset`)."""


def megapixel_mnist(settings: DataSettings) -> MegapixelMnist:
    """Megapixel MNIST, generated.

    Every canvas has a class, uniform over the ten; three digits of that class and two of others, drawn with
    replacement; their places uniform such that no two overlap; and noise strokes, pasted wherever they fall. Digits
    and strokes of the test canvases appear on no training canvas. A canvas depends on the seed, its split and its
    number alone, not on how many canvases there are.

    The published task chooses its strokes from a bank of 50, one for the training canvases and one for the test
    canvases: every training canvas shows the same few, which can be learnt by heart, and a validation part of them
    cannot tell. With `strokes="fresh"` each canvas draws its own, when it is opened, by the same rule, and no two
    share one; with "varied" two thirds of them are straight, bent and crooked strokes of any width and brightness.
    Digits and places are those of the bank's canvases.

    Katharopoulos and Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019; the
    rules are those of its code.

    Arguments:
        settings: `digits`, `canvas`, `channels`, `train_images`, `test_images`, `noise`, `noise_over_digits`,
            `strokes` and `generator_seed` are used.

    Returns:
        The data set; its examples' splits are "train" and "test".

    Raises:
        DataError: if the canvas is too small for five digits or for noise, a number of images is out of range, or
            the digits cannot be had.

    Example:
        >>> data = megapixel_mnist(DataSettings(canvas=(300, 200), train_images=4, test_images=2))
        >>> data.examples[5].id, data.open(5).size
        ('test-00001', (300, 200))
    """
    _check(settings)
    pools = load_pools(settings.digits)
    train = _generate(settings, "train", pools[0], settings.train_images)
    test = _generate(settings, "test", pools[1], settings.test_images)
    return replace(
        train,
        examples=(*train.examples, *test.examples),
        stamps=np.concatenate([train.stamps, test.stamps]),
        stamp_labels=np.concatenate([train.stamp_labels, test.stamp_labels]),
        stamp_index=np.concatenate([train.stamp_index, test.stamp_index + np.int32(len(train.stamps))]),
        positions=np.concatenate([train.positions, test.positions]),
    )


def write_canvases(
    data: MegapixelMnist,
    folder: Path,
    recipe: Mapping[str, object],
    format: Literal["png", "canvas"] = "png",  # noqa: A002
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Image files of canvases, with a manifest and objects.csv, each file whole or not at all.

    Arguments:
        data: the canvases.
        folder: where to; as `write_images`, the record is megapixel-mnist.json.
        recipe: what the canvases were made from, in words of JSON; a folder is resumed with the same one only.
        format: "png", or "canvas" for .npz archives of the stamps and their places, small whatever the size.
        resume: whether to keep what a stopped call has written, rather than refuse a folder that is not empty.
        progress: called with the number of images written and their total.

    Returns:
        The manifest.

    Raises:
        RunError: if the folder is in the way or was made from another recipe.
    """

    def write(index: int, file: Path) -> None:
        canvas = data.open(index)
        if format == "png":
            pixels = canvas.read(Box(0, 0, *data.size))
            Image.fromarray(pixels[:, :, 0] if data.channels == 1 else pixels).save(file, format="PNG")
        else:
            canvas.save(file)

    names = [f"{example.id}.{'png' if format == 'png' else 'npz'}" for example in data.examples]
    recipe = {**recipe, "format": format}
    return write_images(data, folder, recipe, names, write, resume, progress, record="megapixel-mnist.json")


def _check(settings: DataSettings) -> None:
    height, width = settings.canvas
    if (height // SIDE) * (width // SIDE) < DIGITS:
        raise DataError(
            f"a canvas of {height}×{width} pixels is too small for {DIGITS} digits of {SIDE}×{SIDE}: "
            "set data.canvas to at least 112 112"
        )
    if settings.noise > 0 and min(height, width) <= 2 * SIDE:
        raise DataError(
            f"noise strokes keep {SIDE} pixels from the border, which a canvas of {height}×{width} does not allow: "
            f"make data.canvas larger than {2 * SIDE} on both sides, or set data.noise to 0"
        )
    if settings.train_images < 1 or settings.test_images < 0 or settings.noise < 0:
        raise DataError(
            f"train_images must be at least 1, test_images and noise at least 0, got {settings.train_images}, "
            f"{settings.test_images} and {settings.noise}: correct the settings under data"
        )


def _generate(settings: DataSettings, split: str, pool: Pool, count: int) -> MegapixelMnist:
    """One split of the data set."""
    seed, noise = settings.generator_seed, settings.noise
    banked = settings.strokes == "bank"
    bank = draw_strokes(Uniforms(seed, split, "strokes"), STROKES if banked else 0, SIDE)
    same = [np.flatnonzero(pool.labels == value) for value in range(10)]
    other = [np.flatnonzero(pool.labels != value) for value in range(10)]
    examples = []
    digits = np.empty((count, DIGITS), dtype=np.int64)
    patterns = np.empty((count, noise), dtype=np.int64)
    positions = np.empty((count, DIGITS + noise, 2), dtype=np.int32)
    for i in range(count):
        uniforms = Uniforms(seed, split, i)
        label = uniforms.integer(10)
        digits[i, :TARGETS] = same[label][uniforms.integers(len(same[label]), TARGETS)]
        digits[i, TARGETS:] = other[label][uniforms.integers(len(other[label]), DIGITS - TARGETS)]
        positions[i, :DIGITS] = _place(uniforms, settings.canvas)
        patterns[i] = uniforms.integers(STROKES, noise)  # drawn in any case: places are the same without a bank
        for axis, extent in enumerate(settings.canvas):
            positions[i, DIGITS:, axis] = SIDE + uniforms.integers(extent - 2 * SIDE, noise)
        examples.append(Example(id=f"{split}-{i:05d}", label=label, split=split))
    shown, digits_shown = np.unique(digits, return_inverse=True)  # what no canvas shows need not stay in memory
    index = digits_shown.reshape(count, DIGITS)
    if banked:
        index = np.concatenate([index, patterns + len(shown)], axis=1)
    return MegapixelMnist(
        classes=tuple(str(value) for value in range(10)),
        examples=examples,
        size=settings.canvas,
        channels=settings.channels,
        noise_over_digits=settings.noise_over_digits,
        stamps=np.concatenate([pool.images[shown], bank]),
        stamp_labels=np.concatenate([pool.labels[shown], np.full(len(bank), -1)]).astype(np.int8),
        stamp_index=index.astype(np.int32),
        positions=positions,
        stroke_seed=None if banked else seed,
        varied_strokes=settings.strokes == "varied",
    )


def _with_strokes(
    digits: npt.NDArray[np.uint8], draw: _Draw, parts: tuple[int | str, ...], order: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """The digits of a canvas and the strokes that it alone has, in the order they are pasted in."""
    strokes = draw(Uniforms(*parts), len(order) - len(digits), SIDE)
    return np.concatenate([digits, strokes])[order]


def _place(uniforms: Uniforms, canvas: Size) -> list[tuple[int, int]]:
    """Top left corners of five squares that do not overlap, one after the other, each uniform where there is room."""
    height, width = canvas
    for _ in range(_RESTARTS):
        places: list[tuple[int, int]] = []
        for _ in range(_TRIES):
            row, column = uniforms.integer(height - SIDE + 1), uniforms.integer(width - SIDE + 1)
            if all(abs(row - top) >= SIDE or abs(column - left) >= SIDE for top, left in places):
                places.append((row, column))
                if len(places) == DIGITS:
                    return places
    raise DataError(
        f"{DIGITS} digits of {SIDE}×{SIDE} pixels found no room on a canvas of {height}×{width}: "
        "set data.canvas to at least 112 112"
    )
