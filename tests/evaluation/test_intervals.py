"""Intervals against their definitions."""

import math

import numpy as np
import pytest

from foveate.evaluation.intervals import (
    area_interval,
    area_noise,
    bootstrap_interval,
    error_interval,
    unit_names,
    wilson_interval,
)
from foveate.evaluation.scores import auc


@pytest.mark.parametrize(("errors", "n"), [(1, 9), (10, 100), (75, 1000), (999, 1000)])
def test_wilson_bounds_solve_the_score_equation(errors: int, n: int) -> None:
    for bound in wilson_interval(errors, n):
        z = abs(errors / n - bound) / math.sqrt(bound * (1 - bound) / n)
        assert z == pytest.approx(1.959963984540054, abs=1e-9)


def test_no_error_at_all_still_leaves_room() -> None:
    low, high = wilson_interval(0, 20)
    assert low == 0
    for n in range(1, 200):
        assert wilson_interval(0, n)[0] == 0 == 1 - wilson_interval(n, n)[1]
    assert high == pytest.approx(1.959963984540054**2 / (20 + 1.959963984540054**2))


def test_grouped_errors_widen_the_interval() -> None:
    """Forty patients with ten equal images each carry the information of forty images, not of four hundred."""
    wrong = [patient % 5 == 0 for patient in range(40) for _ in range(10)]
    groups = [f"patient {patient}" for patient in range(40) for _ in range(10)]
    low, high = bootstrap_interval(wrong, groups)
    few_low, few_high = wilson_interval(8, 40)
    assert (low, high) == pytest.approx((few_low, few_high), abs=0.05)
    many_low, many_high = wilson_interval(80, 400)
    assert high - low > 2.5 * (many_high - many_low)


def test_groups_of_one_image_are_no_groups() -> None:
    wrong = [True, False, False, True, False]
    assert error_interval(wrong, ["a", "b", "c", None, None]) == wilson_interval(2, 5)
    assert error_interval(wrong, ["a", "a", "c", None, None]) == bootstrap_interval(wrong, ["a", "a", "c", "d", "e"])


def test_the_bootstrap_is_of_ratios_where_groups_differ_in_size() -> None:
    """Resampling two groups gives three possible shares, of known probabilities 1/4, 1/2, 1/4."""
    found = bootstrap_interval([True, False, False, False], ["a", "b", "b", "b"])
    assert found == (0.0, 1.0)
    assert np.isfinite(found).all()


def test_partly_wrong_images_are_resampled() -> None:
    wrong = [0.0, 0.5, 0.25, 0.0]
    low, high = error_interval(wrong, [None] * 4)
    assert (low, high) == bootstrap_interval(wrong, ["0", "1", "2", "3"])
    assert 0 <= low < sum(wrong) / 4 < high <= 0.5
    assert error_interval([0.0] * 4, [None] * 4) == wilson_interval(0, 4)


def two_classes(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], 1)


def delong(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    """AUC and DeLong's variance, pair by pair."""
    wins = (positives[:, None] > negatives).astype(float) + 0.5 * (positives[:, None] == negatives)
    rows, columns = wins.mean(1), wins.mean(0)
    return wins.mean(), rows.var(ddof=1) / len(rows) + columns.var(ddof=1) / len(columns)


def test_the_noise_of_auc_is_delongs_pair_by_pair() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        labels = np.append(random.integers(0, 2, 17), [0, 0, 1, 1])
        scores = random.integers(0, 9, 21) / 9  # with ties
        area, variance = delong(scores[labels == 1], scores[labels == 0])
        noise = area_noise(labels, two_classes(scores), unit_names([None] * 21))
        assert noise is not None
        assert noise.area == pytest.approx(area, abs=1e-12)
        assert sum(one**2 for one in noise.influence.values()) == pytest.approx(variance, abs=1e-12)
        assert (noise.positives, noise.negatives) == (labels.sum(), 21 - labels.sum())
        low, high = area_interval([noise])
        assert 0 <= low < area < high <= 1


def test_images_that_are_there_twice_say_no_more_of_auc_if_they_are_a_group() -> None:
    random = np.random.default_rng(4)
    labels, scores = np.repeat([0, 1], 15), random.random(30) * 0.7 + np.repeat([0, 0.3], 15)
    once = area_noise(labels, two_classes(scores), unit_names([None] * 30))
    twice = area_noise(np.tile(labels, 2), two_classes(np.tile(scores, 2)), [f"{i}" for i in range(30)] * 2)
    assert once is not None
    assert twice is not None
    assert area_interval([twice]) == pytest.approx(area_interval([once]), abs=1e-12)
    assert area_interval([once, once]) == area_interval([once])
    assert area_noise(labels * 0, two_classes(scores), ["a"] * 30) is None


def test_an_area_without_noise_has_an_interval_that_solves_newcombes_equation() -> None:
    for positives, negatives in [(2, 3), (20, 5), (1, 9)]:
        labels = np.repeat([0, 1], [negatives, positives])
        noise = area_noise(labels, two_classes(0.2 + 0.6 * labels), unit_names([None] * len(labels)))
        assert noise is not None
        low, high = area_interval([noise])
        more = (positives + negatives) / 2 - 1
        spread = 1 + more * (1 - low) / (2 - low) + more * low / (1 + low)
        z = (1 - low) / math.sqrt(low * (1 - low) * spread / (positives * negatives))
        assert (z, high) == pytest.approx((1.959963984540054, 1.0), abs=1e-9)


@pytest.mark.parametrize(("classes", "grouped"), [(2, False), (2, True), (3, True)])
def test_the_interval_of_auc_holds_the_true_area_as_often_as_it_says(classes: int, grouped: bool) -> None:
    """500 data sets of 60 images; a coverage of 0.95 lies within [0.92, 0.98] but with a chance of 0.002."""
    random = np.random.default_rng(5)

    def sample(units: int, each: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        labels = random.integers(0, classes, units)
        own = (labels[:, None] == np.arange(classes)) * 1.2 + random.normal(size=(units, classes))
        scores = np.repeat(own, each, 0) + 0.3 * random.normal(size=(units * each, classes))
        names = [f"{unit}" for unit in range(units) for _ in range(each)]
        values = np.exp(scores)
        return np.repeat(labels, each), values / values.sum(1, keepdims=True), names

    each = 3 if grouped else 1
    labels, values, _ = sample(20000, 1)
    truth = auc(labels, values)
    assert truth is not None
    held = []
    for _ in range(500):
        noise = area_noise(*sample(60 // each, each))
        assert noise is not None
        low, high = area_interval([noise])
        held.append(low <= truth <= high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_no_interval_is_without_width() -> None:
    assert error_interval([0.0] * 6, ["a", "a", "b", "b", "c", "c"]) == wilson_interval(0, 3)
    assert error_interval([1.0, 0.0] * 3, ["a", "a", "b", "b", "c", "c"]) == wilson_interval(1.5, 3)
