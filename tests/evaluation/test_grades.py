"""Scores of grades against tables of counts, written from their definitions."""

import numpy as np
import pytest

from foveate.evaluation.grades import grade_scores, quadratic_weighted_kappa

RANDOM = np.random.default_rng(0)


def by_table(truth: np.ndarray, answers: np.ndarray, grades: int) -> float:
    """Cohen's sums over the table of observed pairs, and over that of the margins."""
    observed = np.zeros((grades, grades))
    for r, s in zip(truth, answers, strict=True):
        observed[r, s] += 1
    weights = np.square(np.arange(grades)[:, None] - np.arange(grades)) / (grades - 1) ** 2
    expected = np.outer(observed.sum(1), observed.sum(0)) / observed.sum()
    return float(1 - (weights * observed).sum() / (weights * expected).sum())


@pytest.mark.parametrize("grades", [2, 3, 6])
def test_kappa_is_cohens(grades: int) -> None:
    truth, answers = RANDOM.integers(grades, size=(2, 40))
    assert quadratic_weighted_kappa(truth, answers) == pytest.approx(by_table(truth, answers, grades), abs=1e-12)


def test_all_right_is_one_all_alike_is_none() -> None:
    truth = np.array([0, 1, 2, 1])
    assert quadratic_weighted_kappa(truth, truth) == 1
    assert quadratic_weighted_kappa(truth, np.ones(4, np.int64)) == 0
    assert quadratic_weighted_kappa(np.ones(4, np.int64), np.ones(4, np.int64)) is None


def test_classes_count_by_their_grades() -> None:
    """Of classes that are not sorted by grade; and the interval holds what it is of."""
    labels = RANDOM.integers(3, size=60)
    probabilities = RANDOM.dirichlet(np.ones(3), 60)
    order = (2, 0, 1)
    found = grade_scores(labels, probabilities, order)
    assert found is not None
    ranks = {number: rank for rank, number in enumerate(order)}
    truth, answers = (np.array([ranks[int(one)] for one in some]) for some in (labels, probabilities.argmax(1)))
    assert found.kappa == pytest.approx(by_table(truth, answers, 3), abs=1e-12)
    assert found.mean_absolute_error == pytest.approx(np.abs(truth - answers).mean(), abs=1e-12)
    assert found.kappa_interval is not None
    assert found.kappa_interval[0] < found.kappa < found.kappa_interval[1]
    low, high = found.mean_absolute_error_interval
    assert low < found.mean_absolute_error < high


def test_groups_are_drawn_again_as_a_whole() -> None:
    """60 images of which 20 each are alike, as three: an interval wider than that of 60."""
    labels = np.repeat([0, 1, 2], 20)
    probabilities = np.repeat(np.eye(3)[[0, 2, 2]], 20, axis=0)
    alone = grade_scores(labels, probabilities, (0, 1, 2))
    together = grade_scores(labels, probabilities, (0, 1, 2), tuple(np.repeat(["a", "b", "c"], 20)))
    assert alone is not None
    assert together is not None
    assert together.mean_absolute_error == alone.mean_absolute_error
    assert together.mean_absolute_error_interval == (0, 1)
    assert alone.mean_absolute_error_interval[1] < 0.5


def test_classes_without_an_order_have_none() -> None:
    assert grade_scores(np.array([0, 1]), np.eye(2), ()) is None
