"""Coverage of objects: how many of those in an image its patches cover, where a data set knows what is there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.datasets.manifest.objects import known_objects_of
from foveate.datasets.types import ImageDataset
from foveate.models.types import Batch, Output
from foveate.types import Box

SHARE = 0.5
"""An object counts as covered if a single patch holds so much of its box."""


@dataclass(frozen=True)
class Coverage:
    r"""Coverage of objects: how much of what there was the patches covered, and the least error that this leaves.

    .. math:: \text{floor} = \frac1n \sum_{i=1}^n \Bigl(1 - \frac{1\{y_i \in M_i\}}{|M_i|}\Bigr)

    M_i are the classes that occur most often among the covered objects of image i, all classes if none is covered: the
    error of a reader who knows the covered objects for certain and nothing else, says what most of them are, and
    chooses among equals blindly. A classifier does better only if the view itself tells it something.

    Attributes:
        images: number of images that have objects.
        objects_per_image: their mean number of objects.
        covered_per_image: mean number of different objects that the patches read for the answer cover, each counted
            once, however many patches show it.
        complete: share of the images all of whose objects are covered.
        error_floor: as above; None where an image's class is not simply that of most of its objects.
    """

    images: int
    objects_per_image: float
    covered_per_image: float
    complete: float
    error_floor: float | None


def covered(objects: Sequence[Box], boxes: NDArray[np.int64], share: float = SHARE) -> tuple[bool, ...]:
    """Covered objects: which of them a set of patches covers.

    Arguments:
        objects: boxes of the objects, in level-0 pixels.
        boxes: (n, 4) top, left, height, width of the patches, likewise.
        share: of an object's box that must lie within a single patch, in (0, 1].

    Returns:
        One per object.

    Example:
        >>> patch = np.array([[0, 0, 50, 60]])
        >>> covered([Box(10, 10, 28, 28), Box(36, 40, 28, 28), Box(30, 46, 20, 28)], patch)
        (True, False, True)
    """
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    found = []
    for one in objects:
        overlap = np.minimum(ends, [one.bottom, one.right]) - np.maximum(starts, [one.top, one.left])
        area = overlap.clip(min=0).prod(1).max(initial=0)
        found.append(bool(area >= share * one.height * one.width))
    return tuple(found)


def majority_error(names: Sequence[str], seen: Sequence[bool], label: str, classes: int) -> float:
    """Majority error: chance of being wrong about an image whose class is that of most objects, by the seen ones alone.

    Arguments:
        names: class of each object.
        seen: whether each is covered.
        label: the image's class.
        classes: number of classes, chosen from blindly where nothing is seen.

    Returns:
        In [0, 1].

    Example:
        >>> majority_error(["7", "7", "7", "1", "2"], [True, False, False, True, False], "7", classes=10)
        0.5
    """
    counts = Counter(name for name, one in zip(names, seen, strict=True) if one)
    if not counts:
        return 1 - 1 / classes
    most = max(counts.values())
    leaders = [name for name, count in counts.items() if count == most]
    return 1 - (label in leaders) / len(leaders)


def covered_objects(
    dataset: ImageDataset, indices: Sequence[int], images: Batch, output: Output
) -> list[tuple[bool, ...] | None]:
    """Covered objects of a batch: which objects of each image of a batch the patches read cover, all samples together.

    Arguments:
        dataset: where the images come from.
        indices: example number of each.
        images: the batch.
        output: what a model said of it.

    Returns:
        One entry per image; None where the data set knows no objects, or no patch was read.
    """
    objects_of = known_objects_of(dataset)
    if objects_of is None or output.boxes is None or output.read is None:
        return [None] * len(indices)
    boxes = output.boxes.reshape(len(images), -1, 4).cpu()
    read = output.read.reshape(len(images), -1).cpu()
    found: list[tuple[bool, ...] | None] = []
    for row, index in enumerate(indices):
        source = images.sources[row]
        own = [source.to_file(Box(*box)) for box in boxes[row][read[row]].tolist()]
        corners = np.array([(box.top, box.left, box.height, box.width) for box in own], dtype=np.int64)
        found.append(covered([box for _, box in objects_of(index)], corners.reshape(-1, 4)))
    return found


def object_coverage(
    dataset: ImageDataset, indices: Sequence[int], seen: Sequence[tuple[bool, ...] | None]
) -> Coverage | None:
    """Coverage of all images together.

    Arguments:
        dataset: where the images come from.
        indices: example number of each.
        seen: of `covered_objects`, likewise.

    Returns:
        None where nothing is known of objects, or no image has any.
    """
    objects_of = known_objects_of(dataset)
    if objects_of is None or any(one is None for one in seen):
        return None
    rows = [(index, objects_of(index), one) for index, one in zip(indices, seen, strict=True) if one]
    if not rows:
        return None
    counts = [sum(one) for _, _, one in rows]
    labels = [dataset.examples[index].label for index, _, _ in rows]
    named = [dataset.classes[label] if isinstance(label, int) else None for label in labels]
    names = [[name for name, _ in objects] for _, objects, _ in rows]
    floor = None
    if all(label is not None and _is_majority(label, of) for label, of in zip(named, names, strict=True)):
        floors = [
            majority_error(of, one, str(label), len(dataset.classes))
            for label, of, (_, _, one) in zip(named, names, rows, strict=True)
        ]
        floor = float(np.mean(floors))
    return Coverage(
        images=len(rows),
        objects_per_image=float(np.mean([len(of) for of in names])),
        covered_per_image=float(np.mean(counts)),
        complete=float(np.mean([all(one) for _, _, one in rows])),
        error_floor=floor,
    )


def _is_majority(label: str, names: Sequence[str]) -> bool:
    """Whether the label is the class that occurs more often than every other."""
    return majority_error(names, [True] * len(names), label, 2) == 0
