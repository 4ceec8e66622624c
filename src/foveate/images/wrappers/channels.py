"""Channels of images: some of the bands, by number or by name, grey as RGB, RGB as grey, transparency over black."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped

from foveate.errors import ImageError
from foveate.images.area import Region
from foveate.images.formats.library import over_black
from foveate.images.header import Header, Missing, Pixels
from foveate.images.source import Source
from foveate.images.view import Averages
from foveate.images.wrappers.base import PixelWrapper
from foveate.types import Box, Size

LUMA = (299, 587, 114)
"""Thousandths of red, green and blue in grey: ITU-R Recommendation BT.601, luma."""

KINDS = {"rgb": 3, "grey": 1}
"""Kinds of images that can be asked for, and their channels."""


RGB = ("red", "green", "blue", "opacity")

SAME = {
    "r": "red",
    "g": "green",
    "b": "blue",
    "gray": "grey",
    "nearinfrared": "nir",
    "alpha": "opacity",
    "swir16": "swir1",
    "swir22": "swir2",
    "shortwaveinfrared1": "swir1",
    "shortwaveinfrared2": "swir2",
}
"""Names that bands have beside the usual one; capitals, spaces and signs do not count. Numbers of bands (B4) are not
among them: what they mean depends on the sensor."""


class Bands(PixelWrapper):
    """Band selection: an image of some of another image's bands; everything stays lazy, levels and type are kept.

    Arguments:
        source: the image; its header is read.
        indices: bands wanted, in the order wanted, by their numbers from 0 or their names, as `find_bands` takes them;
            one may come twice.

    Attributes:
        indices: their numbers in this image.

    Raises:
        ImageError: if no band is wanted, or one that the image does not have.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = Bands(ArraySource(np.arange(8, dtype=np.uint8).reshape(1, 2, 4)), (3, 0))
        >>> source.channels, source.read(Box(0, 0, 1, 2)).tolist()
        (2, [[[3, 0], [7, 4]]])
    """

    _made_with = ("indices",)

    def __init__(self, source: Source, indices: Sequence[int | str]) -> None:
        super().__init__(source)
        self.indices = find_bands(source, indices, self._label())
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

    def _change(self, pixels: Shaped[np.ndarray, "height width band"]) -> Pixels:
        return pixels[:, :, list(self.indices)]

    def _change_missing(self, missing: Missing) -> Missing:
        return missing if missing.shape[2] == 1 else missing[:, :, list(self.indices)]

    def neutral(self) -> Float32[np.ndarray, " channel"]:
        """Neutral value of every band wanted."""
        return self.source.neutral()[list(self.indices)]

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the bands wanted."""
        sums, share = self.source.average_of(size, region, window)
        if share is not None and share.shape[2] > 1:
            share = share[:, :, list(self.indices)]
        return sums[:, :, list(self.indices)], share


def find_bands(source: Source, wanted: Sequence[int | str], label: str = "the image") -> tuple[int, ...]:
    """Numbers of bands, of which some may be given by name: each image is looked up by itself, whatever its order.

    A name is what the file says, but for capitals, spaces and signs, or a word of it where one band alone has it; red,
    green and blue of RGB images need no saying, and `SAME` are one.

    Arguments:
        source: the image; its header is read.
        wanted: numbers from 0, which are given back as they are, and names.
        label: what errors call the image.

    Raises:
        ImageError: if no band has such a name, or several have.

    Example:
        >>> from foveate.images import ArraySource
        >>> find_bands(ArraySource(np.zeros((2, 3, 3), np.uint8)), ("Blue", 0))
        (2, 0)
    """
    return tuple(one if isinstance(one, int) else _numbered(source.header, one, label) for one in wanted)


def band_names(header: Header) -> tuple[str, ...]:
    """Names of an image's bands: those that its file gives them, or their colours; () if they have none."""
    if header.bands:
        return header.bands
    if header.channels in (3, 4) and header.dtype.kind == "u":
        return RGB[: header.channels]
    return ("grey",) if header.channels == 1 else ()


def _numbered(header: Header, name: str, label: str) -> int:
    names, plain = band_names(header), _plain(name)
    words = [{_plain(word) for word in re.findall(r"[^\W_]+", own)} for own in names]
    for called in ([{_plain(own)} for own in names], words):
        found = [number for number, own in enumerate(called) if plain in own]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(names[number] for number in found)
            raise ImageError(
                f"{label}: {name!r} may be any of the bands {several}: set model.input.bands to one's whole name or "
                "number"
            )
    known = f"its bands are {', '.join(names)}" if names else f"its {header.channels} bands have no names"
    raise ImageError(
        f"{label}: no band is called {name!r}, {known}: set model.input.bands to those it has, or to numbers counted "
        "from 0"
    )


def _plain(name: str) -> str:
    text = re.sub(r"[\W_]+", "", name.casefold())
    return SAME.get(text, text)


class Colour(PixelWrapper):
    r"""Colour conversion: an image as RGB or as grey; everything stays lazy, levels and type are kept.

    .. math:: y = 0.299\,r + 0.587\,g + 0.114\,b

    Grey becomes RGB by repetition. RGB becomes grey by the luma of ITU-R Recommendation BT.601, rounded to the type in
    reads; views are averages of the luma before rounding. Four channels are taken as red, green, blue and opacity, and
    laid over black. An image that is of the wanted kind already is left as it is.

    Arguments:
        source: the image; its header is read.
        kind: "rgb" or "grey".

    Raises:
        ImageError: if the image has neither 1, 3 nor 4 channels.

    Example:
        >>> from foveate.images import ArraySource
        >>> grey = ArraySource(np.array([[10, 20]], np.uint8))
        >>> Colour(grey, "rgb").read(Box(0, 1, 1, 1)).tolist()
        [[[20, 20, 20]]]
        >>> Colour(ArraySource(np.array([[[200, 100, 50]]], np.uint8)), "grey").read(Box(0, 0, 1, 1)).tolist()
        [[[124]]]
    """

    _made_with = ("kind",)

    def __init__(self, source: Source, kind: Literal["rgb", "grey"]) -> None:
        super().__init__(source)
        self.kind = kind
        if source.channels not in (1, 3, 4):
            raise ImageError(
                f"{self._label()}: only images of 1 (grey), 3 (RGB) or 4 channels (RGB and opacity) can be made "
                f"{kind}, got {source.channels} channels: choose bands with model.input.bands instead"
            )

    def _measure(self) -> Header:
        original = self.source.header
        channels = KINDS[self.kind]
        if channels == original.channels:
            return original
        nodata = None if original.channels == 4 else original.nodata  # the same in all bands
        return replace(original, channels=channels, bands=(), nodata=nodata)

    def _change(self, pixels: Shaped[np.ndarray, "height width band"]) -> Pixels:
        if pixels.shape[2] == 4:
            pixels = over_black(pixels)
        if pixels.shape[2] == self.channels:
            return pixels
        if self.kind == "rgb":
            return np.repeat(pixels, 3, axis=2)
        return _luma(pixels)

    def _change_missing(self, missing: Missing) -> Missing:
        """What is missing of any channel is missing of all, for they are mixed."""
        return np.asarray(missing.any(2, keepdims=True))

    def neutral(self) -> Float32[np.ndarray, " channel"]:
        """Neutral value of every channel: the original's, in other colours."""
        changed: np.ndarray = self._change(self.source.neutral()[None, None])[0, 0]
        return changed

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original, in other colours."""
        if self.source.channels != 4:
            sums, share = self.source.average_of(size, region, window)
            if share is None or share.shape[2] == 1:
                return self._change(sums), share
        # colour times opacity is no linear function of the pixels: it must be taken before the average; so must what is
        # missing of one channel alone
        return super().average_of(size, region, window)


def _luma(pixels: Shaped[np.ndarray, "rows columns 3"]) -> Shaped[np.ndarray, "rows columns 1"]:
    dtype: np.dtype[Any] = pixels.dtype
    if dtype.kind == "f":
        weights = (np.array(LUMA) / sum(LUMA)).astype(dtype)
        grey: np.ndarray = pixels @ weights
        return grey[:, :, None]
    total = pixels.astype(np.uint32) @ np.array(LUMA, np.uint32)
    return ((total + np.uint32(sum(LUMA) // 2)) // np.uint32(sum(LUMA))).astype(dtype)[:, :, None]
