"""From settings to a data set every image of which has a split."""

from dataclasses import replace

from foveate.datasets.manifest import read_manifest
from foveate.datasets.megapixel_mnist import megapixel_mnist
from foveate.datasets.splits import fill_splits
from foveate.errors import ConfigError, DataError
from foveate.settings import DataSettings
from foveate.types import ImageDataset

__all__ = ["open_dataset"]


def open_dataset(settings: DataSettings, seed: int = 0) -> ImageDataset:
    """Open the images that settings describe, for training.

    Arguments:
        settings: where images and labels come from, and the shares to hold out.
        seed: seed of the splits that the data do not name.

    Returns:
        The data set; every example's split is "train", "validation" or "test".

    Raises:
        ConfigError: if a manifest is wanted and none is set.
        DataError: if the manifest has faults, files are missing, there is one class only, or nothing to train on.

    Example:
        >>> data = open_dataset(DataSettings(source="megapixel-mnist", train_images=50, test_images=9))
        >>> [sum(example.split == split for example in data.examples) for split in ("train", "validation", "test")]
        [45, 5, 9]
    """
    if settings.source == "megapixel-mnist":
        canvases = megapixel_mnist(settings)
        return replace(canvases, examples=tuple(fill_splits(canvases.examples, settings.validation, 0.0, seed)))
    if settings.manifest is None:
        raise ConfigError("no images to train on: give --data MANIFEST, a CSV file or a folder with a folder per class")
    images = read_manifest(settings.manifest)
    if len(images.classes) < 2:
        raise DataError(
            f"every image of {settings.manifest} has the label {images.classes[0]!r}: a classifier needs two classes"
        )
    examples = tuple(fill_splits(images.examples, settings.validation, settings.test, seed))
    if all(example.split != "train" for example in examples):
        raise DataError(f"no image of {settings.manifest} is left to train on: its split column must name some train")
    return replace(images, examples=examples)
