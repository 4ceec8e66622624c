"""Data sets: your own images by manifest, published and generated ones, and how they are split."""

from foveate.datasets.manifest.dataset import ManifestDataset, read_manifest
from foveate.datasets.megapixel_mnist.dataset import MegapixelMnist, megapixel_mnist
from foveate.datasets.open import open_dataset
from foveate.datasets.published.colon_cancer import ColonCancer, colon_cancer
from foveate.datasets.published.german import german_speed_limits
from foveate.datasets.published.scenes import SignScenes
from foveate.datasets.published.swedish import swedish_traffic_signs
from foveate.datasets.splits import fill_splits, k_folds

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
