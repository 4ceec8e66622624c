"""Data set contract: what training, evaluation and prediction ask of one, and its examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from foveate.images import Source
from foveate.types import Box, Label


@dataclass(frozen=True)
class Example:
    """Example: one image of a data set, its label, split and group.

    Attributes:
        id: what names the image in draws, splits and reports: unique in its data set, independent of row order.
        label: index of its class (several labels: the sorted indices of its classes), or its number, a float; None
            where it is unknown.
        split: "train", "validation", "test" or None where no split is given.
        group: what must not be split (a patient, a scene); None makes every image a group of its own.
    """

    id: str
    label: Label | None
    split: str | None = None
    group: str | None = None


class ImageDataset(Protocol):
    """Data set, as training, evaluation and prediction ask for one.

    One that also knows what lies where has a method `objects(index)`, which gives the class and the `Box` of every
    object of an example, in level-0 pixels of its file; evaluation then says how many of them were covered.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, into which an example's label is an index; none where labels are numbers."""
        ...

    @property
    def multi_label(self) -> bool:
        """Whether an example's label is a tuple of classes, any number of them, instead of one."""
        ...

    @property
    def examples(self) -> "Sequence[Example]":
        """One per image, in a fixed order."""
        ...

    def open(self, index: int) -> "Source":
        """The image of example `index`; cheap, it reads no pixel."""
        ...


@dataclass(frozen=True)
class Resplit:
    """Data set with its splits replaced.

    Attributes:
        dataset: the images.
        examples: its examples, in its order, with other splits.
    """

    dataset: ImageDataset
    examples: Sequence[Example]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.classes

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.dataset.multi_label

    def open(self, index: int) -> Source:
        """The image of example `index`."""
        return self.dataset.open(index)

    @property
    def objects(self) -> Callable[[int], Sequence[tuple[str, Box]]]:
        """As of the data set; there is no such attribute where it knows no objects."""
        known: Callable[[int], Sequence[tuple[str, Box]]] = self.dataset.objects  # type: ignore[attr-defined]
        return known
