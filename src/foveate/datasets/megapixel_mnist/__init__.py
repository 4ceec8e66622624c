"""Megapixel MNIST: canvases of any size, generated from handwritten digits and noise strokes.

What is on a canvas is drawn once (dataset.py); its pixels are made when read, from stamps: digits (digits.py) and
strokes (strokes.py). A canvas depends on the seed, its split and its number alone, and is the same under every
version of NumPy.
"""
