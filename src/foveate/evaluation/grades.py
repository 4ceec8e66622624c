"""Scores of grades: how far answers are off where classes have an order, by quadratic weighted kappa and in grades."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.evaluation.intervals import bootstrap_interval, interval, unit_names

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class GradeScores:
    """Scores of grades, with 95 % intervals by bootstrap over images or, where these are given, groups.

    Attributes:
        kappa: quadratic weighted kappa, 1 if all is right and 0 by chance; None where there is but one grade.
        kappa_interval: its interval; None likewise.
        mean_absolute_error: how many grades the answers are off.
        mean_absolute_error_interval: its interval.
    """

    kappa: float | None
    kappa_interval: tuple[float, float] | None
    mean_absolute_error: float
    mean_absolute_error_interval: tuple[float, float]

    def plain(self) -> dict[str, object]:
        """What `foveate evaluate` writes."""
        return {
            "quadratic_weighted_kappa": self.kappa,
            "quadratic_weighted_kappa_interval": None if self.kappa_interval is None else list(self.kappa_interval),
            "mean_absolute_error": self.mean_absolute_error,
            "mean_absolute_error_interval": list(self.mean_absolute_error_interval),
        }


def quadratic_weighted_kappa(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> float | None:
    r"""Quadratic weighted kappa: agreement beyond chance, where being off by two grades counts four times.

    .. math:: \kappa = 1 - \frac{\overline{(r - s)^2}}{\overline{r^2} + \overline{s^2} - 2\, \bar r\, \bar s}

    r and s are grades by truth and by answer; below stands what the numerator would be were they independent.

    Source: Cohen, "Weighted Kappa: Nominal Scale Agreement with Provision for Scaled Disagreement or Partial Credit"
    (Psychological Bulletin 1968).

    Arguments:
        truth: (n,) grades, 0 the lowest.
        answers: (n,) likewise.

    Returns:
        At most 1; None where all grades, by truth and by answer, are one.

    Example:
        >>> quadratic_weighted_kappa(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]))
        0.8
    """
    moments = _moments(truth, answers).mean(0)
    return None if _chance(moments) == 0 else _kappa(moments)


def grade_scores(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    order: Sequence[int],
    groups: Sequence[str | None] = (),
) -> GradeScores | None:
    """Scores of grades, the answer being the most probable class.

    Arguments:
        labels: (n,) class numbers.
        probabilities: (n, classes).
        order: numbers of the classes, the lowest first; empty where they have none.
        groups: of the images, which are drawn again as a whole; None is one of its own, as are all if empty.

    Returns:
        The scores; None where classes have no order.

    Example:
        >>> answers = np.array([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
        >>> grade_scores(np.array([0, 2]), answers, order=(0, 1, 2)).mean_absolute_error
        0.5
    """
    if not order:
        return None
    units = unit_names(groups or (None,) * len(labels))
    ranks = np.argsort(np.array(order))
    truth, answers = ranks[labels], ranks[probabilities.argmax(1)]
    off = np.abs(truth - answers)
    kappa = quadratic_weighted_kappa(truth, answers)
    return GradeScores(
        kappa=kappa,
        kappa_interval=None if kappa is None else _kappa_interval(truth, answers, units),
        mean_absolute_error=float(off.mean()),
        mean_absolute_error_interval=bootstrap_interval(off.tolist(), units, RESAMPLES),
    )


def _kappa_interval(
    truth: NDArray[np.int64], answers: NDArray[np.int64], units: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """Interval of kappa, of the resamples that have one."""
    names, member = np.unique(np.asarray(units), return_inverse=True)
    sums = np.zeros((len(names), 6))
    np.add.at(sums, member, _moments(truth, answers))
    generator, found = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        drawn = sums[generator.integers(len(names), size=len(names))].sum(0)
        moments = drawn / drawn[5]
        if _chance(moments) > 0:
            found.append(_kappa(moments))
    return interval(np.array(found or [float("nan")]))


def _moments(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 6) of each image: squared difference, squares, grades, 1."""
    r, s = truth.astype(np.float64), answers.astype(np.float64)
    return np.stack([np.square(r - s), np.square(r), np.square(s), r, s, np.ones_like(r)], 1)


def _chance(moments: NDArray[np.float64]) -> float:
    return round(float(moments[1] + moments[2] - 2 * moments[3] * moments[4]), 12)


def _kappa(moments: NDArray[np.float64]) -> float:
    return 1.0 - float(moments[0]) / _chance(moments)
