"""Image formats: one file for each, behind one base class; `foveate.images.open` chooses among them."""
