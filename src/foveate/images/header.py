"""What is known of an image before any pixel is read."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.types import Affine, Level, Size

__all__ = ["Georeference", "Header"]


@dataclass(frozen=True)
class Georeference:
    """Where on the earth an image lies.

    Attributes:
        crs: coordinate reference system, as well-known text.
        transform: (a, b, c, d, e, f): a point (row, column) in level-0 pixels, edges counted from 0, lies at
            x = a·column + b·row + c, y = d·column + e·row + f.
    """

    crs: str
    transform: Affine


@dataclass(frozen=True)
class Header:
    """What is known of an image before any pixel is read.

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
