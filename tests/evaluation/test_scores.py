"""Scores against their definitions, by enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.evaluation import scores

seeds = st.integers(0, 2**32 - 1)


def random_answers(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities with ties among them."""
    random = np.random.default_rng(seed)
    weights = random.integers(1, 5, (n, classes)).astype(np.float64)
    return random.integers(0, classes, n), weights / weights.sum(1, keepdims=True)


def auc_by_pairs(positive: np.ndarray, values: np.ndarray) -> float:
    """Probability that a positive is above a negative, ties counting half."""
    pairs = list(itertools.product(values[positive], values[~positive]))
    return sum(1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs) / len(pairs)


def precision_by_hand(positive: np.ndarray, values: np.ndarray) -> float:
    """The sum over the thresholds, from above, of the recall gained times the precision there."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        said = values >= threshold
        recall = (said & positive).sum() / positive.sum()
        total += (recall - before) * (said & positive).sum() / said.sum()
        before = recall
    return total


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_auc_is_the_share_of_pairs_in_order(seed: int) -> None:
    labels, p = random_answers(seed, 14, 2)
    if 0 < labels.sum() < 14:
        assert scores.auc(labels, p) == pytest.approx(auc_by_pairs(labels == 1, p[:, 1]), abs=1e-12)
    labels, p = random_answers(seed, 14, 4)
    present = [k for k in range(4) if 0 < (labels == k).sum() < 14]
    expected = np.mean([auc_by_pairs(labels == k, p[:, k]) for k in present])
    assert scores.auc(labels, p) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_several_labels_are_scored_class_by_class(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, p = random.integers(0, 2, (12, 3)), random.integers(0, 6, (12, 3)) / 5
    both = [k for k in range(3) if 0 < labels[:, k].sum() < 12]
    some = [k for k in range(3) if labels[:, k].any()]
    expected = np.mean([auc_by_pairs(labels[:, k] == 1, p[:, k]) for k in both]) if both else None
    assert scores.auc(labels, p) == (None if expected is None else pytest.approx(expected, abs=1e-12))
    precision = np.mean([precision_by_hand(labels[:, k] == 1, p[:, k]) for k in some]) if some else None
    assert scores.average_precision(labels, p) == (None if precision is None else pytest.approx(precision, abs=1e-12))


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_confusion_counts_and_recalls_are_its_rows(seed: int) -> None:
    labels, p = random_answers(seed, 11, 3)
    said = scores.decisions(p, several=False)
    table = scores.confusion(labels, said, 4)
    for true, predicted in itertools.product(range(4), repeat=2):
        assert table[true, predicted] == ((labels == true) & (said == predicted)).sum()
    recalls = scores.recalls(table)
    for k in range(4):
        mine = labels == k
        assert recalls[k] == ((said[mine] == k).mean() if mine.any() else None)
    present = [one for one in recalls if one is not None]
    assert scores.balanced_error(table) == pytest.approx(1 - np.mean(present), abs=1e-12)


def test_classes_of_several_labels_are_balanced_each_for_itself() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 1]])
    said = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 0], [1, 0, 1]])
    table = scores.positive_confusion(labels, said)
    assert table[0].tolist() == [[1, 1], [0, 2]]
    assert scores.recalls(table) == [1.0, None, 0.75]
    assert scores.balanced_error(table) == 0.25, "of the first class: none has the second, every one the third"
    assert scores.balanced_error(table[1:]) == pytest.approx((0.25 + 0.25) / 2), "where there is nothing better"


def test_a_score_of_one_class_alone_is_none() -> None:
    one, two = np.zeros(3, np.int64), np.full((3, 2), 0.5)
    assert scores.auc(one, two) is None
    assert scores.auc(np.ones((3, 2), np.int64), two) is None
    assert scores.average_precision(np.zeros((3, 2), np.int64), two) is None


def test_one_half_is_a_yes() -> None:
    p = np.array([[0.5, 0.499], [0.3, 0.7]])
    assert scores.decisions(p, several=True).tolist() == [[1, 0], [0, 1]]
    assert scores.decisions(p, several=False).tolist() == [0, 1]


def test_groups_are_means_in_order_and_must_agree() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.7, 0.3]])
    groups, means, labels = scores.group_means(["b", "a", "b", None], p, np.array([0, 1, 0, 1]))
    assert groups == ["b", "a", None]
    assert np.allclose(means, [[0.7, 0.3], [0.2, 0.8], [0.7, 0.3]])
    assert labels is not None
    assert labels.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match=r"^b$"):
        scores.group_means(["b", "a", "b", "c"], p, np.array([[0, 1], [1, 1], [1, 1], [0, 0]]))
