"""Intervals against their definitions."""

import math

import numpy as np
import pytest

from foveate.evaluation.intervals import bootstrap_interval, error_interval, wilson_interval


@pytest.mark.parametrize(("errors", "n"), [(1, 9), (10, 100), (75, 1000), (999, 1000)])
def test_wilson_bounds_solve_the_score_equation(errors: int, n: int) -> None:
    for bound in wilson_interval(errors, n):
        z = abs(errors / n - bound) / math.sqrt(bound * (1 - bound) / n)
        assert z == pytest.approx(1.959963984540054, abs=1e-9)


def test_no_error_at_all_still_leaves_room() -> None:
    low, high = wilson_interval(0, 20)
    assert low == 0
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
