"""Conversion of images to tiled pyramids, TIFF or OME-Zarr, which are read in parts."""

from foveate.convert.run import convert
from foveate.convert.settings import Conversion

__all__ = ["Conversion", "convert"]
