"""An image with parts of it covered up, to see what an answer rests on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from foveate.images.header import Header
from foveate.images.source import Source
from foveate.images.wrapper import Wrapper
from foveate.types import Box

__all__ = ["Covered"]


class Covered(Wrapper):
    """An image whose pixels in some boxes are one colour, at every level: those whose centre lies in a box.

    Arguments:
        source: the image.
        boxes: in its level-0 pixels.
        fill: (channels,) the colour, in the file's type.

    Example:
        >>> from foveate.images import ArraySource
        >>> image = ArraySource(np.full((2, 3), 9, np.uint8))
        >>> Covered(image, [Box(0, 1, 1, 9)], np.array([5]))._read(Box(0, 0, 2, 3), 0)[:, :, 0].tolist()
        [[9, 5, 5], [9, 9, 9]]
    """

    def __init__(self, source: Source, boxes: Sequence[Box], fill: Shaped[np.ndarray, " channel"]) -> None:
        super().__init__(source)
        self.boxes, self.fill = tuple(boxes), fill

    def _measure(self) -> Header:
        return self.source.header

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width channel"]:
        pixels = self.source.read(box, level)
        down, along = self.levels[level].factor
        rows, columns = (box.top + np.arange(box.height) + 0.5) * down, (box.left + np.arange(box.width) + 0.5) * along
        for one in self.boxes:
            top, bottom = np.searchsorted(rows, (one.top, one.bottom))
            left, right = np.searchsorted(columns, (one.left, one.right))
            pixels[top:bottom, left:right] = self.fill
        return pixels
