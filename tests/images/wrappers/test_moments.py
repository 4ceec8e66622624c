"""Moments of finite pixels against NumPy's, channel by channel."""

import numpy as np
import pytest

from foveate.images.wrappers.standardise import finite_moments


@pytest.mark.parametrize("axis", [0, 1])
def test_values_that_are_not_finite_do_not_count(axis: int) -> None:
    channels = np.random.default_rng(3).normal(5, 2, (4, 60))
    channels[0, 7:9], channels[1, ::2], channels[3] = np.nan, np.inf, -np.inf
    count, mean, squares = finite_moments(channels if axis == 1 else channels.T.copy(), axis)
    assert count.tolist() == [58, 30, 60, 0]
    kept = [channel[np.isfinite(channel)] for channel in channels[:3]]
    np.testing.assert_allclose(mean, [*(one.mean() for one in kept), 0], rtol=1e-12)
    np.testing.assert_allclose(squares, [*(one.var() * len(one) for one in kept), 0], rtol=1e-12)
