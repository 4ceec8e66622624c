"""Unbiased in value and in both gradients, by enumeration of every draw."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import every_draw, full_expectation
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling import draw, expectation, weigh
from foveate.sampling.estimator import leave_one_out
from foveate.sampling.weights import thresholds
from foveate.types import Thresholds

EXACT = {"rtol": 0.0, "atol": 1e-10}
METHODS = ["iid", "des_raj", "murthy", "uniform", "priority"]
LOGITS = {
    "flat": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "random": [0.3, -1.2, 0.9, 0.1, -0.4, 1.7],
    "peaked": [9.0, 0.5, -3.0, 2.0, -1.0, 0.0],
    "two peaks": [8.0, -6.0, 8.5, -7.0, 0.0, -2.0],
}
SHAPES = [(6, 4), (6, 2), (5, 3), (6, 1), (4, 3), (2, 1), (3, 3), (2, 4)]
CASES = [
    *[("random", shape) for shape in SHAPES],
    *[("peaked", shape) for shape in ((6, 4), (5, 2), (4, 1))],
    ("flat", (5, 3)),
    ("flat", (6, 1)),
    ("two peaks", (6, 3)),
    ("two peaks", (4, 2)),
]
SOURCES = [*[(method, "attention") for method in METHODS], *[(m, "proposal") for m in METHODS if m != "uniform"]]


def _features(cells: int) -> Tensor:
    return torch.randn(cells, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(cells))


def _estimates(
    logits: Tensor, features: Tensor, n: int, method: str, baseline: str | None, proposal: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The estimate (M, D) from every draw, and the probabilities (M,). `logits` may be one row, or a row per draw."""
    index, probability, threshold = every_draw(logits[0] if logits.ndim == 2 else logits, n, method, proposal)
    log_prob = logits.log_softmax(-1).expand(len(index), -1)
    source = None if proposal is None else proposal.expand(len(index), -1)
    drawn = weigh(log_prob, index, method, proposal=source, threshold=threshold)
    return expectation(drawn, features[index], baseline), probability


@pytest.mark.one_in(3)
@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize(("method", "drawn_from"), SOURCES)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_value_and_gradients_are_those_of_the_full_expectation(
    name: str, shape: tuple[int, int], method: str, baseline: str | None, drawn_from: str
) -> None:
    cells, n = shape
    logits = torch.tensor(LOGITS[name][:cells], dtype=torch.float64, requires_grad=True)
    features = _features(cells).requires_grad_()
    proposal = None
    if drawn_from == "proposal":
        proposal = torch.linspace(-1.0, 1.5, cells, dtype=torch.float64).log_softmax(0)
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    estimate, probability = _estimates(logits, features, n, method, baseline, proposal)
    torch.testing.assert_close(probability.sum().item(), 1.0, **EXACT)
    mean = probability @ estimate
    got = torch.autograd.grad(mean @ direction, (logits, features))

    truth = full_expectation(logits, features)
    expected = torch.autograd.grad(truth @ direction, (logits, features))
    torch.testing.assert_close(mean, truth, **EXACT)
    torch.testing.assert_close(got[0], expected[0], **EXACT)
    torch.testing.assert_close(got[1], expected[1], **EXACT)


def _variance(values: Tensor, probability: Tensor) -> float:
    """Trace of the covariance of the rows."""
    mean = probability @ values
    return float(probability @ (values - mean).square().sum(1))


@given(
    logits=st.lists(st.floats(-6, 6), min_size=3, max_size=6),
    n=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=20, deadline=None)
def test_murthy_never_varies_more_than_des_raj_or_priority(logits: list[float], n: int, seed: int) -> None:
    n = min(n, len(logits) - 1)
    row = torch.tensor(logits, dtype=torch.float64)
    features = torch.randn(len(logits), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    variance = {
        method: _variance(*_estimates(row, features, n, method, None)) for method in ("murthy", "des_raj", "priority")
    }
    slack = 1e-9 * max(1.0, variance["des_raj"])
    assert variance["murthy"] <= variance["des_raj"] + slack
    assert variance["murthy"] <= variance["priority"] + slack


@pytest.mark.parametrize("method", METHODS)
def test_the_baseline_removes_the_noise_of_what_features_share(method: str) -> None:
    features = 0.2 * _features(6) + torch.tensor([4.0, -2.0, 3.0])
    row = torch.tensor(LOGITS["random"], dtype=torch.float64)
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    variance = {}
    for baseline in (None, "leave-one-out"):
        draws = len(every_draw(row, 3, method, None)[0])
        logits = row.expand(draws, -1).clone().requires_grad_()
        estimate, probability = _estimates(logits, features, 3, method, baseline)
        (gradient,) = torch.autograd.grad((estimate @ direction).sum(), logits)
        variance[baseline] = _variance(gradient, probability)
    print(f"{method}: gradient variance {variance[None]:.4g} without, {variance['leave-one-out']:.4g} with baseline")
    # Drawn without looking at the attention, the baseline itself is a noisy estimate.
    assert variance["leave-one-out"] < (0.25 if method == "uniform" else 0.1) * variance[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_the_baseline_leaves_the_value_alone_to_the_bit(method: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    log_prob = torch.randn(5, 40, dtype=dtype, generator=generator).mul(4).log_softmax(1).requires_grad_()
    features = 16 * torch.randn(5, 7, 6, dtype=dtype, generator=generator)
    drawn = draw(log_prob, 7, method, generator=generator)
    assert torch.equal(expectation(drawn, features), expectation(drawn, features, "leave-one-out"))


@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_forward_and_backward(method: str, baseline: str | None, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(6, 30, generator=generator, dtype=dtype)
    logits[1] *= 300
    logits[2, 3] += 2000
    logits[3] = 0
    logits.requires_grad_()
    mask = torch.rand(6, 30, generator=generator) < 0.7
    mask[4] = False
    mask[4, [2, 11, 17]] = True
    mask[5] = False
    mask[5, 8] = True
    log_prob = logits.masked_fill(~mask, -torch.inf).log_softmax(1)
    drawn = draw(log_prob, 5, method, mask, generator)
    features = torch.randn(6, 5, 3, generator=generator, dtype=dtype, requires_grad=True)
    estimate = expectation(drawn, features, baseline)
    estimate.square().sum().backward()
    for tensor in (drawn.weight, drawn.log_proposal, estimate, logits.grad, features.grad):
        assert tensor is not None
        assert tensor.isfinite().all()
    assert not logits.grad[~mask].any()
    assert mask.gather(1, drawn.index).all()


def test_the_thresholds_of_a_draw_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*cells: Tensor) -> Thresholds:
        calls.append(cells)
        return thresholds(*cells)

    for module in ("draw", "estimator"):
        monkeypatch.setattr(import_module(f"foveate.sampling.{module}"), "thresholds", counted)
    log_prob = torch.linspace(-1.0, 1.0, 14, dtype=torch.float64).view(2, 7).log_softmax(1).requires_grad_()
    for method, before, after in (("murthy", 1, 1), ("des_raj", 0, 1), ("iid", 0, 0)):
        calls.clear()
        drawn = draw(log_prob, 3, method, generator=torch.Generator().manual_seed(3))
        assert len(calls) == before
        matrix = leave_one_out(drawn)
        assert len(calls) == after
        assert torch.equal(matrix, leave_one_out(replace(drawn, nodes=None)))


def test_slots_left_over_count_for_nothing_even_if_they_hold_nan() -> None:
    log_prob = torch.tensor([[0.5, 0.2, 0.3]]).log().requires_grad_()
    drawn = draw(log_prob, 5, generator=torch.Generator().manual_seed(0))
    features = torch.tensor([[1.0], [2.0], [4.0]])[drawn.index]
    features = features.masked_fill(~drawn.valid[:, :, None], torch.nan)
    estimate = expectation(drawn, features, "leave-one-out")
    torch.testing.assert_close(estimate, torch.tensor([[0.5 + 0.4 + 1.2]]))
    estimate.sum().backward()
    assert log_prob.grad is not None
    assert log_prob.grad.isfinite().all()


def test_half_precision_and_autocast_change_no_weight_and_sum_in_float32() -> None:
    log_prob = torch.randn(2, 20, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    features = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    plain = draw(log_prob, 4, generator=torch.Generator().manual_seed(2))
    expected = expectation(plain, features.float(), "leave-one-out")
    with torch.autocast("cpu", torch.bfloat16):
        drawn = draw(log_prob, 4, generator=torch.Generator().manual_seed(2))
        estimate = expectation(drawn, features, "leave-one-out")
    assert torch.equal(drawn.weight, plain.weight)
    assert estimate.dtype == torch.float32
    assert torch.equal(estimate, expected)


def test_top_is_the_expectation_over_the_most_probable_cells_with_its_gradient() -> None:
    logits = torch.tensor([[0.1, 2.0, -1.0, 1.5, 0.3]], dtype=torch.float64, requires_grad=True)
    features = _features(5)
    drawn = draw(logits.log_softmax(1), 2, "top")
    assert drawn.index.tolist() == [[1, 3]]
    estimate = expectation(drawn, features[drawn.index])
    (got,) = torch.autograd.grad(estimate.sum(), logits)

    alone = logits[:, [1, 3]].softmax(1) @ features[[1, 3]]
    (expected,) = torch.autograd.grad(alone.sum(), logits)
    torch.testing.assert_close(estimate, alone, **EXACT)
    torch.testing.assert_close(got, expected, **EXACT)


def test_refusals_say_what_to_do() -> None:
    log_prob = torch.zeros(1, 4).log_softmax(1)
    drawn = draw(log_prob, 2)
    with pytest.raises(FoveateError, match=r"one row per drawn cell, \(1, 2\) of them, got shape \(1, 3, 6\)"):
        expectation(drawn, torch.zeros(1, 3, 6))
    with pytest.raises(FoveateError, match="unknown baseline 'mean': choose 'leave-one-out' or None"):
        expectation(drawn, torch.zeros(1, 2, 6), "mean")
    with pytest.raises(FoveateError, match="method 'top' draws nothing at random and has no baseline: pass baseline="):
        expectation(draw(log_prob, 2, "top"), torch.zeros(1, 2, 6), "leave-one-out")
