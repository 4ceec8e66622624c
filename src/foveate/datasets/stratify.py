"""Iterative stratification: units chosen, or dealt into folds, such that every class keeps its share."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

from foveate.datasets.types import Example
from foveate.errors import DataError
from foveate.seeds import derive_seed
from foveate.types import Label

Counts = Counter[int | None]
"""Class → images of it; None stands for images without a class. An image of several classes counts for each."""


@dataclass(frozen=True)
class Unit:
    """Unit of images that stay together.

    Attributes:
        name: as `unit_name` gives it.
        counts: images of each class.
        images: their number, which with several labels is not the sum of the counts.
    """

    name: str
    counts: Counts
    images: int


def unit_name(example: Example) -> str:
    """Name of the unit that an example belongs to.

    Example:
        >>> unit_name(Example("a.png", 0)), unit_name(Example("a.png", 0, group="patient 7"))
        ('image a.png', 'group patient 7')
    """
    return f"image {example.id}" if example.group is None else f"group {example.group}"


def units(examples: Iterable[Example]) -> list[Unit]:
    """Units of some examples.

    Arguments:
        examples: the examples, whatever their splits.

    Returns:
        The units, in the order in which their first examples come.

    Example:
        >>> [unit.counts for unit in units([Example("a", (0, 2), group="g"), Example("b", (), group="g")])]
        [Counter({0: 1, 2: 1, None: 1})]
    """
    counts: dict[str, Counts] = {}
    images: dict[str, int] = {}
    single: dict[Label | None, Counts] = {}  # counts are shared by all images of a label, and by units of the same
    sums: dict[tuple[int, int], Counts] = {}  # two parts: of 200,000, only a few differ
    for example in examples:
        name, label = unit_name(example), example.label
        images[name] = images.get(name, 0) + 1
        alone = single.get(label)
        if alone is None:
            one_class = None if isinstance(label, float) else label  # numbers are of no class
            alone = single[label] = Counter((one_class or (None,)) if isinstance(one_class, tuple) else (one_class,))
        before = counts.get(name)
        if before is None:
            counts[name] = alone
            continue
        parts = id(before), id(alone)
        if parts not in sums:
            sums[parts] = before + alone
        counts[name] = sums[parts]
    return [Unit(name, own, images[name]) for name, own in counts.items()]


def choose(units: list[Unit], share: float, seed: int, purpose: str) -> list[Unit]:
    """Stratified choice of units: class counts as near as may be to a share of all, and every class keeps a unit.

    The rarest class chooses first, because later on nothing could make good what it lacks; units all of whose classes
    are wanted come before others.

    Arguments:
        units: what to choose from, in any order.
        share: of the images of every class, in (0, 1).
        seed: seed of the choice.
        purpose: what the choice is for; another purpose makes another choice.

    Returns:
        The chosen units; none if that would leave a class without a unit.

    Source:
        Sechidis, Tsoumakas & Vlahavas, On the stratification of multi-label data, 2011, section 3; with whole quotas
        (largest remainders), so that small classes together get their share.
    """

    def key(unit: Unit, _: int | None) -> tuple[int | str, ...]:
        return derive_seed(seed, purpose, unit.name), unit.name

    order = list(_rarest_first(units, key))
    choice = _Choice(units, share, lambda label: derive_seed(seed, purpose, str(label)))
    for label, of_label in groupby(order, key=lambda turn: turn[0]):
        others = []
        for _, unit in of_label:
            if choice.wanted[label] <= 0:  # nor does any of the others come nearer to what is wanted
                break
            if min(choice.gains(unit)) > 0 and choice.allows(unit):
                choice.take(unit)
            else:
                others.append(unit)
        for unit in others:
            if choice.gain(unit, label) > 0 and sum(choice.gains(unit)) >= 0 and choice.allows(unit):
                choice.take(unit)
    if not choice.chosen and len(units) > 1:  # every group is larger than the share asked for: the nearest one, then
        allowed = sorted((unit for unit in units if choice.allows(unit)), key=lambda unit: key(unit, None))
        choice.chosen += sorted(allowed, key=lambda unit: -sum(choice.gains(unit)))[:1]
    return choice.chosen


def _class_counts(units: Iterable[Unit]) -> Counts:
    total: Counts = Counter()
    for unit in units:
        for label, count in unit.counts.items():
            total[label] = total.get(label, 0) + count
    return total


class _Choice:
    """Choice so far, and what is still wanted and left of every class."""

    def __init__(self, units: list[Unit], share: float, order: Callable[[int | None], int]) -> None:
        self.chosen: list[Unit] = []
        self.wanted = _apportion(_class_counts(units), share, order)
        self.left = Counter(label for unit in units for label in unit.counts if label is not None)

    def take(self, unit: Unit) -> None:
        self.chosen.append(unit)
        for label, count in unit.counts.items():
            self.wanted[label] -= count
            if label is not None:
                self.left[label] -= 1

    def gain(self, unit: Unit, label: int | None) -> int:
        """By how much nearer to what is wanted of a class the unit would bring the choice."""
        return abs(self.wanted[label]) - abs(self.wanted[label] - unit.counts[label])

    def gains(self, unit: Unit) -> list[int]:
        return [self.gain(unit, label) for label in unit.counts]

    def allows(self, unit: Unit) -> bool:
        return all(self.left[label] > 1 for label in unit.counts if label is not None)


def deal(units: list[Unit], k: int, seed: int) -> dict[str, int]:
    """Stratified folds: the rarest class is dealt first, each unit to the fold that has least of its classes.

    Arguments:
        units: what to deal, in any order.
        k: number of folds.
        seed: seed of the choice.

    Returns:
        Name of a unit → its fold, 0 … k − 1.

    Raises:
        DataError: if a fold gets all units of a class.

    Source:
        Sechidis, Tsoumakas & Vlahavas, On the stratification of multi-label data, 2011, section 3, for units of
        several images.
    """
    of_class = _class_counts(units)

    def turn(unit: Unit, label: int | None) -> tuple[int | str, ...]:
        return -unit.counts[label], -unit.images, derive_seed(seed, "folds", unit.name), unit.name

    folds: list[Counts] = [Counter() for _ in range(k)]
    images = [0] * k
    fold_of: dict[str, int] = {}

    def crowd(fold: int, unit: Unit) -> Fraction:
        return sum((Fraction(n * folds[fold][label], of_class[label]) for label, n in unit.counts.items()), Fraction())

    for rarest, unit in _rarest_first(units, turn):
        scores = [(folds[fold][rarest], crowd(fold, unit), images[fold]) for fold in range(k)]
        fold_of[unit.name] = best = min(range(k), key=scores.__getitem__)
        folds[best].update(unit.counts)
        images[best] += unit.images
    for of_fold in folds:
        for label, count in of_fold.items():
            if count == of_class[label] and label is not None:
                raise DataError(
                    f"class number {label} has all its images in one of {k} folds, which would train without it: use "
                    "fewer folds, or add images of other groups"
                )
    return fold_of


def _rarest_first(
    units: list[Unit], key: Callable[[Unit, int | None], tuple[int | str, ...]]
) -> Iterator[tuple[int | None, Unit]]:
    """Every unit once, with the class it comes for: that of which fewest images are left; images of no class last."""
    left = _class_counts(units)
    members: dict[int | None, list[Unit]] = {label: [] for label in left}
    for unit in units:
        for label in unit.counts:
            members[label].append(unit)
    done: set[str] = set()
    while left:
        rarest = min(left, key=lambda label: (label is None, left[label], str(label)))
        for unit in sorted((unit for unit in members[rarest] if unit.name not in done), key=lambda u: key(u, rarest)):
            done.add(unit.name)
            for label, count in unit.counts.items():
                left[label] -= count
            yield rarest, unit
        del left[rarest]


def _apportion(counts: Counts, share: float, order: Callable[[int | None], int]) -> Counts:
    """Whole numbers nearest to a share of every count, by largest remainder; their sum is the share of the sum."""
    total = max(1, math.floor(counts.total() * share + 0.5))
    quotas = {label: Fraction(count * total, counts.total()) for label, count in counts.items()}
    wanted: Counts = Counter({label: math.floor(quota) for label, quota in quotas.items()})
    by_remainder = sorted(quotas, key=lambda label: (wanted[label] - quotas[label], order(label)))
    wanted.update(by_remainder[: total - wanted.total()])
    return wanted
