"""The gradient of the paper's released code: reproduced, and shown to be biased, by enumeration of every draw."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import full_expectation, ordered_draws, original_attention_gradient
from original_gradient import original_expectation, original_gradient
from torch import Tensor

from foveate.config.settings import ModelSettings, ViewSettings
from foveate.errors import FoveateError
from foveate.images import ArraySource
from foveate.models import build_model, make_batch
from foveate.models import sampling as sampling_models
from foveate.sampling import ControlVariate, draw, expectation, weigh

LOGITS = {
    "flat": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "random": [0.3, -1.2, 0.9, 0.1, -0.4, 1.7],
    "peaked": [5.0, 0.5, -1.0, 1.0, -0.5, 0.0],
}
SHAPES = [(6, 4), (5, 3), (6, 2), (6, 1), (4, 3)]
CASES = [(name, shape) for name in LOGITS for shape in SHAPES]
DIRECTION = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def features_of(cells: int) -> Tensor:
    return torch.randn(cells, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(cells))


def every_estimate(log_prob: Tensor, features: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every ordered draw, its probability, and the estimate (M, D) from it."""
    row = log_prob.detach()
    index, probability = ordered_draws((row[0] if row.ndim == 2 else row).exp(), n)
    drawn = weigh(log_prob.expand(len(index), -1), index, "des_raj")
    return index, probability, original_expectation(drawn, features[index])


def mean_gradients(logits: Tensor, features: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By logits and by features, mean over all draws; and those of the full expectation."""
    logits, features = logits.clone().requires_grad_(), features.clone().requires_grad_()
    _, probability, estimate = every_estimate(logits.log_softmax(0), features, n)
    found = torch.autograd.grad(probability @ estimate @ DIRECTION, (logits, features))
    truth = torch.autograd.grad(full_expectation(logits, features) @ DIRECTION, (logits, features))
    return *found, *truth


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_the_value_is_that_of_des_raj_and_its_mean_is_exact(name: str, shape: tuple[int, int]) -> None:
    cells, n = shape
    logits, features = torch.tensor(LOGITS[name][:cells], dtype=torch.float64), features_of(cells)
    index, probability, estimate = every_estimate(logits.log_softmax(0), features, n)
    plain = expectation(weigh(logits.log_softmax(0).expand(len(index), -1), index, "des_raj"), features[index])
    assert torch.equal(estimate, plain)
    torch.testing.assert_close(probability @ estimate, full_expectation(logits, features), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_the_gradient_of_every_draw_is_the_formula_of_that_code(name: str, shape: tuple[int, int]) -> None:
    cells, n = shape
    row, features = torch.tensor(LOGITS[name][:cells], dtype=torch.float64).log_softmax(0), features_of(cells)
    draws = len(ordered_draws(row.exp(), n)[0])
    log_prob = row.expand(draws, -1).clone().requires_grad_()
    index, _, estimate = every_estimate(log_prob, features, n)
    (gradient,) = torch.autograd.grad((estimate @ DIRECTION).sum(), log_prob)
    expected = torch.zeros_like(gradient)
    for number, cells_drawn in enumerate(index):
        prob = row.exp()[cells_drawn]
        by_prob = original_attention_gradient(prob.tolist(), features[cells_drawn], DIRECTION)
        expected[number, cells_drawn] = torch.tensor(by_prob, dtype=torch.float64) * prob
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_the_gradient_of_the_features_is_exact(name: str, shape: tuple[int, int]) -> None:
    cells, n = shape
    logits = torch.tensor(LOGITS[name][:cells], dtype=torch.float64)
    _, found, _, truth = mean_gradients(logits, features_of(cells), n)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)


def test_the_gradient_of_the_attention_is_biased_and_turns_around_as_attention_peaks() -> None:
    cosine, bias = {}, {}
    for name, logits in LOGITS.items():
        found, _, truth, _ = mean_gradients(torch.tensor(logits, dtype=torch.float64), features_of(6), 3)
        cosine[name] = float(torch.cosine_similarity(found, truth, dim=0))
        bias[name] = float((found - truth).norm() / truth.norm())
    print(f"cosine with the gradient of the expectation {cosine}, relative bias {bias}")
    assert all(one > 0.1 for one in bias.values())
    assert cosine["flat"] > 0.9
    assert cosine["peaked"] < 0
    single, _, truth, _ = mean_gradients(torch.tensor(LOGITS["peaked"], dtype=torch.float64), features_of(6), 1)
    torch.testing.assert_close(single, truth, rtol=0, atol=1e-12)


def test_with_no_cell_left_over_it_is_exact() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    features = features_of(3)
    drawn = draw(logits.log_softmax(1), 5, "des_raj")
    estimate = original_expectation(drawn, features[drawn.index])
    (found,) = torch.autograd.grad(estimate @ DIRECTION, logits, torch.ones(1, dtype=torch.float64))
    (truth,) = torch.autograd.grad(full_expectation(logits[0], features) @ DIRECTION, logits)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_finite_where_attention_is_extreme(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(4, 30, generator=generator, dtype=dtype)
    logits[1] *= 300
    logits[2, 3] += 2000
    logits.requires_grad_()
    drawn = draw(logits.log_softmax(1), 5, "des_raj", generator=generator)
    features = torch.randn(4, 5, 3, generator=generator, dtype=dtype, requires_grad=True)
    original_expectation(drawn, features).square().sum().backward()
    for tensor in (logits.grad, features.grad):
        assert tensor is not None
        assert tensor.isfinite().all()


def test_it_refuses_what_that_code_does_not_do() -> None:
    log_prob = torch.tensor([[0.5, 0.3, 0.2]]).log()
    features = torch.zeros(1, 2, 3)
    with pytest.raises(FoveateError, match=r"of cells drawn by 'des_raj', not 'murthy': draw with 'des_raj'$"):
        original_expectation(draw(log_prob, 2), features)
    proposal = torch.tensor([[0.2, 0.3, 0.5]]).log()
    with pytest.raises(FoveateError, match=r"knows no proposal: draw from the attention itself$"):
        original_expectation(draw(log_prob, 2, "des_raj", proposal=proposal), features)


def test_a_model_trains_with_it_and_predicts_without() -> None:
    """Within `original_gradient` the attention's gradient is another, the features' and the prediction the same."""
    settings = ModelSettings(view=ViewSettings(scale=0.5), patch=(24, 22), patches=3, method="des_raj", baseline="none")
    model = build_model(settings, ("a", "b"), 1)
    image = ArraySource(np.random.default_rng(0).integers(0, 255, (60, 70, 1), dtype=np.uint8))
    batch = make_batch([image], model.view, seeds=[0])

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model.train()(batch).logits[0, 0].backward()
        return [parameter.grad.clone() for part in (model.attention, model.features) for parameter in part.parameters()]

    def predicted() -> Tensor:
        return model.eval()(batch).logits

    exact, said = gradients(), predicted()
    with original_gradient():
        original = gradients()
        assert torch.equal(predicted(), said)
    attention = len(list(model.attention.parameters()))
    assert not all(map(torch.allclose, original[:attention], exact[:attention]))
    assert all(map(torch.equal, original[attention:], exact[attention:]))
    assert all(map(torch.equal, gradients(), exact)), "and no longer"
    wrong = build_model(replace(settings, baseline="leave-one-out"), ("a", "b"), 1)
    with original_gradient(), pytest.raises(FoveateError, match=r"has no baseline: set model.baseline none"):
        wrong.train()(batch)


def test_with_a_control_variate_it_is_not_known() -> None:
    log_prob = torch.zeros(1, 4).log_softmax(1).requires_grad_()
    control = ControlVariate(log_prob, torch.ones(1, 4, 2))
    drawn, features = draw(log_prob, 2, "des_raj"), torch.ones(1, 2, 2)
    with original_gradient(), pytest.raises(FoveateError, match=r"has no control variate: leave it out$"):
        sampling_models.expectation(drawn, features, None, control)
