"""Mean and spread of pixels of which some may be no numbers."""

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["finite_moments"]


def finite_moments(
    values: Float64[np.ndarray, "_ _"], axis: int
) -> tuple[Int64[np.ndarray, " channel"], Float64[np.ndarray, " channel"], Float64[np.ndarray, " channel"]]:
    r"""Moments of the finite values of every channel.

    .. math:: n_c, \qquad \mu_c = \frac1{n_c} \sum_p x_{pc}, \qquad \sum_p (x_{pc} - \mu_c)^2

    Arguments:
        values: a row or a column per channel.
        axis: the other one, of the pixels: 0 where channels are columns, 1 where they are rows.

    Returns:
        Per channel the number of finite values, their mean (0 of none), and their summed squared distances from it.

    Example:
        >>> count, mean, squares = finite_moments(np.array([[1.0, 3.0, np.nan]]), axis=1)
        >>> count.tolist(), mean.tolist(), squares.tolist()
        ([2], [2.0], [2.0])
    """
    finite = np.isfinite(values)
    count = finite.sum(axis)
    mean = np.where(finite, values, 0).sum(axis) / np.maximum(count, 1)
    squares = np.where(finite, np.square(values - np.expand_dims(mean, axis)), 0).sum(axis)
    return count, mean, squares
