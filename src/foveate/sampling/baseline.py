"""What each drawn cell is compared with: an estimate of the whole image that does not depend on it."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling.thresholds import thresholds
from foveate.types import Draw

__all__ = ["leave_one_out"]

_LARGEST = 1e30
"""Entries of the matrix stay finite in float32 under any proposal, so that a baseline times 0 is 0."""


@torch.no_grad()
def leave_one_out(draw: Draw) -> Float64[Tensor, "batch draw draw"]:
    r"""The matrix M of the baseline b = M f, in which b_s estimates Φ without bias whether or not cell s is drawn.

    .. math:: M_{st} = a_t R_{st}, \qquad R_{ss} = 1, \qquad
              R_{st} = \frac{\mathbb{E}_\kappa[1/(q_s q_t) \mid S]}{\mathbb{E}_\kappa[1/q_s \mid S]}

    It depends on the set of drawn cells alone, and given the set every unbiased weight has Murthy's as its mean; so
    one matrix serves murthy, des_raj, priority and uniform. For independent draws, of probability q,

    .. math:: M_{st} = \frac{a_t}{(n - 1)\, q_t} \quad (t \ne s), \qquad M_{ss} = 0

    A single cell with others left over has no such estimate: M = 0. With nothing left over, b = Φ.

    Source: Kool, van Hoof & Welling, "Estimating Gradients for Discrete Random Variables by Sampling without
    Replacement" (2020), the built-in control variate; "Buy 4 REINFORCE Samples, Get a Baseline for Free!" (2019) for
    independent draws.

    Arguments:
        draw: the cells drawn.

    Returns:
        (B, n, n) the matrix; rows and columns of slots left over hold nothing that matters, and 0 respectively.

    Raises:
        FoveateError: the draw was made by "top", which has no gradient noise to reduce.
    """
    if draw.method == "top":
        raise FoveateError("method 'top' draws nothing at random and has no baseline: pass baseline=None")
    n = draw.index.shape[1]
    log_prob = draw.log_prob.double()
    diagonal = torch.eye(n, dtype=torch.bool, device=log_prob.device)
    alone = draw.log_rest > -math.inf if n == 1 else torch.zeros_like(draw.log_rest, dtype=torch.bool)
    if draw.method == "iid":
        ratio = (log_prob - draw.log_proposal).exp() / max(n - 1, 1)
        return ratio[:, None, :].masked_fill(diagonal, 0.0).clamp(max=_LARGEST)
    kappa = thresholds(draw.log_proposal, draw.log_rest, draw.valid)
    given = kappa.inverse * kappa.probability[:, None, :]
    given /= given.sum(2, keepdim=True)
    # a_t/q_t is bounded where 1/q_t is not, so the product over the nodes never forms 1/a.
    kept = (log_prob + kappa.log_scale).exp()[:, :, None] * kappa.inverse
    matrix = torch.bmm(given, kept.transpose(1, 2))
    matrix = torch.where(diagonal, log_prob.exp()[:, None, :], matrix)
    return matrix.masked_fill(~draw.valid[:, None, :] | alone[:, None, None], 0.0).clamp(max=_LARGEST)
