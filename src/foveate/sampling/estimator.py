"""Estimator of an attention-weighted sum from the cells drawn, its baseline, and its learnt control variate.

`expectation` is what models call; `coefficients` says how much of it each cell is; `leave_one_out` is the control
variate that takes from the attention's gradient what all features have in common, and from the estimate nothing.
`ControlVariate` holds features foretold from the view, which take noise out of both; `control_loss` trains them.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from foveate.errors import ArgumentError
from foveate.sampling.weights import thresholds
from foveate.types import Draw

BASELINED = ("iid", "des_raj", "priority", "murthy", "uniform")
"""Methods whose draws have a leave-one-out baseline: one of a user's own says not how likely two cells are together."""

_LARGEST = 1e30
"""Bound of the baseline's matrix: finite in float32 under any proposal, so that a baseline times 0 is 0."""


@dataclass(frozen=True)
class ControlVariate:
    """Control variate of an image: features of every cell as the view foretells them, and the attention over all cells.

    Attributes:
        log_prob: (B, K) log attention over all cells, as given to `draw`; −inf where there is nothing to look at. It
            carries the gradient of the attention.
        values: (B, K, D) features g foretold, in the unit of the true ones; what a cell of no attention holds does not
            count. Constant in `expectation`; `control_loss` is what trains them.
    """

    log_prob: Float[Tensor, "image cell"]
    values: Float[Tensor, "image cell feature"]


def expectation(
    draw: Draw,
    features: Float[Tensor, "batch draw feature"],
    baseline: str | None = None,
    control: ControlVariate | None = None,
) -> Float[Tensor, "batch feature"]:
    r"""Expectation Φ = Σ_i a_i f_i, estimated from the drawn cells; its ordinary autograd gradient estimates that of Φ.

    .. math:: \hat\Phi = \sum_s a_s w_s f_s - \sum_s (a_s - \mathrm{sg}\,a_s)\, w_s b_s

    Value and gradient, for the features and for the attention, are unbiased for Φ and for anything linear in Φ (all
    methods but "top"); that of a nonlinear loss at Φ̂ is not, and becomes so as Var Φ̂ vanishes. The second sum, whose
    value is exactly 0, takes out of the attention's gradient what all features have in common.

    With a control variate g, held constant, the same estimate is made of f − g alone (b is then that of f − g), and

    .. math:: \hat\Phi = \sum_i a_i g_i + \sum_s a_s w_s (f_s - g_s)
              = \sum_s a_s w_s f_s + \sum_i \Big(a_i - \sum_{s: I_s = i} a_s w_s\Big) g_i

    is unbiased likewise, whatever g is; it has no noise where g = f, and more than without where g is noise. It is
    computed as on the right, where what is summed exactly (nothing left to draw) cancels. With "top" the bias becomes
    that of f − g: 0 where g = f, and as before where g is the same everywhere.

    Source: Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models" (2019), section
    3; Kool, van Hoof & Welling, "Estimating Gradients for Discrete Random Variables by Sampling without Replacement"
    (2020), for the baseline; Särndal, Swensson & Wretman, "Model Assisted Survey Sampling" (1992), chapter 6, the
    difference estimator, for the control variate. We differ from the first: weights are constant in the backward pass.

    Arguments:
        draw: the cells drawn, from `foveate.sampling.draw`.
        features: (B, n, D) features of the patches behind them, in any unit; slots that are not valid do not count.
        baseline: "leave-one-out" for b_s = the estimate of Φ from the other cells, None for b = 0.
        control: features foretold at every cell of each image; an image has B / images rows of the draw, side by side.

    Returns:
        (B, D) the estimate, in the wider of the dtypes of features and attention.

    Raises:
        FoveateError: features or control variate do not match the draw, the baseline is unknown, or the draw has none
            of that kind.

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
        raise ArgumentError(f"features must have one row per drawn cell, {expected} of them, got shape {got}")
    if baseline not in (None, "leave-one-out"):
        raise ArgumentError(f"unknown baseline {baseline!r}: choose 'leave-one-out' or None")
    with torch.autocast(device_type=features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, draw.log_prob.dtype)
        features = features.to(dtype).masked_fill(~draw.valid[:, :, None], 0.0)
        coefficient = coefficients(draw)
        estimate = torch.bmm(coefficient.to(dtype)[:, None, :], features)[:, 0]
        residual = features.detach()
        if control is not None:
            _check_control(draw, features, control)
            estimate = estimate + _foretold(draw, coefficient, control, dtype)
            residual = residual - _at_drawn(draw, control.values.detach().to(dtype))
        if baseline is None:
            return estimate
        compared = torch.bmm(leave_one_out(draw).to(dtype), residual)
        coefficient = coefficient.to(dtype)
        return estimate - torch.bmm((coefficient - coefficient.detach())[:, None, :], compared)[:, 0]


def control_loss(
    draw: Draw, features: Float[Tensor, "batch draw feature"], control: ControlVariate
) -> Float[Tensor, ""]:
    r"""Loss of a control variate: an unbiased estimate of the noise that it leaves in Φ̂, and that it learns to lessen.

    .. math:: L = \frac1B \sum_b \sum_s \nu_s \|f_s - g_s\|^2, \qquad \nu_s = a_s^2\, w_s (w_s - 1)_+

    and :math:`\nu_s = a_s^2 w_s^2 (1 - q_s)` for independent draws of probability q. In the mean over draws

    .. math:: \mathbb{E} L = \sum_i a_i^2 \operatorname{Var}(T_i)\, \|f_i - g_i\|^2, \qquad
              T_i = \sum_{s: I_s = i} w_s

    which is the trace of Var Φ̂ but for products of the residuals of different cells: for "priority", two draws or
    more, those vanish and it is the trace exactly; elsewhere it is the trace in the mean if residuals of different
    cells are uncorrelated and of mean 0, as those of a regression are. A cell that is drawn for certain counts for
    nothing: foretelling it saves nothing. (For "des_raj" alone w may fall below 1, and E L is above the sum.)

    Only g gets a gradient: features and attention are constants here, as g is in `expectation`.

    Source: Isaki & Fuller, "Survey Design under the Regression Superpopulation Model" (1982), for the anticipated
    variance; Duffield, Lund & Thorup, "Priority Sampling for Estimation of Arbitrary Subset Sums" (2007), for the
    exact case.

    Arguments:
        draw: the cells drawn.
        features: (B, n, D) features of the patches behind them.
        control: features foretold at every cell of each image.

    Returns:
        The loss, in squared units of the features; compare it with that of `values` of 0 for the share of noise left.

    Raises:
        FoveateError: features or control variate do not match the draw.

    Example:
        >>> import torch
        >>> from foveate.sampling import draw
        >>> log_prob = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> drawn = draw(log_prob, 2, generator=torch.Generator().manual_seed(0))
        >>> values = torch.zeros(1, 3, 1, requires_grad=True)
        >>> loss = control_loss(drawn, torch.ones(1, 2, 1), ControlVariate(log_prob, values))
        >>> loss.backward()
        >>> values.grad[0, :, 0] < 0  # of the cells drawn, g should grow
        tensor([False,  True,  True])
    """
    _check_control(draw, features, control)
    with torch.autocast(device_type=features.device.type, enabled=False), torch.no_grad():
        share = coefficients(draw)
        log_prob = draw.log_prob.double()
        if draw.method == "iid":
            noise = share.square() * -torch.expm1(draw.log_proposal)
        else:
            noise = share * (share - log_prob.exp()).clamp(min=0.0)
    with torch.autocast(device_type=features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, draw.log_prob.dtype)
        residual = features.detach().to(dtype) - _at_drawn(draw, control.values.to(dtype))
        squared = residual.masked_fill(~draw.valid[:, :, None], 0.0).square().sum(2)
        return (noise.to(dtype) * squared).sum(1).mean()


def noise_left(draw: Draw, features: Float[Tensor, "batch draw feature"], control: ControlVariate) -> Float[Tensor, ""]:
    """Share of the noise of Φ̂ that a control variate leaves: its `control_loss`, over that of foretelling nothing.

    Arguments and errors are those of `control_loss`; 0 is exact, 1 is of no use, and more does harm.
    """
    without = control_loss(draw, features, replace(control, values=torch.zeros_like(control.values)))
    return control_loss(draw, features, control) / without.detach().clamp(min=1e-12)


def _check_control(draw: Draw, features: Float[Tensor, "batch draw feature"], control: ControlVariate) -> None:
    rows, (images, cells, width) = len(draw.index), control.values.shape
    if control.log_prob.shape != (images, cells) or width != features.shape[2] or images == 0 or rows % images:
        log_prob, values, got = (tuple(one.shape) for one in (control.log_prob, control.values, features))
        raise ArgumentError(
            "a control variate must have values (images, cells, features) and log_prob (images, cells), with a whole "
            f"number of the draw's rows per image: got {values} and {log_prob} for features of shape {got}"
        )


def _foretold(
    draw: Draw, coefficient: Float64[Tensor, "batch draw"], control: ControlVariate, dtype: torch.dtype
) -> Float[Tensor, "batch feature"]:
    """Sum over all cells of what a cell is of Φ, less what it is of the estimate, times what is foretold of it."""
    images, cells = control.log_prob.shape
    rows = len(draw.index)
    attention = control.log_prob.double().exp().repeat_interleave(rows // images, 0)
    missing = attention.scatter_add(1, draw.index, -coefficient)
    # whatever a masked cell holds: 0 times what is no number is none
    values = control.values.detach().to(dtype).masked_fill((control.log_prob == -math.inf)[:, :, None], 0.0)
    return torch.bmm(missing.to(dtype).view(images, rows // images, cells), values).flatten(0, 1)


def _at_drawn(draw: Draw, values: Float[Tensor, "image cell feature"]) -> Float[Tensor, "batch draw feature"]:
    """Values of the drawn cells, of as many rows per image as there are."""
    index = draw.index.view(len(values), -1)
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2])).view(*draw.index.shape, -1)


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
    return log_coefficients(draw).exp()


def log_coefficients(draw: Draw) -> Float64[Tensor, "batch draw"]:
    """Logarithms of `coefficients`: log(a_s w_s), −∞ for slots that are not valid.

    Example:
        >>> import torch
        >>> from foveate.sampling import draw
        >>> log_coefficients(draw(torch.tensor([[0.5, 0.3, 0.2]]).log(), 2, "top")).exp()
        tensor([[0.6250, 0.3750]], dtype=torch.float64)
    """
    log_weight = draw.weight.where(draw.valid, 1.0).log()
    return (draw.log_prob.double() + log_weight).where(draw.valid, -math.inf)


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
    if draw.method not in BASELINED and draw.method != "top":
        raise ArgumentError(f"method {draw.method!r} of your own has no baseline: pass baseline=None")
    if draw.method == "top":
        raise ArgumentError("method 'top' draws nothing at random and has no baseline: pass baseline=None")
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


@torch.no_grad()
def variance(draw: Draw, values: Float[Tensor, "batch draw value"]) -> Float64[Tensor, "batch value"]:
    r"""Variance of an estimate of Σ_i a_i g_i, estimated without bias from the cells drawn: Murthy's, never negative.

    .. math:: \hat V = \sum_{s < t} (R_{st} - w_s w_t)\, a_s a_t\, (g_s - g_t)^2, \qquad
              R_{st} = \mathbb{E}_\kappa[1/(q_s q_t) \mid S]

    It is 0 where nothing is left to draw, and where all drawn cells are alike: what none of them shows is not in it.

    Source: Murthy, "Ordered and Unordered Estimators in Sampling without Replacement" (1957); Pathak & Shukla,
    "Non-negativity of a variance estimator" (1966).

    Arguments:
        draw: the cells drawn, with method "murthy"; two or more, unless there is but one.
        values: (B, n, V) of numbers g of each drawn cell, such as its part of a logit.

    Returns:
        (B, V) estimates of Var Σ_s a_s w_s g_s; infinite where a single cell was drawn of several.

    Example:
        >>> import torch
        >>> from foveate.sampling import draw
        >>> log_prob = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> drawn = draw(log_prob, 3)
        >>> variance(drawn, torch.tensor([[[1.0], [2.0], [4.0]]]))  # all are drawn
        tensor([[0.]], dtype=torch.float64)
    """
    if draw.method != "murthy":
        raise ArgumentError(f"the variance is that of Murthy's estimate, got a draw by {draw.method!r}: draw by murthy")
    nodes = draw.nodes or thresholds(draw.log_proposal, draw.log_rest, draw.valid)
    kept = (draw.log_prob.double() + nodes.log_scale).exp()[:, :, None] * nodes.inverse
    kept = kept.masked_fill(~draw.valid[:, :, None], 0.0)
    share = coefficients(draw)
    values = values.double().masked_fill(~draw.valid[:, :, None], 0.0)
    centred = values - (share[:, :, None] * values).sum(1, keepdim=True)  # differences alone count
    weight = nodes.probability[:, None, :]
    whole = kept.sum(1)[:, None, :]
    first, second = (torch.bmm(one.transpose(1, 2), kept) for one in (centred, centred.square()))
    spread = ((whole * second - first.square()) * weight).sum(2)
    means = [(one * weight).sum(2) for one in (whole, first, second)]
    found = (spread - (means[0] * means[2] - means[1].square())).clamp(min=0.0)
    alone = (draw.valid.sum(1) == 1) & (draw.log_rest > -math.inf)
    return found.masked_fill(alone[:, None], math.inf).masked_fill((draw.log_rest == -math.inf)[:, None], 0.0)
