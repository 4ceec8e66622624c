"""Who trains, who chooses the model and who tests: splits by share, stratified by class, that never divide a group."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from foveate.errors import DataError
from foveate.seeds import derive_seed
from foveate.types import Example

__all__ = ["crossing_groups", "fill_splits", "fold_numbers", "k_folds"]


def fill_splits(
    examples: Sequence[Example], validation: float = 0.1, test: float = 0.2, seed: int = 0
) -> list[Example]:
    """Say of every example whether it trains, validates or tests.

    Splits that the data name stay. Where none is named "test", a share of the examples without a split is held out
    for testing; where none is named "validation", a share of what then trains is held out for validation; the rest
    trains. What is held out has the classes in the proportions of the whole, to within one example a class where
    nothing is grouped. A group stays together, and follows those of its members that have a split. Every class keeps
    an example to train on. The seed and the ids decide, not the order of the examples.

    Arguments:
        examples: the examples, each with a split or None.
        validation: share of the training examples held out for validation, in [0, 1).
        test: share of the examples without a split held out for testing, in [0, 1).
        seed: seed of the choice.

    Returns:
        The examples in the order given, each with a split.

    Raises:
        DataError: if a group crosses named splits, a share is out of range, or there are too few examples to hold
            any out.

    Example:
        >>> rows = [Example(id=f"{i}.png", label=i % 2) for i in range(100)]
        >>> Counter(row.split for row in fill_splits(rows, validation=0.1, test=0.2))
        Counter({'train': 72, 'test': 20, 'validation': 8})
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise DataError(
                f"the {name} share must be at least 0 and below 1, got {share}: set data.{name} to e.g. 0.2"
            )
    _refuse_crossing(examples)
    named = {example.split for example in examples}
    split_of = {_unit(example): example.split for example in examples if example.split is not None}
    filled = [replace(example, split=split_of.get(_unit(example))) for example in examples]
    if "test" not in named:
        filled = _hold_out(filled, (None,), "test", test, seed)
    if "validation" not in named:
        filled = _hold_out(filled, (None, "train"), "validation", validation, seed)
    return [replace(example, split=example.split or "train") for example in filled]


def k_folds(examples: Sequence[Example], k: int, seed: int = 0) -> list[list[Example]]:
    """Divide the examples into k folds for cross-validation.

    In the i-th of the k results the i-th fold is held out and the other folds train. The fold is the test split;
    where the data name a test split, that one stays, in no fold, and the fold is the validation split. A named
    "train" or "validation" is forgotten. Stratified, grouped and independent of order, as `fill_splits`, which then
    can hold validation examples out of the training folds.

    Arguments:
        examples: the examples.
        k: number of folds, at least 2.
        seed: seed of the choice.

    Returns:
        k lists of the examples in the order given, each example with a split.

    Raises:
        DataError: as `fold_numbers`.

    Example:
        >>> rows = [Example(id=f"{i}.png", label=i % 2) for i in range(30)]
        >>> [sum(row.split == "test" for row in fold) for fold in k_folds(rows, 3)]
        [10, 10, 10]
    """
    numbers = fold_numbers(examples, k, seed)
    held_out = "validation" if None in numbers else "test"
    return [
        [
            example if number is None else replace(example, split=held_out if number == fold else "train")
            for example, number in zip(examples, numbers, strict=True)
        ]
        for fold in range(k)
    ]


def fold_numbers(examples: Sequence[Example], k: int, seed: int = 0) -> list[int | None]:
    """The fold, 0 … k − 1, of every example; None for those whose named split is "test".

    Arguments:
        examples: the examples.
        k: number of folds, at least 2.
        seed: seed of the choice.

    Returns:
        The numbers, in the order of the examples.

    Raises:
        DataError: if k is below 2 or above the number of groups (images, where nothing is grouped), a group crosses
            into the named test split, or a fold would train without one of the classes.

    Example:
        >>> sorted(fold_numbers([Example(id=f"{i}.png", label=0) for i in range(4)], 2))
        [0, 0, 1, 1]
    """
    if k < 2:
        raise DataError(f"cross-validation needs at least 2 folds, got {k}: set folds to e.g. 5")
    _refuse_crossing([replace(e, split=e.split if e.split == "test" else "train") for e in examples])
    units = _units(example for example in examples if example.split != "test")
    if len(units) < k:
        raise DataError(f"{k} folds need at least {k} images or groups of images, got {len(units)}: use fewer folds")
    fold_of = _deal(units, k, seed)
    return [None if example.split == "test" else fold_of[_unit(example)] for example in examples]


def crossing_groups(examples: Iterable[Example]) -> dict[str, tuple[str, ...]]:
    """Find the groups whose members are in more than one split.

    Arguments:
        examples: the examples; those without a split or a group do not matter.

    Returns:
        Group → the splits it is in, sorted; empty if all is well.

    Example:
        >>> crossing_groups([Example("a", 0, "train", "patient 7"), Example("b", 0, "test", "patient 7")])
        {'patient 7': ('test', 'train')}
    """
    found: dict[str, set[str]] = {}
    for example in examples:
        if example.group is not None and example.split is not None:
            found.setdefault(example.group, set()).add(example.split)
    return {group: tuple(sorted(splits)) for group, splits in found.items() if len(splits) > 1}


def _refuse_crossing(examples: Sequence[Example]) -> None:
    crossing = crossing_groups(examples)
    if crossing:
        group, splits = min(crossing.items())
        more = f" (and {len(crossing) - 1} groups more)" if len(crossing) > 1 else ""
        raise DataError(
            f"group {group!r} is in the splits {' and '.join(splits)}{more}, which makes the test worthless: give all "
            "images of a group the same split"
        )


_Counts = Counter[int | None]


@dataclass(frozen=True)
class _Unit:
    """What stays together: a group, or an image that has none."""

    name: str
    counts: _Counts


def _unit(example: Example) -> str:
    return f"image {example.id}" if example.group is None else f"group {example.group}"


def _units(examples: Iterable[Example]) -> list[_Unit]:
    found: dict[str, _Counts] = {}
    for example in examples:
        found.setdefault(_unit(example), Counter())[example.label] += 1
    return [_Unit(name, counts) for name, counts in found.items()]


def _hold_out(examples: list[Example], of: tuple[str | None, ...], name: str, share: float, seed: int) -> list[Example]:
    """Name a share of those examples whose split is in `of`, which are whole units."""
    units = _units(example for example in examples if example.split in of)
    if share == 0 or not units:
        return examples
    chosen = {unit.name for unit in _choose(units, share, seed, name)}
    if not chosen:
        raise DataError(
            f"no image is left for the {name} split: {sum(unit.counts.total() for unit in units)} images in "
            f"{len(units)} groups are too few to hold out {share:g} and keep every class for training; add images or "
            f"set data.{name} to 0"
        )
    return [replace(example, split=name) if _unit(example) in chosen else example for example in examples]


def _choose(units: list[_Unit], share: float, seed: int, purpose: str) -> list[_Unit]:
    """Units whose class counts are as near as may be to a share of all, such that every class keeps a unit."""
    order = sorted(units, key=lambda unit: (derive_seed(seed, purpose, unit.name), unit.name))
    wanted = _apportion(_count(units), share, lambda label: derive_seed(seed, purpose, str(label)))
    left = Counter(label for unit in units for label in unit.counts if label is not None)
    chosen: list[_Unit] = []

    def take(unit: _Unit) -> None:
        chosen.append(unit)
        wanted.subtract(unit.counts)
        left.subtract(label for label in unit.counts if label is not None)

    def gain(unit: _Unit) -> int:
        return sum(abs(wanted[label]) - abs(wanted[label] - count) for label, count in unit.counts.items())

    def allowed(unit: _Unit) -> bool:
        return all(left[label] > 1 for label in unit.counts if label is not None)

    for unit in order:
        if gain(unit) > 0 and allowed(unit):
            take(unit)
    if not chosen and len(units) > 1:  # every group is larger than the share asked for: the nearest one, then
        nearest = max((unit for unit in order if allowed(unit)), key=gain, default=None)
        if nearest is not None:
            take(nearest)
    return chosen


def _apportion(counts: _Counts, share: float, order: Callable[[int | None], int]) -> _Counts:
    """Whole numbers nearest to a share of every count, by largest remainder; their sum is the share of the sum."""
    total = max(1, math.floor(counts.total() * share + 0.5))
    quotas = {label: Fraction(count * total, counts.total()) for label, count in counts.items()}
    wanted: _Counts = Counter({label: math.floor(quota) for label, quota in quotas.items()})
    by_remainder = sorted(quotas, key=lambda label: (wanted[label] - quotas[label], order(label)))
    wanted.update(by_remainder[: total - wanted.total()])
    return wanted


def _deal(units: list[_Unit], k: int, seed: int) -> dict[str, int]:
    """Unit → fold: the largest first, class by class, each to the fold that has least of its classes."""
    of_class = _count(units)

    def turn(unit: _Unit) -> tuple[int, str, int, str]:
        main = max(unit.counts, key=lambda label: (unit.counts[label], str(label)))
        return -unit.counts.total(), str(main), derive_seed(seed, "folds", unit.name), unit.name

    folds: list[_Counts] = [Counter() for _ in range(k)]
    totals = [0] * k
    fold_of: dict[str, int] = {}
    for unit in sorted(units, key=turn):
        crowd = [sum(Fraction(n * fold[label], of_class[label]) for label, n in unit.counts.items()) for fold in folds]
        fold_of[unit.name] = best = min(range(k), key=lambda fold: (crowd[fold], totals[fold]))
        folds[best].update(unit.counts)
        totals[best] += unit.counts.total()
    for fold in folds:
        for label, count in fold.items():
            if count == of_class[label] and label is not None:
                raise DataError(
                    f"class number {label} has all its images in one of {k} folds, which would train without it: use "
                    "fewer folds, or add images of other groups"
                )
    return fold_of


def _count(units: list[_Unit]) -> _Counts:
    counts: _Counts = Counter()
    for unit in units:
        counts.update(unit.counts)
    return counts
