"""A learnt control variate: unbiased whatever it is, silent where it is right, taught by the noise that it leaves."""

import math
import re

import pytest
import torch
from oracles import every_draw, full_expectation
from torch import Tensor

from foveate.errors import FoveateError
from foveate.networks import log_attention
from foveate.sampling import ControlVariate, control_loss, draw, expectation, weigh
from foveate.types import Draw

EXACT = {"rtol": 0.0, "atol": 1e-10}
METHODS = ["iid", "des_raj", "murthy", "uniform", "priority"]
LOGITS = {"random": [0.3, -1.2, 0.9, 0.1, -0.4, 1.7], "peaked": [6.0, 0.5, -3.0, 2.0, -1.0, 0.0]}
SHAPES = [(6, 3), (5, 2), (6, 1), (3, 3), (3, 4)]
DIRECTION = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
PROPOSED = [*[(method, False) for method in METHODS], *[(m, True) for m in METHODS if m != "uniform"]]


def _values(cells: int, seed: int) -> Tensor:
    return torch.randn(cells, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _foretold(kind: str, features: Tensor) -> Tensor:
    """What is foretold: nothing, noise, the features themselves, or something near them."""
    noise = _values(len(features), 99)
    return {"nothing": 0 * noise, "noise": 10 * noise, "truth": features, "near": 0.8 * features + 0.2 * noise}[kind]


def _every(logits: Tensor, n: int, method: str, proposed: bool = False) -> tuple[Draw, Tensor, Tensor]:
    """Every draw, as rows of one draw; its log attention (M, K), and probabilities (M,)."""
    row = logits[0] if logits.ndim == 2 else logits
    proposal = torch.linspace(-1.0, 1.5, len(row), dtype=torch.float64).log_softmax(0) if proposed else None
    index, probability, threshold = every_draw(row, n, method, proposal)
    log_prob = logits.log_softmax(-1).expand(len(index), -1)
    source = None if proposal is None else proposal.expand(len(index), -1)
    return weigh(log_prob, index, method, proposal=source, threshold=threshold), log_prob, probability


def _variance(values: Tensor, probability: Tensor) -> float:
    """Trace of the covariance of the rows."""
    mean = probability @ values
    return float(probability @ (values - mean).square().sum(1))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", ["noise", "truth", "near"])
@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize(("method", "proposed"), PROPOSED)
@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_are_those_of_the_full_expectation_whatever_is_foretold(
    shape: tuple[int, int], name: str, method: str, proposed: bool, baseline: str | None, kind: str
) -> None:
    cells, n = shape
    logits = torch.tensor(LOGITS[name][:cells], dtype=torch.float64, requires_grad=True)
    features = _values(cells, cells).requires_grad_()
    values = _foretold(kind, features.detach()).clone().requires_grad_()
    drawn, log_prob, probability = _every(logits, n, method, proposed)
    # one image, of which every possible draw is a row
    control = ControlVariate(log_prob[:1], values[None])
    estimate = expectation(drawn, features[drawn.index], baseline, control)
    mean = probability @ estimate
    got = torch.autograd.grad(mean @ DIRECTION, (logits, features, values), allow_unused=True)

    truth = full_expectation(logits, features)
    expected = torch.autograd.grad(truth @ DIRECTION, (logits, features))
    torch.testing.assert_close(mean, truth, **EXACT)
    torch.testing.assert_close(got[0], expected[0], **EXACT)
    torch.testing.assert_close(got[1], expected[1], **EXACT)
    assert got[2] is None
    if kind == "truth":
        assert _variance(estimate.detach(), probability) < 1e-20
    if n >= cells and method != "iid":
        torch.testing.assert_close(estimate, truth.expand_as(estimate), **EXACT)


def _gradients(
    method: str, baseline: str | None, values: Tensor, features: Tensor, name: str = "random", before: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates, gradients of the attention and probabilities of every draw of three of six cells.

    With `before` the baseline is that of the features: it is taken off before what is foretold is.
    """
    row = torch.tensor(LOGITS[name], dtype=torch.float64)
    draws = len(every_draw(row, 3, method, None)[0])
    logits = row.expand(draws, -1).clone().requires_grad_()
    drawn, log_prob, probability = _every(logits, 3, method)
    read, control = features[drawn.index], ControlVariate(log_prob, values.expand(draws, -1, -1))
    estimate = expectation(drawn, read, baseline, control)
    if before:
        plain = [expectation(drawn, read, one) for one in (baseline, None)]
        estimate = expectation(drawn, read, None, control) + plain[0] - plain[1]
    (gradient,) = torch.autograd.grad((estimate @ DIRECTION).sum(), logits)
    return estimate.detach(), gradient, probability


@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_varies_where_the_truth_is_foretold(method: str, baseline: str | None) -> None:
    features = _values(6, 6)
    estimate, gradient, probability = _gradients(method, baseline, features, features)
    assert _variance(estimate, probability) < 1e-20
    assert _variance(gradient, probability) < 1e-20


@pytest.mark.one_in(3)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("method", METHODS)
def test_value_and_gradient_vary_less_with_a_baseline_of_what_is_not_foretold(
    method: str, name: str, shared: bool
) -> None:
    if method == "uniform" and not shared:
        pytest.skip("where Σ a w is not 1, what is common is noise of the estimate, which no baseline lessens")
    common, baseline = torch.tensor([4.0, -2.0, 3.0]), "leave-one-out"
    features = _values(6, 6) + common
    # what all features have in common is foretold, too, or is not
    values = features + 0.3 * _values(6, 99) - (0.2 if shared else 1.0) * common
    settings = {
        "plain": (None, 0 * values),
        "baseline": (baseline, 0 * values),
        "control": (None, values),
        "baseline, then control": (baseline, values),
        "control, then baseline": (baseline, values),
    }
    value, gradient = {}, {}
    for key, (chosen, foretold) in settings.items():
        before = key == "baseline, then control"
        estimate, slope, probability = _gradients(method, chosen, foretold, features, name, before)
        value[key], gradient[key] = _variance(estimate, probability), _variance(slope, probability)
    print(f"{method}, {name}, {shared}: {', '.join(f'{key} {one:.4g}' for key, one in gradient.items())}")
    assert value["control"] == pytest.approx(value["control, then baseline"])
    assert gradient["control, then baseline"] < 0.5 * gradient["baseline"]
    if shared:  # and a baseline of the features themselves puts back what has been taken off
        assert value["control"] < 0.5 * value["plain"]
        assert gradient["control, then baseline"] < 0.3 * gradient["baseline, then control"]
    else:
        assert gradient["control, then baseline"] < 0.5 * gradient["control"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", ["nothing", "noise", "near"])
@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize(("method", "proposed"), PROPOSED)
@pytest.mark.parametrize("shape", [(6, 3), (5, 2), (4, 1), (3, 4)], ids=str)
def test_the_loss_is_the_noise_that_is_left(
    shape: tuple[int, int], method: str, proposed: bool, name: str, kind: str
) -> None:
    cells, n = shape
    if method == "priority" and n == 1:
        pytest.skip("with one draw the variance of priority sampling is infinite")
    logits = torch.tensor(LOGITS[name][:cells], dtype=torch.float64)
    features = _values(cells, cells)
    values = _foretold(kind, features)
    drawn, log_prob, probability = _every(logits, n, method, proposed)
    control = ControlVariate(log_prob[:1], values[None])
    # the loss is a mean over rows: residuals scaled by the root of their chance make it the mean over all draws
    chance = (len(probability) * probability).sqrt()[:, None, None]
    mean = control_loss(drawn, values[drawn.index] + chance * (features - values)[drawn.index], control)
    times = torch.zeros(len(probability), cells, dtype=torch.float64).scatter_add_(1, drawn.index, drawn.weight)
    spread = probability @ (times - 1).square()
    expected = (logits.softmax(0).square() * spread) @ (features - values).square().sum(1)
    if method == "des_raj":
        assert float(mean) >= float(expected) * (1 - 1e-10)
    else:
        torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-10)
    if method == "priority":
        estimate = expectation(drawn, features[drawn.index], None, control)
        assert float(mean) == pytest.approx(_variance(estimate, probability), rel=1e-9, abs=1e-12)


def test_the_loss_teaches_what_is_foretold_and_nothing_else() -> None:
    logits = torch.tensor([LOGITS["random"], LOGITS["peaked"]], dtype=torch.float64, requires_grad=True)
    log_prob = logits.log_softmax(1)
    drawn = draw(log_prob, 3, generator=torch.Generator().manual_seed(1))
    features = _values(6, 3)[drawn.index].requires_grad_()
    values = torch.zeros(2, 6, 3, dtype=torch.float64, requires_grad=True)
    loss = control_loss(drawn, features, ControlVariate(log_prob, values))
    gradients = torch.autograd.grad(loss, (logits, features, values), allow_unused=True)
    assert gradients[0] is None
    assert gradients[1] is None
    taught = gradients[2].ne(0).any(2)
    assert torch.equal(taught, torch.zeros_like(taught).scatter(1, drawn.index, True))


def test_a_view_that_tells_the_features_is_learnt_until_draws_have_no_noise() -> None:
    generator = torch.Generator().manual_seed(4)
    seen = torch.randn(8, 12, 3, generator=generator)
    truth = torch.randn(4, 3, generator=generator)
    features = seen @ truth[:3] + truth[3]
    foretell = torch.nn.Linear(3, 3)
    with torch.no_grad():
        foretell.weight.zero_()
        foretell.bias.zero_()
    log_prob = (2 * torch.randn(8, 12, generator=generator)).log_softmax(1)
    optimiser = torch.optim.Adam(foretell.parameters(), 0.1)
    losses = []
    for _ in range(150):
        drawn = draw(log_prob, 4, generator=generator)
        read = features.gather(1, drawn.index[:, :, None].expand(-1, -1, 3))
        loss = control_loss(drawn, read, ControlVariate(log_prob, foretell(seen)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-6 * losses[0]
    whole = torch.einsum("bk,bkd->bd", log_prob.exp(), features)
    plain = expectation(drawn, read)
    controlled = expectation(drawn, read, None, ControlVariate(log_prob, foretell(seen)))
    assert (controlled - whole).norm() < 1e-3 * (plain - whole).norm()


@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize("method", METHODS)
def test_rows_of_one_image_share_what_is_foretold(method: str, baseline: str | None) -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(3, 7, dtype=torch.float64, generator=generator).log_softmax(1).requires_grad_()
    values = torch.randn(3, 7, 2, dtype=torch.float64, generator=generator)
    drawn = draw(log_prob.repeat_interleave(4, 0), 2, method, generator=generator)
    features = torch.randn(12, 2, 2, dtype=torch.float64, generator=generator)
    found = []
    for repeats in (1, 4):
        control = ControlVariate(log_prob.repeat_interleave(repeats, 0), values.repeat_interleave(repeats, 0))
        estimate = expectation(drawn, features, baseline, control)
        (slope,) = torch.autograd.grad(estimate.square().sum(), log_prob, retain_graph=True)
        found.append((estimate, slope, control_loss(drawn, features, control)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize("method", [*METHODS, "top"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_cells_count_for_nothing_and_everything_is_finite(
    method: str, baseline: str | None, dtype: torch.dtype
) -> None:
    if method == "top" and baseline is not None:
        pytest.skip("top has no baseline")
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(5, 3, 10, generator=generator, dtype=dtype)
    logits[1] *= 300
    logits[2, 0, 3] += 2000
    logits.requires_grad_()
    mask = torch.rand(5, 30, generator=generator) < 0.7
    mask[3] = False
    mask[3, [2, 11, 17]] = True
    mask[4] = False
    mask[4, 8] = True
    log_prob = log_attention(logits, mask.view(5, 3, 10), 0.1)
    drawn = draw(log_prob, 5, method, mask, generator)
    features = torch.randn(5, 30, 3, generator=generator, dtype=dtype)
    values = torch.randn(5, 30, 3, generator=generator, dtype=dtype).masked_fill(~mask[:, :, None], torch.nan)
    values.requires_grad_()
    control = ControlVariate(log_prob, values)
    read = features.gather(1, drawn.index[:, :, None].expand(-1, -1, 3)).masked_fill(
        ~drawn.valid[:, :, None], torch.nan
    )
    estimate, loss = expectation(drawn, read, baseline, control), control_loss(drawn, read, control)
    (estimate.square().sum() + loss).backward()
    for tensor in (estimate, loss, logits.grad, values.grad):
        assert tensor is not None
        assert tensor.isfinite().all()
    assert not logits.grad.flatten(1)[~mask].any()
    assert not values.grad[~mask].any()
    if method != "iid":  # images of three cells and of one are summed exactly, to the bit that they are without
        assert torch.equal(estimate[3:], expectation(drawn, read)[3:])


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_near_float64_over_many_cells_and_large_features(method: str) -> None:
    generator = torch.Generator().manual_seed(7)
    log_prob = (4 * torch.randn(2, 20_000, generator=generator, dtype=torch.float64)).log_softmax(1)
    features = 16 * torch.randn(2, 20_000, 4, generator=generator, dtype=torch.float64)
    values = features + torch.randn(2, 20_000, 4, generator=generator, dtype=torch.float64)
    found = []
    exact = draw(log_prob, 10, method, generator=generator)
    for dtype in (torch.float64, torch.float32):
        row = log_prob.to(dtype).requires_grad_()
        drawn = weigh(row, exact.index, method, threshold=exact.threshold)
        read = features.to(dtype).gather(1, drawn.index[:, :, None].expand(-1, -1, 4))
        estimate = expectation(drawn, read, "leave-one-out", ControlVariate(row, values.to(dtype)))
        (slope,) = torch.autograd.grad(estimate.square().sum(), row)
        found.append((estimate.detach().double(), slope.double()))
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm() / one.norm()) < 1e-3


def test_half_precision_and_autocast_sum_in_float32() -> None:
    log_prob = torch.randn(2, 20, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    features = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    values = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(3)).bfloat16()
    drawn = draw(log_prob, 4, generator=torch.Generator().manual_seed(2))
    wide, narrow = (ControlVariate(log_prob, one) for one in (values.float(), values))
    expected = expectation(drawn, features.float(), "leave-one-out", wide), control_loss(drawn, features.float(), wide)
    with torch.autocast("cpu", torch.bfloat16):
        found = expectation(drawn, features, "leave-one-out", narrow), control_loss(drawn, features, narrow)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["nothing", "constant", "near", "truth"])
def test_of_top_the_bias_is_that_of_what_is_left(kind: str) -> None:
    logits = torch.tensor([LOGITS["random"]], dtype=torch.float64)
    features = _values(6, 6)
    values = torch.ones_like(features) if kind == "constant" else _foretold(kind, features)
    drawn = draw(logits.log_softmax(1), 2, "top")
    attention, residual = logits.softmax(1)[0], features - values
    bias = attention[drawn.index[0]] / attention[drawn.index[0]].sum() @ residual[drawn.index[0]] - attention @ residual
    estimate = expectation(drawn, features[drawn.index], None, ControlVariate(logits.log_softmax(1), values[None]))
    torch.testing.assert_close(estimate[0], attention @ features + bias, **EXACT)
    if kind in ("nothing", "constant"):
        torch.testing.assert_close(estimate, expectation(drawn, features[drawn.index]), **EXACT)
    if kind == "truth":
        assert math.isclose(float(bias.norm()), 0.0, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("rows", "log_prob", "values"), [(4, (3, 6), (3, 6, 3)), (4, (8, 6), (8, 6, 3)), (4, (2, 6), (2, 6, 4))]
)
def test_a_control_variate_that_does_not_fit_is_refused(
    rows: int, log_prob: tuple[int, int], values: tuple[int, int, int]
) -> None:
    drawn = draw(torch.zeros(rows, 6).log_softmax(1), 2)
    control, features = ControlVariate(torch.zeros(log_prob), torch.zeros(values)), torch.zeros(rows, 2, 3)
    told = re.escape(f"got {values} and {log_prob} for features of shape {tuple(features.shape)}")
    with pytest.raises(FoveateError, match=told):
        expectation(drawn, features, None, control)
    with pytest.raises(FoveateError, match=told):
        control_loss(drawn, features, control)
