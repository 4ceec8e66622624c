"""Attention over the patches of a bag: deep multiple-instance learning."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.errors import ConfigError
from foveate.networks.cnn import glorot_


class MilAttention(nn.Module):
    r"""Attention pooling: one logit per patch; softmax over an image's patches gives the weights of their features.

    .. math::

        z_k = w^\top \tanh(V h_k + b) + c
        \qquad \text{or, gated,} \qquad
        z_k = w^\top \bigl(\tanh(V h_k + b) \odot \mathrm{sigmoid}(U h_k + d)\bigr) + c

    Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning" (ICML 2018), equations 8 and 9. The
    biases are those of their code; c changes no weight. Initialised as the other networks: Glorot uniform weights,
    zero bias.

    Arguments:
        dimension: D, features per patch.
        hidden: L, width of the hidden layer.
        gated: whether the hidden layer is gated (equation 9).

    Raises:
        ConfigError: if the hidden layer has no width.

    Example:
        >>> attention = MilAttention(32, hidden=128, gated=True)
        >>> attention(torch.zeros(2, 900, 32)).shape
        torch.Size([2, 900])
    """

    def __init__(self, dimension: int, hidden: int = 128, gated: bool = False) -> None:
        super().__init__()
        if hidden < 1:
            raise ConfigError(f"model.mil.hidden must be positive, got {hidden}: set it to e.g. 128")
        self.value = nn.Linear(dimension, hidden)
        self.gate = nn.Linear(dimension, hidden) if gated else None
        self.score = nn.Linear(hidden, 1)
        glorot_(self)

    def forward(self, features: Float[Tensor, "*batch patch feature"]) -> Float[Tensor, "*batch patch"]:
        """Score (…, K, D) features; returns (…, K) logits, each from its own patch alone."""
        hidden = torch.tanh(self.value(features))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(features))
        logits: Tensor = self.score(hidden).squeeze(-1)
        return logits
