"""Ordinal head: classes that have an order, such as grades, by the odds of going on from each to the next."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.networks.cnn import glorot_


class OrdinalHead(nn.Linear):
    r"""Ordinal head: one logit for each step from a class to the next, and of these the log probability of each class.

    .. math::

        P(y > k \mid y \ge k) = \sigma(w_k^\top \Phi + b_k), \qquad
        P(y = k) = \bigl(1 - \sigma_k\bigr) \prod_{j < k} \sigma_j

    The probability of reaching a class never grows with it, so those of the classes are proper whatever the logits are.
    Cross-entropy on them is the loss of CORN: each step learns from the images that have come as far, and from no
    others. It begins with all classes alike.

    Source: Shi, Cao & Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
    Probabilities" (CORN, Pattern Analysis and Applications 2023); the continuation-ratio model of Fienberg, "The
    Analysis of Cross-Classified Categorical Data" (1980). The mean over images is over all of them here, and over all
    steps that they take there.

    Arguments:
        dimension: features of an image.
        order: numbers of the classes, the lowest first.

    Example:
        >>> head = OrdinalHead(5, order=(2, 0, 1))
        >>> head(torch.zeros(1, 5)).exp()
        tensor([[0.3333, 0.3333, 0.3333]], grad_fn=<ExpBackward0>)
    """

    def __init__(self, dimension: int, order: Sequence[int]) -> None:
        super().__init__(dimension, len(order) - 1)
        self.order = tuple(order)
        ranks = torch.tensor([self.order.index(number) for number in range(len(order))])
        self.register_buffer("ranks", ranks, persistent=False)
        glorot_(self)
        with torch.no_grad():  # of n classes left, n − 1 are further on
            self.bias.copy_(torch.arange(len(order) - 1, 0, -1.0).log())

    def forward(self, vectors: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch class"]:
        """Map (…, D) to (…, classes) log probabilities, which are logits whose softmax they are."""
        steps = super().forward(vectors)
        steps = steps if steps.dtype == torch.float64 else steps.float()
        reached = functional.pad(functional.logsigmoid(steps).cumsum(-1), (1, 0))
        stopped = functional.pad(functional.logsigmoid(-steps), (0, 1))
        ranks: Tensor = self.get_buffer("ranks")
        return (reached + stopped)[..., ranks]
