"""How wrong a classifier is, and how sure that figure is."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["bootstrap_interval", "error_interval", "unit_names", "wilson_interval"]

Z = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(errors: int, n: int) -> tuple[float, float]:
    r"""95 % score interval of a proportion.

    .. math:: \frac{p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Arguments:
        errors: number of wrong answers.
        n: number of answers, at least 1.

    Returns:
        Lower and upper bound, in [0, 1].

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(10, 100)]
        [0.0552, 0.1744]
    """
    p, z2 = errors / n, Z * Z
    middle = p + z2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bootstrap_interval(
    wrong: Sequence[float], groups: Sequence[str], seed: int = 0, resamples: int = 4000
) -> tuple[float, float]:
    """95 % percentile interval of the error when whole groups are drawn again, with replacement.

    Images of one patient or scene are not independent; resampling groups keeps their dependence
    (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 8).

    Arguments:
        wrong: one value per image, in [0, 1].
        groups: the group of each image.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        Lower and upper bound, in [0, 1].

    Example:
        >>> bootstrap_interval([True, True, False, False], ["a", "a", "b", "b"])
        (0.0, 1.0)
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(member, minlength=len(names))
    errors = np.bincount(member, weights=np.asarray(wrong, dtype=np.float64), minlength=len(names))
    generator = np.random.default_rng(seed)
    shares = np.empty(resamples)
    for resample in range(resamples):
        drawn = generator.integers(len(names), size=len(names))
        shares[resample] = errors[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def error_interval(wrong: Sequence[float], groups: Sequence[str | None]) -> tuple[float, float]:
    """95 % interval of the error: Wilson's where every image is on its own and right or wrong, bootstrap otherwise.

    Otherwise: where a group has several images, or an image is partly wrong because it has several labels.

    Arguments:
        wrong: one value per image, in [0, 1]; at least one.
        groups: the group of each image; None is a group of its own.

    Example:
        >>> error_interval([True, False, False], [None, None, None]) == wilson_interval(1, 3)
        True
    """
    named = unit_names(groups)
    partly = any(one not in (0, 1) for one in wrong)
    if partly or len(set(named)) < len(named):
        return bootstrap_interval(wrong, named)
    return wilson_interval(sum(bool(one) for one in wrong), len(wrong))


def unit_names(groups: Sequence[str | None]) -> list[str]:
    """What is drawn again as a whole, image by image: its group, or the image where it has none.

    Example:
        >>> unit_names(["p", None, "p"])
        ['group p', '1', 'group p']
    """
    return [f"{number}" if group is None else f"group {group}" for number, group in enumerate(groups)]
