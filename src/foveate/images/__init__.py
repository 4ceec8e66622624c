"""Images of any size, of which only what is asked for is read."""

from foveate.images import augment
from foveate.images.average import Region, area_average
from foveate.images.bands import Bands
from foveate.images.colour import Colour
from foveate.images.describe import describe
from foveate.images.formats.array import ArraySource
from foveate.images.formats.canvas import Canvas
from foveate.images.formats.member import BROKEN_ZIP
from foveate.images.formats.npy import NpySource
from foveate.images.formats.openslide import OpenSlideSource
from foveate.images.formats.pillow import PillowSource, open_zip_member
from foveate.images.formats.raster import RasterSource
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.formats.vips import VipsSource
from foveate.images.formats.zarr import ZarrSource, is_zarr
from foveate.images.gather import gather
from foveate.images.header import Georeference, Header
from foveate.images.masks import Masked
from foveate.images.open import Reader, open_image
from foveate.images.patch_change import PatchChange, change_patches
from foveate.images.pixels import unit_range
from foveate.images.source import Source
from foveate.images.tiles import TiledSource
from foveate.images.view import check_view, make_guide, make_view, pad_views, view_size
from foveate.images.wrapper import original

__all__ = [
    "BROKEN_ZIP",
    "ArraySource",
    "Bands",
    "Canvas",
    "Colour",
    "Georeference",
    "Header",
    "Masked",
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
    "change_patches",
    "check_view",
    "describe",
    "gather",
    "is_zarr",
    "make_guide",
    "make_view",
    "open_image",
    "open_zip_member",
    "original",
    "pad_views",
    "unit_range",
    "view_size",
]
