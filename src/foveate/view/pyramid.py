"""Deep Zoom pyramid of tiles over an image of any size, whose pixels are made when they are asked for."""

from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

from foveate.images import Source
from foveate.types import Affine, Box, Size

TILE, OVERLAP = 254, 1
"""Pixels a side that are a tile's own, and pixels it shares with each neighbour: files of 256 pixels."""

MOST_VALUES = 1 << 24
"""Values of an overview at most, 4 bytes each."""

NEAR = 4
"""A level of the file is near one of the pyramid if a pixel of that covers at most so many of its pixels a side."""


@dataclass(frozen=True)
class Pyramid:
    r"""Pyramid of levels of an image, each half as fine as the next; the last is the image itself.

    .. math:: \text{size}_l = \lceil \text{size} / 2^{L - l} \rceil, \qquad L = \lceil \log_2 \max(\text{size}) \rceil

    Pixel p of level l covers level-0 pixels [p s, (p + 1) s), s = 2^(L − l); the last one may reach beyond the image.
    That is the Deep Zoom format (DZI), whose levels count the other way round: here, level 0 is a single pixel.

    Attributes:
        size: (height, width) of the image.

    Example:
        >>> pyramid = Pyramid((300, 1000))
        >>> pyramid.last, pyramid.level_size(9), pyramid.grid(9)
        (10, (150, 500), (1, 2))
        >>> pyramid.tile(9, 0, 1)
        Box(top=0, left=253, height=150, width=247)
    """

    size: Size

    @property
    def last(self) -> int:
        """Number of the level that is the image itself."""
        return (max(self.size) - 1).bit_length()

    @property
    def first(self) -> int:
        """Number of the finest level that is a single tile: coarser ones show nothing more."""
        return max(level for level in range(self.last + 1) if self.grid(level) == (1, 1))

    def step(self, level: int) -> int:
        """Image pixels that a pixel of a level covers along each axis."""
        return 1 << (self.last - level)

    def level_size(self, level: int) -> Size:
        """(height, width) of a level, in its own pixels."""
        step = self.step(level)
        return -(-self.size[0] // step), -(-self.size[1] // step)

    def grid(self, level: int) -> Size:
        """(rows, columns) of tiles."""
        height, width = self.level_size(level)
        return -(-height // TILE), -(-width // TILE)

    def tile(self, level: int, row: int, column: int) -> Box | None:
        """Where a tile lies, in pixels of its level; None if there is no such tile."""
        if not 0 <= level <= self.last:
            return None
        rows, columns = self.grid(level)
        if not (0 <= row < rows and 0 <= column < columns):
            return None
        height, width = self.level_size(level)
        top, bottom = max(row * TILE - OVERLAP, 0), min((row + 1) * TILE + OVERLAP, height)
        left, right = max(column * TILE - OVERLAP, 0), min((column + 1) * TILE + OVERLAP, width)
        return Box(top, left, bottom - top, right - left)


def tile_pixels(
    source: Source, pyramid: Pyramid, level: int, box: Box, factor: int = 1
) -> Float32[np.ndarray, "height width channel"]:
    """Tile pixels: the exact area average of a box of a level, from the nearest level that the file has.

    The last row and column of a level may reach beyond the image; they are the mean of what lies within it.

    Arguments:
        source: the image.
        pyramid: over it.
        level: of the pyramid.
        box: in pixels of the level, within it.
        factor: of the image's pixels, how many a pixel of `source` covers a side, if that is a finer level of the
            pyramid.

    Returns:
        (height, width, channels) in the unit range.

    Raises:
        ImageError: if the file cannot be read.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = ArraySource(np.full((3, 5, 1), 255, np.uint8))
        >>> tile_pixels(source, Pyramid((3, 5)), 2, Box(0, 0, 2, 3))[:, :, 0].tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    step = pyramid.step(level)
    own = step // factor
    pixels = source.view(box.size, (box.top * own, box.left * own, box.bottom * own, box.right * own))
    down = _inside(box.top, box.bottom, step, pyramid.size[0])
    along = _inside(box.left, box.right, step, pyramid.size[1])
    if down[-1] == along[-1] == 1:
        return pixels
    shares = (down[:, None] * along)[:, :, None]
    return np.asarray(pixels / shares, np.float32)


def map_pixels(
    colours: UInt8[np.ndarray, "row column 4"], affine: Affine, step: int, box: Box
) -> UInt8[np.ndarray, "height width 4"]:
    """Heatmap pixels in a box of a level: every pixel has the colour of the cell at its middle.

    Arguments:
        colours: RGBA of the map's cells.
        affine: from cells to level-0 pixels; without shear.
        step: level-0 pixels per pixel of the level.
        box: in pixels of the level.

    Returns:
        (height, width, 4), transparent where there is no cell.

    Example:
        >>> colours = np.arange(8, dtype=np.uint8).reshape(1, 2, 4)
        >>> map_pixels(colours, (3.0, 0.0, 0.0, 0.0, 3.0, 0.0), 2, Box(0, 0, 1, 4))[0, :, 0].tolist()
        [0, 4, 4, 0]
    """
    a, _, c, _, e, f = affine
    rows = np.floor((step * (np.arange(box.top, box.bottom) + 0.5) - f) / e).astype(np.int64)
    columns = np.floor((step * (np.arange(box.left, box.right) + 0.5) - c) / a).astype(np.int64)
    there = ((rows >= 0) & (rows < len(colours)))[:, None] & ((columns >= 0) & (columns < colours.shape[1]))
    found = colours[rows.clip(0, len(colours) - 1)[:, None], columns.clip(0, colours.shape[1] - 1)]
    return np.where(there[:, :, None], found, np.uint8(0))


def overview_level(source: Source, pyramid: Pyramid) -> int | None:
    """Overview level: the finest that one would hold; None if the file has a level near it, and none is needed.

    Arguments:
        source: the image; no pixel of it is read.
        pyramid: over it.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = ArraySource(np.zeros((300, 500, 3), np.uint8))
        >>> overview_level(source, Pyramid(source.size)) is None
        True
    """
    most = MOST_VALUES // source.channels
    level = max((level for level in range(pyramid.last + 1) if prod(pyramid.level_size(level)) <= most), default=0)
    step, (rows, columns) = pyramid.step(level), pyramid.level_size(level)
    nearest = source.levels[source.level_for((rows, columns), (0, 0, rows * step, columns * step))]
    return level if step > NEAR * min(nearest.factor) else None


def make_overview(source: Source, pyramid: Pyramid, level: int) -> Float32[ndarray, "row column channel"]:
    """Overview: a whole level of a pyramid, of which all coarser ones are made, exactly up to the rounding to 32 bits.

    Returns:
        (rows, columns, channels) in the unit range; what lies beyond the image counts as 0.

    Raises:
        ImageError: the image cannot be read.
    """
    step, (rows, columns) = pyramid.step(level), pyramid.level_size(level)
    return source.view((rows, columns), (0, 0, rows * step, columns * step))


def _inside(first: int, stop: int, step: int, side: int) -> Float64[np.ndarray, " pixel"]:
    """Of every pixel of a level, the share that lies within the image."""
    return np.asarray(np.minimum(1.0, side / step - np.arange(first, stop)))
