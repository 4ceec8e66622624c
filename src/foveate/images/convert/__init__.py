"""Any image as one that is read in parts: a tiled pyramid, as TIFF or as OME-Zarr."""

from foveate.images.convert.run import convert
from foveate.images.convert.settings import Conversion

__all__ = ["Conversion", "convert"]
