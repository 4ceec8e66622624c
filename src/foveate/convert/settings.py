"""Conversion settings: how an image is to be written."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foveate.errors import ConfigError
from foveate.images.header import Header

FORMATS = ("tiff", "ome-zarr", "ome-zarr-0.5")
"""A pyramid in one BigTIFF; OME-Zarr 0.4, which viewers read; and 0.5, which some do."""

COMPRESSIONS = ("jpeg", "deflate", "zstd", "lzw", "none")
"""Of tiles; all but JPEG are lossless."""

IN_ZARR = ("deflate", "zstd", "none")

LARGEST_TILE = 4096


@dataclass(frozen=True)
class Conversion:
    """Conversion settings: how an image is to be written.

    Attributes:
        tile: height and width of the tiles, in pixels; a multiple of 16.
        compression: one of `COMPRESSIONS`; None takes JPEG for 8-bit grey and RGB without nodata, else deflate (in
            Zarr zstd), which lose nothing.
        quality: of JPEG, 1 … 100; from 90 on colours are kept at full resolution.
        format: one of `FORMATS`; None takes the name's: OME-Zarr for ….zarr, else TIFF.
    """

    tile: int = 256
    compression: str | None = None
    quality: int = 90
    format: str | None = None

    def resolved(self, header: Header, destination: Path) -> "Conversion":
        """The same for one image, everything chosen.

        Raises:
            ConfigError: if that cannot be written.
        """
        if self.tile % 16 or not 16 <= self.tile <= LARGEST_TILE:
            raise ConfigError(f"tile must be a multiple of 16 from 16 to {LARGEST_TILE}, got {self.tile}: take 256")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be from 1 to 100, got {self.quality}: 90 is hardly told from the original")
        chosen = self.format or ("ome-zarr" if destination.suffix.lower() == ".zarr" else "tiff")
        if chosen not in FORMATS:
            raise ConfigError(
                f"format must be one of {', '.join(FORMATS)}, got {chosen}: leave it out to go by the name"
            )
        photographic = header.dtype == np.uint8 and (is_colour(header) or (header.channels == 1 and not header.bands))
        lossless = "deflate" if chosen == "tiff" else "zstd"
        usual = "jpeg" if photographic and header.nodata is None and chosen == "tiff" else lossless
        compression = self.compression or usual
        known = COMPRESSIONS if chosen == "tiff" else IN_ZARR
        if compression not in known:
            raise ConfigError(
                f"compression in {chosen} must be one of {', '.join(known)}, got {compression}: "
                f"leave it out for {usual}"
            )
        if compression == "jpeg" and not (stored_type(header) == np.uint8 and header.channels in (1, 3)):
            raise ConfigError(
                f"compression jpeg needs 8-bit grey or RGB, got {header.channels} channel(s) of {header.dtype}: "
                "take deflate or zstd, which lose nothing"
            )
        return replace(self, compression=compression, format=chosen)


def is_colour(header: Header) -> bool:
    """Whether the three channels of an image are red, green and blue, as far as is known."""
    told = "".join(band[:1].lower() for band in header.bands)
    return header.channels == 3 and header.dtype.kind == "u" and told in ("", "rgb")


def stored_type(header: Header) -> "np.dtype[np.generic]":
    """The type values are written in: the image's, but 0 and 255 for bool, of which a coarser level has shades."""
    if header.dtype == np.bool_:
        return np.dtype(np.uint8)
    if header.dtype.kind == "f" and header.dtype.itemsize > 8:
        raise ConfigError(f"{header.dtype} has no place in TIFF and Zarr: convert the array to float64 first")
    return header.dtype
