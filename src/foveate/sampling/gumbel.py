"""Gumbel top-k: the distribution that cells are drawn from, checked, and the random keys by whose order they are drawn.

The n largest of the keys log q_i + Gumbel noise are a sample without replacement from q, in order of draw; the (n+1)-th
is the threshold κ that `foveate.sampling.weights` integrates over. Keys are made image by image, for valid cells only.
Beside them the two ways of drawing that need no keys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from foveate.errors import ArgumentError, ImageError

METHODS = ("iid", "des_raj", "priority", "murthy", "uniform", "top")
"""Methods of drawing, as in the table of `foveate.sampling.draw`."""


@dataclass(frozen=True)
class Distribution:
    """Distribution over cells, as they are drawn from it.

    Attributes:
        log_prob: (B, K) log probabilities, detached; a row's exponentials sum to 1; −inf where never drawn.
        count: (B,) number of cells that can be drawn, at least 1.
        checks: (B, 8) what `refuse` looks at, on the device still: number of allowed cells, log mass and its tolerance,
            of the attention and of the proposal; number of cells; first cell that the proposal cannot reach, or −1.
    """

    log_prob: Float64[Tensor, "batch cell"]
    count: Int[Tensor, " batch"]
    checks: Float64[Tensor, "batch check"]


@torch.no_grad()
def drawn_from(
    log_prob: Float[Tensor, "batch cell"],
    method: str,
    # The shapes of mask and proposal are checked below, in words a user understands.
    mask: Bool[Tensor, "mask_batch mask_cell"] | None,
    proposal: Float[Tensor, "proposal_batch proposal_cell"] | None,
    wait: bool = True,
) -> Distribution:
    """Distribution that a method draws from: the proposal if there is one, a constant for "uniform", else `log_prob`.

    Arguments:
        log_prob: (B, K) log attention, normalised over the valid cells.
        method: one of `METHODS`.
        mask: (B, K) True where a cell may be drawn.
        proposal: (B, K) another log distribution to draw from.
        wait: whether its values are checked now, for which an accelerator must be waited for; if not, `refuse` must be
            called with its checks before anything is made of what is drawn.

    Returns:
        The distribution, with nothing on cells that are masked or have no probability.

    Raises:
        FoveateError: shapes differ, an image has no valid cell, or a distribution is not one.
    """
    if method not in METHODS:
        raise ArgumentError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if proposal is not None and method in ("uniform", "top"):
        raise ArgumentError(f"method {method!r} has no use for a proposal: leave it out, or draw with 'murthy'")
    for name, given in (("mask", mask), ("proposal", proposal)):
        if given is not None and given.shape != log_prob.shape:
            expected, got = tuple(log_prob.shape), tuple(given.shape)
            raise ArgumentError(f"{name} must have the shape of log_prob, {expected}, got {got}: one value per cell")

    source, evidence = _distribution(log_prob, mask)
    cells = torch.full_like(evidence[:, 0], log_prob.shape[1])
    # without a proposal nothing is wrong with it: a cell, a log mass no larger than its tolerance, no cell out of reach
    second, missed = torch.ones_like(evidence), torch.full_like(cells, -1)
    if method == "uniform":
        flat = -source.count.double().log()[:, None]
        source = Distribution(torch.where(source.log_prob == -math.inf, -math.inf, flat), source.count, evidence)
    elif proposal is not None:
        target, (source, second) = source, _distribution(proposal, mask)
        unreachable = (target.log_prob > -math.inf) & (source.log_prob == -math.inf)
        missed = unreachable.double().argmax(1).where(unreachable.any(1), -1).double()
    checks = torch.cat((evidence, second, cells[:, None], missed[:, None]), 1)
    if wait:
        refuse(checks.tolist())
    return Distribution(source.log_prob, source.count, checks)


def _distribution(
    values: Float[Tensor, "batch cell"], mask: Bool[Tensor, "batch cell"] | None
) -> tuple[Distribution, Float64[Tensor, "batch 3"]]:
    """The distribution; and its number of allowed cells, the log mass that it had, and how far that may be from 0."""
    allowed = values != -math.inf
    if mask is not None:
        allowed &= mask
    log_prob = values.detach().double().masked_fill(~allowed, -math.inf)
    count, total = allowed.sum(1), log_prob.logsumexp(1)
    tolerance = max(1e-3, 64 * torch.finfo(values.dtype).eps)
    evidence = torch.stack((count.double(), total, torch.full_like(total, tolerance)), 1)
    return Distribution(log_prob - total[:, None], count, evidence), evidence


def refuse(checks: Sequence[Sequence[float]], names: Sequence[str] = (), what: str = "image") -> None:
    """Checks of distributions, on the host: refuse what cannot be drawn from.

    Arguments:
        checks: a row of `Distribution.checks` for each image.
        names: what to call the images, or fewer, each of which stands for as many rows; may be empty.
        what: a row is.

    Raises:
        FoveateError: an image has no valid cell, or a distribution is not one.
    """

    def called(row: int) -> str:
        image = row * len(names) // len(checks) if names else row
        return f"{what} {image} ({names[image]})" if names else f"{what} {image}"

    for name, start in (("log_prob", 0), ("proposal", 3)):
        for row, values in enumerate(checks):
            cells, mass, tolerance = values[start : start + 3]
            if cells == 0:
                raise ImageError(
                    f"{called(row)} has no valid cell to draw from: all {values[6]:.0f} of {name} are masked or -inf; "
                    "leave the image out or widen its mask"
                )
            if math.isnan(mass):
                raise ImageError(f"{name} of {called(row)} is NaN at a valid cell: look for the first NaN upstream")
            if abs(mass) > tolerance:
                raise ArgumentError(
                    f"{name} must be normalised over the valid cells, but {called(row)} sums to "
                    f"{_exponential(mass):.6g}: apply log_softmax over the valid cells"
                )
    for row, values in enumerate(checks):
        if values[7] >= 0:
            raise ArgumentError(
                f"proposal must be positive wherever log_prob is, but is 0 at cell {values[7]:.0f} of {called(row)}: "
                "mix in a share of the attention or of a constant"
            )


def _exponential(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


_SMALLEST = 2.0**-54
"""Half the spacing of float64 uniform numbers near 0."""

Generators = torch.Generator | Sequence[torch.Generator | None] | None
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
    keys = gumbel_keys(source.log_prob, source.count.tolist(), generator)
    best = keys.topk(min(n + 1, keys.shape[1]), dim=1)
    value, index = _pad(best.values, n + 1, -math.inf), _pad(best.indices, n + 1, 0.0)
    return index[:, :n].where(value[:, :n] > -math.inf, index[:, :1]), value[:, n]


def gumbel_keys(
    log_prob: Float64[Tensor, "batch cell"], counts: Sequence[int], generator: Generators
) -> Float64[Tensor, "batch cell"]:
    """Gumbel keys of cells: log probability plus independent Gumbel noise, made for valid cells only.

    Arguments:
        log_prob: (B, K) log probabilities, not necessarily normalised; −inf for cells that are not valid.
        counts: B numbers of valid cells.
        generator: one generator, B of them, or None.

    Returns:
        (B, K) keys; −inf for cells that are not valid.

    Raises:
        FoveateError: the number of generators is not the number of images.
    """
    device = log_prob.device
    uniform = [
        torch.rand(count, dtype=torch.float64, device=device if one is None else one.device, generator=one).to(device)
        for count, one in zip(counts, per_image(generator, len(counts)), strict=True)
    ]
    # −log(1 − u) is what `exponential_` computes, at a third of its cost; u = 0 would be a key of ∞.
    noise = torch.cat(uniform).clamp_(min=_SMALLEST).neg_().log1p_().neg_().log_()
    if sum(counts) == log_prob.numel():
        return log_prob - noise.view_as(log_prob)
    # noise goes to valid cells only, in row-major order: padding a map with masked cells changes no draw
    return log_prob - torch.zeros_like(log_prob).masked_scatter_(log_prob > -math.inf, noise)


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
    for log_prob, one in zip(source.log_prob, per_image(generator, len(source.log_prob)), strict=True):
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


def per_image(generator: Generators, images: int) -> Sequence[torch.Generator | None]:
    """Generator of each image; an error if there are several, but not one for each."""
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * images
    if len(generator) != images:
        raise ArgumentError(f"one generator per image: got {len(generator)} generators for {images} images")
    return generator


def _pad(values: Tensor, columns: int, fill: float) -> Tensor:
    return torch.nn.functional.pad(values, (0, columns - values.shape[1]), value=fill)
