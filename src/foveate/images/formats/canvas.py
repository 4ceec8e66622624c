"""Canvas images: black, with a few stamps on them, of any size and never made whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Int64, UInt8

from foveate.errors import ImageError, one_line
from foveate.images.area import Number, Region
from foveate.images.header import Header
from foveate.images.io.open import BROKEN_ZIP
from foveate.images.source import Source
from foveate.images.view import Averages
from foveate.types import Box, Level, Size

Stamps = UInt8[np.ndarray, "stamp rows columns"]

KEYS = ("stamps", "positions", "size", "channels")
"""What a canvas file, an .npz archive, holds."""


BROKEN = (*BROKEN_ZIP, IndexError, KeyError, OSError, TypeError)
"""What NumPy and zipfile raise on archives that are not what they should be."""


class Canvas(Source):
    """Canvas, black, with opaque rectangular stamps pasted on it in order, as in Megapixel MNIST.

    A stamp's black pixels cover what lies under them. Reading composes the stamps a box touches; a view is summed
    from the visible part of every stamp. Neither cost nor memory grows with the canvas.

    Arguments:
        stamps: (S, h, w) uint8, or a function that makes them, called when they are first needed; a source that is
            pickled takes the function along, which must be picklable too.
        positions: (S, 2) row and column of every stamp's top left pixel; stamps may hang over the border.
        size: (height, width) of the canvas.
        mpp: microns per pixel, if that means anything.
        name: what to call the image in reports and errors.
        channels: values per pixel, all alike: 1 is grey, 3 is grey written as RGB.

    Raises:
        ImageError: if shapes or types do not match.

    Example:
        >>> canvas = Canvas(np.full((1, 2, 2), 255, np.uint8), np.array([[1, 3]]), (10**6, 10**6))
        >>> canvas.read(Box(0, 2, 3, 4))[:, :, 0]
        array([[  0,   0,   0,   0],
               [  0, 255, 255,   0],
               [  0, 255, 255,   0]], dtype=uint8)
    """

    def __init__(
        self,
        stamps: Stamps | Callable[[], Stamps],
        positions: Int[np.ndarray, "stamp 2"],
        size: Size,
        mpp: float | None = None,
        name: str = "",
        channels: int = 1,
    ) -> None:
        super().__init__(name, mpp)
        if channels < 1:
            raise ImageError(f"{self._label()}: a canvas must have at least one channel, got {channels}: 1 is grey")
        if min(size) < 1:
            raise ImageError(f"{self._label()}: a canvas must have at least one pixel, got {size[0]}×{size[1]}")
        self._canvas_size = (int(size[0]), int(size[1]))
        self._repeats = channels
        self._tops: Int64[np.ndarray, " stamp"] = positions[:, 0].astype(np.int64)
        self._lefts: Int64[np.ndarray, " stamp"] = positions[:, 1].astype(np.int64)
        self._given = stamps if callable(stamps) else self._checked(stamps)

    @classmethod
    def load(cls, path: Path | str, mpp: float | None = None) -> "Canvas":
        """Load a canvas that `save` wrote.

        Arguments:
            path: the file.
            mpp: microns per pixel, if known.

        Raises:
            ImageError: if the file is missing, broken or not a canvas.
        """
        try:
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                stamps, positions, size, channels = (archive[key] for key in KEYS)
            return cls(stamps, positions, (int(size[0]), int(size[1])), mpp, str(path), int(channels))
        except BROKEN as error:
            raise ImageError(
                f"{path}: not a canvas file ({one_line(error)}): "
                "it must be an .npz archive of stamps, positions, size and channels, as Canvas.save writes"
            ) from error

    def save(self, path: Path | str) -> None:
        """Write the canvas to a small file, an .npz archive that `open_image` knows by its content.

        Arguments:
            path: where to; the file name is taken as it is.
        """
        positions = np.stack([self._tops, self._lefts], 1)
        with Path(path).open("wb") as stream:
            np.savez_compressed(
                stream,
                stamps=self._ready(),
                positions=positions,
                size=np.array(self._canvas_size),
                channels=np.array(self._repeats),
            )

    def _open(self) -> Stamps:
        return self._checked(self._given()) if callable(self._given) else self._given

    def _measure(self) -> Header:
        return Header((Level(self._canvas_size, (1.0, 1.0)),), self._repeats, np.dtype(np.uint8))

    def _read(self, box: Box, level: int) -> UInt8[np.ndarray, "height width channel"]:  # noqa: ARG002
        stamps: Stamps = self._ready()
        result = np.zeros((box.height, box.width), np.uint8)
        for i in self._touching(box).tolist():
            top, left = int(self._tops[i]) - box.top, int(self._lefts[i]) - box.left
            above, before = max(-top, 0), max(-left, 0)
            rows, columns = min(stamps.shape[1], box.height - top), min(stamps.shape[2], box.width - left)
            result[top + above : top + rows, left + before : left + columns] = stamps[i, above:rows, before:columns]
        return self._coloured(result)

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average: sum of (row weights) · (visible pixels) · (column weights) over the stamps."""
        top, left, bottom, right = region
        touched = self._touching(window)
        if len(touched) == 0:
            return np.zeros((*size, self._repeats)), None
        visible = self._visible(touched)
        self._count(visible.size)
        tops, lefts = self._tops[touched], self._lefts[touched]
        rows, down = _weights(tops, visible.shape[1], (window.top, window.bottom), (top, bottom), size[0])
        columns, along = _weights(lefts, visible.shape[2], (window.left, window.right), (left, right), size[1])
        values = down @ visible @ along.transpose(0, 2, 1)
        cells = rows[:, :, None] * size[1] + columns[:, None, :]
        total = np.bincount(cells.ravel(), values.ravel(), size[0] * size[1])
        return self._coloured((total / 255).reshape(size)), None

    def _coloured(self, grey: np.ndarray) -> np.ndarray:
        return grey[:, :, None] if self._repeats == 1 else np.repeat(grey[:, :, None], self._repeats, axis=2)

    def _touching(self, box: Box) -> Int64[np.ndarray, " some"]:
        _, rows, columns = self._ready().shape
        down = (self._tops < box.bottom) & (self._tops > box.top - rows)
        hit: Int64[np.ndarray, " some"] = np.flatnonzero(
            down & (self._lefts < box.right) & (self._lefts > box.left - columns)
        )
        return hit

    def _visible(self, chosen: Int64[np.ndarray, " some"]) -> Float64[np.ndarray, "some rows columns"]:
        """The chosen stamps, 0 where a later one covers them."""
        visible: np.ndarray = self._ready()[chosen].astype(np.float64)
        _, rows, columns = visible.shape
        tops, lefts = self._tops[chosen], self._lefts[chosen]
        down, along = tops[None] - tops[:, None], lefts[None] - lefts[:, None]
        overlap = np.triu((np.abs(down) < rows) & (np.abs(along) < columns), 1)
        for under, over in np.argwhere(overlap).tolist():
            y, x = int(down[under, over]), int(along[under, over])
            visible[under, max(y, 0) : rows + min(y, 0), max(x, 0) : columns + min(x, 0)] = 0
        return visible

    def _checked(self, stamps: UInt8[np.ndarray, "..."]) -> Stamps:
        if stamps.ndim != 3 or stamps.dtype != np.uint8 or len(stamps) != len(self._tops) or 0 in stamps.shape[1:]:
            raise ImageError(
                f"{self._label()}: stamps must be uint8 of shape (stamps, rows, columns), one for each of "
                f"{len(self._tops)} positions, got {stamps.dtype} of shape {stamps.shape}: stack stamps of one size"
            )
        return stamps


def _weights(
    starts: Int64[np.ndarray, " stamp"], length: int, window: tuple[int, int], span: tuple[Number, Number], count: int
) -> tuple[Int64[np.ndarray, "stamp bins"], Float64[np.ndarray, "stamp bins length"]]:
    """Along one axis, the bins every stamp touches, and the share of each that each of its pixels covers."""
    width = (span[1] - span[0]) / count
    bins = min(int(np.ceil(length / width)) + 2, count)
    # one bin too early at most, where rounding put a bin edge beside a pixel edge
    first = np.clip(np.floor((starts - span[0]) / width - 1e-6).astype(np.int64), 0, count - bins)
    index = first[:, None] + np.arange(bins)
    low, high = (span[0] + (span[1] - span[0]) * (index + k) / count for k in (0, 1))
    pixels = starts[:, None] + np.arange(length)
    inside = (pixels >= window[0]) & (pixels < window[1])
    pixels = pixels[:, None, :]
    covered = np.minimum(high[:, :, None], pixels + 1)
    covered -= np.maximum(low[:, :, None], pixels)
    np.maximum(covered, 0, out=covered)
    if not inside.all():
        covered *= inside[:, None, :]
    covered /= width
    return index, covered
