"""Opening a data set from settings, with a split for every image."""

from collections.abc import Callable
from dataclasses import replace

from foveate.config.settings import DataSettings
from foveate.datasets.manifest.dataset import ManifestDataset, read_manifest
from foveate.datasets.manifest.rows import Layout
from foveate.datasets.megapixel_mnist.dataset import megapixel_mnist
from foveate.datasets.published.circuit_boards import circuit_boards
from foveate.datasets.published.colon_cancer import ColonCancer, colon_cancer
from foveate.datasets.published.german import german_speed_limits
from foveate.datasets.published.scenes import SignScenes
from foveate.datasets.published.swedish import swedish_traffic_signs
from foveate.datasets.splits import fill_splits
from foveate.datasets.types import ImageDataset
from foveate.errors import ArgumentTypeError, ConfigError, DataError

_PUBLISHED: dict[str, tuple[Callable[[str], ColonCancer | SignScenes], str]] = {
    "colon-cancer": (colon_cancer, "CRCHistoPhenotypes_2016_04_28.zip, or the folder it unpacks to"),
    "speed-limits": (swedish_traffic_signs, "the folder with Set1/ and Set2/ of Swedish Traffic Signs"),
    "german-speed-limits": (german_speed_limits, "the folder with gt.txt and images/ of the German scenes"),
}
"""Source → its reader, and what it wants to read."""


def open_dataset(
    settings: DataSettings, seed: int = 0, check_files: bool = True, numbers: bool = False
) -> ImageDataset:
    """Data set of the images that settings name, opened for training.

    Arguments:
        settings: where images and labels come from, and the shares to hold out.
        seed: seed of the splits that the data do not name.
        check_files: whether files of a manifest that are missing are an error now rather than when opened.
        numbers: whether labels are numbers instead of classes, as `model.head.kind` "number" wants them.

    Returns:
        The data set; every example's split is "train", "validation" or "test".

    Raises:
        ConfigError: if a manifest or published files are wanted and none are set, or numbers of images that have none.
        DataError: if the manifest or the published files have faults, files are missing, there is one class only, or
            nothing to train on.

    Example:
        >>> data = open_dataset(DataSettings(source="megapixel-mnist", train_images=50, test_images=9))
        >>> [sum(example.split == split for example in data.examples) for split in ("train", "validation", "test")]
        [45, 5, 9]
    """
    if not isinstance(settings, DataSettings):
        raise ArgumentTypeError(
            f"settings must be DataSettings, got {type(settings).__name__}: DataSettings(manifest='images.csv')"
        )
    if numbers and (settings.source != "manifest" or settings.multi_label):
        what = "several labels an image" if settings.multi_label else f"images of {settings.source}, which have classes"
        raise ConfigError(
            f"model.head.kind number needs a number an image, got {what}: give --data MANIFEST with numbers in the "
            "column label, or set model.head.kind to classes"
        )
    if settings.source == "megapixel-mnist":
        canvases = megapixel_mnist(settings)
        return replace(canvases, examples=tuple(fill_splits(canvases.examples, settings.validation, 0.0, seed)))
    if settings.source == "circuit-boards":
        return circuit_boards(settings)
    images = _manifest(settings, check_files, numbers) if settings.source == "manifest" else _published(settings)
    examples = fill_splits(
        images.examples, settings.validation, settings.test, seed, allow_crossing=settings.allow_crossing_groups
    )
    if all(example.split != "train" for example in examples):
        raise DataError(
            f"no image of {settings.manifest} is left to train on: its split column must name some train"
            if settings.source == "manifest"
            else f"no image of {settings.published} is left to train on: lower data.test or data.validation"
        )
    return replace(images, examples=tuple(examples))


def named_manifest(settings: DataSettings, check_files: bool = True, numbers: bool = False) -> ManifestDataset:
    """Images of the manifest that settings name, as `foveate.datasets.read_manifest` reads it."""
    assert settings.manifest is not None
    layout, several = Layout.of(settings.columns, settings.images), settings.multi_label
    return read_manifest(
        settings.manifest, check_files=check_files, multi_label=several, layout=layout, numbers=numbers
    )


def _manifest(settings: DataSettings, check_files: bool, numbers: bool) -> ManifestDataset:
    if settings.manifest is None:
        raise ConfigError("no images to train on: give --data MANIFEST, a CSV file or a folder with a folder per class")
    images = named_manifest(settings, check_files, numbers)
    if numbers:
        return images
    if settings.multi_label and not images.classes:
        raise DataError(f"no image of {settings.manifest} has a label: a classifier needs a class at least")
    if not settings.multi_label and len(images.classes) < 2:
        raise DataError(
            f"every image of {settings.manifest} has the label {images.classes[0]!r}: a classifier needs two classes"
        )
    return images


def _published(settings: DataSettings) -> ColonCancer | SignScenes:
    read, wanted = _PUBLISHED[settings.source]
    if settings.multi_label:
        raise ConfigError(f"images of {settings.source} have one label each: leave data.multi_label out")
    if settings.published is None:
        raise ConfigError(f"the files of {settings.source} are not named: give --data.published PATH, {wanted}")
    return read(settings.published)
