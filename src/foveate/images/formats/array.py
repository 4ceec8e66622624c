"""Images that are in memory already."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.errors import ImageError
from foveate.images.header import Header
from foveate.images.pixels import check_dtype
from foveate.images.source import Source
from foveate.types import Box, Level

__all__ = ["ArraySource"]


class ArraySource(Source):
    """An array of pixels as an image; the array is referred to, not copied.

    Arguments:
        array: (H, W) or (H, W, C) pixels; bool, uint8, uint16 or floating point. A memory map will do.
        mpp: microns per pixel, if known.
        name: what to call the image in reports and errors.

    Raises:
        ImageError: if the array has another number of axes, an empty one, or another type.

    Example:
        >>> source = ArraySource(np.arange(6, dtype=np.uint8).reshape(2, 3))
        >>> source.size, source.channels
        ((2, 3), 1)
        >>> source.read(Box(1, 2, 2, 2))[:, :, 0]
        array([[5, 0],
               [0, 0]], dtype=uint8)
    """

    def __init__(self, array: Shaped[np.ndarray, "..."], mpp: float | None = None, name: str = "") -> None:
        super().__init__(name, mpp)
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise ImageError(
                f"{self._label()}: an array must be (height, width) or (height, width, channels) and not empty, "
                f"got shape {array.shape}: put the channels last, one image at a time"
            )
        check_dtype(array.dtype, name)
        self._array = array

    def _measure(self) -> Header:
        height, width, *channels = self._array.shape
        dtype: np.dtype[Any] = self._array.dtype
        return Header((Level((height, width), (1.0, 1.0)),), channels[0] if channels else 1, dtype)

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:  # noqa: ARG002
        return self._array[box.top : box.bottom, box.left : box.right]
