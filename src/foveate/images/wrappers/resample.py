"""Resampling of images to one scale: so many microns per pixel, whatever the scanner."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Shaped

from foveate.errors import ImageError
from foveate.images.area import Region
from foveate.images.header import Header, Sides
from foveate.images.scale import mean_side
from foveate.images.source import Known, Source
from foveate.images.view import LEAST, Averages, coverage
from foveate.images.wrappers.base import Told, Wrapper
from foveate.types import Box, Level, Size

SAME = 0.01
"""Images within this share of the scale wanted are taken as they are: scanners tell theirs no better."""


class Resampled(Wrapper):
    r"""Resampled image, as it would be at another resolution: exact area averages, read from the nearest finer level.

    Pixel p of h covers [p, p + 1) · H / h of the original's H, exactly and per axis; values are in the unit range.

    Arguments:
        source: the image.
        size: (height, width) of the result; where it is larger than the image, pixels are repeated.

    Example:
        >>> from foveate.images import ArraySource
        >>> Resampled(ArraySource(np.array([[0, 255, 255, 255]], np.uint8)), (1, 2)).read(Box(0, 0, 1, 2))[0, :, 0]
        array([0.5, 1. ], dtype=float32)
    """

    _made_with = ("_wanted",)

    def __init__(self, source: Source, size: Size) -> None:
        super().__init__(source)
        self._wanted = size
        sides, scale = source.pixel, self._scale()
        self._sides = None if sides is None else (sides[0] * scale[0], sides[1] * scale[1])

    def _told_mpp(self) -> float | None:
        return mean_side(self._sides)

    def _told_pixel(self) -> Sides | None:
        return self._sides

    def to_file(self, box: Box) -> Box:
        """Coordinates in the file of a box, rounded to whole pixels."""
        top, left, bottom, right = map(round, self._before((box.top, box.left, box.bottom, box.right)))
        return self.source.to_file(Box(top, left, max(1, bottom - top), max(1, right - left)))

    def _moved(self, told: Told, size: Size, region: Region | None) -> Shaped[np.ndarray, "rows columns"] | None:
        return told(size, None if region is None else self._before(region))

    def _measure(self) -> Header:
        original = self.source.header
        return replace(
            original, levels=(Level(self._wanted, (1.0, 1.0)),), dtype=np.dtype(np.float32), tile=None, nodata=None
        )

    def _read(self, box: Box, level: int) -> Float32[np.ndarray, "height width channel"]:  # noqa: ARG002
        return self.source.view(box.size, self._before((box.top, box.left, box.bottom, box.right)))

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:  # noqa: ARG002
        return [self._known_of(box) for box in boxes]

    def _known_of(self, box: Box) -> Known:
        """Averages of what is data; missing where nothing is."""
        region, whole = self._before((box.top, box.left, box.bottom, box.right)), Box(0, 0, *self.source.size)
        sums, share = self.source.average_of(box.size, region, whole)
        if share is None:
            return sums.astype(np.float32), None
        inside = coverage(box.size, region, whole)
        missing = share <= LEAST * inside
        means = np.divide(sums, share, out=np.zeros(sums.shape), where=~missing) * inside
        return means.astype(np.float32), missing if missing.any() else None

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original where all of it is seen."""
        if window.size == self._wanted:
            return self.source.average_of(size, self._before(region), Box(0, 0, *self.source.size))
        return super().average_of(size, region, window)

    def _scale(self) -> tuple[float, float]:
        """Pixels of the original per pixel."""
        height, width = self.source.size
        return height / self._wanted[0], width / self._wanted[1]

    def _before(self, region: Region) -> Region:
        down, along = self._scale()
        return region[0] * down, region[1] * along, region[2] * down, region[3] * along


def at_mpp(source: Source, mpp: float) -> Source:
    """Image resampled to a scale.

    Arguments:
        source: the image.
        mpp: microns per pixel wanted.

    Returns:
        The image itself if it has that scale already, within 1 %; pixels that are not square become so.

    Raises:
        ImageError: if its own microns per pixel are not known.
    """
    own = source.pixel
    if own is None:
        raise ImageError(
            f"{source.name or 'image in memory'}: to bring it to {mpp} microns per pixel its own are needed, which are "
            "not known: give mpp in the manifest, or leave model.input.mpp unset"
        )
    if all(abs(side / mpp - 1) <= SAME for side in own):
        return source
    rows, columns = (max(1, math.floor(n * side / mpp + 0.5)) for n, side in zip(source.size, own, strict=True))
    return Resampled(source, (rows, columns))
