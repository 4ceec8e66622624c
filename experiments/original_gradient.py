"""The attention gradient of the paper's released code, which is biased: to compare with, and for nothing else.

With draws of `des_raj` in order, p_k = 1 − Σ_{j<k} a_j and F_k = Σ_{j<k} a_j f_j + p_k f_k, that code takes

    ∂Φ̂/∂a_k = (F_k p_k / a_k + Σ_{j<k} f_j − k f_k) / N   where the exact one is   (p_k / a_k + N − 1 − k) f_k / N.

As a script it is `foveate compare` of methods that are trained with this gradient, every one of them:

    python experiments/original_gradient.py --config experiments/ablation-original.yaml --out runs/ablation-original
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from foveate.errors import FoveateError
from foveate.sampling import ControlVariate, coefficients, expectation
from foveate.types import Draw

TOLERANCE = 2e-3
"""How far log attention and the log distribution drawn from may differ: by its normalisation alone."""


def main(words: Sequence[str] | None = None) -> int:
    """Run `foveate compare` with this gradient.

    Returns:
        Its exit code.
    """
    from foveate.__main__ import main as foveate

    with original_gradient():
        return foveate(["compare", *(sys.argv[1:] if words is None else words)])


@contextmanager
def original_gradient() -> Iterator[None]:
    """Within, attention sampling estimates by `original_expectation` wherever its attention takes a gradient."""

    def estimate(
        draw: Draw, features: Tensor, baseline: str | None = None, control: ControlVariate | None = None
    ) -> Tensor:
        if not draw.log_prob.requires_grad:
            return expectation(draw, features, baseline, control)
        if baseline is not None:
            raise FoveateError("the original gradient has no baseline: set model.baseline none")
        if control is not None:
            raise FoveateError("the original gradient has no control variate: leave it out")
        return original_expectation(draw, features)

    with mock.patch("foveate.models.sampling.expectation", estimate):
        yield


def original_expectation(draw: Draw, features: Float[Tensor, "batch draw feature"]) -> Float[Tensor, "batch feature"]:
    """The estimate of `foveate.sampling.expectation`, to the bit, with the biased gradient of the attention.

    Arguments:
        draw: cells drawn in order from the attention itself, by "des_raj".
        features: (B, n, D) of the patches behind them.

    Returns:
        (B, D) the estimate.

    Raises:
        FoveateError: the cells were drawn otherwise.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, draw.log_prob.dtype)
        features = features.to(dtype).masked_fill(~draw.valid[:, :, None], 0.0)
        slopes = original_slopes(draw, features.detach().double()).to(dtype)
        nothing = (draw.log_prob - draw.log_prob.detach()).to(dtype)
        weighed = torch.bmm(coefficients(draw).to(dtype).detach()[:, None, :], features)
        return (weighed + torch.bmm(nothing[:, None, :], slopes))[:, 0]


@torch.no_grad()
def original_slopes(
    draw: Draw, features: Float64[Tensor, "batch draw feature"]
) -> Float64[Tensor, "batch draw feature"]:
    r"""What the authors' code takes for the derivative of its estimate by the log attention of each drawn cell.

    With a_k and f_k of the k-th drawn cell, p_k = 1 − Σ_{j<k} a_j and F_k = Σ_{j<k} a_j f_j + p_k f_k:

    .. math:: u_k = a_k \, \frac{1}{N} \Bigl( \frac{F_k \, p_k}{a_k} + \sum_{j<k} f_j - k f_k \Bigr)

    **It is biased** from two draws on: given the cells before it, the derivative of E[F_k] by a_i is f_i, so that the
    exact term is (p_k / a_k + N − 1 − k) f_k, whatever was drawn before. Where attention is flat the two agree in
    direction; as it peaks they come to oppose each other. The value of the estimate and the gradient of the features
    are not concerned. Where no cell is left over, the sum is exact and so is this: u_k = a_k f_k.

    Source: the released code of Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling
    Models" (2019), expectation without replacement.

    Arguments:
        draw: cells drawn in order from the attention itself, by "des_raj".
        features: (B, n, D) of the patches behind them.

    Returns:
        (B, n, D) slopes, without gradient.

    Raises:
        FoveateError: the cells were drawn otherwise.
    """
    if draw.method != "des_raj":
        raise FoveateError(
            f"the original gradient is that of cells drawn by 'des_raj', not {draw.method!r}: draw with 'des_raj'"
        )
    log_prob = draw.log_prob.double()
    if ((log_prob - draw.log_proposal).abs() > TOLERANCE).logical_and(draw.valid).any():
        raise FoveateError("the original gradient knows no proposal: draw from the attention itself")
    n = log_prob.shape[1]
    prob = log_prob.exp()[:, :, None]
    backwards = torch.cat((draw.log_rest[:, None], draw.log_proposal.flip(1)), 1).logcumsumexp(1)
    mass = backwards[:, 1:].flip(1).exp()[:, :, None]
    estimate = _before(prob * features) + mass * features
    order = torch.arange(n, dtype=torch.float64, device=prob.device)[:, None]
    slopes = (estimate * mass + prob * (_before(features) - order * features)) / n
    exact = (draw.log_rest == -math.inf)[:, None, None]
    return torch.where(exact, prob * features, slopes).masked_fill(~draw.valid[:, :, None], 0.0)


def _before(values: Float64[Tensor, "batch draw feature"]) -> Float64[Tensor, "batch draw feature"]:
    """Sums over the cells drawn before each."""
    return values.cumsum(1) - values


if __name__ == "__main__":
    sys.exit(main())
