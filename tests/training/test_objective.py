"""The loss, its entropy term and what is averaged."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from foveate.training.averaging import WeightAverage
from foveate.training.config import TrainingSettings
from foveate.training.objective import attention_entropy, build_optimizer, class_weights, image_losses
from foveate.types import Output


def output(attention: torch.Tensor | None) -> Output:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
    return Output(logits=logits, attention=attention)


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


def test_the_loss_is_cross_entropy_minus_entropy() -> None:
    labels = torch.tensor([2, 1])
    maps = torch.full((2, 2, 3), 1 / 6)
    weights = torch.tensor([1.0, 2.0, 0.5])
    losses, entropy = image_losses(output(maps), labels, 0.25, weights)
    plain = cross_entropy(output(None).logits.float(), labels, reduction="none")
    assert torch.allclose(losses, plain * weights[labels] - 0.25 * math.log(6))
    assert torch.allclose(entropy, torch.full((2,), math.log(6)))


def test_class_weights_average_to_one_over_the_images() -> None:
    labels = [0, 0, 0, 2, 2, 0]
    weights = class_weights(labels, 3)
    assert weights[1] == 0
    assert sum(weights[label] for label in labels) == pytest.approx(2 / 3 * 6)
    assert 4 * weights[0] == pytest.approx(float(2 * weights[2]))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_every_optimizer_goes_downhill(name: str) -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = build_optimizer([weight], TrainingSettings(optimizer=name, learning_rate=0.05))  # type: ignore[arg-type]
    for _ in range(100):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert weight.norm() < 0.2


def test_the_average_is_the_recursion_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, 0.5)
    expected = 1.0
    for step, value in enumerate([4.0, 2.0, 8.0]):
        nn.init.constant_(model.weight, value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 8.0
