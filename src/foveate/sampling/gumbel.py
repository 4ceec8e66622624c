"""Gumbel keys, by whose order cells are drawn: made image by image and for valid cells only.

The n largest of the keys log q_i + Gumbel noise are a sample without replacement from q, in order of draw; the (n+1)-th
is the threshold κ that `foveate.sampling.weights` integrates over. Beside it the two ways of drawing that need no keys.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling.distribution import Distribution

__all__ = ["Generators", "independent", "largest", "without_replacement"]

_SMALLEST = 2.0**-54
"""Half the spacing of float64 uniform numbers near 0."""

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for a batch, one per image, or torch's default one."""


def without_replacement(
    source: Distribution, n: int, generator: Generators
) -> tuple[Int[Tensor, "batch draw"], Float64[Tensor, " batch"]]:
    r"""Sample without replacement: the cells of the n largest Gumbel keys, in order.

    .. math:: G_i = \log q_i - \log E_i, \qquad E_i \sim \mathrm{Exp}(1)

    Keys are made of float64 uniform numbers: in float32 they would tie, and cut off the tail, at 10⁶ cells.

    Source: Vieira, "Gumbel-max trick and weighted reservoir sampling" (2014); Kool, van Hoof & Welling, "Stochastic
    Beams and Where to Find Them" (2019), section 3.

    Arguments:
        source: the distribution of B images over K cells.
        n: cells to draw per image.
        generator: one generator, B of them, or None.

    Returns:
        (B, n) cell numbers in order of draw, the first one repeated where an image has fewer than n cells; and (B,)
        the (n+1)-th key, −inf where no cell is left.

    Raises:
        FoveateError: the number of generators is not the number of images.
    """
    device = source.log_prob.device
    uniform = [
        torch.rand(count, dtype=torch.float64, device=device if one is None else one.device, generator=one).to(device)
        for count, one in zip(source.count.tolist(), _per_image(generator, len(source.count)), strict=True)
    ]
    # −log(1 − u) is what `exponential_` computes, at a third of its cost; u = 0 would be a key of ∞.
    noise = torch.cat(uniform).clamp_(min=_SMALLEST).neg_().log1p_().neg_()
    valid = source.log_prob > -math.inf
    # Noise goes to valid cells only, in row-major order: padding a map with masked cells changes no draw.
    keys = source.log_prob - torch.ones_like(source.log_prob).masked_scatter_(valid, noise).log()
    best = keys.topk(min(n + 1, keys.shape[1]), dim=1)
    value, index = _pad(best.values, n + 1, -math.inf), _pad(best.indices, n + 1, 0.0)
    return index[:, :n].where(value[:, :n] > -math.inf, index[:, :1]), value[:, n]


def independent(source: Distribution, n: int, generator: Generators) -> Int[Tensor, "batch draw"]:
    """Sample with replacement: n independent cells, by inverting the distribution function in float64.

    Arguments:
        source: the distribution of B images over K cells.
        n: cells to draw per image.
        generator: one generator, B of them, or None.

    Returns:
        (B, n) cell numbers.

    Raises:
        FoveateError: the number of generators is not the number of images.
    """
    rows = []
    for log_prob, one in zip(source.log_prob, _per_image(generator, len(source.log_prob)), strict=True):
        cells = (log_prob > -math.inf).nonzero()[:, 0]
        # Summed over valid cells alone: zeros in between could change how the sum is split, and so its rounding.
        mass = log_prob[cells].exp().cumsum(0)
        device = log_prob.device if one is None else one.device
        uniform = torch.rand(n, dtype=torch.float64, device=device, generator=one).to(mass.device)
        rows.append(cells[torch.searchsorted(mass, uniform * mass[-1], right=True).clamp(max=len(cells) - 1)])
    return torch.stack(rows)


def largest(source: Distribution, n: int) -> Int[Tensor, "batch draw"]:
    """Top n: the most probable cells; among equals the first in row-major order.

    Arguments:
        source: the distribution of B images over K cells.
        n: cells to take per image.

    Returns:
        (B, n) cell numbers, most probable first, the first one repeated where an image has fewer than n cells.
    """
    ranked = source.log_prob.sort(dim=1, descending=True, stable=True)
    value, index = _pad(ranked.values[:, :n], n, -math.inf), _pad(ranked.indices[:, :n], n, 0.0)
    return index.where(value > -math.inf, index[:, :1])


def _per_image(generator: Generators, images: int) -> Sequence[torch.Generator | None]:
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * images
    if len(generator) != images:
        raise FoveateError(f"one generator per image: got {len(generator)} generators for {images} images")
    return generator


def _pad(values: Tensor, columns: int, fill: float) -> Tensor:
    return torch.nn.functional.pad(values, (0, columns - values.shape[1]), value=fill)
