"""Tags of a TIFF that tell what its pixels mean: microns, bands, nodata, and where on the earth they lie."""

from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from foveate.errors import ImageError
from foveate.images.header import Georeference, Header

__all__ = ["ExtraTag", "meaning_tags", "resolution"]

ExtraTag = tuple[int, int, int, Any, bool]
"""Number, type, count (0: as many as there are), value, and whether it is written once only: as tifffile wants it."""

ASCII = 2

GEOTIFF = (33550, 33922, 34264, 34735, 34736, 34737)
"""Pixel scale, tie points, transformation, keys, and their numbers and texts: OGC GeoTIFF 1.1, section 7."""

GDAL_METADATA, GDAL_NODATA = 42112, 42113


def resolution(mpp: float | None, factor: float) -> dict[str, Any]:
    """What tifffile is to write about the size of a pixel.

    Arguments:
        mpp: microns per level-0 pixel.
        factor: of the level.
    """
    if mpp is None:
        return {}
    per_centimetre = 10_000 / (mpp * factor)
    return {"resolution": (per_centimetre, per_centimetre), "resolutionunit": "CENTIMETER"}


def meaning_tags(header: Header, name: str) -> list[ExtraTag]:
    """Bands and nodata as GDAL writes them, and the georeference as GeoTIFF does.

    Raises:
        ImageError: if there is a georeference and no rasterio to write it.
    """
    tags: list[ExtraTag] = []
    if header.bands:
        items = "".join(
            f'<Item name="DESCRIPTION" sample={quoteattr(str(number))} role="description">{escape(band)}</Item>'
            for number, band in enumerate(header.bands)
        )
        tags.append((GDAL_METADATA, ASCII, 0, f"<GDALMetadata>{items}</GDALMetadata>", True))
    if header.nodata is not None:
        tags.append((GDAL_NODATA, ASCII, 0, f"{header.nodata:.17g}", True))
    if header.georeference is not None:
        tags += _geotiff(header.georeference, name)
    return tags


def _geotiff(where: Georeference, name: str) -> list[ExtraTag]:
    """The tags that rasterio writes of a place; the keys are too many to be written by hand."""
    try:
        import rasterio
    except ImportError as error:
        raise ImageError(f"{name}: to keep where on the earth it lies: pip install 'foveate[geo]'") from error
    import numpy as np
    import tifffile

    with rasterio.MemoryFile() as memory:
        profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
        transform = rasterio.Affine(*where.transform)
        with memory.open(**profile, crs=where.crs or None, transform=transform) as one:
            one.write(np.zeros((1, 1, 1), np.uint8))
        with tifffile.TiffFile(BytesIO(memory.read())) as tiff:
            page = tiff.pages.first
            found = [page.tags.get(code) for code in GEOTIFF]
            return [
                (tag.code, int(tag.dtype), 0 if isinstance(tag.value, str) else tag.count, tag.value, True)
                for tag in found
                if tag is not None
            ]
