"""Losses and errors of images: cross-entropy for one label and for several, terms of a model's own, answers wrong."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def cross_entropies(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Cross-entropy of each image.

    With one label y, softmax probabilities p and class weights c; with several labels y ∈ {0, 1}, sigmoid
    probabilities p and weights c of the positives, the mean over the C classes:

    .. math::
        L = -c_y \log p_y, \qquad
        L = -\frac1C \sum_k \bigl(c_k y_k \log p_k + (1 - y_k) \log(1 - p_k)\bigr)

    Arguments:
        logits: (B, C).
        labels: (B,) class numbers; with several labels (B, C), 1 for a class the image has and 0 else.
        weights: (C,) c, or None for ones.

    Returns:
        (B,) nats.

    Example:
        >>> import torch
        >>> cross_entropies(torch.zeros(1, 4), torch.tensor([2])), cross_entropies(torch.zeros(1, 4), torch.ones(1, 4))
        (tensor([1.3863]), tensor([0.6931]))
    """
    if labels.ndim == 2:
        each = binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none", pos_weight=weights)
        return each.mean(1)
    losses = cross_entropy(logits, labels, reduction="none")
    return losses if weights is None else losses * weights[labels]


class LossTerms(NamedTuple):
    r"""Terms of a model's own beside the cross-entropy of its answer.

    .. math:: \sum_y \mathrm{CE}(y) + \text{penalty}

    Attributes:
        logits: y, (B, classes) each: further answers, whose cross-entropies count as much as that of the answer.
        penalty: (B,) what is added to that, whatever the labels.

    Example:
        >>> import torch
        >>> terms = LossTerms((torch.zeros(1, 4), torch.zeros(1, 4)), torch.tensor([0.5]))
        >>> terms.losses(torch.tensor([2]))
        tensor([3.2726])
    """

    logits: tuple[Tensor, ...]
    penalty: Tensor

    def losses(self, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B,) nats; arguments as of `cross_entropies`."""
        return sum((cross_entropies(one, labels, weights) for one in self.logits), self.penalty)


def image_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Error of each image of a batch.

    Arguments:
        logits: (B, C).
        labels: (B,) class numbers; with several labels (B, C), 1 for a class the image has and 0 else.

    Returns:
        (B,) 0 or 1; with several labels the share of the C classes on which the answer at probability ½ is wrong.

    Example:
        >>> import torch
        >>> image_errors(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([0.5000])
    """
    if labels.ndim == 2:
        return ((logits >= 0) != (labels > 0)).to(logits).mean(1)
    return (logits.argmax(1) != labels).to(logits)


def mean_loss(probabilities: Float64[np.ndarray, "image class"], labels: Int64[np.ndarray, "..."]) -> float:
    """Mean cross-entropy of answers that are probabilities, in nats; none is taken to be smaller than 2⁻⁵².

    Arguments:
        probabilities: (n, classes).
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.

    Example:
        >>> round(mean_loss(np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([1, 0])), 4)
        0.1438
    """
    means, tiny = torch.from_numpy(probabilities), float(np.finfo(np.float64).eps)
    logits = means.logit(tiny) if labels.ndim == 2 else means.clamp(min=tiny).log()
    return float(cross_entropies(logits, torch.from_numpy(labels)).mean())
