"""Distribution that cells are drawn from: checked, masked, normalised, in float64."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from foveate.errors import FoveateError

__all__ = ["METHODS", "Distribution", "drawn_from"]

METHODS = ("iid", "des_raj", "priority", "murthy", "uniform", "top")
"""Methods of drawing, as in the table of `foveate.sampling.draw`."""


@dataclass(frozen=True)
class Distribution:
    """Distribution over cells, as they are drawn from it.

    Attributes:
        log_prob: (B, K) log probabilities, detached; a row's exponentials sum to 1; −inf where never drawn.
        count: (B,) number of cells that can be drawn, at least 1.
    """

    log_prob: Float64[Tensor, "batch cell"]
    count: Int[Tensor, " batch"]


@torch.no_grad()
def drawn_from(
    log_prob: Float[Tensor, "batch cell"],
    method: str,
    # The shapes of mask and proposal are checked below, in words a user understands.
    mask: Bool[Tensor, "mask_batch mask_cell"] | None,
    proposal: Float[Tensor, "proposal_batch proposal_cell"] | None,
) -> Distribution:
    """Distribution that a method draws from: the proposal if there is one, a constant for "uniform", else `log_prob`.

    Arguments:
        log_prob: (B, K) log attention, normalised over the valid cells.
        method: one of `METHODS`.
        mask: (B, K) True where a cell may be drawn.
        proposal: (B, K) another log distribution to draw from.

    Returns:
        The distribution, with nothing on cells that are masked or have no probability.

    Raises:
        FoveateError: shapes differ, an image has no valid cell, or a distribution is not one.
    """
    if method not in METHODS:
        raise FoveateError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if proposal is not None and method in ("uniform", "top"):
        raise FoveateError(f"method {method!r} has no use for a proposal: leave it out, or draw with 'murthy'")
    for name, given in (("mask", mask), ("proposal", proposal)):
        if given is not None and given.shape != log_prob.shape:
            expected, got = tuple(log_prob.shape), tuple(given.shape)
            raise FoveateError(f"{name} must have the shape of log_prob, {expected}, got {got}: one value per cell")

    target = _distribution("log_prob", log_prob, mask)
    if method == "uniform":
        flat = -target.count.double().log()[:, None]
        return Distribution(torch.where(target.log_prob == -math.inf, -math.inf, flat), target.count)
    if proposal is None:
        return target
    source = _distribution("proposal", proposal, mask)
    unreachable = (target.log_prob > -math.inf) & (source.log_prob == -math.inf)
    if unreachable.any():
        image, cell = unreachable.nonzero()[0].tolist()
        raise FoveateError(
            f"proposal must be positive wherever log_prob is, but is 0 at cell {cell} of image {image}: "
            "mix in a share of the attention or of a constant"
        )
    return source


def _distribution(
    name: str, values: Float[Tensor, "batch cell"], mask: Bool[Tensor, "batch cell"] | None
) -> Distribution:
    allowed = values != -math.inf
    if mask is not None:
        allowed &= mask
    log_prob = values.detach().double().masked_fill(~allowed, -math.inf)
    count, total = allowed.sum(1), log_prob.logsumexp(1)
    tolerance = max(1e-3, 64 * torch.finfo(values.dtype).eps)
    # One transfer for all checks: on an accelerator every look at a value waits for the device.
    for image, (cells, mass) in enumerate(torch.stack((count.double(), total), 1).tolist()):
        if cells == 0:
            raise FoveateError(
                f"image {image} has no valid cell to draw from: all {values.shape[1]} of {name} are masked or -inf; "
                "leave the image out or widen its mask"
            )
        if math.isnan(mass):
            raise FoveateError(f"{name} of image {image} is NaN at a valid cell: look for the first NaN upstream")
        if abs(mass) > tolerance:
            raise FoveateError(
                f"{name} must be normalised over the valid cells, but image {image} sums to {_exponential(mass):.6g}: "
                "apply log_softmax over the valid cells"
            )
    return Distribution(log_prob - total[:, None], count)


def _exponential(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
