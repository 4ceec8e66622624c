"""The unseen threshold of a set of drawn cells, integrated out."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

__all__ = ["Thresholds", "thresholds"]

_NODES = 80
"""Nodes of the trapezoid rule: with 80, weights are within 5e-13 of the integral, flat or peaked, n = 1 … 100."""

_DROP = 33.0
"""The range of integration ends where the integrand has fallen to e^−33 of its height."""

_EVEN = 0.2
"""Largest step near the mode, and everywhere if the range is short; a longer range is stepped wider to its left."""

_SMALLEST, _LARGEST = -50.0, 300.0
"""Bounds of log(a/c): beyond them 1 − exp(−u) is u, or 1, to all digits of a float64 at every node."""


@dataclass(frozen=True)
class Thresholds:
    """Nodes κ_m of the threshold's distribution given the set of drawn cells.

    Attributes:
        probability: (B, M) weight of each node; sums to 1.
        inverse: (B, n, M) 1/q_s at each node, divided by exp(log_scale).
        log_scale: (B, n) log of a factor that 1/q_s is too large for; 0 but for cells of relative mass below e^−50.
    """

    probability: Float64[Tensor, "batch node"]
    inverse: Float64[Tensor, "batch draw node"]
    log_scale: Float64[Tensor, "batch draw"]


@torch.no_grad()
def thresholds(
    log_prob: Float64[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"], valid: Bool[Tensor, "batch draw"]
) -> Thresholds:
    r"""Nodes and weights for expectations over the (n+1)-th Gumbel key κ, given the set of the n largest.

    The largest key of the cells not drawn, of mass c, is Gumbel; all n drawn ones lie above it. With x = log c − κ

    .. math:: p(x \mid S) \propto e^{x - e^x} \prod_j q_j(x), \qquad q_j(x) = 1 - \exp(-e^x a_j / c)

    which is log-concave. It is summed by the trapezoid rule in t, with x(t) a quadratic: the left tail falls slowly,
    like e^x, where nothing needs resolving, and dividing by one or two q's slows it further.

    Source: Kool, van Hoof & Welling, "Estimating Gradients for Discrete Random Variables by Sampling without
    Replacement" (2020), appendix on computing p(S), for the integral; Trefethen & Weideman, "The Exponentially
    Convergent Trapezoidal Rule" (2014), for why so few nodes do. Range, steps and substitution are ours.

    Arguments:
        log_prob: (B, n) log probability of the drawn cells.
        log_rest: (B,) log mass c of all others; −inf makes every q 1.
        valid: (B, n) False for slots left over, which count for nothing (their q is 1).

    Returns:
        The nodes, as 1/q_s at each of them.
    """
    log_ratio = torch.where(valid, log_prob - log_rest[:, None], math.inf)
    ratio = log_ratio.clamp(_SMALLEST, _LARGEST).exp()
    left, right = _range(ratio)
    width = right - left
    even = (_EVEN * _NODES / width).clamp(max=1.0)
    t = (torch.arange(_NODES, dtype=torch.float64, device=log_prob.device) + 0.5) / _NODES
    x = right - width * (even * t + (1 - even) * t.square())
    # 1/q = (1 + coth(u/2)) / 2: exact for small u as expm1 is, at less than half its cost.
    inverse = (ratio[:, :, None] * (x.exp() / 2)[:, None, :]).tanh_().reciprocal_().add_(1).mul_(0.5)
    log_density = x - x.exp() - inverse.log().sum(1) + (even + 2 * (1 - even) * t).log()
    return Thresholds(log_density.softmax(1), inverse, (_SMALLEST - log_ratio).clamp(min=0))


def _range(ratio: Float64[Tensor, "batch draw"]) -> tuple[Float64[Tensor, "batch 1"], Float64[Tensor, "batch 1"]]:
    """Where the density, divided by any one or two of its q's, has fallen to e^−33 of its height at the mode.

    With y = e^x and φ(u) = u/(e^u − 1), the slope of the log density is 1 − y + Σφ(y a_j/c): concave increasing in y
    if turned around, so Newton from y = 1 climbs to the mode from below, and 1 + Σφ there is a bound from above.
    """
    y = torch.ones_like(ratio[:, :1])
    for _ in range(2):
        u = y * ratio
        phi = u / u.expm1()
        derivative = phi * (1 - u - phi) / y
        y = y - (y - 1 - phi.sum(1, keepdim=True)) / (1 - derivative.sum(1, keepdim=True))
    u = y * ratio
    above = 1 + (u / u.expm1()).sum(1, keepdim=True)
    # Right of the mode the log density falls by at least y (ρ − 1 − log ρ) with ρ = e^x / y.
    share = _DROP / above
    right = (above * (1 + (2 * share).sqrt() + share)).log()

    # Left of it the two factors that fall fastest are left out; Newton comes from outside, where it cannot overshoot.
    fastest = ratio.topk(min(2, ratio.shape[1]), dim=1, largest=False).indices
    others = ratio.scatter(1, fastest, math.exp(_LARGEST))
    mode = y.log()
    goal = _log_density(mode, others)[0] - _DROP
    left = mode - (_DROP + y) / (y - 2).clamp(min=1)
    for _ in range(3):
        value, slope = _log_density(left, others)
        left = left - (value - goal) / slope
    return left, right


def _log_density(
    x: Float64[Tensor, "batch 1"], ratio: Float64[Tensor, "batch draw"]
) -> tuple[Float64[Tensor, "batch 1"], Float64[Tensor, "batch 1"]]:
    """Log of the density of x up to a constant, and its slope."""
    y = x.exp()
    u = (y * ratio).clamp(max=_LARGEST)
    e = u.expm1()
    return x - y + (e.log() - u).sum(1, keepdim=True), 1 - y + (u / e).sum(1, keepdim=True)
