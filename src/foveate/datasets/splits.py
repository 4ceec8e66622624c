"""Train, validation and test splits by share, and folds: stratified by class, never dividing a group."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from foveate.datasets.stratify import choose, deal, unit_name, units
from foveate.datasets.types import Example
from foveate.errors import DataError


def fill_splits(
    examples: Sequence[Example],
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    allow_crossing: bool = False,
) -> list[Example]:
    """Train, validation and test splits for the examples that have none.

    Splits that the data name stay. Where none is named "test", a share of the examples without a split is held out
    for testing; where none is named "validation", a share of what then trains is held out for validation; the rest
    trains. What is held out has the classes in the proportions of the whole, to within one example a class where
    nothing is grouped and an example has one label; with several labels, as near as iterative stratification comes. A
    group stays together, and follows those of its members that have a split. Every class keeps
    an example to train on. The seed and the ids decide, not the order of the examples.

    Arguments:
        examples: the examples, each with a split or None.
        validation: share of the training examples held out for validation, in [0, 1).
        test: share of the examples without a split held out for testing, in [0, 1).
        seed: seed of the choice.
        allow_crossing: whether to accept a group that crosses named splits; those of its members that have none train
            if others do.

    Returns:
        The examples in the order given, each with a split.

    Raises:
        DataError: if a group crosses named splits and that is not allowed, a share is out of range, or there are too
            few examples to hold any out.

    Example:
        >>> rows = [Example(id=f"{i}.png", label=i % 2) for i in range(100)]
        >>> filled = [row.split for row in fill_splits(rows, validation=0.1, test=0.2)]
        >>> {split: filled.count(split) for split in ("train", "validation", "test")}
        {'train': 72, 'validation': 8, 'test': 20}
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise DataError(
                f"the {name} share must be at least 0 and below 1, got {share}: set data.{name} to e.g. 0.2"
            )
    if not allow_crossing:
        _refuse_crossing(examples)
    named = {example.split for example in examples}
    splits = _joined_splits(examples)
    if "test" not in named:
        splits = _hold_out(examples, splits, (None,), "test", test, seed)
    if "validation" not in named:
        splits = _hold_out(examples, splits, (None, "train"), "validation", validation, seed)
    return [
        # a third of the time of `dataclasses.replace`
        one if one.split is not None and one.split == split else Example(one.id, one.label, split or "train", one.group)
        for one, split in zip(examples, splits, strict=True)
    ]


def k_folds(examples: Sequence[Example], k: int, seed: int = 0, allow_crossing: bool = False) -> list[list[Example]]:
    """Cross-validation: the examples divided into k folds.

    In the i-th of the k results the i-th fold is held out and the other folds train. The fold is the test split;
    where the data name a test split, that one stays, in no fold, and the fold is the validation split. A named
    "train" or "validation" is forgotten. Stratified, grouped and independent of order, as `fill_splits`, which then
    can hold validation examples out of the training folds.

    Arguments:
        examples: the examples.
        k: number of folds, at least 2.
        seed: seed of the choice.
        allow_crossing: whether to accept a group with members in the named test split and others outside.

    Returns:
        k lists of the examples in the order given, each example with a split.

    Raises:
        DataError: as `fold_numbers`.

    Example:
        >>> rows = [Example(id=f"{i}.png", label=i % 2) for i in range(30)]
        >>> [sum(row.split == "test" for row in fold) for fold in k_folds(rows, 3)]
        [10, 10, 10]
    """
    numbers = fold_numbers(examples, k, seed, allow_crossing)
    held_out = "validation" if None in numbers else "test"
    return [
        [
            example if number is None else replace(example, split=held_out if number == fold else "train")
            for example, number in zip(examples, numbers, strict=True)
        ]
        for fold in range(k)
    ]


def fold_numbers(examples: Sequence[Example], k: int, seed: int = 0, allow_crossing: bool = False) -> list[int | None]:
    """Fold of every example, 0 … k − 1; None for those whose named split is "test".

    Arguments:
        examples: the examples.
        k: number of folds, at least 2.
        seed: seed of the choice.
        allow_crossing: whether to accept a group with members in the named test split and others outside.

    Returns:
        The numbers, in the order of the examples.

    Raises:
        DataError: if k is below 2 or above the number of groups (images, where nothing is grouped), a group crosses
            into the named test split and that is not allowed, or a fold would train without one of the classes.

    Example:
        >>> sorted(fold_numbers([Example(id=f"{i}.png", label=0) for i in range(4)], 2))
        [0, 0, 1, 1]
    """
    if k < 2:
        raise DataError(f"cross-validation needs at least 2 folds, got {k}: set folds to e.g. 5")
    if not allow_crossing:
        _refuse_crossing([replace(e, split=e.split if e.split == "test" else "train") for e in examples])
    dealt = units(example for example in examples if example.split != "test")
    if len(dealt) < k:
        raise DataError(f"{k} folds need at least {k} images or groups of images, got {len(dealt)}: use fewer folds")
    fold_of = deal(dealt, k, seed)
    return [None if example.split == "test" else fold_of[unit_name(example)] for example in examples]


def crossing_groups(examples: Iterable[Example]) -> dict[str, tuple[str, ...]]:
    """Groups that leak: those whose members are in more than one split.

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
            "images of a group the same split, or accept it with --data.allow_crossing_groups true"
        )


def _joined_splits(examples: Sequence[Example]) -> list[str | None]:
    """Splits, those without one having their group's: of several, the first that is no test of the others."""
    rank = {"train": 0, "validation": 1, "test": 2}
    split_of: dict[str, str] = {}
    for example in examples:
        if example.split is not None:
            name = unit_name(example)
            split_of[name] = min(split_of.get(name, example.split), example.split, key=rank.__getitem__)
    return [one.split or (split_of.get(unit_name(one)) if split_of else None) for one in examples]


def _hold_out(
    examples: Sequence[Example],
    splits: list[str | None],
    of: tuple[str | None, ...],
    name: str,
    share: float,
    seed: int,
) -> list[str | None]:
    """Name a share of those examples whose split is in `of`; returns the splits with these."""
    candidates = units(example for example, split in zip(examples, splits, strict=True) if split in of)
    if share == 0 or not candidates:
        return splits
    chosen = {unit.name for unit in choose(candidates, share, seed, name)}
    if not chosen:
        raise DataError(
            f"no image is left for the {name} split: {sum(unit.images for unit in candidates)} images in "
            f"{len(candidates)} groups are too few to hold out {share:g} and keep every class for training; add images "
            f"or set data.{name} to 0"
        )
    return [
        name if split in of and unit_name(example) in chosen else split
        for example, split in zip(examples, splits, strict=True)
    ]
