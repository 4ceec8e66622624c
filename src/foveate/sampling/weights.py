"""Importance weights of drawn cells: float64, detached, finite; and the integral behind Murthy's.

A weight is 1 over the probability that a cell is drawn. Without replacement that depends on what else is drawn, through
the threshold κ alone: given κ, the (n+1)-th largest Gumbel key, cells are in or out independently, cell s with
q_s = 1 − exp(−a_s e^{−κ}). `importance_weights` has a formula for every method; Murthy's is the mean of 1/q_s over κ
given the set that was drawn, a one-dimensional integral, whose nodes `thresholds` finds. A draw keeps
them: the baseline in `estimator.py` needs them again.
"""

import math

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from foveate.errors import ArgumentError
from foveate.types import Thresholds

_LARGEST_LOG = 700.0
"""Weights stay below e^700, so that they are finite in float64 however improbable a draw was."""


_NODES = 80
"""Nodes of the trapezoid rule: with 80, weights are within 5e-13 of the integral, flat or peaked, n = 1 … 100."""

_DROP = 33.0
"""The range of integration ends where the integrand has fallen to e^−33 of its height."""

_EVEN = 0.2
"""Largest step near the mode, and everywhere if the range is short; a longer range is stepped wider to its left."""

_SMALLEST, _LARGEST = -50.0, 300.0
"""Bounds of log(a/c): beyond them 1 − exp(−u) is u, or 1, to all digits of a float64 at every node."""


@torch.no_grad()
def importance_weights(
    method: str,
    log_prob: Float64[Tensor, "batch draw"],
    log_rest: Float64[Tensor, " batch"],
    threshold: Float64[Tensor, " batch"] | None,
    count: Int[Tensor, " batch"],
    valid: Bool[Tensor, "batch draw"],
    nodes: Thresholds | None = None,
) -> Float64[Tensor, "batch draw"]:
    r"""Importance weights w with E[Σ_t 1{I_t = i} w_t] = 1 for every cell i; see the table of `foveate.sampling.draw`.

    Arguments:
        method: "iid", "des_raj", "priority", "murthy" or "uniform".
        log_prob: (B, n) log probability of the drawn cells, in order, under the distribution drawn from.
        log_rest: (B,) log mass not drawn.
        threshold: (B,) κ, the (n+1)-th Gumbel key; used by "priority" alone.
        count: (B,) number of cells that can be drawn.
        valid: (B, n) False for slots left over.
        nodes: from `thresholds` of the same cells; used by "murthy" alone, which needs them.

    Returns:
        (B, n) weights; 0 where not valid, 1 where nothing is left to draw (unless the method is "iid").

    Raises:
        FoveateError: the method has no weights of this kind.
    """
    n = log_prob.shape[1]
    if method == "iid":
        return (-log_prob - math.log(n)).clamp(max=_LARGEST_LOG).exp()
    if method == "uniform":
        weight = (count.double() / n)[:, None].expand(-1, n)
    elif method == "des_raj":
        weight = _des_raj(log_prob, log_rest)
    elif method == "priority" and threshold is not None:
        weight = (-_log_inclusion(log_prob - threshold[:, None])).clamp(max=_LARGEST_LOG).exp()
    elif method == "murthy" and nodes is not None:
        weight = murthy_log_weights(nodes).clamp(max=_LARGEST_LOG).exp()
    else:
        raise ArgumentError(f"method {method!r} has no importance weights")
    return torch.where((log_rest == -math.inf)[:, None], 1.0, weight) * valid


def top_weights(
    log_prob: Float[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"], valid: Bool[Tensor, "batch draw"]
) -> Float64[Tensor, "batch draw"]:
    r"""Weights of the top n: the one number that makes the n most probable cells a distribution of their own.

    .. math:: w = 1 / \sum_s a_s

    It carries the gradient of the attention. Σ a w f is biased: it is the expectation over the top n alone.

    Arguments:
        log_prob: (B, n) log attention of the n most probable cells.
        log_rest: (B,) log mass of the others.
        valid: (B, n) False for slots left over.

    Returns:
        (B, n) weights, equal within an image; 0 where not valid, 1 where nothing is left.
    """
    total = log_prob.double().masked_fill(~valid, -math.inf).logsumexp(1, keepdim=True)
    return torch.where((log_rest == -math.inf)[:, None], 1.0, (-total).exp()) * valid


def murthy_log_weights(nodes: Thresholds) -> Float64[Tensor, "batch draw"]:
    r"""Murthy's weights, their logarithm: how much likelier the other cells were with cell s already out.

    .. math:: w_s = \frac{P(S \setminus s \mid \text{without } s)}{P(S)} = \mathbb{E}_\kappa[1/q_s \mid S] \ge 1

    P sums over all orders, so neither sum can be written out for more than a few cells; the expectation over the
    threshold κ is the same number by one integral. Σ_s a_s w_s = 1 is its built-in check.

    Source: Murthy, "Ordered and Unordered Estimators in Sampling Without Replacement" (1957); Kool, van Hoof &
    Welling, "Estimating Gradients for Discrete Random Variables by Sampling without Replacement" (2020), the unordered
    set estimator.

    Arguments:
        nodes: from `thresholds` of the drawn cells, which may be in any order.

    Returns:
        (B, n) log weights; 0 up to rounding where nothing is left.

    Example:
        >>> import torch
        >>> prob = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
        >>> rest = torch.tensor([0.25], dtype=torch.float64)
        >>> nodes = thresholds(prob.log(), rest.log(), torch.tensor([[True, True]]))
        >>> murthy_log_weights(nodes).exp()  # 3/4 · (1/2, 1) / (5/12) …
        tensor([[1.2000, 1.6000]], dtype=torch.float64)
    """
    mean = torch.bmm(nodes.inverse, nodes.probability[:, :, None])[:, :, 0]
    return mean.log() + nodes.log_scale


def _des_raj(
    log_prob: Float64[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"]
) -> Float64[Tensor, "batch draw"]:
    """Des Raj's weights, their mean over the n estimates of which each takes the draws before it as given."""
    n = log_prob.shape[1]
    # From the last drawn backwards, so that mass left over is a sum of what is left, and never 1 − what is gone.
    backwards = torch.cat((log_rest[:, None], log_prob.flip(1)), 1).logcumsumexp(1)
    log_before = backwards[:, 1:].flip(1)
    to_come = torch.arange(n - 1, -1, -1, dtype=torch.float64, device=log_prob.device)
    return ((log_before - log_prob).clamp(max=_LARGEST_LOG).exp() + to_come) / n


def _log_inclusion(log_rate: Float64[Tensor, "batch draw"]) -> Float64[Tensor, "batch draw"]:
    """Inclusion probability 1 − exp(−e^x), its logarithm, also where e^x underflows."""
    return torch.where(log_rate < -40, log_rate, (-torch.expm1(-log_rate.exp())).log())


@torch.no_grad()
def thresholds(
    log_prob: Float64[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"], valid: Bool[Tensor, "batch draw"]
) -> Thresholds:
    r"""Quadrature for expectations over the (n+1)-th Gumbel key κ, given the set of the n largest.

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
    """Range of integration: up to where the density, over any one or two of its q's, has fallen to e^−33 of its mode.

    With y = e^x and φ(u) = u/(e^u − 1), the slope of the log density is 1 − y + Σφ(y a_j/c): concave increasing in y
    if turned around, so Newton from y = 1 climbs to the mode from below, and 1 + Σφ there is a bound from above.
    """
    # Two steps are enough: what follows holds for any y below the mode, a nearer one only makes the range tighter.
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

    # Left of it every factor falls, and dividing by one q (a weight) or two (the baseline) takes their fall away again.
    # So the range is that of the density without the two that fall fastest, which are set to a q of 1. Newton comes
    # from outside, where it cannot overshoot.
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
    """Density of x: its logarithm up to a constant, and the slope of that."""
    y = x.exp()
    u = (y * ratio).clamp(max=_LARGEST)
    e = u.expm1()
    return x - y + (e.log() - u).sum(1, keepdim=True), 1 - y + (u / e).sum(1, keepdim=True)
