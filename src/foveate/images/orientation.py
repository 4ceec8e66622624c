"""Orientation of an image, as EXIF and TIFF number it: flips and quarter turns of arrays, sizes, boxes and regions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from foveate.images.area import Region
from foveate.types import Box, Size

ORIENTATION_TAG = 274
"""Of EXIF and of TIFF 6.0, section 8: how to lay down what is stored."""


@dataclass(frozen=True)
class Orientation:
    """Orientation: flips, after which rows may be swapped with columns.

    Attributes:
        flip_rows: turn upside down.
        flip_columns: mirror left to right.
        transpose: swap rows with columns, after the flips.

    Example:
        >>> Orientation.turned(1).apply(np.array([[1, 2, 3], [4, 5, 6]]))
        array([[3, 6],
               [2, 5],
               [1, 4]])
    """

    flip_rows: bool = False
    flip_columns: bool = False
    transpose: bool = False

    @classmethod
    def turned(cls, quarter_turns: int, flip_rows: bool = False, flip_columns: bool = False) -> "Orientation":
        """Flip, then turn counter-clockwise by a multiple of 90°, as `numpy.rot90` does."""
        turns = quarter_turns % 4
        return cls(flip_rows ^ (turns in (2, 3)), flip_columns ^ (turns in (1, 2)), turns % 2 == 1)

    @classmethod
    def tagged(cls, number: int) -> "Orientation":
        """The orientation that a tag's number means; numbers that mean none leave an image as it is stored.

        Example:
            >>> Orientation.tagged(8) == Orientation.turned(1), Orientation.tagged(0) == Orientation()
            (True, True)
        """
        return ORIENTATIONS.get(number, Orientation())

    def apply(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """The array (rows, columns, …) laid down so; a view of it, not a copy."""
        array = array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return array.swapaxes(0, 1) if self.transpose else array

    def size(self, size: Size) -> Size:
        """Size after `apply` of something of that size before, and the other way round."""
        return (size[1], size[0]) if self.transpose else size

    def sides(self, sides: tuple[float, float]) -> tuple[float, float]:
        """Height and width of a pixel after `apply`, and the other way round."""
        return (sides[1], sides[0]) if self.transpose else sides

    def box_before(self, box: Box, size: Size) -> Box:
        """Where the pixels of a box were before `apply`.

        Arguments:
            box: in pixels after.
            size: (height, width) of the image before.
        """
        top, left, bottom, right = self.region_before((box.top, box.left, box.bottom, box.right), size)
        return Box(int(top), int(left), int(bottom - top), int(right - left))

    def region_before(self, region: Region, size: Size) -> Region:
        """Where a region was before `apply`; arguments as in `box_before`."""
        top, left, bottom, right = region
        if self.transpose:
            top, left, bottom, right = left, top, right, bottom
        if self.flip_rows:
            top, bottom = size[0] - bottom, size[0] - top
        if self.flip_columns:
            left, right = size[1] - right, size[1] - left
        return top, left, bottom, right


ORIENTATIONS = {
    1: Orientation(),
    2: Orientation(flip_columns=True),
    3: Orientation.turned(2),
    4: Orientation(flip_rows=True),
    5: Orientation(transpose=True),
    6: Orientation.turned(3),
    7: Orientation(flip_rows=True, flip_columns=True, transpose=True),
    8: Orientation.turned(1),
}
"""By the tag's number."""
