"""Viewer: a local page with deep zoom over images, the heatmaps over them, and what a model said of them."""

from foveate.view.gallery import Gallery
from foveate.view.pyramid import Pyramid, tile_pixels
from foveate.view.server import ViewServer

__all__ = ["Gallery", "Pyramid", "ViewServer", "tile_pixels"]
