"""Images of any size, of which only what is asked for is read."""

from foveate.images import augment
from foveate.images.area import Region, area_average
from foveate.images.describe import describe
from foveate.images.formats.arrays import ArraySource, NpySource
from foveate.images.formats.canvas import Canvas
from foveate.images.formats.mosaic import Inset, Mosaic
from foveate.images.formats.openslide import OpenSlideSource
from foveate.images.formats.pillow import PillowSource
from foveate.images.formats.raster import RasterSource
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.formats.tiled import TiledSource
from foveate.images.formats.vips import VipsSource
from foveate.images.formats.zarr import ZarrSource, is_zarr
from foveate.images.header import Georeference, Header, PatchChange, unit_range
from foveate.images.io.open import BROKEN_ZIP
from foveate.images.open import Reader, open_image, open_zip_member
from foveate.images.source import Source
from foveate.images.wrappers.base import original
from foveate.images.wrappers.channels import Bands, Colour
from foveate.images.wrappers.mask import Masked

__all__ = [
    "BROKEN_ZIP",
    "ArraySource",
    "Bands",
    "Canvas",
    "Colour",
    "Georeference",
    "Header",
    "Inset",
    "Masked",
    "Mosaic",
    "NpySource",
    "OpenSlideSource",
    "PatchChange",
    "PillowSource",
    "RasterSource",
    "Reader",
    "Region",
    "Source",
    "TiffSource",
    "TiledSource",
    "VipsSource",
    "ZarrSource",
    "area_average",
    "augment",
    "describe",
    "is_zarr",
    "open_image",
    "open_zip_member",
    "original",
    "unit_range",
]
