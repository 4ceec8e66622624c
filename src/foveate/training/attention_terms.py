"""What training may ask of the attention, beside that the class be right: a number for each image."""

import torch
from torch import Tensor

from foveate.sampling import expectation
from foveate.types import Output

__all__ = ["attention_entropy", "feature_variety", "undrawn_mass"]

LEAST_VARIETY = 1e-3
"""ε: a share of the features that is noise, even where all of an image looks alike."""


def attention_entropy(output: Output) -> Tensor:
    r"""Entropy of each image's attention map.

    .. math:: H = -\sum_i a_i \log a_i

    Arguments:
        output: of a model.

    Returns:
        (B,) nats; 0 for a model without attention. Cells of probability 0 take no gradient.
    """
    if output.attention is None:
        return output.logits.new_zeros(len(output.logits))
    flat = output.attention.flatten(1)
    entropy: Tensor = torch.special.entr(torch.where(flat > 0, flat, 1.0)).sum(1)
    return entropy


def undrawn_mass(output: Output) -> Tensor:
    r"""Share of each image's attention that its patches do not account for.

    .. math:: U = 1 - \sum_{i \in S} a_i

    S are the cells drawn, each counted once. An estimate of the image's features is exact where U is 0, and moves from
    draw to draw the more, the larger U is.

    Arguments:
        output: of a model, one draw an image.

    Returns:
        (B,) in [0, 1]; 0 for a model that draws nothing. Its gradient moves attention to the cells that were drawn.
    """
    drawn = output.draw
    if drawn is None:
        return output.logits.new_zeros(len(output.logits))
    repeated = (drawn.index[:, :, None] == drawn.index[:, None, :]).tril(-1).any(2)
    share = torch.where(drawn.valid & ~repeated, drawn.log_prob, -torch.inf).exp().sum(1)
    return (1 - share).clamp(min=0)


def feature_variety(output: Output) -> Tensor:
    r"""How much the drawn patches' features vary within each image: what looking around has to tell.

    .. math::
        V = \log\left(\varepsilon +
            \frac{\sum_i a_i \lVert f_i - \Phi \rVert^2}{\sum_i a_i \lVert f_i \rVert^2}\right), \qquad
        \varepsilon = 10^{-3}

    Low where the attention sees one thing alone, for example background. The sums over all cells are estimated from
    those drawn, and the features are constants here: the gradient, that of the numerator alone, moves attention to
    patches that differ from what the image mostly shows to it, however little the features of a network that has learnt
    nothing differ, and leaves it to the classifier what they are.

    Arguments:
        output: of a model, one draw an image.

    Returns:
        (B,) log of a share, from -6.9 to about 0; 0 for a model that draws nothing.

    Source: none. The numerator is the trace of the variance of a single draw (Katharopoulos & Fleuret, 2019, sec. 3).
    """
    drawn = output.draw
    if drawn is None or output.features is None:
        return output.logits.new_zeros(len(output.logits))
    features = output.features.detach().float()
    with torch.no_grad():
        mean = expectation(drawn, features)
        whole = expectation(drawn, features.square().sum(2, keepdim=True)).clamp(min=1e-12)
        apart = (features - mean[:, None, :]).square().sum(2, keepdim=True) / whole[:, None, :]
    baseline = None if drawn.method == "top" else "leave-one-out"
    return (LEAST_VARIETY + expectation(drawn, apart, baseline)[:, 0]).log()
