"""Moments of an image's data against NumPy's, channel by channel."""

import numpy as np

from foveate.images import ArraySource


def test_values_that_are_not_finite_do_not_count() -> None:
    array = np.random.default_rng(3).normal(5, 2, (6, 10, 4)).astype(np.float32)
    array[0, 7:9, 0], array[:, ::2, 1], array[:, :, 3] = np.nan, np.inf, -np.inf
    count, mean, squares = ArraySource(array).moments((6, 10))
    assert count.tolist() == [58, 30, 60, 0]
    channels = np.moveaxis(array, 2, 0).reshape(4, 60).astype(np.float64)
    kept = [channel[np.isfinite(channel)] for channel in channels[:3]]
    np.testing.assert_allclose(mean, [*(one.mean() for one in kept), 0], rtol=1e-12)
    np.testing.assert_allclose(squares, [*(one.var() * len(one) for one in kept), 0], rtol=1e-12)
