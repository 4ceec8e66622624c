"""The coarse levels of an image whose file has none, made in one pass over it instead of one for every tile."""

from dataclasses import dataclass

from jaxtyping import Float32
from numpy import ndarray

from foveate.images import ArraySource, Source
from foveate.types import Box
from foveate.view.pyramid import Pyramid, tile_pixels

__all__ = ["Overview", "overview_level"]

MOST_VALUES = 1 << 24
"""Values of an overview at most, 4 bytes each."""

NEAR = 4
"""A level of the file is near one of the pyramid if a pixel of that covers at most so many of its pixels a side."""


def overview_level(source: Source, pyramid: Pyramid) -> int | None:
    """The finest level that an overview would hold; None if the file has a level near it, and none is needed.

    Arguments:
        source: the image; no pixel of it is read.
        pyramid: over it.

    Example:
        >>> import numpy as np
        >>> source = ArraySource(np.zeros((300, 500, 3), np.uint8))
        >>> overview_level(source, Pyramid(source.size)) is None
        True
    """
    fitting = [level for level in range(pyramid.last + 1) if _values(source, pyramid, level) <= MOST_VALUES]
    level = max(fitting, default=0)
    step, (rows, columns) = pyramid.step(level), pyramid.level_size(level)
    nearest = source.levels[source.level_for((rows, columns), (0, 0, rows * step, columns * step))]
    return level if step > NEAR * min(nearest.factor) else None


@dataclass(frozen=True)
class Overview:
    """A level of a pyramid, from which all coarser ones are made; exactly, up to the rounding to 32 bits.

    Attributes:
        pyramid: over the image.
        level: of the pyramid.
        whole: that level; what lies beyond the image counts as 0 in it.
    """

    pyramid: Pyramid
    level: int
    whole: Source

    @classmethod
    def of(cls, source: Source, pyramid: Pyramid, level: int) -> "Overview":
        """Read an image once.

        Raises:
            ImageError: it cannot be read.
        """
        step, (rows, columns) = pyramid.step(level), pyramid.level_size(level)
        return cls(pyramid, level, ArraySource(source.view((rows, columns), (0, 0, rows * step, columns * step))))

    def tile_pixels(self, level: int, box: Box) -> Float32[ndarray, "height width channel"]:
        """As `foveate.view.pyramid.tile_pixels`, of this level or a coarser one."""
        return tile_pixels(self.whole, self.pyramid, level, box, self.pyramid.step(self.level))


def _values(source: Source, pyramid: Pyramid, level: int) -> int:
    rows, columns = pyramid.level_size(level)
    return rows * columns * source.channels
