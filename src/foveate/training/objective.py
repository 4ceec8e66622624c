"""Loss: cross-entropy, class weights and the terms of the attention, image by image."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.models.losses import cross_entropies
from foveate.models.types import Output
from foveate.sampling import expectation
from foveate.types import Label

LEAST_VARIETY = 1e-3
"""ε: a share of the features that is noise, even where all of an image looks alike."""


def attention_entropy(output: Output) -> Tensor:
    r"""Entropy regularisation: that of each image's attention map.

    .. math:: H = -\sum_i a_i \log a_i

    Arguments:
        output: of a model.

    Returns:
        (B,) nats; 0 for a model without attention. Cells of probability 0 take no gradient. Of a model that zooms it is
        that of all its levels, estimated from what was drawn.
    """
    if output.entropy is not None:
        return output.entropy
    if output.attention is None:
        return output.logits.new_zeros(len(output.logits))
    flat = output.attention.flatten(1)
    entropy: Tensor = torch.special.entr(torch.where(flat > 0, flat, 1.0)).sum(1)
    return entropy


def feature_variety(output: Output) -> Tensor:
    r"""Feature variance: how much the drawn patches' features vary within each image: what looking around has to tell.

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


POSITIVE_WEIGHTS = (0.05, 20.0)
"""Least and greatest weight of an image that has a class, against one that has not: rarer classes would be noise."""


class TermWeights(NamedTuple):
    """Regularisation weights: how much the terms of the attention count beside the cross-entropy.

    Attributes:
        entropy: λ.
        variety: ν.
    """

    entropy: float = 0.0
    variety: float = 0.0


def image_losses(
    output: Output,
    labels: Tensor,
    terms: TermWeights,
    weights: Tensor | None = None,
    answer_losses: Callable[[Tensor, Tensor, Tensor | None], Tensor] = cross_entropies,
) -> tuple[Tensor, Tensor]:
    r"""Loss and entropy of each image: what training minimises.

    .. math:: L_b = \mathrm{CE}_b - \lambda H_b - \nu V_b

    and, where there is a control variate, the share of the noise that it leaves; and terms of a model's own.

    Arguments:
        output: of a model.
        labels: as `cross_entropies`.
        terms: λ and ν of the entropy and the variety, see above.
        weights: (classes,) as `cross_entropies`, or None for ones.
        answer_losses: what takes the place of cross-entropy: squared error, of numbers.

    Returns:
        (B,) losses and (B,) entropies, in nats.
    """
    entropy = attention_entropy(output)
    losses = answer_losses(output.logits.float(), labels, weights) - terms.entropy * entropy
    if terms.variety:
        losses = losses - terms.variety * feature_variety(output)
    if output.terms is not None:
        losses = losses + output.terms.losses(labels, weights)
    if output.noise_left is not None:  # of which the control variate alone learns, and nothing else
        losses = losses + output.noise_left
    return losses, entropy


def class_weights(labels: Sequence[Label | None], classes: int) -> Tensor:
    """Class weights, under which every class of the training images counts the same, and which average to 1.

    Arguments:
        labels: class numbers of the training images.
        classes: number of classes.

    Returns:
        (classes,) 1 / (classes · share); 0 for a class without an image.

    Example:
        >>> class_weights([0, 0, 0, 1], classes=2)
        tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(torch.tensor(labels), minlength=classes).double()
    return torch.where(counts > 0, len(labels) / (classes * counts), 0.0).float()


def positive_weights(labels: Sequence[Label | None], classes: int) -> Tensor:
    """Class weights with several labels: images that have a class count as much as those that have not.

    Arguments:
        labels: the classes of each training image.
        classes: number of classes.

    Returns:
        (classes,) negatives / positives, kept within 1/20 … 20; 1 for a class that no image has, or every one.

    Example:
        >>> positive_weights([(0,), (0, 1), (0,), ()], classes=3)
        tensor([0.3333, 3.0000, 1.0000])
    """
    positives = torch.zeros(classes, dtype=torch.float64)
    for label in labels:
        assert isinstance(label, tuple)
        positives[list(label)] += 1
    negatives = len(labels) - positives
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, (negatives / positives).clamp(*POSITIVE_WEIGHTS), 1.0).float()
