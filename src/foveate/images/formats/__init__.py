"""One file per image format, behind one base class; `foveate.images.open` chooses among them."""
