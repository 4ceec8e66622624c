"""TIFF colours: from the values that a file stores to grey, RGB or bands."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from foveate.images.formats.library import over_black
from foveate.images.formats.tiff.directory import Directory
from foveate.images.header import full_scale

Finish = Callable[[Shaped[np.ndarray, "rows columns sample"]], Shaped[np.ndarray, "rows columns channel"]]
"""What is done to decoded values, pixel by pixel."""

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, TRANSPARENCY, CMYK, YCBCR = 0, 1, 2, 3, 4, 5, 6
"""PhotometricInterpretation (262)."""

JPEGS = (7, 34892, 33007)
"""Compressions whose decoder makes RGB of YCbCr."""

OTHER_DECODERS = (33003, 33004, 33005, 34712, 50001, 50002, 52546)
"""Compressions whose decoder gives what was put in, whatever the file calls the colours: JPEG 2000, WebP, JPEG XL."""

AS_GDAL: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.bool_): np.dtype(np.uint8),
    np.dtype(np.float16): np.dtype(np.float32),
}
"""Types that GDAL 3.10 does not have, and what it reads them as."""

ASSOCIATED, UNASSOCIATED = 1, 2
"""ExtraSamples (338) that are opacity: laid over black already, or not yet."""


def finish_for(
    page: Directory, samples: int, dtype: np.dtype[Any], raster: bool = False
) -> tuple[Finish | None, int, np.dtype[Any]]:
    """Colour conversion of the decoded values of a page.

    Arguments:
        page: its directory.
        samples: values of a pixel, as decoded.
        dtype: their type.
        raster: whether it is of a raster with a place on earth: its values are bands, kept as GDAL keeps them, palette,
            CMYK and opacity included.

    Returns:
        What to do, None for nothing; and the channels and the type that it gives, without the opacity that comes last
        where the page has one.

    Raises:
        NotImplementedError: the page's colours are of a kind that cannot be read.
        ValueError: its palette is broken.
    """
    photometric, compression = page.number(262, RGB if samples == 3 else BLACK_IS_ZERO), page.number(259, 1)
    if raster and (photometric != YCBCR or compression in JPEGS + OTHER_DECODERS):
        return None, samples, AS_GDAL.get(dtype, dtype)
    if photometric == PALETTE and samples == 1:
        return _palette(page, dtype), 3, np.dtype(np.uint8)
    if photometric == CMYK and samples == 4 and dtype == np.uint8 and compression not in JPEGS:
        return _from_cmyk, 3, dtype
    if photometric == YCBCR and compression not in JPEGS + OTHER_DECODERS:
        raise NotImplementedError("YCbCr colours that are not compressed as JPEG")
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, TRANSPARENCY, YCBCR):
        raise NotImplementedError(f"colours of kind {photometric} (PhotometricInterpretation)")
    if photometric == WHITE_IS_ZERO and samples == 1 and dtype.kind != "f":
        return (np.logical_not if dtype.kind == "b" else lambda values: full_scale(dtype) - values), 1, dtype
    if opacity_of(page, samples) == UNASSOCIATED:
        return (lambda values: np.concatenate([over_black(values), values[:, :, -1:]], axis=2)), samples - 1, dtype
    if opacity_of(page, samples) == ASSOCIATED:
        return None, samples - 1, dtype
    if compression == 33003 and samples == 3 and dtype == np.uint8:
        return _from_ycbcr, samples, dtype
    return None, samples, dtype


def opacity_of(page: Directory, samples: int) -> int:
    """`ASSOCIATED` or `UNASSOCIATED` where the last value of a pixel is its opacity; 0 where it is not."""
    extra, photometric = page.numbers(338), page.number(262, RGB if samples == 3 else BLACK_IS_ZERO)
    colours = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, YCBCR: 3}.get(photometric, samples)
    return int(extra[-1]) if extra and samples > colours and extra[-1] in (ASSOCIATED, UNASSOCIATED) else 0


def _palette(page: Directory, dtype: np.dtype[Any]) -> Finish:
    colours = np.array(page.numbers(320), np.uint16).reshape(3, -1).T
    if dtype.kind != "u" or len(colours) == 0:
        raise ValueError("a palette without colours, or of values that are no whole numbers")
    # colours have 16 bits; some writers leave 8 in them
    table = (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)

    def finish(values: Shaped[np.ndarray, "rows columns sample"]) -> Shaped[np.ndarray, "rows columns channel"]:
        laid: np.ndarray = table[values[:, :, 0]]
        return laid

    return finish


def _from_cmyk(values: Shaped[np.ndarray, "rows columns 4"]) -> Shaped[np.ndarray, "rows columns 3"]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(values), "CMYK").convert("RGB"))


def _from_ycbcr(values: Shaped[np.ndarray, "rows columns 3"]) -> Shaped[np.ndarray, "rows columns 3"]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(values), "YCbCr").convert("RGB"))
