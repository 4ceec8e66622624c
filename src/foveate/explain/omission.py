"""Contributions by omission: what an answer would lose without each patch, where contributions do not add up."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from foveate.models import Model
from foveate.models.ips import Ips, Selected
from foveate.models.sampling import PatchModel
from foveate.models.types import Output
from foveate.networks.number import NumberHead
from foveate.sampling import log_coefficients


def adds_up(model: Model) -> bool:
    """Whether the logits of a model are a sum over its patches: where patches are averaged, and a layer classifies."""
    pool = model.pool if isinstance(model, PatchModel | Ips) else None
    return type(model.head) in (nn.Linear, NumberHead) and pool is None


@torch.no_grad()
def omissions(
    output: Output, model: Model
) -> tuple[Float64[np.ndarray, "draw patch class"], Float64[np.ndarray, "draw class"]]:
    r"""Contributions of each patch to each logit by leaving it out (occlusion): they do not sum to anything.

    .. math:: c_s = z(\text{all patches}) - z(\text{all but } s)

    Where patches are averaged, that is what a patch adds; where cross-attention pools them, the others are then looked
    at in its place, and of two that say the same neither seems to matter.

    Source: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014), section 4.2; Li, Monroe
    & Jurafsky, "Understanding Neural Networks through Representation Erasure" (2016).

    Arguments:
        output: of one image; it must have features.
        model: whose it is.

    Returns:
        (draws, n, classes) in nats, 0 for patches that were not read and for one that is alone; and (draws, classes)
        logits of each draw by itself.
    """
    assert output.features is not None
    features = output.features.float()
    weight = _log_weight(output)
    whole = _logits(model, features, weight)
    parts = torch.zeros(*features.shape[:2], whole.shape[1], dtype=torch.float64, device=features.device)
    for slot in range(features.shape[1]):
        weight_without = weight.clone()
        weight_without[:, slot] = -math.inf
        counts = (weight[:, slot] > -math.inf) & (weight_without > -math.inf).any(1)
        if bool(counts.any()):
            without = _logits(model, features[counts], weight_without[counts])
            parts[counts, slot] = (whole[counts] - without).double()
    return parts.cpu().numpy(), whole.double().cpu().numpy()


def _log_weight(output: Output) -> Float[Tensor, "draw patch"]:
    """Log of what each patch is of the mean, or of what is known of it beforehand; −∞ of one that was not read."""
    if output.draw is not None:
        weight = log_coefficients(output.draw)
    elif isinstance(output, Selected):
        assert output.features is not None
        weight = output.features.new_zeros(output.features.shape[:2])
    else:
        assert output.attention is not None
        weight = output.attention.flatten(1).double().log()
    read: Bool[Tensor, "draw patch"] | None = output.read
    return weight if read is None else weight.masked_fill(~read.to(weight.device), -math.inf)


def _logits(
    model: Model, features: Float[Tensor, "draw patch feature"], weight: Float[Tensor, "draw patch"]
) -> Float[Tensor, "draw class"]:
    pool = model.pool if isinstance(model, PatchModel | Ips) else None
    dtype = model.head.weight.dtype
    if pool is not None:
        vector = pool(features, weight)
    else:
        vector = (weight.exp().to(features.dtype)[:, None, :] @ features)[:, 0]
    logits: Tensor = model.head(vector.to(dtype))
    return logits
