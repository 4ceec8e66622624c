"""Any image as one that is read in parts: a tiled pyramid, as TIFF or as OME-Zarr."""

from foveate.convert.run import convert
from foveate.convert.settings import Conversion

__all__ = ["Conversion", "convert"]
