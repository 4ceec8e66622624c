"""What pixel values mean: which types an image may hold, and their unit range."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from foveate.errors import ImageError

__all__ = ["check_dtype", "from_unit", "full_scale", "not_finite", "unit_range"]

FULL_SCALE = {np.dtype(np.bool_): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The value that means 1.0, for the types that are not floating point."""


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Refuse pixel types whose range of values is not known.

    Arguments:
        dtype: type of the pixels.
        name: what to call the image in the error.

    Raises:
        ImageError: if the type is none of bool, uint8, uint16 and floating point.
    """
    if dtype not in FULL_SCALE and dtype.kind != "f":
        raise ImageError(
            f"{name or 'array'}: pixels must be bool, uint8, uint16 or floating point, got {dtype}: "
            "convert it first, e.g. to float32 between 0 and 1"
        )


def not_finite(name: str, where: str) -> ImageError:
    """What to raise where pixels are nan or infinite.

    Arguments:
        name: of the image, or "".
        where: the part of it that was looked at, e.g. "its view".
    """
    return ImageError(
        f"{name or 'image in memory'}: {where} has pixels that are nan or infinite: "
        "replace them first, e.g. by the mean of their band"
    )


def full_scale(dtype: np.dtype[Any]) -> int:
    """The value that means 1.0 in the unit range: 1 for bool and floating point, 255 for uint8, 65535 for uint16."""
    return FULL_SCALE.get(dtype, 1)


def unit_range(array: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Pixel values as float32 in the unit range; floating-point values are taken to be in it already.

    Arguments:
        array: pixels of any shape; bool, uint8, uint16 or floating point.

    Returns:
        The same shape: uint8 / 255, uint16 / 65535, bool as 0 and 1, floating point as it is.

    Raises:
        ImageError: if the pixels are of another type.

    Example:
        >>> unit_range(np.array([0, 51, 255], dtype=np.uint8))
        array([0. , 0.2, 1. ], dtype=float32)
    """
    check_dtype(array.dtype, "")
    scale = full_scale(array.dtype)
    if scale == 1:
        return array.astype(np.float32)
    result: np.ndarray = np.divide(array, np.float32(scale), dtype=np.float32)
    return result


def from_unit(array: Float32[np.ndarray, "*shape"], dtype: np.dtype[Any]) -> Shaped[np.ndarray, "*shape"]:
    """The inverse of `unit_range`: values clipped to the range of the type, halves rounded up.

    Arguments:
        array: values in the unit range.
        dtype: the type wanted; floating-point values are neither clipped nor rounded.

    Returns:
        The same shape, of type `dtype`.

    Example:
        >>> from_unit(np.array([0.0, 0.2, 1.0], dtype=np.float32), np.dtype(np.uint8))
        array([  0,  51, 255], dtype=uint8)
    """
    if dtype.kind == "f":
        return array.astype(dtype)
    scale = full_scale(dtype)
    rounded: np.ndarray = np.floor(np.clip(array, 0, 1).astype(np.float64) * scale + 0.5)
    return rounded.astype(dtype)
