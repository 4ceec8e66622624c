"""Labelled images by which verbs judge a model: the run's own, split as they were in training, or a manifest's."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import DataError, FoveateError

if TYPE_CHECKING:
    from foveate.config.training import RunSettings
    from foveate.datasets.types import ImageDataset
    from foveate.models import Model


def open_images(
    namespace: argparse.Namespace, settings: "RunSettings | None", model: "Model", default: str = "test"
) -> "tuple[ImageDataset, str | None]":
    """The images and the split to take; None where a manifest names no splits, and all images count.

    The run's own images are split as they were in training, by whatever manifest they come, so that no training image
    comes into the test; `default` is the split that is taken unless another is asked for.
    """
    from foveate.datasets import open_dataset, read_manifest
    from foveate.datasets.manifest.rows import Layout
    from foveate.training.folds import join_splits, read_splits

    manifest, split, run = namespace.data, namespace.split, Path(namespace.model)
    layout = Layout.of(namespace.columns, namespace.images)
    own = None if settings is None else settings.data.manifest
    if manifest is None or (own is not None and Path(own).resolve() == Path(manifest).resolve()):
        if settings is None:
            raise DataError("this model has no run folder that says which images to take: give --data MANIFEST")
        dataset = open_dataset(settings.data, settings.seed, check_files=False, numbers=model.kind.numeric)
        if dataset.classes != model.classes:
            raise DataError(
                f"the images have the classes {', '.join(dataset.classes)}, the model {', '.join(model.classes)}: "
                "give --data with the images it was trained for"
            )
        return read_splits(run, dataset), split or default
    images = read_manifest(
        manifest,
        classes=model.classes,
        check_files=False,
        multi_label=model.multi_label,
        layout=layout,
        numbers=model.kind.numeric,
    )
    if any(example.split for example in images.examples):
        return images, split or default
    known = _trained_on(run) if (run / "fold-1").is_dir() else {} if settings is None else _splits(run, settings)
    if any(known.get(example.id) == "train" for example in images.examples):
        return join_splits(images, known), split or default
    if split is not None:
        raise DataError(f"{manifest} names no splits: leave out --split to take all its images, or add a split column")
    return images, None


def _trained_on(folds: Path) -> dict[str, str]:
    """Image id → "train", of all that a fold was trained on: an ensemble of them is judged by others."""
    from foveate.training.folds import any_held_out

    return {example.id: "train" for example in any_held_out(folds)[1].examples}


def _splits(run: Path, settings: "RunSettings") -> dict[str, str]:
    """Image id → split of the run; empty where its images are no longer there."""
    from foveate.datasets import open_dataset
    from foveate.training.folds import read_splits

    numbers = settings.model.head.numeric
    try:
        examples = read_splits(run, open_dataset(settings.data, settings.seed, False, numbers)).examples
    except FoveateError:
        return {}
    return {example.id: example.split for example in examples if example.split is not None}
