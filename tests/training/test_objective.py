"""The loss, its entropy term and what is averaged."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from foveate.models.losses import cross_entropies
from foveate.models.types import Output
from foveate.sampling import weigh
from foveate.training.objective import (
    TermWeights,
    class_weights,
    feature_variety,
    image_losses,
    positive_weights,
)


def output(attention: torch.Tensor | None) -> Output:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
    return Output(logits=logits, attention=attention)


def test_the_loss_is_cross_entropy_minus_entropy() -> None:
    labels = torch.tensor([2, 1])
    maps = torch.full((2, 2, 3), 1 / 6)
    weights = torch.tensor([1.0, 2.0, 0.5])
    losses, entropy = image_losses(output(maps), labels, TermWeights(entropy=0.25), weights)
    plain = cross_entropy(output(None).logits.float(), labels, reduction="none")
    assert torch.allclose(losses, plain * weights[labels] - 0.25 * math.log(6))
    assert torch.allclose(entropy, torch.full((2,), math.log(6)))


def test_the_loss_subtracts_the_variety() -> None:
    log_prob = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]).log()
    drawn = weigh(log_prob, torch.tensor([[3, 0], [0, 2]]), "murthy")
    told = replace(
        output(None), draw=drawn, features=torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [2.0, 1.0]]])
    )
    labels = torch.tensor([2, 1])
    losses, _ = image_losses(told, labels, TermWeights(variety=0.5))
    plain = cross_entropy(told.logits.float(), labels, reduction="none")
    assert (losses - plain).tolist() == pytest.approx((-0.5 * feature_variety(told)).tolist(), abs=1e-6)
    assert (losses - plain).min() > 0.1


def test_class_weights_average_to_one_over_the_images() -> None:
    labels = [0, 0, 0, 2, 2, 0]
    weights = class_weights(labels, 3)
    assert weights[1] == 0
    assert sum(weights[label] for label in labels) == pytest.approx(2 / 3 * 6)
    assert 4 * weights[0] == pytest.approx(float(2 * weights[2]))


def test_several_labels_are_the_mean_of_binary_cross_entropies() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0], [0.0, 4.0, -3.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    weights = torch.tensor([2.0, 3.0, 0.5])
    p = logits.sigmoid()
    for given, factors in ((None, torch.ones(3)), (weights, weights)):
        expected = -(factors * labels * p.log() + (1 - labels) * (1 - p).log()).sum(1) / 3
        assert torch.allclose(cross_entropies(logits, labels, given), expected, rtol=1e-12)
    losses, _ = image_losses(Output(logits), labels, TermWeights(), weights)
    assert torch.allclose(losses.float(), cross_entropies(logits.float(), labels, weights))


def test_positives_weigh_what_negatives_weigh_within_bounds() -> None:
    labels = [(0, 1)] + [(0,)] * 99
    weights = positive_weights(labels, 4)
    assert weights.tolist() == [1.0, 20.0, 1.0, 1.0], "every image, one of 100, none, none"
    assert positive_weights([(0,)] * 3 + [()] * 12, 1).item() == 4.0
