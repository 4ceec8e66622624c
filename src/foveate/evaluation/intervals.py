"""Confidence intervals: Wilson, bootstrap over images or groups, jointly for runs of a comparison; DeLong's of AUC."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.evaluation.scores import one_hot

BLOCK = 4_000_000
"""Numbers drawn at a time."""

Z = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(errors: float, n: int) -> tuple[float, float]:
    r"""Wilson interval, the 95 % score interval of a proportion.

    .. math:: \frac{p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Arguments:
        errors: number of wrong answers; a fraction where answers are partly wrong.
        n: number of answers, at least 1.

    Returns:
        Lower and upper bound, in [0, 1].

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(10, 100)]
        [0.0552, 0.1744]
        >>> wilson_interval(0, 5)[0], wilson_interval(5, 5)[1]
        (0.0, 1.0)
    """
    p, z2 = errors / n, Z * Z
    middle = p + z2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    return low if errors else 0.0, high if errors < n else 1.0  # exactly, not but for what rounding leaves


def bootstrap_interval(
    wrong: Sequence[float], groups: Sequence[str], seed: int = 0, resamples: int = 4000
) -> tuple[float, float]:
    """Group bootstrap: 95 % percentile interval of the error when whole groups are drawn again, with replacement.

    Images of one patient or scene are not independent; resampling groups keeps their dependence
    (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 8).

    Arguments:
        wrong: one value per image, in [0, 1].
        groups: the group of each image.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        Lower and upper bound, in [0, 1].

    Example:
        >>> bootstrap_interval([True, True, False, False], ["a", "a", "b", "b"])
        (0.0, 1.0)
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(member, minlength=len(names))
    errors = np.bincount(member, weights=np.asarray(wrong, dtype=np.float64), minlength=len(names))
    generator, shares = np.random.default_rng(seed), np.empty(resamples)
    # Numbers of units, not counts of each as in `resampled_errors`: of 10,000 units they are drawn seven times as fast.
    for resample in range(resamples):
        drawn = generator.integers(len(names), size=len(names))
        shares[resample] = errors[drawn].sum() / sizes[drawn].sum()
    return interval(shares)


def error_interval(wrong: Sequence[float], groups: Sequence[str | None]) -> tuple[float, float]:
    """Confidence interval (95 %) of the error: Wilson's where each image is alone and right or wrong, else bootstrap.

    Otherwise: where a group has several images, or an image is partly wrong because it has several labels. Where no
    resample differs from another (no group is wrong in anything), it is Wilson's over the groups.

    Arguments:
        wrong: one value per image, in [0, 1]; at least one.
        groups: the group of each image; None is a group of its own.

    Example:
        >>> error_interval([True, False, False], [None, None, None]) == wilson_interval(1, 3)
        True
    """
    named = unit_names(groups)
    partly = any(one not in (0, 1) for one in wrong)
    if partly or len(set(named)) < len(named):
        low, high = bootstrap_interval(wrong, named)
        units = len(set(named))
        return (low, high) if low < high else wilson_interval(units * sum(wrong) / len(wrong), units)
    return wilson_interval(sum(bool(one) for one in wrong), len(wrong))


def unit_names(groups: Sequence[str | None]) -> list[str]:
    """Resampling units, drawn again as a whole: the group of each image, or the image where it has none.

    Example:
        >>> unit_names(["p", None, "p"])
        ['group p', '1', 'group p']
    """
    return [f"{number}" if group is None else f"group {group}" for number, group in enumerate(groups)]


@dataclass(frozen=True)
class Tally:
    """Tally of what one method got wrong, by run seed and by resampling unit (an image or a group).

    Attributes:
        errors: (seeds, units) sum of the errors on a unit's images in the runs of a seed.
        counts: (seeds, units) number of these images; 0 where a seed did not test a unit.
    """

    errors: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The mean over seeds of the share of images that are wrong."""
        return float(np.mean(self.seed_errors))

    @property
    def seed_errors(self) -> NDArray[np.float64]:
        """(seeds,) the share of images that are wrong, folds pooled."""
        shares: NDArray[np.float64] = self.errors.sum(1) / self.counts.sum(1)
        return shares


def tally(wrong: Sequence[Sequence[tuple[str, float]]], units: Sequence[str]) -> Tally:
    """Tally: add up errors.

    Arguments:
        wrong: for every seed, a (unit, error) per image tested.
        units: names of all units.
    """
    place = {unit: number for number, unit in enumerate(units)}
    errors, counts = (np.zeros((len(wrong), len(units))) for _ in range(2))
    for seed, images in enumerate(wrong):
        for unit, error in images:
            errors[seed, place[unit]] += error
            counts[seed, place[unit]] += 1
    return Tally(errors, counts)


def resampled_errors(tallies: Sequence[Tally], resamples: int = 10_000, seed: int = 0) -> list[NDArray[np.float64]]:
    r"""Paired bootstrap: errors of several methods on the same samples.

    .. math:: e^*_r = \frac1S \sum_s \frac{\sum_g c_{rg} E_{sg}}{\sum_g c_{rg} N_{sg}},
              \qquad c_r \sim \mathrm{Multinomial}(G;\ 1/G, \dots, 1/G)

    Units, not runs, are drawn again: a unit that is drawn twice counts twice in all seeds, folds and methods, so that
    differences of methods are paired (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 8). The
    chance of training is not in these intervals; the errors of the seeds show it.

    Arguments:
        tallies: of the methods, over the same G units.
        resamples: number R of bootstrap samples.
        seed: of the resampling.

    Returns:
        (R,) errors of each method, NaN where a sample holds none of its images.

    Example:
        >>> one = Tally(np.array([[1.0, 1.0]]), np.array([[1.0, 1.0]]))
        >>> resampled_errors([one], resamples=3)[0].tolist()
        [1.0, 1.0, 1.0]
    """
    units = tallies[0].errors.shape[1]
    parts: list[list[NDArray[np.float64]]] = [[] for _ in tallies]
    generator, even, step = np.random.default_rng(seed), np.full(units, 1 / units), max(1, BLOCK // units)
    for start in range(0, resamples, step):
        drawn = generator.multinomial(units, even, size=min(step, resamples - start)).astype(np.float64)
        for part, one in zip(parts, tallies, strict=True):
            tested = drawn @ one.counts.T
            with np.errstate(invalid="ignore", divide="ignore"):
                shares = np.where(tested > 0, drawn @ one.errors.T / tested, np.nan)
            known = np.isfinite(shares)
            part.append(np.where(known, shares, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan))
    return [np.concatenate(part) for part in parts]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval: the central 95 % of bootstrap values, NaN left out.

    Example:
        >>> interval(np.arange(201.0))
        (5.0, 195.0)
    """
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class AreaNoise:
    """Area under the ROC curve, and how far each unit (an image or a group) moves it.

    Attributes:
        area: the area; of more than two classes the mean of each against the rest.
        influence: unit → its share of the deviation from the true area; the variance is the sum of their squares.
        positives: number of units that have the rarest class of those that count; `negatives`, that lack it.
        negatives: see there.
    """

    area: float
    influence: dict[str, float]
    positives: int
    negatives: int


def area_noise(labels: NDArray[np.int64], probabilities: NDArray[np.float64], units: Sequence[str]) -> AreaNoise | None:
    r"""Influence of each unit on AUC: DeLong's structural components, summed by unit as Obuchowski does.

    .. math:: V_i = \frac1n \sum_j \psi(x_i, y_j), \qquad
              \widehat{\operatorname{Var}}(A) = \sum_g \Bigl(
              \sqrt{\tfrac{m_g}{m_g - 1}} \sum_{i \in g} \frac{V_i - A}{m}
              + \sqrt{\tfrac{n_g}{n_g - 1}} \sum_{j \in g} \frac{V_j - A}{n}\Bigr)^2

    with m positives in m_g units, n negatives in n_g. Where every unit is one image this is DeLong's variance.

    Source: DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves" (Biometrics
    1988); Obuchowski, "Nonparametric analysis of clustered ROC curve data" (Biometrics 1997), whose factor of the
    products of positives and negatives of one unit is m_g + n_g units' instead of the root of both.

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).
        units: of `unit_names`.

    Returns:
        None where no class has images with and without it.
    """
    classes = probabilities.shape[1]
    hot = one_hot(labels, classes)
    chosen = [1] if labels.ndim == 1 and classes == 2 else range(classes)
    counted = [k for k in chosen if 0 < hot[:, k].sum() < len(hot)]
    if not counted:
        return None
    names, member = np.unique(np.asarray(units), return_inverse=True)
    areas, total, rarest = [], np.zeros(len(names)), (len(names) + 1, 0)
    for k in counted:
        one = hot[:, k] == 1
        ranks, own = _midranks(probabilities[:, k]), np.empty(len(hot))
        own[one], own[~one] = _midranks(probabilities[one, k]), _midranks(probabilities[~one, k])
        components = (ranks - own) / np.where(one, (~one).sum(), one.sum())
        components[~one] = 1 - components[~one]
        areas.append(area := float(components[one].mean()))
        sides = [len(np.unique(member[side])) for side in (one, ~one)]
        for side, count in zip((one, ~one), sides, strict=True):
            widened = math.sqrt(count / max(count - 1, 1))  # of a single unit nothing is known: `area_interval`
            total += widened * np.bincount(member[side], (components[side] - area) / side.sum(), len(names))
        rarest = min(rarest, (sides[0], sides[1]))
    influence = dict(zip(names.tolist(), (total / len(counted)).tolist(), strict=True))
    return AreaNoise(float(np.mean(areas)), influence, *rarest)


def area_interval(runs: Sequence[AreaNoise]) -> tuple[float, float]:
    r"""Confidence interval (95 %) of AUC, or of its mean over runs on the same units; it has a width wherever it is.

    .. math:: \operatorname{logit} A \pm z \, \frac{\sqrt{\widehat{\operatorname{Var}}(A)}}{A (1 - A)}

    Where all units say the same (A of 0 or 1), or a class has a single unit, the interval is Newcombe's, of all areas
    from which A is not further than z standard errors under Hanley & McNeil's exponential model.

    Source: as `area_noise`; Pepe, "The Statistical Evaluation of Medical Tests" (2003), section 5.2, for the logit;
    Newcombe, "Confidence intervals for an effect size measure based on the Mann–Whitney statistic. Part 2" (Statistics
    in Medicine 2006), method 5.

    Arguments:
        runs: at least one; their influences on a unit are averaged, since the same images were tested.

    Example:
        >>> labels, sure = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.8, 0.9])
        >>> noise = area_noise(labels, np.stack([1 - sure, sure], 1), unit_names([None] * 5))
        >>> [round(bound, 3) for bound in area_interval([noise])]
        [0.439, 1.0]
    """
    area = float(np.mean([one.area for one in runs]))
    moved: dict[str, float] = {}
    for one in runs:
        for unit, influence in one.influence.items():
            moved[unit] = moved.get(unit, 0.0) + influence / len(runs)
    deviation = math.sqrt(sum(one * one for one in moved.values()))
    positives, negatives = (min(getattr(one, name) for one in runs) for name in ("positives", "negatives"))
    if deviation == 0 or not 0 < area < 1 or min(positives, negatives) < 2:
        return _newcombe(area, positives, negatives)
    centre, half = math.log(area / (1 - area)), Z * deviation / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-max(-700.0, bound))) for bound in (centre - half, centre + half))
    return low, high


def _newcombe(area: float, positives: int, negatives: int) -> tuple[float, float]:
    more = (positives + negatives) / 2 - 1

    def too_far(true: float) -> bool:
        spread = 1 + more * (1 - true) / (2 - true) + more * true / (1 + true)
        return (area - true) ** 2 > Z * Z * true * (1 - true) * spread / (positives * negatives)

    def bound(end: float) -> float:
        inside = area
        for _ in range(60):
            middle = (inside + end) / 2
            inside, end = (inside, middle) if too_far(middle) else (middle, end)
        return inside

    return bound(0.0), bound(1.0)


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; of equal values the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks
