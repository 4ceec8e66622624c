"""Ordinal head: probabilities of classes that have an order, against products of steps and the loss of CORN."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.networks.ordinal import OrdinalHead


def head_of(order: tuple[int, ...], dimension: int = 5) -> OrdinalHead:
    head = OrdinalHead(dimension, order).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
    return head


def vectors(count: int = 7) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (1, 0)])
def test_a_grade_is_reached_step_by_step(order: tuple[int, ...]) -> None:
    head = head_of(order)
    head.requires_grad_(False)
    found = head(vectors()).exp()
    for row, vector in zip(found, vectors(), strict=True):
        left = 1.0
        for place, number in enumerate(order):
            further = 0.0
            if place < len(order) - 1:
                further = 1 / (1 + math.exp(-float(head.weight[place] @ vector + head.bias[place])))
            assert float(row[number]) == pytest.approx(left * (1 - further), abs=1e-12)
            left *= further
    torch.testing.assert_close(found.sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-12)


def test_cross_entropy_is_the_loss_of_corn() -> None:
    """Each step is a question put to the images that have come as far: whether they go on."""
    head, grades = head_of((0, 1, 2, 3)), torch.tensor([0, 3, 1, 2, 2, 0, 3])
    loss = functional.cross_entropy(head(vectors()), grades, reduction="sum")
    steps = functional.linear(vectors(), head.weight, head.bias)
    expected = torch.zeros((), dtype=torch.float64)
    for step in range(3):
        asked = grades >= step
        goes_on = (grades[asked] > step).double()
        expected = expected + functional.binary_cross_entropy_with_logits(steps[asked, step], goes_on, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    for one, other in zip(
        *(torch.autograd.grad(value, list(head.parameters())) for value in (loss, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_two_grades_are_a_logistic_regression() -> None:
    head = head_of((0, 1))
    odds = functional.linear(vectors(), head.weight, head.bias)[:, 0]
    torch.testing.assert_close(head(vectors()).exp()[:, 1], odds.sigmoid(), rtol=0, atol=1e-12)


def test_it_begins_with_all_grades_alike_and_stays_finite() -> None:
    head = OrdinalHead(5, (3, 0, 2, 1))
    torch.testing.assert_close(head(torch.zeros(1, 5)).exp(), torch.full((1, 4), 0.25))
    assert head(1e4 * vectors().float()).isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(vectors().float()).dtype == torch.float32
