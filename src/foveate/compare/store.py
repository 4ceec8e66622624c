"""Predictions of a trial on its test images and its learning curve, stored so that nothing is computed twice."""

import itertools
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from foveate.atomic import replace_file
from foveate.errors import RunError
from foveate.evaluation.coverage import Coverage
from foveate.training.run_folder import read_metrics

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Stored = TypeVar("Stored")


def write_record(path: Path, value: "DataclassInstance") -> None:
    """JSON file of a dataclass, written in one go.

    Arguments:
        path: the file to write.
        value: the dataclass.
    """
    replace_file(path, (json.dumps(asdict(value)) + "\n").encode())


def read_record(path: Path, made_of: Callable[[dict[str, Any]], Stored], remedy: str) -> Stored | None:
    """JSON file of a dataclass, read back; None if there is no file.

    Arguments:
        path: the file.
        made_of: makes it of what JSON holds.
        remedy: what to do about a damaged file.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return made_of(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is damaged: {remedy}") from error


SMOOTHED = 16
"""Logged steps, at the least, whose mean makes a point of the curve: 512 images at 32 a step."""

EARLY, LATE = 100, 100
"""Points of a curve, at the most: as fine as can be, to tell when a run begins to learn; and the rest of it."""


class Step(NamedTuple):
    """Point of a learning curve, along a run.

    Attributes:
        step: steps taken by then.
        seconds: of the whole run until then.
        loss: as it is minimised, mean over the logged steps since the point before.
        error: training error, likewise.
    """

    step: int
    seconds: float
    loss: float
    error: float


class Epoch(NamedTuple):
    """Point of a learning curve, after an epoch.

    Attributes:
        step: steps taken by then.
        epoch: its number, counted from 1.
        seconds: of the whole run until then.
        training_loss: cross-entropy of the epoch's images, as they were seen.
        training_error: error, likewise.
        validation_error: None where it was not measured.
        validation_covered: objects covered per validation image; None where it was not measured.
    """

    step: int
    epoch: int
    seconds: float
    training_loss: float
    training_error: float
    validation_error: float | None
    validation_covered: float | None


@dataclass(frozen=True)
class Curve:
    """Learning curve of a run.

    Attributes:
        steps: points along the run.
        epochs: all of them.
    """

    steps: tuple[Step, ...]
    epochs: tuple[Epoch, ...]


def read_curve(folder: Path) -> Curve:
    """Learning curve of a run, from its metrics.jsonl.

    Arguments:
        folder: of the run.
    """
    journal = folder / "metrics.jsonl"
    logged = [one for one in read_metrics(journal, "step") if "error" in one]  # older versions wrote none
    border = EARLY * SMOOTHED
    steps = _points(logged[:border], SMOOTHED)
    steps += _points(logged[border:], max(SMOOTHED, math.ceil((len(logged) - border) / LATE)))
    known = {"validation_covered": None}  # older versions wrote none
    epochs = [Epoch(**{name: (known | one)[name] for name in Epoch._fields}) for one in read_metrics(journal, "epoch")]
    return Curve(tuple(steps), tuple(epochs))


def _points(logged: list[dict[str, Any]], size: int) -> list[Step]:
    """Means over so many logged steps each; what is left over at the end makes no point."""
    steps = []
    for start in range(0, len(logged) - size + 1, size):
        part = logged[start : start + size]
        loss, error = (sum(one[key] for one in part) / size for key in ("loss", "error"))
        steps.append(Step(part[-1]["step"], part[-1]["seconds"], round(loss, 5), round(error, 5)))
    return steps


def curve_from_plain(plain: dict[str, Any]) -> Curve:
    """Learning curve from what `dataclasses.asdict` and JSON made of it."""
    return Curve(tuple(Step(*row) for row in plain["steps"]), tuple(Epoch(*row) for row in plain["epochs"]))


def begun(curve: Curve, below: float) -> int | None:
    r"""Start of learning: the first point of a run's curve whose training error is below a limit, chance level left.

    .. math:: \min \{ t : \bar e_t < \text{limit} \}

    Arguments:
        curve: of the run.
        below: the limit, e.g. 0.8 where ten equally frequent classes leave a guess wrong in 0.9 of the images.

    Returns:
        Steps taken by then; None if there is no such point.

    Example:
        >>> begun(Curve((Step(16, 2.0, 2.3, 0.9), Step(32, 4.0, 2.0, 0.7)), ()), below=0.8)
        32
    """
    return next((one.step for one in curve.steps if one.error < below), None)


def seconds_per_step(folder: Path, skip: int = 0) -> float:
    """Pace of a run: median seconds of a training step, data work included and validation not, by metrics.jsonl.

    Between two logged steps of an epoch where there are such; else over whole epochs.

    Arguments:
        folder: of the run.
        skip: leave out so many steps at the start.
    """
    journal = folder / "metrics.jsonl"
    steps = [record for record in read_metrics(journal, "step") if record["step"] > skip]
    spans: list[float] = [
        (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in itertools.pairwise(steps)
        if before["epoch"] == after["epoch"]
    ]
    epochs: list[dict[str, Any]] = [{"step": 0}, *read_metrics(journal, "epoch")]
    whole = [
        epoch["training_seconds"] / (epoch["step"] - before["step"])
        for before, epoch in itertools.pairwise(epochs)
        if epoch["step"] > before["step"]
    ]
    return float(statistics.median(spans or whole))


PREDICTIONS = "predictions.json"
"""File in a run's folder."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of one run on its test images, and what the run took.

    Attributes:
        method: its name.
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
        settings: of the run, as plain values, without the place of the images; None in a frozen record.
        fingerprint: of the ids, labels and splits of all images of the run; None in a frozen record.
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
    settings: dict[str, Any] | None = None
    fingerprint: int | None = None
    curve: Curve | None = None
    coverage: Coverage | None = None
    minutes: float | None = None


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Predictions written into a run's folder, in one go."""
    write_record(folder / PREDICTIONS, predictions)


def read_predictions(folder: Path) -> Predictions | None:
    """Predictions read from a run's folder; None if there are none.

    Raises:
        RunError: the file is damaged.
    """
    return read_record(folder / PREDICTIONS, _from_plain, "delete it to predict the test images again")


def finished_runs(folder: Path, method: str) -> list[Predictions]:
    """Predictions of all runs of a method, by seed and fold.

    Arguments:
        folder: of a comparison.
        method: its name.

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
