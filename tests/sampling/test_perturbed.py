"""Perturbed top-k beside integrals over its noise, and its gradient beside the formula, noise by noise."""

import math

import pytest
import torch
from torch import Tensor

from foveate.sampling.perturbed import FLAT, gaussian_noise, perturbed_top_k, unit_scores

EVERY = torch.ones(1, 5, dtype=torch.bool)


def indicators(scores: Tensor, k: int) -> Tensor:
    """(k, K) sorted indicators of one vector of scores, written out."""
    chosen = sorted(sorted(range(len(scores)), key=lambda cell: -float(scores[cell]))[:k])
    return torch.eye(len(scores), dtype=scores.dtype)[chosen]


def normal(values: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-values / math.sqrt(2))


def chosen_sets(scores: Tensor, sigma: float) -> Tensor:
    """(K,) probability that each cell is the lowest of all under noise: an integral over its own value."""
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    density = torch.exp(-grid.square() / 2) / math.sqrt(2 * math.pi)
    found = []
    for cell in range(len(scores)):
        value = scores[cell] + sigma * grid
        above = [1 - normal((value - scores[other]) / sigma) for other in range(len(scores)) if other != cell]
        found.append(torch.trapezoid(density * torch.stack(above).prod(0), grid))
    return torch.stack(found)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
@pytest.mark.parametrize("sigma", [0.05, 0.7])
def test_value_and_gradient_are_the_formulas_for_given_noise(k: int, sigma: float) -> None:
    """Ȳ = Σ Y_z / n, and for any loss Σ C ∘ Ȳ the gradient Σ_ri C_ri Σ_z Y_z,ri z / (n σ), to rounding."""
    generator = torch.Generator().manual_seed(k)
    scores = torch.rand(1, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    noise = torch.randn(1, 40, 5, dtype=torch.float64, generator=generator)
    loss = torch.randn(1, k, 5, dtype=torch.float64, generator=generator)
    each = torch.stack([indicators(scores[0].detach() + sigma * one, k) for one in noise[0]])
    found = perturbed_top_k(scores, k, sigma, noise, EVERY)
    torch.testing.assert_close(found[0], each.mean(0), rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad((loss * found).sum(), scores)
    wanted = torch.einsum("ri,nri,nj->j", loss[0], each, noise[0]) / (40 * sigma)
    torch.testing.assert_close(gradient[0], wanted, rtol=1e-12, atol=1e-12)


def test_of_two_cells_the_higher_is_chosen_with_the_probability_of_the_normal_distribution() -> None:
    """P = Φ(Δ / σ√2), and its slope; 100,000 perturbations, 3 numbers, 5 standard errors: fails once in 500,000."""
    sigma, count = 0.4, 100_000
    scores = torch.tensor([[0.5, 0.3]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    noise = gaussian_noise(mask, count, [torch.Generator().manual_seed(0)]).double()
    found = perturbed_top_k(scores, 1, sigma, noise, mask)
    first = normal((scores[0, 0] - scores[0, 1]) / (sigma * math.sqrt(2)))
    share, probability = found[0, 0].tolist(), first.item()
    assert abs(share[0] - probability) < 5 * math.sqrt(probability * (1 - probability) / count)
    assert sum(share) == pytest.approx(1, abs=1e-12)
    (wanted,) = torch.autograd.grad(first, scores)
    (gradient,) = torch.autograd.grad(found[0, 0, 0], scores)
    slopes = (scores[0, 0] + sigma * noise[0, :, :1] > scores[0, 1] + sigma * noise[0, :, 1:]) * noise[0] / sigma
    error = slopes.std(0) / math.sqrt(count)
    assert ((gradient - wanted)[0].abs() < 5 * error).all()


def test_of_three_cells_two_are_chosen_as_the_integrals_say() -> None:
    """Six shares, of which integrals give the three sets, and their slopes: 5 standard errors fail once in 100,000."""
    sigma, count = 0.5, 100_000
    scores = torch.tensor([[0.1, 0.9, 0.4]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    noise = gaussian_noise(mask, count, [torch.Generator().manual_seed(3)]).double()
    found = perturbed_top_k(scores, 2, sigma, noise, mask)[0]
    lowest = chosen_sets(scores[0], sigma)
    assert lowest.sum().item() == pytest.approx(1, abs=1e-10)
    without = torch.tensor([[[0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 0]]]).double()
    wanted = torch.einsum("c,cri->ri", lowest, without)
    spread = (wanted * (1 - wanted) / count).sqrt()
    assert ((found - wanted).abs() <= 5 * spread + 1e-12).all()
    loss = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0]], dtype=torch.float64)
    (slope,) = torch.autograd.grad((loss * wanted).sum(), scores)
    (gradient,) = torch.autograd.grad((loss * found).sum(), scores)
    each = torch.einsum("ri,cri->c", loss, without)[(scores[0] + sigma * noise[0]).argmin(1)]
    error = (each[:, None] * noise[0] / sigma).std(0) / math.sqrt(count)
    assert ((gradient - slope)[0].abs() < 5 * error).all()


def test_without_noise_it_is_the_sorted_top_k_and_has_no_gradient() -> None:
    scores = torch.rand(1, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    found = perturbed_top_k(scores, 3, 0.0, torch.zeros(1, 7, 5), EVERY)
    assert torch.equal(found[0], indicators(scores[0].detach(), 3))
    assert not found.requires_grad


def test_masked_cells_are_never_chosen_and_slots_are_left_over() -> None:
    """Of two cells that are there; and a map of fewer cells than slots."""
    mask = torch.tensor([[False, True, False, True, False]])
    noise = gaussian_noise(mask, 30, [torch.Generator().manual_seed(2)])
    assert not noise[:, :, [0, 2, 4]].any()
    found = perturbed_top_k(torch.rand(1, 5), 4, 0.3, noise, mask)
    assert torch.allclose(found[0, 0] + found[0, 1], mask[0].float())
    assert not found[0, 2:].any()
    small = perturbed_top_k(torch.rand(1, 3), 4, 0.3, torch.randn(1, 6, 3), EVERY[:, :3])
    assert torch.allclose(small[0, :3], torch.eye(3))
    assert not small[0, 3].any()


def test_noise_is_an_images_own() -> None:
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[1, 2:] = False
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    both = gaussian_noise(mask, 3, generators)
    alone = gaussian_noise(mask[1:, :2], 3, [torch.Generator().manual_seed(6)])
    assert torch.equal(both[1:, :, :2], alone)


def test_scores_are_between_0_and_1_whatever_their_unit() -> None:
    scores = torch.tensor([[3.0, -1.0, 7.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True, False]])
    found = unit_scores(scores, mask)
    torch.testing.assert_close(found[0], torch.tensor([4.0, 0.0, 8.0, 0.0]).double() / (8 + FLAT))
    torch.testing.assert_close(unit_scores(100 + 5 * scores, mask), found, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(found[0, 0], scores)
    assert gradient.isfinite().all()
    assert gradient.sum() == pytest.approx(0, abs=1e-12)  # a constant added to all changes nothing
    assert torch.equal(unit_scores(torch.ones(1, 4), mask), torch.zeros(1, 4))
