"""Number head: its loss and gradient against closed form, and the mean and deviation by which it becomes a number."""

import math

import pytest
import torch
from torch import Tensor, nn

from foveate.errors import DataError
from foveate.networks.number import NumberHead

LABELS = [3.0, -1.5, 12.25, 0.0, 7.0]


def head_of(delta: float | None = None) -> NumberHead:
    head = NumberHead(4, delta).double()
    for number, parameter in enumerate(head.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    head.measure(LABELS)
    return head


def vectors(count: int = 5) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_numbers_are_mean_and_deviations() -> None:
    head = head_of()
    mean = math.fsum(LABELS) / 5
    deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in LABELS) / 5)
    head.requires_grad_(False)
    outputs = head(vectors())
    expected = [mean + deviation * float(head.weight[0] @ vector + head.bias[0]) for vector in vectors()]
    assert head.numbers(outputs)[:, 0].tolist() == pytest.approx(expected, abs=1e-12)
    labels = torch.tensor(LABELS, dtype=torch.float64)
    torch.testing.assert_close(head.numbers(head.standardised(labels)[:, None])[:, 0], labels, rtol=0, atol=1e-12)
    standardised = head.standardised(labels)
    assert float(standardised.mean()) == pytest.approx(0, abs=1e-12)
    assert float(standardised.square().mean()) == pytest.approx(1, abs=1e-12)  # what always the mean costs


def test_the_loss_is_the_squared_error_of_standardised_labels_and_so_is_its_gradient() -> None:
    head, labels = head_of(), torch.tensor(LABELS, dtype=torch.float64)
    losses = head.losses(head(vectors()), labels)
    found = torch.autograd.grad(losses.mean(), [head.weight, head.bias])
    with torch.no_grad():
        off = vectors() @ head.weight[0] + head.bias[0] - (labels - head.mean) / head.deviation
        torch.testing.assert_close(losses, off**2, rtol=0, atol=1e-10)
        torch.testing.assert_close(found[0][0], 2 * (off[:, None] * vectors()).mean(0), rtol=0, atol=1e-10)
        torch.testing.assert_close(found[1][0], 2 * off.mean(), rtol=0, atol=1e-10)


def test_huber_is_linear_beyond_delta_with_one_slope_at_it() -> None:
    head, delta = head_of(0.7), 0.7
    off = torch.tensor([0.0, 0.3, -0.7, 0.7, 1.1, -4.0], dtype=torch.float64)
    outputs = (head.standardised(torch.full((6,), 5.0)) + off)[:, None].requires_grad_(True)
    losses = head.losses(outputs, torch.full((6,), 5.0, dtype=torch.float64))
    wanted = [r * r if abs(r) <= delta else 2 * delta * abs(r) - delta**2 for r in off.tolist()]
    assert losses.tolist() == pytest.approx(wanted, abs=1e-10)
    (slopes,) = torch.autograd.grad(losses.sum(), outputs)
    assert slopes[:, 0].tolist() == pytest.approx([2 * max(-delta, min(delta, r)) for r in off.tolist()], abs=1e-10)


def test_errors_are_in_the_unit_of_the_labels() -> None:
    head, labels = head_of(), torch.tensor(LABELS, dtype=torch.float64)
    outputs = head(vectors())
    wanted = (head.numbers(outputs)[:, 0] - labels).abs()
    torch.testing.assert_close(head.errors(outputs, labels), wanted, rtol=0, atol=1e-12)
    assert head.errors(head.standardised(labels)[:, None], labels).abs().max() < 1e-12


def test_it_begins_with_the_mean_and_learns_from_there() -> None:
    head = NumberHead(4)
    head.measure(LABELS)
    assert head.numbers(head(vectors().float()))[:, 0].tolist() == pytest.approx([4.15] * 5)
    losses = head.losses(head(vectors().float()), torch.tensor(LABELS, dtype=torch.float64))
    assert float(losses.mean().detach()) == pytest.approx(1, abs=1e-6)
    (slope,) = torch.autograd.grad(losses.sum(), head.weight)
    assert slope.abs().min() > 0


def test_large_labels_of_small_deviation_lose_no_digits_in_float32() -> None:
    head = NumberHead(4)
    labels = [1e9 + one for one in LABELS]
    head.measure(labels)
    outputs = head.standardised(torch.tensor(labels, dtype=torch.float64)).float()[:, None]
    assert head.numbers(outputs)[:, 0].tolist() == pytest.approx(labels, abs=1e-5)
    assert head.losses(outputs, torch.tensor(labels, dtype=torch.float64)).max() < 1e-10


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [2.5] * 3,
            "all 3 training images have the number 2.5, of which nothing can be learnt: check the column label",
        ),
        ([7.0], "all 1 training images have the number 7, of which nothing can be learnt: check the column label"),
        (
            [1e300, -1e300],
            "all 2 training images have numbers too large, or too close, of which nothing can be learnt: check the "
            "column label",
        ),
    ],
)
def test_labels_without_a_deviation_are_refused(labels: list[float], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        NumberHead(4).measure(labels)
