"""NumPy arrays as images: in memory, and in .npy files, of which parts are read."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageOps

from foveate.errors import ImageError, PixelError, one_line
from foveate.images.header import CacheKey, Header, check_dtype, kept_type
from foveate.images.io.local import LocalFile, changed, file_stamp, stream
from foveate.images.source import Source
from foveate.types import Box, Level

BROKEN = (OSError, EOFError, ValueError, TypeError, SyntaxError, KeyError, OverflowError, TokenError)
"""What NumPy raises on files that are not what they say."""

ARRAYS = ("__array__", "__array_interface__")
"""What an object has that NumPy makes an array of."""

GAP = 8 * 1024
"""Bytes between two lines of a file that are rather read than left out: asking the system once more takes as long."""


class ArraySource(Source):
    """Array of pixels as an image; the array is referred to, not copied.

    Arguments:
        array: (H, W) or (H, W, C) pixels; bool, uint8, uint16 or floating point. A memory map will do.
        mpp: microns per pixel, if known.
        name: what to call the image in reports and errors.

    Raises:
        PixelError: if the array has another number of axes, an empty one, or another type.

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
        _check_shape(array.shape, self._label(), "put the channels last, one image at a time")
        check_dtype(array.dtype, name)
        self._array = array

    def _measure(self) -> Header:
        return _header(self._array.shape, self._array.dtype)

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:  # noqa: ARG002
        return self._array[box.top : box.bottom, box.left : box.right]


def array_of(image: Any) -> np.ndarray | None:
    """Array of an image that another library holds in memory; None of what is no such image.

    A Pillow image is laid down as its EXIF orientation says and becomes grey or RGB as its file would, transparency
    over black; a tensor has its channels first and becomes (H, W, C); whatever gives an array is taken by that.

    Arguments:
        image: a Pillow image, a tensor (C, H, W) or (H, W), an array, or anything with `__array__`.

    Raises:
        PixelError: the tensor has another number of axes, or its channels are last.

    Example:
        >>> import torch
        >>> array_of(torch.zeros(3, 40, 60)).shape, array_of("image.png")
        ((40, 60, 3), None)
    """
    if isinstance(image, Image.Image):
        return _of_pillow(ImageOps.exif_transpose(image))
    if hasattr(image, "detach") and hasattr(image, "movedim"):
        shape = tuple(image.shape)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] > 4 >= shape[2]):
            raise PixelError(
                f"a tensor of an image must be (channels, height, width) or (height, width), got shape {shape}: "
                "move its channels to the front, e.g. permute(2, 0, 1), and give one image at a time"
            )
        tensor = image.detach().cpu()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
        return np.asarray((tensor.movedim(0, -1) if len(shape) == 3 else tensor).numpy())
    if isinstance(image, np.ndarray):
        return image
    return np.asarray(image) if any(hasattr(image, name) for name in ARRAYS) else None


def read_by(reader: Callable[[str], object], name: str) -> Source:
    """Image that a reader of the user's gives: a source, or an array.

    Arguments:
        reader: called with the name.
        name: of the file.

    Raises:
        ImageError: it failed, or gave something else.
    """
    try:
        given = reader(name)
    except (ImageError, OSError):
        raise
    except Exception as error:
        raise ImageError(f"{name}: the reader that is registered for it failed ({one_line(error)})") from error
    source = ArraySource(given, name=name) if isinstance(given, np.ndarray) else given
    if not isinstance(source, Source):
        raise ImageError(f"{name}: its reader gave {type(given).__name__}: let it give a Source or an array")
    source.name = source.name or name
    return source


def _of_pillow(image: Image.Image) -> np.ndarray:
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        deep = image.mode != "F" and values.min() >= 0 and values.max() < 2**16
        return values.astype(np.uint16) if deep else values
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    return np.asarray(image.convert("L" if grey else "RGB"))


class ArrayFile:
    """NumPy .npy file of which parts are read, and none is mapped: no process dies of a file that is cut.

    Arguments:
        file: it; whoever makes this reads its header now.

    Attributes:
        shape: of the array.
        dtype: of its values, in the byte order of the file.

    Raises:
        ImageError: the file is missing, or cannot be read.
        ValueError: it is no such file, or shorter than its header says. NumPy raises some others of `BROKEN`.
    """

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        header = stream(file)
        version = np.lib.format.read_magic(header)
        if version == (1, 0):
            shape, self._columns_first, dtype = np.lib.format.read_array_header_1_0(header)
        else:  # 3.0 differs from 2.0 in names of fields alone, and arrays of fields are no images
            shape, self._columns_first, dtype = np.lib.format.read_array_header_2_0(header)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"an array of shape {shape} of {dtype}")
        self.shape: tuple[int, ...] = shape
        self.dtype: np.dtype[Any] = dtype
        self._start = header.tell()
        end = self._start + math.prod(shape) * dtype.itemsize
        if end > file.size:
            raise ValueError(f"it ends at byte {file.size} of {end}")

    def read(self, box: Box) -> Shaped[np.ndarray, "height width *channel"]:
        """Pixels of a box that lies within an array (height, width, …), as they are stored.

        Raises:
            ImageError: the file has changed since, or cannot be read.
        """
        height, width = self.shape[:2]
        each = math.prod(self.shape[2:])
        if not self._columns_first:
            lines = self._lines([box.top], box.height, (box.left, box.width), width, each)
            return lines.reshape(box.height, box.width, *self.shape[2:])
        planes = [box.left + width * channel for channel in range(each)]
        lines = self._lines(planes, box.width, (box.top, box.height), height, 1)
        stored: np.ndarray = lines.reshape(each, box.width, box.height).transpose(2, 1, 0)
        return stored.reshape(box.height, box.width, *self.shape[2:])

    def _lines(
        self, firsts: Sequence[int], count: int, span: tuple[int, int], length: int, each: int
    ) -> Shaped[np.ndarray, "line value"]:
        """The same span of some lines of the file: of `count` from each of the `firsts` on.

        Lines near each other are read as one.
        """
        item = each * self.dtype.itemsize
        stride, offset, wanted = length * item, self._start + span[0] * item, span[1] * item
        if stride - wanted <= GAP:
            parts = [(offset + first * stride, (count - 1) * stride + wanted) for first in firsts]
        else:
            parts = [(offset + line * stride, wanted) for first in firsts for line in range(first, first + count)]
        read = self._file.read_many(parts)
        if any(len(data) < asked for data, (_, asked) in zip(read, parts, strict=True)):
            raise changed(self._file.name)
        if stride - wanted <= GAP:
            bands = (np.frombuffer(data, np.uint8) for data in read)
            rows = [np.lib.stride_tricks.as_strided(band, (count, wanted), (stride, 1)) for band in bands]
            return np.ascontiguousarray(np.concatenate(rows)).view(self.dtype)
        return np.frombuffer(b"".join(read), self.dtype).reshape(len(parts), -1)


class NpySource(Source):
    """NumPy .npy file of pixels, of which only what is asked for is read.

    Bytes are counted of the pixels read.

    Arguments:
        path: the file: (H, W) or (H, W, C); bool, integers or floating point, in [0, 1] unless the model normalises
            it. Integers other than uint8 and uint16 become floating point. Either byte order, C or Fortran order.
        mpp: microns per pixel, if known.
    """

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(str(path), mpp)
        self._file = LocalFile(path)

    def cache_key(self) -> CacheKey | None:
        """Cache key: the file as it was when opened; one that has changed since is not read."""
        stamp = self._file.stamp or file_stamp(self.name)
        return None if stamp is None else ("NpySource", stamp)

    def _open(self) -> ArrayFile:
        self._file = LocalFile(self.name)
        try:
            array = ArrayFile(self._file)
        except BROKEN as error:
            raise ImageError(
                f"{self.name}: broken .npy file, or one of Python objects ({one_line(error)}): "
                "write it again with numpy.save, as an array of numbers"
            ) from error
        _check_shape(array.shape, self.name, "put the channels last, one image in a file")
        if self._known is not None and self._known != _stored_header(array, self.name):
            raise changed(self.name)
        return array

    def _measure(self) -> Header:
        array: ArrayFile = self._ready()
        return _stored_header(array, self.name)

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:  # noqa: ARG002
        array: ArrayFile = self._ready()
        return np.array(array.read(box), self.dtype)


def _check_shape(shape: tuple[int, ...], name: str, remedy: str) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise PixelError(
            f"{name}: an array must be (height, width) or (height, width, channels) and not empty, "
            f"got shape {shape}: {remedy}"
        )


def _stored_header(array: ArrayFile, name: str) -> Header:
    dtype, stored = kept_type(array.dtype, name), array.dtype.newbyteorder("=")
    return _header(array.shape, dtype, "" if dtype == stored else f"NumPy array, {stored} as {dtype}")


def _header(shape: tuple[int, ...], dtype: np.dtype[Any], kind: str = "") -> Header:
    height, width, *channels = shape
    return Header((Level((height, width), (1.0, 1.0)),), channels[0] if channels else 1, dtype, kind)
