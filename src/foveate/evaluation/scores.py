"""Scores of a classifier: error, confusion, recall, AUC, average precision; arrays in, numbers out, no model."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate.types import Label

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Group = TypeVar("Group", bound=Hashable)
Labels = TypeVar("Labels", Integers, Floats)

THRESHOLD = 0.5
"""With several labels, the probability from which on an image is said to have a class."""


def decisions(probabilities: Floats, several: bool) -> Integers:
    """Decisions: the answer to each image.

    Arguments:
        probabilities: (n, classes).
        several: whether an image may have several labels.

    Returns:
        (n,) number of the most probable class; with several labels (n, classes), 1 from probability ½ on and 0 else.
    """
    return (probabilities >= THRESHOLD).astype(np.int64) if several else probabilities.argmax(1)


def label_array(labels: Sequence[Label | None], classes: int, several: bool) -> Integers:
    """Label array: labels as numbers to count with.

    Arguments:
        labels: of n images, all known.
        classes: number of classes.
        several: whether an image may have several labels.

    Returns:
        (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.

    Example:
        >>> label_array([(0, 2), ()], 3, several=True).tolist()
        [[1, 0, 1], [0, 0, 0]]
    """
    if not several:
        return np.array(labels, dtype=np.int64)
    hot = np.zeros((len(labels), classes), dtype=np.int64)
    for row, label in zip(hot, labels, strict=True):
        assert isinstance(label, tuple)
        row[list(label)] = 1
    return hot


def one_hot(labels: Integers, classes: int) -> Integers:
    """(n, classes) 1 for a class that an image has and 0 else; labels of that form, of several classes, are left alone.

    Example:
        >>> one_hot(np.array([1, 0]), 3).tolist(), one_hot(np.array([[1, 1]]), 2).tolist()
        ([[0, 1, 0], [1, 0, 0]], [[1, 1]])
    """
    return labels if labels.ndim == 2 else (labels[:, None] == np.arange(classes)).astype(np.int64)


def constant_error(labels: Sequence[int]) -> float:
    """Error of an answer that is the same for all images: the most frequent class.

    Example:
        >>> constant_error([0, 2, 2, 1])
        0.5
    """
    return 1 - Counter(labels).most_common(1)[0][1] / len(labels)


def unequal(labels: Integers) -> bool:
    """Class imbalance: whether a class has twice as many images as another, so that a low error may mean nothing.

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), of which each class is compared with its absence.

    Example:
        >>> unequal(np.array([0, 0, 0, 0, 1, 1])), unequal(np.array([0, 0, 1]))
        (True, True)
    """
    if labels.ndim == 2:
        return any(max(one, 1 - one) >= 2 * min(one, 1 - one) for one in labels.mean(0) if 0 < one < 1)
    counts = Counter(labels.tolist()).values()
    return max(counts) >= 2 * min(counts)


def is_constant(labels: Integers, probabilities: Floats) -> bool:
    """Constant predictor: whether the answer is the same for all images, though their labels are not.

    Arguments:
        labels: as `wrong_shares`.
        probabilities: likewise.

    Example:
        >>> is_constant(np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]]))
        True
    """
    said = decisions(probabilities, labels.ndim == 2)
    return bool((said == said[0]).all() and (labels != labels[0]).any())


def wrong_shares(labels: Integers, probabilities: Floats) -> Floats:
    """Error of each image: how wrong the answer to it is.

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).

    Returns:
        (n,) 0 or 1; with several labels the share of the classes that are wrong.

    Example:
        >>> wrong_shares(np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]])).tolist()
        [0.0, 1.0]
    """
    wrong = decisions(probabilities, labels.ndim == 2) != labels
    shares: Floats = wrong.reshape(len(wrong), -1).mean(1)
    return shares


def answer_table(labels: Integers, probabilities: Floats) -> Integers:
    """Confusion tables: what was said of the images of each class.

    Arguments:
        labels: as `wrong_shares`.
        probabilities: likewise.

    Returns:
        (classes, classes) of `confusion`; with several labels (classes, 2, 2) of `positive_confusion`.

    Example:
        >>> answer_table(np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]])).tolist()
        [[1, 0], [1, 0]]
    """
    several = labels.ndim == 2
    said = decisions(probabilities, several)
    return positive_confusion(labels, said) if several else confusion(labels, said, probabilities.shape[1])


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Confusion matrix: images by true and predicted class.

    Arguments:
        labels: (n,) true class numbers.
        predicted: (n,) predicted class numbers.
        classes: number of classes C.

    Returns:
        (C, C), a row per true class and a column per predicted one.

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 3).tolist()
        [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    """
    cells = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def positive_confusion(labels: Integers, predicted: Integers) -> Integers:
    """Confusion matrices with several labels: each class's own table of images with and without it.

    Arguments:
        labels: (n, C) 1 for a class the image has, 0 else.
        predicted: (n, C) likewise.

    Returns:
        (C, 2, 2): per class a row for the images without and with it, a column for those said to be so.
    """
    return np.stack([confusion(true, said, 2) for true, said in zip(labels.T, predicted.T, strict=True)])


def recalls(table: Integers) -> list[float | None]:
    """Recall: share of each class's images that are recognised.

    Arguments:
        table: of `confusion`; or of `positive_confusion`, for the recall of each class's positives.

    Returns:
        One per class; None for a class without an image.

    Example:
        >>> recalls(np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]))
        [0.5, 1.0, None]
    """
    rows = table[:, 1] if table.ndim == 3 else table
    right = rows[:, 1] if table.ndim == 3 else rows.diagonal()
    counts = rows.sum(1)
    return [int(one) / int(count) if count else None for one, count in zip(right, counts, strict=True)]


def balanced_error(table: Integers) -> float:
    """Balanced error: 1 − the mean recall over the classes that have images: every class counts the same, however rare.

    Arguments:
        table: of `confusion`. Of `positive_confusion`: the mean over the classes of their own balanced errors, with
            and without being the two classes; those that every image has, or none, say nothing and do not count.

    Returns:
        In [0, 1].

    Example:
        >>> balanced_error(np.array([[8, 0], [1, 1]]))
        0.25
    """
    if table.ndim == 3:
        both = [one for one in table if one.sum(1).all()] or list(table)
        return float(np.mean([balanced_error(one) for one in both]))
    return 1 - float(np.mean([one for one in recalls(table) if one is not None]))


def auc(labels: Integers, probabilities: Floats) -> float | None:
    """AUC, the area under the receiver operating characteristic: how often a positive is ranked above a negative.

    Of class 1 where there are two classes; else the mean of each class against the rest, over the classes that some
    images have and others have not (Fawcett, "An introduction to ROC analysis", 2006, sections 7 and 9).

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).

    Returns:
        In [0, 1], ½ for a guess; None where no class has both.

    Example:
        >>> auc(np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]))
        0.5
        >>> auc(np.array([1, 1]), np.array([[0.8, 0.2], [0.4, 0.6]])) is None
        True
    """
    from sklearn.metrics import roc_auc_score

    classes = probabilities.shape[1]
    hot = one_hot(labels, classes)
    chosen = [1] if labels.ndim == 1 and classes == 2 else range(classes)
    areas = [roc_auc_score(hot[:, k], probabilities[:, k]) for k in chosen if 0 < hot[:, k].sum() < len(hot)]
    return float(np.mean(areas)) if areas else None


def average_precision(labels: Integers, probabilities: Floats) -> float | None:
    r"""Mean average precision of several labels.

    .. math:: \mathrm{AP} = \sum_i (R_i - R_{i-1}) P_i

    with recall R and precision P at the i-th threshold, and the mean over the classes that some image has.

    Arguments:
        labels: (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).

    Returns:
        In [0, 1]; None where no image has a class.

    Example:
        >>> average_precision(np.array([[1, 0], [0, 0], [1, 0]]), np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]))
        0.8333333333333333
    """
    from sklearn.metrics import average_precision_score

    present = [k for k in range(labels.shape[1]) if labels[:, k].any()]
    values = [average_precision_score(labels[:, k], probabilities[:, k]) for k in present]
    return float(np.mean(values)) if values else None


def group_means(
    groups: Sequence[Group], probabilities: Floats, labels: Labels | None = None
) -> tuple[list[Group], Floats, Labels | None]:
    """Group means: the mean probabilities of the images of each group.

    Arguments:
        groups: the group of each of n images.
        probabilities: (n, classes).
        labels: (n, …) of the images, or None.

    Returns:
        The G groups, in order of their first image; (G, classes) their mean probabilities; (G, …) their labels, each
        that of its first image, or None.

    Raises:
        ValueError: the images of a group have different labels; its argument is the group.

    Example:
        >>> group_means(["p", "q", "p"], np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]))[:2]
        (['p', 'q'], array([[0.75, 0.25],
               [0.5 , 0.5 ]]))
    """
    members: dict[Group, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    means = np.stack([probabilities[places].mean(0) for places in members.values()])
    if labels is None:
        return list(members), means, None
    for group, places in members.items():
        if (labels[places] != labels[places[0]]).any():
            raise ValueError(group)
    return list(members), means, labels[[places[0] for places in members.values()]]
