"""Weights against sums over every order, at every scale the library promises."""

import itertools
import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling import draw, weigh
from foveate.sampling.estimator import leave_one_out
from foveate.sampling.weights import importance_weights

PEAKS = (0.0, 1.0, 4.0, 30.0, 300.0, 3000.0)
"""Standard deviations of random logits, from flat to one cell that has it all."""


def _log_prob(cells: int, scale: float, seed: int = 0, rows: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, cells, dtype=torch.float64, generator=generator)).log_softmax(1)


def _masses(log_prob: Tensor, index: Tensor) -> tuple[list[float], float]:
    """Masses of the drawn cells and of the rest, from the full row."""
    masses = (log_prob - log_prob.logsumexp(0)).exp()
    drawn = set(index.tolist())
    return masses[index].tolist(), math.fsum(m for i, m in enumerate(masses.tolist()) if i not in drawn)


@pytest.mark.parametrize("method", ["murthy", "uniform"])
@pytest.mark.parametrize("scale", PEAKS)
@pytest.mark.parametrize(("cells", "n"), [(2, 1), (7, 3), (101, 100), (300, 30), (300, 100), (4000, 2), (4000, 100)])
def test_attention_times_weight_sums_to_one(cells: int, n: int, scale: float, method: str) -> None:
    log_prob = _log_prob(cells, scale, seed=cells + n, rows=4)
    drawn = draw(log_prob, n, method, generator=torch.Generator().manual_seed(n))
    total = (drawn.log_proposal.exp() * drawn.weight).sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0.0, atol=1e-9)
    assert (drawn.weight >= 1 - 1e-12).all()


@given(
    logits=st.lists(st.floats(-30, 30), min_size=3, max_size=14),
    n=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_murthy_weights_are_those_of_all_orders(logits: list[float], n: int, seed: int) -> None:
    n = min(n, len(logits) - 1)
    log_prob = torch.tensor([logits], dtype=torch.float64).log_softmax(1)
    drawn = draw(log_prob, n, "murthy", generator=torch.Generator().manual_seed(seed))
    expected = oracles.murthy_weights(*_masses(log_prob[0], drawn.index[0]))
    torch.testing.assert_close(drawn.weight[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_cells_of_equal_mass_share_the_whole(n: int) -> None:
    log_rest = torch.arange(-50.0, 20.0, 0.5, dtype=torch.float64)[:, None]
    log_prob = torch.cat((torch.zeros(len(log_rest), n, dtype=torch.float64), log_rest), 1).log_softmax(1)
    index = torch.arange(n).expand(len(log_rest), -1)
    weight = weigh(log_prob, index, "murthy").weight
    torch.testing.assert_close(weight, 1 / (n * log_prob[:, :n].exp()), rtol=5e-13, atol=0.0)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_murthy_weights_keep_twelve_digits_between_flat_and_peaked(n: int) -> None:
    worst = 0.0
    for log_rest in range(-40, 3, 3 if n < 8 else 7):
        for step in (0.0, 0.4, 3.0):
            log_mass = -step * torch.arange(n, dtype=torch.float64)
            log_prob = torch.cat((log_mass, torch.tensor([float(log_rest)], dtype=torch.float64))).log_softmax(0)
            expected = oracles.murthy_weights(log_prob[:-1].exp().tolist(), log_prob[-1].exp().item())
            weight = weigh(log_prob[None], torch.arange(n)[None], "murthy").weight[0]
            relative = weight / torch.tensor(expected, dtype=torch.float64) - 1
            worst = max(worst, relative.abs().max().item())
    print(f"n = {n}: worst relative error {worst:.1e}")
    assert worst < 5e-13


def test_a_cell_of_almost_no_mass_has_a_finite_weight() -> None:
    log_prob = torch.tensor([[0.0, -1000.0, -1.0, -2.0]], dtype=torch.float64).log_softmax(1)
    for method in ("iid", "des_raj", "murthy", "priority"):
        drawn = weigh(log_prob, torch.tensor([[1, 0]]), method, threshold=torch.tensor([-0.5]))
        assert drawn.weight.isfinite().all(), method
        assert drawn.weight[0, 0] > 1e300, method


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_mean_of_des_raj_over_the_orders_of_a_set_is_murthy(n: int) -> None:
    log_prob = _log_prob(8, 2.0, seed=n)
    orders = torch.tensor(list(itertools.permutations(range(1, n + 1))))
    rows = log_prob.expand(len(orders), -1)
    ordered = weigh(rows, orders, "des_raj")
    left = torch.cat((ordered.log_proposal.flip(1), ordered.log_rest[:, None]), 1).exp()
    before = ordered.log_rest[:, None].exp() + left[:, :-1].cumsum(1).flip(1)
    probability = (ordered.log_proposal.exp() / before).prod(1)
    by_cell = torch.zeros(len(orders), 8, dtype=torch.float64).scatter(1, orders, ordered.weight)
    mean = (probability / probability.sum()) @ by_cell
    expected = weigh(log_prob, torch.arange(1, n + 1)[None], "murthy").weight[0]
    torch.testing.assert_close(mean[1 : n + 1], expected, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_baseline_ratios_are_those_of_all_orders(n: int, scale: float) -> None:
    log_prob = _log_prob(9, scale, seed=n)
    drawn = draw(log_prob, n, "murthy", generator=torch.Generator().manual_seed(1))
    expected = oracles.pair_ratios(*_masses(log_prob[0], drawn.index[0])) * drawn.log_prob.exp()
    torch.testing.assert_close(leave_one_out(drawn)[0], expected, rtol=1e-11, atol=0.0)


def test_uniform_draws_have_ratios_in_closed_form() -> None:
    cells, n = 500, 40
    drawn = draw(_log_prob(cells, 3.0), n, "uniform", generator=torch.Generator().manual_seed(1))
    ratio = leave_one_out(drawn)[0] / drawn.log_prob[0].exp()
    expected = torch.full((n, n), (cells - 1) / (n - 1), dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(ratio, expected, rtol=1e-11, atol=0.0)
    assert torch.equal(drawn.weight, torch.full((1, n), cells / n, dtype=torch.float64))


def _float32_case(name: str) -> Tensor:
    """(1, K) float32 logits that test the promise of K up to 10⁶ and max a up to 1 − 1e-7."""
    cells = 1_000_000 if name.endswith("million") else 900
    logits = torch.randn(1, cells, generator=torch.Generator().manual_seed(7))
    if name.startswith("peaked"):
        # Everything else together has mass 1e-7 of the peak.
        logits[0, cells // 3] = logits[0].double().logsumexp(0).float() + math.log(1e7)
    if name.startswith("two"):
        logits[0, [5, cells // 2]] = logits[0].double().logsumexp(0).float() + math.log(1e7)
    return logits


@pytest.mark.parametrize("method", ["iid", "des_raj", "priority", "murthy", "uniform"])
@pytest.mark.parametrize("name", ["flat", "peaked", "two peaks", "flat million", "peaked million"])
def test_float32_attention_gives_the_weights_of_float64(name: str, method: str) -> None:
    logits, n = _float32_case(name), 8
    logits.requires_grad_()
    drawn = draw(logits.log_softmax(1), n, method, generator=torch.Generator().manual_seed(11))
    exact = logits.detach().double().log_softmax(1)
    cells = exact.shape[1]
    masses, log_rest = exact[0, drawn.index[0]].exp().tolist(), exact.scatter(1, drawn.index, -math.inf).logsumexp(1)
    rest = log_rest.exp().item()
    match method:
        case "iid":
            expected = [1 / (n * mass) for mass in masses]
        case "des_raj":
            expected = oracles.des_raj_weights(masses, rest)
        case "murthy":
            expected = oracles.murthy_weights(masses, rest)
        case "priority":
            assert drawn.threshold is not None
            expected = [-1 / math.expm1(-mass * math.exp(-drawn.threshold.item())) for mass in masses]
        case _:
            expected = [cells / n] * n
            log_rest = torch.tensor([math.log1p(-n / cells)], dtype=torch.float64)
    torch.testing.assert_close(drawn.weight[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(drawn.log_rest, log_rest, rtol=1e-5, atol=1e-5)
    (drawn.log_prob.double().exp() * drawn.weight).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_weights_of_an_unknown_kind_are_refused() -> None:
    one, cells = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    count, valid = torch.tensor([3]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(FoveateError, match="method 'top' has no importance weights"):
        importance_weights("top", cells, one, None, count, valid)
