"""What training minimises, image by image, and the optimizer that does it."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate.training.config import TrainingSettings
from foveate.types import Output

__all__ = ["attention_entropy", "build_optimizer", "class_weights", "image_losses"]


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


def image_losses(
    output: Output, labels: Tensor, entropy_weight: float, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    r"""Loss and entropy of each image.

    .. math:: L_b = c_{y_b} \cdot \mathrm{CE}(y_b) - \lambda H_b

    Arguments:
        output: of a model.
        labels: (B,) class numbers.
        entropy_weight: λ.
        weights: (classes,) c, or None for ones.

    Returns:
        (B,) losses and (B,) entropies, in nats.
    """
    losses = cross_entropy(output.logits.float(), labels, reduction="none")
    if weights is not None:
        losses = losses * weights[labels]
    entropy = attention_entropy(output)
    return losses - entropy_weight * entropy, entropy


def class_weights(labels: Sequence[int | None], classes: int) -> Tensor:
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


def build_optimizer(parameters: Iterable[Tensor], settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of a run; its learning rate is set anew for every step."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
    raise AssertionError(settings.optimizer)
