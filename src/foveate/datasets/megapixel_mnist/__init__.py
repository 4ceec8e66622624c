"""Megapixel MNIST: canvases of any size, generated from handwritten digits."""
