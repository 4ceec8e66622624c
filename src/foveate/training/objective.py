"""What training minimises, image by image, and the optimizer that does it."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from foveate.training.attention_terms import attention_entropy, feature_variety, undrawn_mass
from foveate.training.config import TrainingSettings
from foveate.types import Label, Output

__all__ = [
    "TermWeights",
    "build_optimizer",
    "class_weights",
    "cross_entropies",
    "image_losses",
    "optimizer_groups",
    "positive_weights",
    "set_rates",
]

POSITIVE_WEIGHTS = (0.05, 20.0)
"""Least and greatest weight of an image that has a class, against one that has not: rarer classes would be noise."""


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
        >>> cross_entropies(torch.zeros(1, 4), torch.tensor([2])), cross_entropies(torch.zeros(1, 4), torch.ones(1, 4))
        (tensor([1.3863]), tensor([0.6931]))
    """
    if labels.ndim == 2:
        each = binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none", pos_weight=weights)
        return each.mean(1)
    losses = cross_entropy(logits, labels, reduction="none")
    return losses if weights is None else losses * weights[labels]


class TermWeights(NamedTuple):
    """How much the terms of the attention count beside the cross-entropy.

    Attributes:
        entropy: λ.
        undrawn: μ.
        variety: ν.
    """

    entropy: float = 0.0
    undrawn: float = 0.0
    variety: float = 0.0


def image_losses(
    output: Output, labels: Tensor, terms: TermWeights, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Loss and entropy of each image: what training minimises.

    .. math:: L_b = \mathrm{CE}_b - \lambda H_b + \mu U_b - \nu V_b

    Arguments:
        output: of a model.
        labels: as `cross_entropies`.
        terms: λ, μ and ν of the entropy, the undrawn mass and the variety, see `foveate.training.attention_terms`.
        weights: (classes,) as `cross_entropies`, or None for ones.

    Returns:
        (B,) losses and (B,) entropies, in nats.
    """
    entropy = attention_entropy(output)
    losses = cross_entropies(output.logits.float(), labels, weights) - terms.entropy * entropy
    if terms.undrawn:
        losses = losses + terms.undrawn * undrawn_mass(output)
    if terms.variety:
        losses = losses - terms.variety * feature_variety(output)
    return losses, entropy


def class_weights(labels: Sequence[Label | None], classes: int) -> Tensor:
    """Weights under which every class of the training images counts the same, and which average to 1.

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
    """Weights under which the images that have a class count as much as those that have not, class by class.

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


def optimizer_groups(model: nn.Module, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameters by peak learning rate, each group in the model's order, whatever the order of `groups`.

    Parameters of one learning rate are one group, so that a state does not depend on how a model sorts them.

    Arguments:
        model: whose parameters they are.
        groups: of `Model.parameter_groups`: "params", and "learning_rate" where it is not the common one.

    Returns:
        Groups with "params" and "learning_rate" (None for the common one); none of them empty.
    """
    rates = {id(one): group.get("learning_rate") for group in groups for one in group["params"]}
    by_rate: dict[float | None, list[Tensor]] = {}
    for one in model.parameters():
        if id(one) in rates:
            by_rate.setdefault(rates[id(one)], []).append(one)
    return [{"params": parameters, "learning_rate": rate} for rate, parameters in by_rate.items()]


def set_rates(optimizer: torch.optim.Optimizer, settings: TrainingSettings, rate: float) -> None:
    """Set the learning rate of the next step: `rate`, in proportion where a group has a peak of its own.

    Arguments:
        optimizer: of `build_optimizer`, or accelerate's wrapper around it.
        settings: whose `learning_rate` is the peak of `rate`.
        rate: of the groups without a peak of their own.
    """
    for group in optimizer.param_groups:
        own = group.get("learning_rate")
        group["lr"] = rate if own is None else rate * (own / settings.learning_rate)


def build_optimizer(
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]], settings: TrainingSettings
) -> torch.optim.Optimizer:
    """The optimizer of a run; its learning rates are set anew for every step, by `set_rates`.

    Arguments:
        parameters: what is trained; or groups of it, of `optimizer_groups`.
        settings: kind of optimizer, learning rate and weight decay.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
    raise AssertionError(settings.optimizer)
