"""Perturbed top-k: which cells are the k highest, on average over noise, and how that changes with their scores."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FLAT = 1e-5
"""Range of scores below which they are as good as equal: it is added to the range that they are divided by."""


def unit_scores(scores: Float[Tensor, "batch cell"], mask: Bool[Tensor, "batch cell"]) -> Float[Tensor, "batch cell"]:
    r"""Scores between 0 and 1 (min-max normalisation), so that noise of one deviation means the same in every image.

    .. math:: \frac{z_i - \min z}{\max z - \min z + 10^{-5}}

    Source: the released code of Cordonnier et al. (2021), which the reference configurations normalise scores by.

    Arguments:
        scores: (B, K) in any unit; what is added to all of an image changes nothing.
        mask: (B, K) True where there is a cell.

    Returns:
        (B, K); 0 where there is none.

    Example:
        >>> unit_scores(torch.tensor([[1.0, 5.0, 3.0, 9.0]]), torch.tensor([[True, True, True, False]]))
        tensor([[0.0000, 1.0000, 0.5000, 0.0000]])
    """
    lowest = scores.masked_fill(~mask, math.inf).amin(1, keepdim=True)
    highest = scores.masked_fill(~mask, -math.inf).amax(1, keepdim=True)
    # Masked before the division, too: the gradient of what is not there would be no number.
    above = (scores.masked_fill(~mask, 0.0) - lowest).masked_fill(~mask, 0.0)
    return above / (highest - lowest + FLAT)


def gaussian_noise(
    mask: Bool[Tensor, "batch cell"], samples: int, generators: Sequence[torch.Generator]
) -> Float[Tensor, "batch sample cell"]:
    """Standard normal noise for the cells that are there, image by image: padding and company change nothing.

    Arguments:
        mask: (B, K) True where there is a cell.
        samples: n.
        generators: one per image, on the CPU.

    Returns:
        (B, n, K), on the device of the mask; 0 where there is no cell.
    """
    noise = torch.zeros(mask.shape[0], samples, mask.shape[1])
    for own, cells, generator in zip(noise, mask.cpu(), generators, strict=True):
        own[:, cells] = torch.randn(samples, int(cells.sum()), generator=generator)
    return noise.to(mask.device)


def perturbed_top_k(
    scores: Float[Tensor, "batch cell"],
    k: int,
    sigma: float,
    noise: Float[Tensor, "batch sample cell"],
    mask: Bool[Tensor, "batch cell"],
) -> Float[Tensor, "batch slot cell"]:
    r"""Perturbed top-k: indicators of the k highest scores, in the order of their cells, averaged over noise.

    .. math:: \bar Y = \frac1n \sum_z Y(s + \sigma z), \qquad
              \frac{\partial \bar Y_{ri}}{\partial s_j} := \frac{1}{n\sigma} \sum_z Y_{ri}(s + \sigma z)\, z_j

    Y has a row r for each of the k slots, which hold the highest cells from the first to the last of the map, and not
    from the highest down, so that noise seldom changes their order. The second equation, an unbiased estimate of the
    gradient of E[Y], is what autograd gives of Σ_z Y_z · (1 + z · (s − sg s) / σ) / n, whose value is the first: so no
    n indicators are ever made, of which each has k rows of all cells.

    Source: Cordonnier, Mahendran, Dosovitskiy, Weissenborn, Uszkoreit & Unterthiner, "Differentiable Patch Selection
    for Image Recognition" (CVPR 2021), section 3; Berthet, Blondel, Teboul, Cuturi, Vert & Bach, "Learning with
    Differentiable Perturbed Optimizers" (NeurIPS 2020), proposition 3.1.

    Arguments:
        scores: (B, K) s.
        k: slots.
        sigma: σ; at 0 the k highest scores themselves, without a gradient.
        noise: (B, n, K) z, of `gaussian_noise`.
        mask: (B, K) True where there is a cell; one at least in each image.

    Returns:
        (B, k, K) shares of the cells in each slot, which sum to 1; 0 in the last slots of an image with fewer cells.

    Example:
        >>> scores, mask = torch.tensor([[0.9, 0.1, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
        >>> perturbed_top_k(scores, 2, 0.0, torch.zeros(1, 1, 3), mask)
        tensor([[[1., 0., 0.],
                 [0., 0., 1.]]])
    """
    rows, cells = scores.shape
    noise, taken = noise if sigma > 0 else noise[:, :1], min(k, cells)
    with torch.no_grad():
        perturbed = (scores[:, None] + sigma * noise).masked_fill(~mask[:, None], -math.inf)
        highest = perturbed.topk(taken, 2).indices
        there = torch.arange(taken, device=scores.device) < mask.sum(1)[:, None]
        # What is left over comes last, as a cell behind all others.
        slots = highest.masked_fill(~there[:, None], cells).sort(2).values.transpose(1, 2)
    share = torch.full(noise.shape[:2], 1 / noise.shape[1], dtype=scores.dtype, device=scores.device)
    if sigma > 0:
        share = share * (1 + torch.einsum("bnk,bk->bn", noise.to(scores.dtype), scores - scores.detach()) / sigma)
    counted = scores.new_zeros(rows, k, cells + 1)
    counted = counted.scatter_add(2, _padded(slots, k, cells), share[:, None].expand(-1, k, -1))
    return counted[:, :, :cells]


def _padded(slots: Tensor, k: int, behind: int) -> Tensor:
    """Slots of all k, where there are fewer cells."""
    missing = slots.new_full((slots.shape[0], k - slots.shape[1], slots.shape[2]), behind)
    return torch.cat((slots, missing), 1)
