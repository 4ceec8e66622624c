"""The race has the law of keys: who arrives, in which order, and when the next one does."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from foveate.sampling.exponential_race import race_with_replacement, race_without_replacement
from foveate.sampling.gumbel import Distribution, drawn_from, without_replacement

FAILURE_RATE = 1e-6
"""Chance, for one seed, that a test below fails though the code is right; the seeds are fixed."""

DRAWS = 20_000

MASSES = {
    "random": [0.4, 0.25, 0.15, 0.1, 0.07, 0.03],
    "flat": [1 / 6] * 6,
    "peaked": [1 - 1e-15, 5e-16, 3e-16, 2e-16],
}
LOG_MASSES = {
    **{name: [math.log(mass) for mass in masses] for name, masses in MASSES.items()},
    "peaked": [math.log1p(-1e-15), *(math.log(mass) for mass in (5e-16, 3e-16, 2e-16))],
    "vanishing": [-801.0, 0.0, -800.0, -math.inf, -802.0],
    "ever smaller": [-1600.0, -800.0, 0.0],
}


def source(name: str, images: int = DRAWS) -> Distribution:
    return drawn_from(torch.tensor(LOG_MASSES[name], dtype=torch.float64).expand(images, -1), "murthy", None, None)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(log_masses: list[float]) -> dict[tuple[int, int], float]:
    """Probability of the first two cells in order, enumerated; what is left is summed, never subtracted."""
    found = {}
    for first, second in itertools.permutations(range(len(log_masses)), 2):
        left = np.logaddexp.reduce([mass for cell, mass in enumerate(log_masses) if cell != first])
        if log_masses[first] > -math.inf and log_masses[second] > -math.inf:
            found[first, second] = math.exp(log_masses[first] + log_masses[second] - left)
    return found


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", LOG_MASSES)
def test_ordered_pairs_are_those_of_the_enumeration(name: str) -> None:
    index, _ = race_without_replacement(source(name), 2, generator(1))
    expected = {pair: DRAWS * prob for pair, prob in pairs(LOG_MASSES[name]).items() if DRAWS * prob > 1e-6}
    observed = {pair: int(((index[:, 0] == pair[0]) & (index[:, 1] == pair[1])).sum()) for pair in expected}
    assert sum(observed.values()) == DRAWS  # nothing that cannot happen does
    statistic = sum((observed[pair] - count) ** 2 / count for pair, count in expected.items())
    assert statistic <= stats.chi2.isf(FAILURE_RATE, max(len(expected) - 1, 1))


def arrivals(rates: list[float], n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Distribution function of the time of the (n+1)-th arrival: 1 − the chance that at most n have arrived."""

    def function(times: np.ndarray) -> np.ndarray:
        number = np.zeros((n + 1, len(times)))
        number[0] = 1
        for rate in rates:
            come = -np.expm1(-rate * times)
            number[1:] = number[1:] * (1 - come) + number[:-1] * come
            number[0] *= 1 - come
        return 1 - number.sum(0)

    return function


@pytest.mark.one_in(3)
@pytest.mark.parametrize("draw", [race_without_replacement, without_replacement])
@pytest.mark.parametrize(("name", "n"), [("random", 1), ("random", 4), ("random", 5), ("flat", 3)])
def test_the_threshold_is_the_next_arrival(draw: Callable[..., tuple[Tensor, Tensor]], name: str, n: int) -> None:
    _, kappa = draw(source(name), n, generator(2))
    found = stats.kstest((-kappa).exp().numpy(), arrivals(MASSES[name], n))
    assert found.pvalue > FAILURE_RATE


@pytest.mark.parametrize(
    ("name", "log_scale", "rates"),
    [("peaked", math.log(1e-15), [0.5, 0.3, 0.2]), ("vanishing", -800.0, [math.exp(-1), 1.0, math.exp(-2)])],
)
def test_the_threshold_beyond_a_peak_is_that_of_what_is_left(name: str, log_scale: float, rates: list[float]) -> None:
    # the peak arrives at once: the next after n is the n-th of the others, of whose scale times are measured
    for n in (1, 2, 3):
        _, kappa = race_without_replacement(source(name), n, generator(3))
        found = stats.kstest((log_scale - kappa).exp().numpy(), arrivals(rates, n - 1))
        assert found.pvalue > FAILURE_RATE


def test_cells_and_threshold_are_distributed_together_as_those_of_keys() -> None:
    (cells, kappa), (other_cells, other) = (
        draw(source("random"), 2, generator(seed))
        for draw, seed in ((race_without_replacement, 4), (without_replacement, 5))
    )
    for pair in pairs(LOG_MASSES["random"]):
        alike, others = (
            key[(index == torch.tensor(pair)).all(1)] for index, key in ((cells, kappa), (other_cells, other))
        )
        assert stats.ks_2samp(alike.numpy(), others.numpy()).pvalue > FAILURE_RATE


@pytest.mark.parametrize("name", ["random", "flat", "peaked", "vanishing"])
def test_independent_draws_have_the_masses(name: str) -> None:
    index = race_with_replacement(source(name, 2000), 10, generator(6)).flatten()
    expected = DRAWS * np.exp(LOG_MASSES[name])
    observed = torch.bincount(index, minlength=len(expected)).numpy()
    possible = expected > 1e-6
    assert not observed[~possible].any()
    statistic = ((observed - expected) ** 2 / np.where(possible, expected, 1))[possible].sum()
    assert statistic <= stats.chi2.isf(FAILURE_RATE, max(int(possible.sum()) - 1, 1))


def test_an_image_makes_as_many_random_numbers_however_many_cells_it_has() -> None:
    for cells in (3, 50, 4_000):
        used, counted = generator(7), generator(7)
        flat = drawn_from(torch.zeros(1, cells).log_softmax(1), "murthy", None, None)
        race_without_replacement(flat, 10, used)
        torch.rand(2 * 10 + 1, dtype=torch.float64, generator=counted)
        assert torch.equal(used.get_state(), counted.get_state())


def test_all_cells_of_a_small_image_are_drawn_and_nothing_is_left() -> None:
    rows = torch.tensor([[0.0, -math.inf, -3.0, -800.0], [-math.inf, -1.0, -math.inf, -math.inf], [0.0, 1.0, 2.0, 3.0]])
    index, kappa = race_without_replacement(
        drawn_from(rows.double().log_softmax(1), "murthy", None, None), 3, generator(8)
    )
    assert sorted(index[0].tolist()) == [0, 2, 3]
    assert index[1].tolist() == [1, 1, 1]
    assert len(set(index[2].tolist())) == 3
    assert kappa[:2].tolist() == [-math.inf, -math.inf]
    assert kappa[2] > -math.inf


def test_sums_that_fall_by_a_last_digit_draw_no_cell_without_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Tensor.cumsum

    def parallel(values: Tensor, dim: int) -> Tensor:
        """A sum as an accelerator may have it: of cells without mass, every other one's is too large by a digit."""
        total = exact(values, dim)
        total[:, 1::2] *= 1 + 2**-40
        return total

    monkeypatch.setattr(Tensor, "cumsum", parallel)
    masses = torch.full((1, 64), -math.inf, dtype=torch.float64)
    masses[0, ::16] = -math.log(4)
    goals = torch.linspace(0, 1 - 2**-53, 2**12 + 1, dtype=torch.float64)
    monkeypatch.setattr("foveate.sampling.exponential_race._uniform", lambda *_: goals[None])
    found = race_with_replacement(drawn_from(masses, "iid", None, None), len(goals), None)
    assert (masses.gather(1, found) > -math.inf).all()
