"""Data sets: your own images by manifest, published and generated ones, and how they are split."""

from foveate.datasets.colon_cancer import ColonCancer, colon_cancer
from foveate.datasets.german_signs import german_speed_limits
from foveate.datasets.manifest import ManifestDataset, read_manifest
from foveate.datasets.megapixel_mnist import MegapixelMnist, megapixel_mnist
from foveate.datasets.open import open_dataset
from foveate.datasets.sign_scenes import SignScenes
from foveate.datasets.splits import fill_splits, k_folds
from foveate.datasets.swedish_signs import swedish_traffic_signs

__all__ = [
    "ColonCancer",
    "ManifestDataset",
    "MegapixelMnist",
    "SignScenes",
    "colon_cancer",
    "fill_splits",
    "german_speed_limits",
    "k_folds",
    "megapixel_mnist",
    "open_dataset",
    "read_manifest",
    "swedish_traffic_signs",
]
