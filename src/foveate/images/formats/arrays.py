"""NumPy arrays as images: in memory, and in .npy files, of which parts are read."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.errors import ImageError, one_line
from foveate.images.header import CacheKey, Header, check_dtype, kept_type
from foveate.images.io.local import UNREADABLE, file_stamp, not_readable
from foveate.images.source import Source
from foveate.types import Box, Level

BROKEN = (OSError, EOFError, ValueError, TypeError, SyntaxError, KeyError, OverflowError)
"""What NumPy raises on files that are not what they say."""


class ArraySource(Source):
    """Array of pixels as an image; the array is referred to, not copied.

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
        _check_shape(array, self._label(), "put the channels last, one image at a time")
        check_dtype(array.dtype, name)
        self._array = array

    def _measure(self) -> Header:
        return _header(self._array, self._array.dtype)

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:  # noqa: ARG002
        return self._array[box.top : box.bottom, box.left : box.right]


class NpySource(Source):
    """NumPy .npy file of pixels, of which only what is asked for is read: the file is mapped into memory.

    Bytes are counted of the pixels read, not of the pages of memory the operating system reads them by.

    Arguments:
        path: the file: (H, W) or (H, W, C); bool, integers or floating point, in [0, 1] unless the model normalises
            it. Integers other than uint8 and uint16 become floating point. Either byte order, C or Fortran order.
        mpp: microns per pixel, if known.
    """

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(str(path), mpp)
        self._path = Path(path)

    def cache_key(self) -> CacheKey | None:
        """Cache key: the file as it is now."""
        stamp = file_stamp(self._path)
        return None if stamp is None else ("NpySource", stamp)

    def _open(self) -> np.ndarray:
        try:
            array: np.ndarray = np.lib.format.open_memmap(self._path, mode="r")
        except UNREADABLE as error:
            raise not_readable(self.name, error) from error
        except BROKEN as error:
            raise ImageError(
                f"{self.name}: broken .npy file, or one of Python objects ({one_line(error)}): "
                "write it again with numpy.save, as an array of numbers"
            ) from error
        _check_shape(array, self.name, "put the channels last, one image in a file")
        kept_type(array.dtype, self.name)
        return array

    def _measure(self) -> Header:
        array: np.ndarray = self._ready()
        dtype = kept_type(array.dtype, self.name)
        stored = array.dtype.newbyteorder("=")
        return _header(array, dtype, "" if dtype == stored else f"NumPy array, {stored} as {dtype}")

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:  # noqa: ARG002
        part = self._ready()[box.top : box.bottom, box.left : box.right]
        # an array of its own: one that refers to the map would keep the file open, and be read when it is changed
        return np.array(part, dtype=self.dtype, subok=False)


def _check_shape(array: Shaped[np.ndarray, "..."], name: str, remedy: str) -> None:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            f"{name}: an array must be (height, width) or (height, width, channels) and not empty, "
            f"got shape {array.shape}: {remedy}"
        )


def _header(array: Shaped[np.ndarray, "..."], dtype: np.dtype[Any], kind: str = "") -> Header:
    height, width, *channels = array.shape
    return Header((Level((height, width), (1.0, 1.0)),), channels[0] if channels else 1, dtype, kind)
