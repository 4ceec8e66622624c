"""Estimator of an attention-weighted sum from the cells drawn, and its baseline.

`expectation` is what models call; `coefficients` says how much of it each cell is; `leave_one_out` is the control
variate that takes from the attention's gradient what all features have in common, and from the estimate nothing.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling.weights import thresholds
from foveate.types import Draw

_LARGEST = 1e30
"""Bound of the baseline's matrix: finite in float32 under any proposal, so that a baseline times 0 is 0."""


def expectation(
    draw: Draw,
    features: Float[Tensor, "batch draw feature"],
    baseline: str | None = None,
) -> Float[Tensor, "batch feature"]:
    r"""Expectation Φ = Σ_i a_i f_i, estimated from the drawn cells; its ordinary autograd gradient estimates that of Φ.

    .. math:: \hat\Phi = \sum_s a_s w_s f_s - \sum_s (a_s - \mathrm{sg}\,a_s)\, w_s b_s

    Value and gradient, for the features and for the attention, are unbiased for Φ and for anything linear in Φ (all
    methods but "top"); that of a nonlinear loss at Φ̂ is not, and becomes so as Var Φ̂ vanishes. The second sum, whose
    value is exactly 0, takes out of the attention's gradient what all features have in common.

    Source: Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models" (2019), section
    3; Kool, van Hoof & Welling, "Estimating Gradients for Discrete Random Variables by Sampling without Replacement"
    (2020), for the baseline. We differ from the first: weights are constant in the backward pass.

    Arguments:
        draw: the cells drawn, from `foveate.sampling.draw`.
        features: (B, n, D) features of the patches behind them, in any unit; slots that are not valid do not count.
        baseline: "leave-one-out" for b_s = the estimate of Φ from the other cells, None for b = 0.

    Returns:
        (B, D) the estimate, in the wider of the dtypes of features and attention.

    Raises:
        FoveateError: features do not match the draw, the baseline is unknown, or the draw has none of that kind.

    Example:
        >>> import torch
        >>> from foveate.sampling import draw
        >>> attention = torch.tensor([[0.5, 0.3, 0.2]])
        >>> features = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> drawn = draw(attention.log(), 3)
        >>> expectation(drawn, features.gather(1, drawn.index[:, :, None]))  # all three drawn: exact
        tensor([[1.9000]])
    """
    if features.shape[:2] != draw.index.shape:
        expected, got = tuple(draw.index.shape), tuple(features.shape)
        raise FoveateError(f"features must have one row per drawn cell, {expected} of them, got shape {got}")
    if baseline not in (None, "leave-one-out"):
        raise FoveateError(f"unknown baseline {baseline!r}: choose 'leave-one-out' or None")
    with torch.autocast(device_type=features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, draw.log_prob.dtype)
        features = features.to(dtype).masked_fill(~draw.valid[:, :, None], 0.0)
        coefficient = coefficients(draw).to(dtype)
        estimate = torch.bmm(coefficient[:, None, :], features)[:, 0]
        if baseline is None:
            return estimate
        compared = torch.bmm(leave_one_out(draw).to(dtype), features.detach())
        return estimate - torch.bmm((coefficient - coefficient.detach())[:, None, :], compared)[:, 0]


def coefficients(draw: Draw) -> Float64[Tensor, "batch draw"]:
    r"""Coefficients of the estimate: how much of it each drawn cell is.

    .. math:: a_s w_s, \qquad \hat\Phi = \sum_s (a_s w_s) f_s

    Arguments:
        draw: the cells drawn, from `foveate.sampling.draw`.

    Returns:
        (B, n) at least 0, and 0 for slots that are not valid; carries the gradient of the attention.

    Example:
        >>> import torch
        >>> from foveate.sampling import draw
        >>> drawn = draw(torch.tensor([[0.5, 0.3, 0.2]]).log(), 2, "top")
        >>> coefficients(drawn)
        tensor([[0.6250, 0.3750]], dtype=torch.float64)
    """
    # In logs: a may be too small, and w too large, for the dtype of the features, but not their product.
    log_weight = draw.weight.where(draw.valid, 1.0).log()
    return (draw.log_prob.double() + log_weight).exp().where(draw.valid, 0.0)


@torch.no_grad()
def leave_one_out(draw: Draw) -> Float64[Tensor, "batch draw draw"]:
    r"""Baseline: the matrix M of b = M f, in which b_s estimates Φ without bias whether or not cell s is drawn.

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
    kappa = draw.nodes or thresholds(draw.log_proposal, draw.log_rest, draw.valid)
    given = kappa.inverse * kappa.probability[:, None, :]
    given /= given.sum(2, keepdim=True)
    # a_t/q_t is bounded where 1/q_t is not, so the product over the nodes never forms 1/a.
    kept = (log_prob + kappa.log_scale).exp()[:, :, None] * kappa.inverse
    matrix = torch.bmm(given, kept.transpose(1, 2))
    matrix = torch.where(diagonal, log_prob.exp()[:, None, :], matrix)
    return matrix.masked_fill(~draw.valid[:, None, :] | alone[:, None, None], 0.0).clamp(max=_LARGEST)
