"""Some bands of an image, chosen and ordered."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Shaped

from foveate.errors import ImageError
from foveate.images.average import Region
from foveate.images.header import Header
from foveate.images.source import Source
from foveate.images.wrapper import PixelWrapper
from foveate.types import Box, Size

__all__ = ["Bands"]


class Bands(PixelWrapper):
    """An image of some of another image's bands; everything stays lazy, levels and type are kept.

    Arguments:
        source: the image; its header is read.
        indices: bands wanted, counted from 0, in the order wanted; one may come twice.

    Raises:
        ImageError: if no band is named, or one that the image does not have.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = Bands(ArraySource(np.arange(8, dtype=np.uint8).reshape(1, 2, 4)), (3, 0))
        >>> source.channels, source.read(Box(0, 0, 1, 2)).tolist()
        (2, [[[3, 0], [7, 4]]])
    """

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source)
        self.indices = tuple(indices)
        last = source.channels - 1
        if not self.indices or not all(0 <= index <= last for index in self.indices):
            wanted = ", ".join(map(str, self.indices)) or "none"
            raise ImageError(
                f"{self._label()}: bands must be among 0 … {last}, the image's own, got {wanted}: "
                "set model.input.bands to those it has, counted from 0"
            )

    def _measure(self) -> Header:
        original = self.source.header
        names = tuple(original.bands[index] for index in self.indices) if original.bands else ()
        return replace(original, channels=len(self.indices), bands=names)

    def _change(self, pixels: Shaped[np.ndarray, "height width band"]) -> Shaped[np.ndarray, "height width channel"]:
        return pixels[:, :, list(self.indices)]

    def _view(self, size: Size, region: Region, window: Box) -> Float64[np.ndarray, "rows columns channel"]:
        return self.source._view(size, region, window)[:, :, list(self.indices)]
