"""TIFF family: classic and BigTIFF, slides and pyramids among them."""
