"""Pooling of saliency beside the sum written out, and regions beside a search through all windows."""

import pytest
import torch
from torch import Tensor

from foveate.networks.saliency import greedy_regions, pooled_saliency


@pytest.mark.parametrize(("top", "counts"), [(0.3, (4, 3)), (1.0, (1, 1)), (5.0, (5, 5)), (1e9, (12, 9))])
def test_pooling_is_the_logit_of_the_mean_of_the_highest(top: float, counts: tuple[int, int]) -> None:
    logits = 2 * torch.randn(2, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    allowed = torch.ones(2, 12, dtype=torch.bool)
    allowed[1, :3] = False
    found = pooled_saliency(logits, allowed, top)
    means = [
        logits[row][allowed[row]].sigmoid().sort(0, descending=True).values[:count].mean(0)
        for row, count in enumerate(counts)
    ]
    wanted = torch.stack(means).logit()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    gradients = [torch.autograd.grad(one.square().sum(), logits)[0] for one in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_nothing_is_rounded_to_certainty() -> None:
    logits = torch.tensor([[[90.0, -90.0], [90.0, -90.0]]], requires_grad=True)
    found = pooled_saliency(logits, torch.ones(1, 2, dtype=torch.bool), 2.0)
    torch.testing.assert_close(found, torch.tensor([[90.0, -90.0]]))
    found.sum().backward()
    torch.testing.assert_close(logits.grad, torch.full((1, 2, 2), 0.5))


def searched(saliency: Tensor, allowed: Tensor, number: int, high: int, wide: int) -> list[int]:
    """Middles of windows of 2·high + 1 by 2·wide + 1 cells, every one of which is summed cell by cell."""
    rows, columns = saliency.shape
    left = {(r, c): float(saliency[r, c]) if allowed[r, c] else 0.0 for r in range(rows) for c in range(columns)}
    windows = {
        (row, column): [(r, c) for r, c in left if abs(r - row) <= high and abs(c - column) <= wide]
        for row, column in left
    }
    found: list[tuple[int, int]] = []
    while len(found) < min(number, int(allowed.sum())):
        free = [cell for cell in left if allowed[cell] and cell not in found]
        sums = {cell: sum(left[other] for other in windows[cell]) for cell in free}
        found.append(max(free, key=sums.__getitem__))
        left |= dict.fromkeys(windows[found[-1]], 0.0)
    return [row * columns + column for row, column in found]


@pytest.mark.parametrize("window", [(1, 1), (3, 1), (2, 5), (4, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_regions_are_those_of_a_search_through_all(window: tuple[int, int], masked: bool) -> None:
    generator = torch.Generator().manual_seed(window[0] + 10 * window[1])
    saliency = torch.randint(1, 2000, (5, 7), generator=generator).double()  # whole numbers: sums are exact
    allowed = torch.ones(5, 7, dtype=torch.bool)
    if masked:
        allowed[:2], allowed[3, 4:] = False, False
    found = greedy_regions(saliency, allowed, 6, window)
    assert found.tolist() == searched(saliency, allowed, 6, window[0] // 2, window[1] // 2)
    assert allowed.flatten()[found].all()


def test_regions_differ_even_where_nothing_is_left() -> None:
    allowed = torch.tensor([[True, False, True, True]])
    found = greedy_regions(torch.zeros(1, 4), allowed, 9, (3, 3))
    assert sorted(found.tolist()) == [0, 2, 3]
