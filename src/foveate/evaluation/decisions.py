"""Decisions, judged and chosen: thresholds of a wanted sensitivity or specificity, costs, what abstaining leaves."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ConfigError, DataError
from foveate.evaluation.intervals import bootstrap_interval, error_interval, unit_names, wilson_interval
from foveate.evaluation.scores import wrong_shares
from foveate.models.evidence import guess_background
from foveate.models.probabilities import Decision

Share = tuple[float, tuple[float, float]]
"""A share and its 95 % interval."""

NARROW = 1e-9
"""How far beyond the last score a threshold lies, where no other score says where to put it."""


@dataclass(frozen=True)
class DecisionScores:
    """Scores of decisions on n labelled images; each share with its 95 % interval, by group where there are groups.

    Attributes:
        n: number of images.
        unsure: share of them on which the rule abstains.
        error: share of wrong decisions among the others; None if it always abstains.
        error_without: error of the most probable class on all images.
        sensitivity: of the images of the positive classes that are decided, the share decided for one of them; None
            without a threshold or such images.
        specificity: of the other images that are decided, the share decided for none of them; likewise.
        cost: mean cost of a decision, over the images that are decided, and its interval; None without costs.
        cost_without: the same of naming the most probable class of all images; None without costs.
    """

    n: int
    unsure: Share
    error: Share | None
    error_without: Share
    sensitivity: Share | None = None
    specificity: Share | None = None
    cost: Share | None = None
    cost_without: Share | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON takes it, each figure beside its interval; what is not known is left out."""
        plain: dict[str, Any] = {"n": self.n}
        for name, share in asdict(self).items():
            if name != "n" and share is not None:
                plain |= {name: share[0], f"{name}_interval": list(share[1])}
        return plain


def judge_decisions(
    rule: Decision,
    classes: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: Sequence[str | None],
) -> DecisionScores:
    """Scores of a decision rule on labelled images.

    Arguments:
        rule: of the model.
        classes: names.
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes), calibrated.
        groups: the group of each image, None for one of its own.

    Example:
        >>> rule = Decision(abstain=0.8)
        >>> found = judge_decisions(rule, "ab", np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), [None, None])
        >>> found.unsure[0], found.error[0], found.error_without[0]
        (0.5, 0.0, 0.5)
    """
    several = labels.ndim == 2
    said, unsure = rule.decided(classes, probabilities, several)
    sure = ~unsure
    wrong = (said != labels).reshape(len(labels), -1).mean(1)
    sensitivity = specificity = cost = without = None
    if rule.positive:
        side = np.isin(np.array(classes), rule.positive)
        true, told = side[labels], side[said]
        sensitivity = _share(told[true & sure], groups, true & sure)
        specificity = _share(~told[~true & sure], groups, ~true & sure)
    if rule.costs:
        costs = np.array(rule.costs)
        cost = _mean(costs[said, labels][sure], groups, sure)
        without = _mean(costs[probabilities.argmax(1), labels], groups, np.ones_like(sure))
    everything = _share(wrong_shares(labels, probabilities), groups, np.ones_like(sure))
    away = _share(unsure, groups, np.ones_like(sure))
    assert everything is not None
    assert away is not None
    left = _share(wrong[sure], groups, sure)
    return DecisionScores(len(labels), away, left, everything, sensitivity, specificity, cost, without)


def _share(values: NDArray[Any], groups: Sequence[str | None], which: NDArray[np.bool_]) -> Share | None:
    if not len(values):
        return None
    own = [group for group, one in zip(groups, which, strict=True) if one]
    return float(np.mean(values)), error_interval(values.astype(np.float64).tolist(), own)


def _mean(values: NDArray[np.float64], groups: Sequence[str | None], which: NDArray[np.bool_]) -> Share | None:
    """Of costs, which may be above 1."""
    if not len(values):
        return None
    own = [group for group, one in zip(groups, which, strict=True) if one]
    return float(values.mean()), bootstrap_interval(values.tolist(), unit_names(own))


def positive_classes(classes: Sequence[str], named: Sequence[str] = ()) -> tuple[str, ...]:
    """Positive classes, those a threshold is about: as named, else all but a background, else the second of two.

    Arguments:
        classes: names of all.
        named: some of them; empty to find them.

    Raises:
        ConfigError: a name is not one of the classes, all are named, or none are and nothing tells which are meant.

    Example:
        >>> positive_classes(["none", "50", "70"]), positive_classes(["cat", "dog"])
        (('50', '70'), ('dog',))
    """
    known = ", ".join(classes)
    if unknown := [name for name in named if name not in classes]:
        raise ConfigError(f"{unknown[0]} is none of the classes, {known}: name some of them with --positive")
    if named:
        if len(set(named)) == len(classes):
            raise ConfigError(f"--positive names all classes, {known}: leave out those that are negative")
        return tuple(named)
    background = guess_background(classes)
    if background is not None:
        return tuple(name for name in classes if name != background)
    if len(classes) == 2:
        return (classes[1],)
    raise ConfigError(f"which of the classes {known} are positive is not known: name them with --positive")


@dataclass(frozen=True)
class ChosenThreshold:
    """Threshold chosen on labelled images, with what it gives there.

    Attributes:
        threshold: images of this score or more are positive.
        sensitivity: share of the positives at or above it, with an interval that holds although the threshold was
            chosen on the same images.
        specificity: share of the negatives below it, likewise.
        positives: number of positive images.
        negatives: of the others.
    """

    threshold: float
    sensitivity: Share
    specificity: Share
    positives: int
    negatives: int


def choose_threshold(
    scores: NDArray[np.float64],
    positive: NDArray[np.bool_],
    groups: Sequence[str | None],
    sensitivity: float | None = None,
    specificity: float | None = None,
) -> ChosenThreshold:
    r"""Threshold of a wanted sensitivity (the highest that has it) or specificity (the lowest), on these images.

    With m positives, the k-th highest score of which is the threshold, the true sensitivity is distributed as
    Beta(k, m − k + 1), whatever the scores are like, since k does not depend on them: Clopper & Pearson's interval for
    k of m is exact though the threshold was chosen by the same images. Where images come in groups it is a bootstrap
    over these, or Wilson's.

    Source: Wilks, "Determination of Sample Sizes for Setting Tolerance Limits" (1941); Clopper & Pearson (1934).

    Arguments:
        scores: (n,) probability of the positive classes together.
        positive: (n,) whether an image is positive.
        groups: the group of each image, None for one of its own.
        sensitivity: wanted, in (0, 1]; or None.
        specificity: likewise; one of the two.

    Raises:
        ConfigError: not exactly one of them is wanted, or out of range.
        DataError: there are no positives or no negatives.

    Example:
        >>> chosen = choose_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 1, 0, 1]) > 0, [None] * 4, 1.0)
        >>> round(chosen.threshold, 6), chosen.sensitivity[0], chosen.specificity[0]
        (0.15, 1.0, 0.5)
    """
    wanted = sensitivity if specificity is None else specificity
    if wanted is None or (sensitivity is not None and specificity is not None) or not 0 < wanted <= 1:
        raise ConfigError(
            f"one of sensitivity and specificity is wanted, above 0 and at most 1, got {sensitivity} and {specificity}:"
            " 0.95 finds 95 of 100"
        )
    if positive.all() or not positive.any():
        missing = "negative" if positive.all() else "positive"
        raise DataError(f"a threshold needs positive and negative images, but none is {missing}: give others by --data")
    distinct = np.unique(scores)
    if specificity is None:
        own = np.sort(scores[positive])[::-1]
        last = own[math.ceil(wanted * len(own) - 1e-9) - 1]
        below = distinct[distinct < last]
        threshold = (last + below[-1]) / 2 if len(below) else last - NARROW
    else:
        own = np.sort(scores[~positive])
        last = own[math.ceil(wanted * len(own) - 1e-9) - 1]
        above = distinct[distinct > last]
        threshold = (last + above[0]) / 2 if len(above) else last + NARROW
    threshold = min(max(float(threshold), 0.0), 1.0)
    told = scores >= threshold
    alone = len(set(unit_names(groups))) == len(scores)
    shares: list[Share] = []
    for side, right, chosen in ((positive, told, specificity is None), (~positive, ~told, specificity is not None)):
        found, n = int(right[side].sum()), int(side.sum())
        if alone:
            own_interval = clopper_pearson(found, n) if chosen else wilson_interval(found, n)
        else:
            members = [group for group, one in zip(groups, side, strict=True) if one]
            own_interval = error_interval(right[side].astype(np.float64).tolist(), members)
        shares.append((found / n, own_interval))
    return ChosenThreshold(threshold, shares[0], shares[1], int(positive.sum()), int((~positive).sum()))


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 95 % interval of a proportion of k in n.

    Example:
        >>> [round(bound, 4) for bound in clopper_pearson(19, 20)]
        [0.7513, 0.9987]
    """
    from scipy.special import betaincinv

    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return low, high


def read_costs(words: Sequence[str], classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Costs of decisions as a user writes them; what is not named costs 1, and what is right costs nothing.

    Arguments:
        words: each "said:true=cost".
        classes: names, in order.

    Returns:
        (classes, classes) of saying the row's class of an image of the column's.

    Raises:
        ConfigError: a word is none, or names no class.

    Example:
        >>> read_costs(["none:sign=5"], ["none", "sign"])
        ((0.0, 5.0), (1.0, 0.0))
    """
    table = [[float(said != true) for true in range(len(classes))] for said in range(len(classes))]
    for word in words:
        pair, _, value = word.rpartition("=")
        found = [(a, b) for a in classes for b in classes if f"{a}:{b}" == pair]  # names may have a colon
        try:
            cost = float(value)
        except ValueError:
            cost = math.nan
        if not found or not 0 <= cost < math.inf or found[0][0] == found[0][1]:
            raise ConfigError(
                f"a cost is written SAID:TRUE=COST with two of the classes {', '.join(classes)}, got {word!r}: "
                f"{classes[0]}:{classes[-1]}=5 says that calling {classes[-1]} {classes[0]} costs 5"
            )
        said, true = (classes.index(name) for name in found[0])
        table[said][true] = cost
    return tuple(map(tuple, table))
