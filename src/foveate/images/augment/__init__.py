"""Augmentation of images: random changes of images and patches that stay lazy."""

from foveate.images.augment.image import Augmented, Change, draw_change

__all__ = ["Augmented", "Change", "draw_change"]
