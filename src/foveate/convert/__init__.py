"""Conversion of images to tiled pyramids, TIFF or OME-Zarr, which are read in parts."""

from foveate.convert.run import convert, open_stream
from foveate.convert.settings import Conversion

__all__ = ["Conversion", "convert", "open_stream"]
