"""What stays together when a data set is split: a group, or an image that has none."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from foveate.types import Example

__all__ = ["Counts", "Unit", "class_counts", "unit_name", "units"]

Counts = Counter[int | None]
"""Class → images of it; None stands for images without a class. An image of several classes counts for each."""


@dataclass(frozen=True)
class Unit:
    """Images that stay together.

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
    """Gather the units of some examples.

    Arguments:
        examples: the examples, whatever their splits.

    Returns:
        The units, in the order in which their first examples come.

    Example:
        >>> [unit.counts for unit in units([Example("a", (0, 2), group="g"), Example("b", (), group="g")])]
        [Counter({0: 1, 2: 1, None: 1})]
    """
    counts: dict[str, Counts] = {}
    images: Counter[str] = Counter()
    for example in examples:
        name = unit_name(example)
        images[name] += 1
        of_label = (example.label or (None,)) if isinstance(example.label, tuple) else (example.label,)
        counts.setdefault(name, Counter()).update(of_label)
    return [Unit(name, of_class, images[name]) for name, of_class in counts.items()]


def class_counts(some: Iterable[Unit]) -> Counts:
    """Add up the counts of units.

    Example:
        >>> class_counts([Unit("a", Counter({0: 2}), 2), Unit("b", Counter({0: 1, 1: 1}), 1)])
        Counter({0: 3, 1: 1})
    """
    counts: Counts = Counter()
    for unit in some:
        counts.update(unit.counts)
    return counts
