"""Training on numbers (regression): labels checked and measured, what is not for numbers, and what a run says of it."""

from collections.abc import Sequence

from foveate.config.training import RunSettings
from foveate.datasets.types import Example, ImageDataset
from foveate.errors import ConfigError, DataError
from foveate.models import Model
from foveate.networks.evidence import has_backbone
from foveate.networks.number import NumberHead


def check_labels(settings: RunSettings, dataset: ImageDataset, indices: Sequence[int]) -> None:
    """Labels check: numbers where these are asked for, and no numbers where classes are; and what is of classes alone.

    Arguments:
        settings: of the run.
        dataset: its images.
        indices: example numbers of the training images.

    Raises:
        ConfigError: a setting is for classes, or labels are numbers and `model.head.kind` is not.
        DataError: a label is no number.
    """
    numbers = [isinstance(dataset.examples[index].label, float) for index in indices]
    if not settings.model.head.numeric:
        if any(numbers):
            raise ConfigError(
                f"labels are numbers, but model.head.kind is {settings.model.head.kind}: set it to number, or give "
                "classes as integers"
            )
        return
    if not all(numbers) or dataset.multi_label:
        one = dataset.examples[indices[0 if dataset.multi_label else numbers.index(False)]]
        raise DataError(
            f"the label of {one.id} is {one.label!r}, no number (float), which model.head.kind number needs: correct "
            "it, or set model.head.kind to classes"
        )
    training = settings.training
    for key, asked in (
        ("training.class_weights balanced is", training.class_weights != "none"),
        ("training.calibrate is", training.calibrate),
    ):
        if asked:
            raise ConfigError(f"{key} for classes, and model.head.kind number answers with a number: leave it out")


def measure_labels(model: Model, dataset: ImageDataset, indices: Sequence[int]) -> None:
    """Mean and deviation of the training labels, taken in by a head that answers with numbers.

    Raises:
        DataError: they are all one number.
    """
    if isinstance(model.head, NumberHead):
        labels = (dataset.examples[index].label for index in indices)
        model.head.measure([label for label in labels if isinstance(label, float)])


def number_lines(settings: RunSettings, training: Sequence[Example], model: Model) -> list[str]:
    """Lines before the first step: which numbers are learnt from; and that no evidence is sought for them."""
    if not isinstance(model.head, NumberHead):
        return []
    labels = [one.label for one in training if isinstance(one.label, float)]
    mean, deviation = float(model.head.get_buffer("mean")), float(model.head.get_buffer("deviation"))
    spread = f"{min(labels):.4g} to {max(labels):.4g}, mean {mean:.4g}, standard deviation {deviation:.4g}"
    lines = [f"numbers: {spread}; errors are in their unit, losses in squared deviations"]
    if has_backbone(settings.model.attention) and settings.training.find.starts > 0:
        lines.append(
            "note: nothing is found first (training.find), which looks for classes: attention learns from the numbers "
            "alone"
        )
    return lines
