"""How a run learnt: a small excerpt of its metrics.jsonl, kept with its predictions."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foveate.training.journal import read_journal

__all__ = ["Curve", "Epoch", "Step", "begun", "curve_from_plain", "read_curve"]

SMOOTHED = 16
"""Logged steps, at the least, whose mean makes a point of the curve: 512 images at 32 a step."""

EARLY, LATE = 100, 100
"""Points of a curve, at the most: as fine as can be, to tell when a run begins to learn; and the rest of it."""


class Step(NamedTuple):
    """A point along a run.

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
    """A run after an epoch.

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
    """How a run learnt.

    Attributes:
        steps: points along the run.
        epochs: all of them.
    """

    steps: tuple[Step, ...]
    epochs: tuple[Epoch, ...]


def read_curve(folder: Path) -> Curve:
    """The curve of a run, from its metrics.jsonl.

    Arguments:
        folder: of the run.
    """
    journal = folder / "metrics.jsonl"
    logged = [one for one in read_journal(journal, "step") if "error" in one]  # older versions wrote none
    border = EARLY * SMOOTHED
    steps = _points(logged[:border], SMOOTHED)
    steps += _points(logged[border:], max(SMOOTHED, math.ceil((len(logged) - border) / LATE)))
    known = {"validation_covered": None}  # older versions wrote none
    epochs = [Epoch(**{name: (known | one)[name] for name in Epoch._fields}) for one in read_journal(journal, "epoch")]
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
    """A curve from what `dataclasses.asdict` and JSON made of it."""
    return Curve(tuple(Step(*row) for row in plain["steps"]), tuple(Epoch(*row) for row in plain["epochs"]))


def begun(curve: Curve, below: float) -> int | None:
    r"""When a run had left chance level: the first point of its curve whose training error is below a limit.

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
