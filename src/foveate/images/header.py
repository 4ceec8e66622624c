"""Header of an image, and what pixel values mean: the types an image may hold, and their unit range."""

import functools
import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from foveate.errors import FoveateError, ImageError, PixelError, one_line
from foveate.seeds import derive_seed
from foveate.types import Affine, Level, Size

Pixels = Shaped[np.ndarray, "height width channel"]
"""Pixels of a part of an image, in the file's type."""

Missing = Bool[np.ndarray, "height width some"]
"""True where pixels are no data: in all channels, (height, width, 1), or in each, (height, width, channels)."""

CacheKey = tuple[object, ...]
"""All that determines some pixels, such as a file's stamp and settings; its `repr` says all of it."""

Sides = tuple[float, float]
"""Height and width of a pixel in microns."""

ControlPoint = tuple[float, float, float, float, float]
"""Ground control point: (row, column) in level-0 pixels, edges counted from 0, lies at (x, y, z)."""

BITS = 31
"""Of a seed of 63 bits, how many make a random number; the next as many make the second."""

FULL_SCALE = {np.dtype(np.bool_): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The value that means 1.0, for the types that are not floating point."""


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Type check: refuse pixels whose range of values is not known.

    Arguments:
        dtype: type of the pixels.
        name: what to call the image in the error.

    Raises:
        PixelError: if the type is none of bool, uint8, uint16 and floating point.
    """
    if dtype not in FULL_SCALE and dtype.kind != "f":
        raise PixelError(
            f"{name or 'array'}: pixels must be bool, uint8, uint16 or floating point, got {dtype}: "
            "convert it first, e.g. to float32 between 0 and 1"
        )


def kept_type(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The type that values of a file are read as: as they are, or, integers of no known range, as floating point.

    Integers of 8 and 16 bits become float32 and wider ones float64, which hold every one of them (of 64 bits those up
    to 2⁵³). One rule for all readers.

    Arguments:
        dtype: type in the file, of either byte order.
        name: of the image.

    Raises:
        ImageError: they are no numbers, or complex ones.

    Example:
        >>> [str(kept_type(np.dtype(kind), "a")) for kind in (">u2", "i2", "i4")]
        ['uint16', 'float32', 'float64']
    """
    native = dtype.newbyteorder("=")
    if native in FULL_SCALE or native.kind == "f":
        return native
    if native.kind in "iu":
        return np.dtype(np.float32 if native.itemsize < 4 else np.float64)
    raise ImageError(f"{name}: pixels must be bool, integers or floating point, got {native}: convert it first")


class Reading:
    """Reading of an image: whatever a decoder stumbles over within becomes an error that names the image.

    What libraries raise of mutated files is theirs to choose (OverflowError, MemoryError, SyntaxError, AttributeError
    …), and no list of it is ever whole. Errors of foveate's own and of the system pass as they are.

    Arguments:
        name: of the image.

    Raises:
        ImageError: in the place of anything else.

    Example:
        >>> with Reading("a.tif"):
        ...     _ = {}[7]
        Traceback (most recent call last):
        ...
        foveate.errors.ImageError: a.tif: cannot be read (KeyError 7): copy the file again, or leave it out
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, FoveateError | OSError):
            return
        what = f"out of memory, {one_line(error)}" if isinstance(error, MemoryError) else one_line(error)
        raise ImageError(f"{self._name}: cannot be read ({what}): copy the file again, or leave it out") from error


def not_finite(name: str, where: str) -> ImageError:
    """Error of pixels that are nan or infinite.

    Arguments:
        name: of the image, or "".
        where: the part of it that was looked at, e.g. "its view".
    """
    return ImageError(
        f"{name or 'image in memory'}: {where} has pixels that are nan or infinite: "
        "replace them first, e.g. by the mean of their band"
    )


def is_stored(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Whether pixels of a type can have the value that means no data; those of whole numbers cannot have just any."""
    return dtype.kind == "f" or (nodata.is_integer() and 0 <= nodata <= full_scale(dtype))


def missing_values(pixels: Pixels, nodata: float) -> Missing | None:
    """Values that are the one that means no data.

    Of whole numbers such a pixel has it in all its channels, for in one of them it may be a colour like any other; of
    floating-point numbers each is missing by itself.

    Arguments:
        pixels: (height, width, channels).
        nodata: the value; may be nan.

    Returns:
        (height, width, 1) or (height, width, channels); None if nothing is missing.

    Example:
        >>> missing_values(np.array([[[0, 0], [0, 7]]], np.uint8), 0.0)[0, :, 0].tolist()
        [True, False]
    """
    dtype: np.dtype[Any] = pixels.dtype
    if not is_stored(nodata, dtype):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # of what float16 cannot hold, infinity
            value = np.asarray(nodata).astype(dtype)
        found = np.isnan(pixels) if math.isnan(nodata) else pixels == value
    else:
        found = (pixels == dtype.type(nodata)).all(2, keepdims=True)
    return found if found.any() else None


def unseen(opacity: Shaped[np.ndarray, "height width _"]) -> Missing | None:
    """Pixels that are wholly transparent; None if none is, or no opacity is known."""
    return None if opacity.all() else opacity == 0


def united(*some: Missing | None) -> Missing | None:
    """What any of several masks says is missing; None if none says anything."""
    known = [missing for missing in some if missing is not None and missing.any()]
    return functools.reduce(np.logical_or, known) if known else None


def without(pixels: Pixels, missing: Missing | None) -> tuple[Pixels, Missing | None]:
    """Pixels of which missing values are 0, and which these are: nothing that follows sees what is stored there."""
    if missing is None:
        return pixels, None
    return np.where(missing, np.zeros((), pixels.dtype), pixels), missing


def full_scale(dtype: np.dtype[Any]) -> int:
    """Full scale, the value that means 1.0: 1 for bool and floating point, 255 for uint8, 65535 for uint16."""
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
    """Pixels of a type, the inverse of `unit_range`: clipped to the range of the type, halves rounded up.

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


@dataclass(frozen=True)
class Georeference:
    """Georeference: where on the earth an image lies.

    Attributes:
        crs: coordinate reference system, as well-known text.
        transform: (a, b, c, d, e, f): a point (row, column) in level-0 pixels, edges counted from 0, lies at
            x = a·column + b·row + c, y = d·column + e·row + f.
        points: ground control points, where these tell the place; the transform then says nothing.
    """

    crs: str
    transform: Affine
    points: tuple[ControlPoint, ...] = ()


@dataclass(frozen=True)
class Header:
    """Header: what is known of an image before any pixel is read.

    Attributes:
        levels: the resolutions, finest first; level 0 has factor (1, 1).
        channels: values per pixel.
        dtype: type of a value in the file.
        format: what it is, in a few words, e.g. "TIFF, tiled, JPEG".
        mpp: microns per level-0 pixel that the file tells; None if it tells none. Of pixels that are not square, the
            geometric mean of both sides.
        tile: (height, width) of what is decoded at a time at level 0; None if the whole image is.
        bands: names of the channels, where the file has them.
        nodata: the value of pixels that mean nothing; None if all mean something.
        georeference: where on the earth the image lies, or None.
        pixel: height and width of a level-0 pixel in microns, where the file tells both.
        values: (scale, offset) of every band: a stored value v means v · scale + offset; () where all mean what they
            are. Nothing is made of them: pixels are as they are stored.
        masked: what tells missing data beside `nodata`, in words, e.g. "opacity"; "" if nothing does.
        unused: what the file says and nothing is made of, in words.
    """

    levels: tuple[Level, ...]
    channels: int
    dtype: np.dtype[Any]
    format: str = ""
    mpp: float | None = None
    tile: Size | None = None
    bands: tuple[str, ...] = ()
    nodata: float | None = None
    georeference: Georeference | None = None
    pixel: Sides | None = None
    values: tuple[tuple[float, float], ...] = ()
    masked: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatchChange:
    """Augmentation of the patches of an image, whichever are read.

    Attributes:
        turn: largest turn in degrees; each patch's is uniform within ±.
        scale: least and greatest factor by which a patch is enlarged about its centre; each patch's is uniform.
        seed: determines the change of every patch, with the patch's place.
        shift: most pixels that a patch is read from beside its place, down and along; each patch's are uniform.
        gain: least and greatest factor on a patch's values.
        bias: least and greatest term added to them, as a share of the valid range.
        colour: each channel has another factor, within 1 ± this.
        flip: whether a patch is flipped upside down, left to right and, if square, about its diagonal, each or not.
    """

    turn: float
    scale: tuple[float, float]
    seed: int
    shift: int = 0
    gain: tuple[float, float] = (1.0, 1.0)
    bias: tuple[float, float] = (0.0, 0.0)
    colour: float = 0.0
    flip: bool = False

    @property
    def shades(self) -> bool:
        """Whether it changes values."""
        return (self.gain, self.bias, self.colour) != ((1.0, 1.0), (0.0, 0.0), 0.0)

    def moved(self, top: int, left: int) -> tuple[int, int]:
        """Pixels (down, along) that the patch at a place is read from beside it."""
        generator = np.random.default_rng(derive_seed(self.seed, "shift", top, left))
        down, along = generator.integers(-self.shift, self.shift, 2, endpoint=True).tolist()
        return down, along

    def shaded(self, top: int, left: int, channels: int) -> tuple[list[float], float]:
        """Factor of every channel, and the term added to all, of the patch at a place."""
        generator = np.random.default_rng(derive_seed(self.seed, "shade", top, left))
        gain, bias = generator.uniform(*self.gain), generator.uniform(*self.bias)
        return (gain * generator.uniform(1 - self.colour, 1 + self.colour, channels)).tolist(), bias

    def flipped(self, top: int, left: int) -> tuple[bool, bool, bool]:
        """Whether the patch at a place is flipped upside down, left to right, and then about its diagonal."""
        bits = derive_seed(self.seed, "flip", top, left)
        return bool(bits & 1), bool(bits & 2), bool(bits & 4)

    def drawn(self, top: int, left: int) -> tuple[float, float]:
        """Counter-clockwise turn in radians, and factor, of the patch at a place.

        Arguments:
            top: of the patch, in level-0 pixels.
            left: likewise.

        Example:
            >>> PatchChange(0.0, (2.0, 2.0), seed=1).drawn(10, 20)[1]
            2.0
        """
        bits = derive_seed(self.seed, top, left)
        first, second = (bits >> BITS) % 2**BITS / 2**BITS, bits % 2**BITS / 2**BITS
        low, high = self.scale
        return math.radians(self.turn) * (2 * first - 1), low + (high - low) * second
