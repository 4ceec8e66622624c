"""Data sets: your own images by manifest, generated ones, and how they are split."""

from foveate.datasets.manifest import ManifestDataset, read_manifest
from foveate.datasets.megapixel_mnist import MegapixelMnist, megapixel_mnist
from foveate.datasets.open import open_dataset
from foveate.datasets.splits import fill_splits, k_folds

__all__ = [
    "ManifestDataset",
    "MegapixelMnist",
    "fill_splits",
    "k_folds",
    "megapixel_mnist",
    "open_dataset",
    "read_manifest",
]
