"""Mosaic images: pictures of one size side by side, one box of them taken from another picture; never made whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from foveate.errors import ImageError
from foveate.images.header import CacheKey, Header
from foveate.images.io.local import Stamp
from foveate.images.source import Source
from foveate.types import Box, Level, Size

Grey = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class Inset:
    """Inset of a mosaic: a box within one of its tiles, where another picture of the tile's size shows.

    Attributes:
        box: in pixels of the mosaic.
        picture: name of the picture that shows there, at its own place.
    """

    box: Box
    picture: str


class Mosaic(Source):
    """Mosaic of grey tiles of one size side by side, the last ones cut off where the image ends.

    Reading composes what a box shows of the tiles it touches, which are read in part, by name, from whoever keeps
    them. Opening one reads nothing, and it holds no pixels.

    Arguments:
        read: given the name of a picture and a box within it, gives its pixels there; from several threads. A source
            that is pickled takes the function along, which must be picklable too.
        tiles: names of the pictures, row by row.
        tile: (height, width) of every picture.
        size: (height, width) of the image; it must end in the last row and the last column of tiles.
        inset: where another picture shows; None for nowhere.
        mpp: microns per pixel, if that means anything.
        name: what to call the image in reports and errors.
        pictures: what determines the pixels of every picture, in any run; None where that is not known.

    Raises:
        ImageError: if the tiles are not what the size needs, or the inset is not within one of them.

    Example:
        >>> pictures = {"a": np.full((2, 3), 7, np.uint8), "b": np.full((2, 3), 9, np.uint8)}
        >>> def read(name: str, box: Box) -> Grey:
        ...     return pictures[name][box.top : box.bottom, box.left : box.right]
        >>> mosaic = Mosaic(read, [["a", "a"]], (2, 3), (2, 5), Inset(Box(0, 4, 1, 1), "b"))
        >>> mosaic.read(Box(0, 2, 2, 4))[:, :, 0]
        array([[7, 7, 9, 0],
               [7, 7, 7, 0]], dtype=uint8)
    """

    def __init__(
        self,
        read: Callable[[str, Box], Grey],
        tiles: Sequence[Sequence[str]],
        tile: Size,
        size: Size,
        inset: Inset | None = None,
        mpp: float | None = None,
        name: str = "",
        pictures: Stamp | None = None,
    ) -> None:
        super().__init__(name, mpp)
        rows, columns = (-(-side // length) for side, length in zip(size, tile, strict=True))
        if len(tiles) != rows or any(len(row) != columns for row in tiles):
            raise ImageError(
                f"{self._label()}: {size[0]}×{size[1]} pixels are {rows}×{columns} tiles of {tile[0]}×{tile[1]}, got "
                f"rows of {', '.join(str(len(row)) for row in tiles)}: name as many as there are"
            )
        self._pixels, self._tiles, self._tile, self._size, self._inset = read, tiles, tile, size, inset
        self._pictures = pictures
        if inset is not None and inset.box.within(*self._corner(inset.box), *self._end(inset.box)) != inset.box:
            raise ImageError(
                f"{self._label()}: an inset must lie within one tile of {tile[0]}×{tile[1]} and within "
                f"{size[0]}×{size[1]} pixels, got {inset.box}: choose another"
            )

    def cache_key(self) -> CacheKey | None:
        """Cache key: where the pictures are from, and which of them are where."""
        if self._pictures is None:
            return None
        tiles = tuple(tuple(row) for row in self._tiles)
        return ("Mosaic", self._pictures, tiles, self._tile, self._size, self._inset)

    def _corner(self, box: Box) -> tuple[int, int]:
        """Top left corner of the tile that the first pixel of a box is in, or is nearest to."""
        height, width = self._tile
        return max(box.top // height, 0) * height, max(box.left // width, 0) * width

    def _end(self, box: Box) -> tuple[int, int]:
        """The row and the column after the last ones of that tile."""
        top, left = self._corner(box)
        return min(top + self._tile[0], self._size[0]), min(left + self._tile[1], self._size[1])

    def _measure(self) -> Header:
        return Header((Level(self._size, (1.0, 1.0)),), 1, np.dtype(np.uint8))

    def _read(self, box: Box, level: int) -> Grey:  # noqa: ARG002
        result = np.empty(box.size, np.uint8)
        height, width = self._tile
        for row in range(box.top // height, -(-box.bottom // height)):
            for column in range(box.left // width, -(-box.right // width)):
                place = Box(row * height, column * width, height, width)
                self._paste(result, box, place, self._tiles[row][column])
        if self._inset is not None:
            self._paste(result, box, self._inset.box, self._inset.picture)
        return result

    def _paste(self, result: Grey, box: Box, place: Box, picture: str) -> None:
        """Write what a box shows of a picture, at its place, to the box's pixels."""
        seen = place.within(box.top, box.left, box.bottom, box.right)
        if seen is None:
            return
        top, left = self._corner(place)
        pixels = self._pixels(picture, Box(seen.top - top, seen.left - left, *seen.size))
        result[seen.place_in(box)] = pixels
