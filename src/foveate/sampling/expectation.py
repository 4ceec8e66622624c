"""The estimate of an attention-weighted sum from the cells drawn."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling.baseline import leave_one_out
from foveate.sampling.original import original_slopes
from foveate.types import Draw

__all__ = ["coefficients", "expectation"]


def coefficients(draw: Draw) -> Float64[Tensor, "batch draw"]:
    r"""How much of the estimate each drawn cell is.

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


def expectation(
    draw: Draw,
    features: Float[Tensor, "batch draw feature"],
    baseline: str | None = None,
    gradient: str = "exact",
) -> Float[Tensor, "batch feature"]:
    r"""Estimate Φ = Σ_i a_i f_i from the drawn cells; its ordinary autograd gradient estimates that of Φ.

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
        gradient: "exact"; or "original" for the **biased** attention gradient of the authors' code, with draws of
            "des_raj" and no baseline: to compare with, see `foveate.sampling.original`.

    Returns:
        (B, D) the estimate, in the wider of the dtypes of features and attention.

    Raises:
        FoveateError: features do not match the draw, baseline or gradient are unknown, or the draw has none of that
            kind.

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
    if gradient not in ("exact", "original"):
        raise FoveateError(f"unknown gradient {gradient!r}: choose 'exact' or 'original'")
    if gradient == "original" and baseline is not None:
        raise FoveateError("the original gradient has no baseline: pass baseline=None, or leave gradient at 'exact'")
    with torch.autocast(device_type=features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, draw.log_prob.dtype)
        features = features.to(dtype).masked_fill(~draw.valid[:, :, None], 0.0)
        coefficient = coefficients(draw).to(dtype)
        if gradient == "original":
            slopes = original_slopes(draw, features.detach().double()).to(dtype)
            nothing = (draw.log_prob - draw.log_prob.detach()).to(dtype)
            weighed = torch.bmm(coefficient.detach()[:, None, :], features)
            return (weighed + torch.bmm(nothing[:, None, :], slopes))[:, 0]
        estimate = torch.bmm(coefficient[:, None, :], features)[:, 0]
        if baseline is None:
            return estimate
        compared = torch.bmm(leave_one_out(draw).to(dtype), features.detach())
        return estimate - torch.bmm((coefficient - coefficient.detach())[:, None, :], compared)[:, 0]
