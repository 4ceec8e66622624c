"""The door to images: whatever names one becomes a source."""

import copy
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from foveate.errors import ImageError
from foveate.images.formats.array import ArraySource
from foveate.images.formats.canvas import Canvas
from foveate.images.formats.npy import NPY_MAGIC, NpySource
from foveate.images.formats.pillow import PillowSource
from foveate.images.source import Source

__all__ = ["open_image"]

ZIP_MAGIC = b"PK\x03\x04"


def open_image(path_or_array: str | Path | Shaped[np.ndarray, "..."] | Source, mpp: float | None = None) -> Source:
    """Open an image: the header is read, the pixels are not.

    Arguments:
        path_or_array: a file, known by its content and not by its name; an array (H, W) or (H, W, C) of bool, uint8,
            uint16 or floating point; or a source, which is given back.
        mpp: microns per pixel at full resolution; overrides what the file says.

    Returns:
        The image.

    Raises:
        ImageError: if the file is missing or cannot be read, or the array is not an image.

    Example:
        >>> open_image(np.zeros((600, 800, 3), np.uint8)).size
        (600, 800)
    """
    if isinstance(path_or_array, Source):
        if mpp is None:
            return path_or_array
        source = copy.copy(path_or_array)
        source.mpp = mpp
        return source
    if isinstance(path_or_array, np.ndarray):
        return ArraySource(path_or_array, mpp)
    path = Path(path_or_array)
    source = _reader(path, mpp)
    _ = source.header
    return source


def _reader(path: Path, mpp: float | None) -> Source:
    """The reader of what the file begins like; whatever is unknown is Pillow's."""
    first = _first_bytes(path)
    if first.startswith(ZIP_MAGIC):
        return Canvas.load(path, mpp)
    return NpySource(path, mpp) if first.startswith(NPY_MAGIC) else PillowSource(path, mpp)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(max(len(ZIP_MAGIC), len(NPY_MAGIC)))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file: check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, not an image: name a file in it") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}): check the path and the file's mode") from error
