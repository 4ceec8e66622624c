"""The terms of the attention: entropy, variety."""

import math
from dataclasses import replace

import pytest
import torch

from foveate.models.types import Output
from foveate.sampling import draw, weigh
from foveate.training.objective import attention_entropy, feature_variety


def output(attention: torch.Tensor | None) -> Output:
    images = 2 if attention is None else len(attention)
    return Output(logits=torch.zeros(images, 3), attention=attention)


def test_entropy_of_known_maps_in_nats() -> None:
    flat = torch.full((2, 3), 1 / 6)
    peaked = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = attention_entropy(output(torch.stack([flat, peaked])))
    assert found.tolist() == [pytest.approx(math.log(6)), 0.0]


def test_masked_cells_take_no_gradient_and_no_nan() -> None:
    logits = torch.tensor([[0.3, -0.2, -math.inf, 1.0]], requires_grad=True)
    attention = logits.softmax(1).view(1, 2, 2)
    attention_entropy(output(attention)).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 2] == 0


FEATURES = torch.tensor([[3.0, 4.0], [3.0, 4.0], [5.0, 0.0], [0.0, 0.0]])
"""Of four cells, two of which look the same."""


def looked(log_prob: torch.Tensor, index: torch.Tensor, method: str = "murthy") -> Output:
    features = FEATURES[index].requires_grad_()
    return replace(output(None), draw=weigh(log_prob, index, method), features=features)


def by_definition(attention: torch.Tensor) -> torch.Tensor:
    mean = attention @ FEATURES
    apart = (FEATURES - mean).square().sum(1).detach()
    return (1e-3 + attention @ apart / (attention @ FEATURES.square().sum(1)).detach()).log()


@pytest.mark.parametrize("method", ["murthy", "des_raj", "top"])
def test_variety_is_the_log_share_of_the_features_that_is_not_common(method: str) -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]).log().requires_grad_()
    told = looked(logits.log_softmax(1), torch.tensor([[3, 0, 1, 2], [0, 2, 3, 1]]), method)
    found = feature_variety(told)
    expected = torch.stack([by_definition(row.softmax(0)) for row in logits])
    assert torch.allclose(found, expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert torch.allclose(gradient, torch.autograd.grad(expected.sum(), logits)[0], atol=1e-6)
    assert gradient[1, 0] < 0 < gradient[1, 2], "from what the image mostly shows to what differs"


def test_variety_leaves_the_features_alone_and_is_nothing_where_all_is_alike() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]).log().requires_grad_()
    told = looked(logits.log_softmax(1), torch.tensor([[0, 1], [1, 0]]))
    assert told.features is not None
    (gradient,) = torch.autograd.grad(feature_variety(told).sum(), told.features, allow_unused=True)
    assert gradient is None
    alike = replace(told, features=torch.ones(2, 2, 7))
    assert feature_variety(replace(alike, draw=draw(logits[:, :2].log_softmax(1), 2))).tolist() == pytest.approx(
        [math.log(1e-3)] * 2
    )
    nothing = replace(told, features=torch.zeros(2, 2, 7))
    assert feature_variety(nothing).tolist() == pytest.approx([math.log(1e-3)] * 2)
    assert feature_variety(output(None)).tolist() == [0, 0]
