"""What each patch that was looked at adds to the logit of each class."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from foveate.sampling import coefficients
from foveate.types import Output

__all__ = ["contributions"]


@torch.no_grad()
def contributions(output: Output, head: nn.Linear) -> Float64[np.ndarray, "draw patch class"]:
    r"""What each patch adds to each logit; with the head's bias, they sum to the logits of a draw.

    .. math:: c_s = a_s w_s W f_s, \qquad z = b + \sum_s c_s

    With every patch read (Deep MIL) w is 1 and s runs over all cells. A logit is a matter of differences between
    classes: what is added to all of them alike changes no probability.

    Arguments:
        output: of one image; it must have features.
        head: from features to logits, W and b.

    Returns:
        (draws, n, classes) in nats; 0 for patches that were not read.

    Example:
        >>> head = nn.Linear(2, 3)
        >>> attention, features = torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[4.0, 0.0], [4.0, 0.0]]])
        >>> output = Output(torch.zeros(1, 3), attention, features=features)
        >>> torch.allclose(torch.from_numpy(contributions(output, head)).sum((0, 1)), 4.0 * head.weight[:, 0].double())
        True
    """
    assert output.features is not None
    if output.draw is not None:
        shares = coefficients(output.draw)
    else:
        assert output.attention is not None
        shares = output.attention.flatten(1).double()
    parts = output.features.double() @ head.weight.double().T
    if output.read is not None:
        shares = shares.where(output.read.to(shares.device), 0.0)
    return np.asarray((shares[:, :, None] * parts).cpu().numpy())
