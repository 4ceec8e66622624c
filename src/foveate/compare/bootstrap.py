"""How sure an error, or a difference of errors, is: whole images or groups drawn again, jointly for all runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tally", "interval", "resampled_errors", "tally"]

BLOCK = 4_000_000
"""Numbers drawn at a time."""


@dataclass(frozen=True)
class Tally:
    """What one method got wrong, by run seed and by unit, the unit being an image or a group.

    Attributes:
        errors: (seeds, units) sum of the errors on a unit's images in the runs of a seed.
        counts: (seeds, units) number of these images; 0 where a seed did not test a unit.
    """

    errors: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The mean over seeds of the share of images that are wrong."""
        return float(np.mean(self.seed_errors))

    @property
    def seed_errors(self) -> NDArray[np.float64]:
        """(seeds,) the share of images that are wrong, folds pooled."""
        shares: NDArray[np.float64] = self.errors.sum(1) / self.counts.sum(1)
        return shares


def tally(wrong: Sequence[Sequence[tuple[str, float]]], units: Sequence[str]) -> Tally:
    """Add up errors.

    Arguments:
        wrong: for every seed, a (unit, error) per image tested.
        units: names of all units.
    """
    place = {unit: number for number, unit in enumerate(units)}
    errors, counts = (np.zeros((len(wrong), len(units))) for _ in range(2))
    for seed, images in enumerate(wrong):
        for unit, error in images:
            errors[seed, place[unit]] += error
            counts[seed, place[unit]] += 1
    return Tally(errors, counts)


def resampled_errors(tallies: Sequence[Tally], resamples: int = 10_000, seed: int = 0) -> list[NDArray[np.float64]]:
    r"""Errors of several methods on the same bootstrap samples.

    .. math:: e^*_r = \frac1S \sum_s \frac{\sum_g c_{rg} E_{sg}}{\sum_g c_{rg} N_{sg}},
              \qquad c_r \sim \mathrm{Multinomial}(G;\ 1/G, \dots, 1/G)

    Units, not runs, are drawn again: a unit that is drawn twice counts twice in all seeds, folds and methods, so that
    differences of methods are paired (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 8). The
    chance of training is not in these intervals; the errors of the seeds show it.

    Arguments:
        tallies: of the methods, over the same G units.
        resamples: number R of bootstrap samples.
        seed: of the resampling.

    Returns:
        (R,) errors of each method, NaN where a sample holds none of its images.

    Example:
        >>> one = Tally(np.array([[1.0, 1.0]]), np.array([[1.0, 1.0]]))
        >>> resampled_errors([one], resamples=3)[0].tolist()
        [1.0, 1.0, 1.0]
    """
    units = tallies[0].errors.shape[1]
    parts: list[list[NDArray[np.float64]]] = [[] for _ in tallies]
    for drawn in _draws(units, resamples, seed):
        for part, one in zip(parts, tallies, strict=True):
            tested = drawn @ one.counts.T
            with np.errstate(invalid="ignore", divide="ignore"):
                shares = np.where(tested > 0, drawn @ one.errors.T / tested, np.nan)
            known = np.isfinite(shares)
            part.append(np.where(known, shares, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan))
    return [np.concatenate(part) for part in parts]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Central 95 % of bootstrap values, NaN left out.

    Example:
        >>> interval(np.arange(201.0))
        (5.0, 195.0)
    """
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _draws(units: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is in each sample, (samples, units), a block of samples at a time."""
    generator = np.random.default_rng(seed)
    even = np.full(units, 1 / units)
    step = max(1, BLOCK // units)
    for start in range(0, resamples, step):
        yield generator.multinomial(units, even, size=min(step, resamples - start)).astype(np.float64)
