"""What a trained model said of its test images, kept so that nothing is ever computed twice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.compare.curve import Curve, curve_from_plain
from foveate.compare.kept import read_kept, write_kept
from foveate.training.coverage import Coverage

__all__ = ["PREDICTIONS", "Predictions", "finished_runs", "read_predictions", "write_predictions"]

PREDICTIONS = "predictions.json"
"""File in a run's folder."""


@dataclass(frozen=True)
class Predictions:
    """One run's answers on its test images, and what the run took.

    Attributes:
        method: name of the entrant.
        seed: of the run.
        fold: which fold tested, counted from 1; None without folds.
        classes: names of the classes, in the order of the probabilities.
        multi_label: whether an image may have several classes.
        ids: of the n test images, sorted.
        groups: group of each image, or None.
        labels: class number of each image; with several labels, the numbers of its classes.
        probabilities: n × classes, to seven digits.
        error: share of the test images that are wrong; with several labels, of the answers.
        loss: mean cross-entropy of the test images, in nats.
        training_loss: mean loss of the last epoch, as it was minimised.
        training_error: error of the last epoch, on the images as they were shown.
        epochs: epochs trained.
        steps: steps trained.
        seconds: of training and validation.
        test_seconds: of prediction on the test images.
        patches_per_image: full-resolution patches read per prediction, on average.
        settings: of the run, as plain values, without the place of the images.
        fingerprint: of the ids, labels and splits of all images of the run.
        curve: how it learnt; None in files of older versions.
        coverage: how many objects of the test images were covered; None where none are known.
        minutes: of training it was given, by which its steps were settled; None if it trained as its settings say.
    """

    method: str
    seed: int
    fold: int | None
    classes: tuple[str, ...]
    multi_label: bool
    ids: tuple[str, ...]
    groups: tuple[str | None, ...]
    labels: tuple[int | tuple[int, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]
    error: float
    loss: float
    training_loss: float
    training_error: float
    epochs: int
    steps: int
    seconds: float
    test_seconds: float
    patches_per_image: float
    settings: dict[str, Any]
    fingerprint: int
    curve: Curve | None = None
    coverage: Coverage | None = None
    minutes: float | None = None


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Keep predictions in a run's folder, in one go."""
    write_kept(folder / PREDICTIONS, predictions)


def read_predictions(folder: Path) -> Predictions | None:
    """The predictions kept in a run's folder; None if there are none.

    Raises:
        RunError: the file is damaged.
    """
    return read_kept(folder / PREDICTIONS, _from_plain, "delete it to predict the test images again")


def finished_runs(folder: Path, method: str) -> list[Predictions]:
    """The predictions of all runs of a method, by seed and fold.

    Arguments:
        folder: of a comparison.
        method: name of the entrant.

    Raises:
        RunError: a file is damaged.
    """
    found = [read_predictions(path.parent) for path in folder.glob(f"{method}/**/{PREDICTIONS}")]
    return sorted((one for one in found if one is not None), key=lambda one: (one.seed, one.fold or 0))


def _from_plain(plain: dict[str, Any]) -> Predictions:
    for key in ("classes", "ids", "groups"):
        plain[key] = tuple(plain[key])
    plain["labels"] = tuple(tuple(one) if isinstance(one, list) else one for one in plain["labels"])
    plain["probabilities"] = tuple(tuple(row) for row in plain["probabilities"])
    for key, read in (("curve", curve_from_plain), ("coverage", lambda one: Coverage(**one))):
        plain[key] = None if plain.get(key) is None else read(plain[key])
    return Predictions(**plain)
