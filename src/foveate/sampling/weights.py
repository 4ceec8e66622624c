"""The importance weights of drawn cells: float64, detached, finite."""

import math

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling.thresholds import thresholds

__all__ = ["importance_weights", "murthy_log_weights", "top_weights"]

_LARGEST_LOG = 700.0
"""Weights stay below e^700, so that they are finite in float64 however improbable a draw was."""


@torch.no_grad()
def importance_weights(
    method: str,
    log_prob: Float64[Tensor, "batch draw"],
    log_rest: Float64[Tensor, " batch"],
    threshold: Float64[Tensor, " batch"] | None,
    count: Int[Tensor, " batch"],
    valid: Bool[Tensor, "batch draw"],
) -> Float64[Tensor, "batch draw"]:
    r"""Weights w with E[Σ_t 1{I_t = i} w_t] = 1 for every cell i; see the table of `foveate.sampling.draw`.

    Arguments:
        method: "iid", "des_raj", "priority", "murthy" or "uniform".
        log_prob: (B, n) log probability of the drawn cells, in order, under the distribution drawn from.
        log_rest: (B,) log mass not drawn.
        threshold: (B,) κ, the (n+1)-th Gumbel key; used by "priority" alone.
        count: (B,) number of cells that can be drawn.
        valid: (B, n) False for slots left over.

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
    elif method == "murthy":
        weight = murthy_log_weights(log_prob, log_rest, valid).clamp(max=_LARGEST_LOG).exp()
    else:
        raise FoveateError(f"method {method!r} has no importance weights")
    return torch.where((log_rest == -math.inf)[:, None], 1.0, weight) * valid


def top_weights(
    log_prob: Float[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"], valid: Bool[Tensor, "batch draw"]
) -> Float64[Tensor, "batch draw"]:
    r"""The weight that makes the n most probable cells a distribution of their own.

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


def murthy_log_weights(
    log_prob: Float64[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"], valid: Bool[Tensor, "batch draw"]
) -> Float64[Tensor, "batch draw"]:
    r"""Log of Murthy's weights: how much likelier the other cells were with cell s already out.

    .. math:: w_s = \frac{P(S \setminus s \mid \text{without } s)}{P(S)} = \mathbb{E}_\kappa[1/q_s \mid S] \ge 1

    P sums over all orders, so neither sum can be written out for more than a few cells; the expectation over the
    threshold κ is the same number by one integral. Σ_s a_s w_s = 1 is its built-in check.

    Source: Murthy, "Ordered and Unordered Estimators in Sampling Without Replacement" (1957); Kool, van Hoof &
    Welling, "Estimating Gradients for Discrete Random Variables by Sampling without Replacement" (2020), the unordered
    set estimator.

    Arguments:
        log_prob: (B, n) log probability of the drawn cells, in any order.
        log_rest: (B,) log mass not drawn.
        valid: (B, n) False for slots left over.

    Returns:
        (B, n) log weights; 0 up to rounding where nothing is left.

    Example:
        >>> import torch
        >>> prob = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
        >>> rest = torch.tensor([0.25], dtype=torch.float64)
        >>> murthy_log_weights(prob.log(), rest.log(), torch.tensor([[True, True]])).exp()  # 3/4 · (1/2, 1) / (5/12) …
        tensor([[1.2000, 1.6000]], dtype=torch.float64)
    """
    kappa = thresholds(log_prob, log_rest, valid)
    mean = torch.bmm(kappa.inverse, kappa.probability[:, :, None])[:, :, 0]
    return mean.log() + kappa.log_scale


def _des_raj(
    log_prob: Float64[Tensor, "batch draw"], log_rest: Float64[Tensor, " batch"]
) -> Float64[Tensor, "batch draw"]:
    n = log_prob.shape[1]
    backwards = torch.cat((log_rest[:, None], log_prob.flip(1)), 1).logcumsumexp(1)
    log_before = backwards[:, 1:].flip(1)
    to_come = torch.arange(n - 1, -1, -1, dtype=torch.float64, device=log_prob.device)
    return ((log_before - log_prob).clamp(max=_LARGEST_LOG).exp() + to_come) / n


def _log_inclusion(log_rate: Float64[Tensor, "batch draw"]) -> Float64[Tensor, "batch draw"]:
    """Log of 1 − exp(−e^x), also where e^x underflows."""
    return torch.where(log_rate < -40, log_rate, (-torch.expm1(-log_rate.exp())).log())
