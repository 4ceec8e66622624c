"""Number head (regression): one output, in standard deviations of the training labels from their mean."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from foveate.errors import DataError


class NumberHead(nn.Linear):
    r"""Number head: a linear layer of one output z, and the mean and deviation by which it becomes a number.

    .. math::

        \hat y = \mu + \sigma z, \quad z = w^\top \Phi + b, \qquad
        L = \begin{cases} r^2 & |r| \le \delta \\ 2 \delta |r| - \delta^2 & \text{else} \end{cases}, \quad
        r = z - \frac{y - \mu}{\sigma}

    Without δ the loss is r² everywhere, and always answering the mean of the training labels costs 1. Mean and
    deviation are buffers in double precision, and so are saved, resumed and moved with the weights. It begins with
    that mean for every image: features are long vectors, of which random weights would make numbers far off.

    Source: Huber, "Robust Estimation of a Location Parameter" (Annals of Mathematical Statistics 1964), for δ; the loss
    is twice his, so that it is the squared error near 0.

    Arguments:
        dimension: features of an image.
        delta: δ, in standard deviations; None for squared error.

    Example:
        >>> head = NumberHead(5)
        >>> head.measure([1.0, 3.0])
        >>> head.numbers(torch.tensor([[0.0], [2.0]])).tolist(), head.losses(torch.zeros(1, 1), torch.tensor([4.0]))
        ([[2.0], [4.0]], tensor([4.]))
    """

    def __init__(self, dimension: int, delta: float | None = None) -> None:
        super().__init__(dimension, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.delta = delta
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))

    def measure(self, labels: Sequence[float]) -> None:
        """Take mean and deviation from the training labels.

        Raises:
            DataError: they are all one number, or so large that they have no deviation.
        """
        values = np.array(labels, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = float(values.mean()), float(values.std())
        if values.min() == values.max() or not 0 < deviation < np.inf:
            told = f"the number {values[0]:g}" if values.min() == values.max() else "numbers too large, or too close"
            raise DataError(
                f"all {len(values)} training images have {told}, of which nothing can be learnt: check the column label"
            )
        self.get_buffer("mean").fill_(mean)
        self.get_buffer("deviation").fill_(deviation)

    def numbers(self, outputs: Float[Tensor, "*batch 1"]) -> Float64[Tensor, "*batch 1"]:
        """Numbers of outputs: μ + σ z, in double precision."""
        mean, deviation = self._moments(outputs)
        return mean + deviation * outputs.double()

    def standardised(self, numbers: Float[Tensor, " *batch"]) -> Float64[Tensor, " *batch"]:
        """The inverse of `numbers`: how many deviations above the mean they are."""
        mean, deviation = self._moments(numbers)
        return (numbers.double() - mean) / deviation

    def losses(self, outputs: Float[Tensor, "batch 1"], labels: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """(B,) squared error of each image, or Huber's, in squared deviations."""
        off = outputs[:, 0] - self.standardised(labels).to(outputs)
        if self.delta is None:
            return off.square()
        size = off.abs()
        return torch.where(size <= self.delta, off.square(), self.delta * (2 * size - self.delta))

    def errors(self, outputs: Float[Tensor, "batch 1"], labels: Float[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
        """(B,) absolute error of each image, in units of the labels."""
        return (self.numbers(outputs)[:, 0] - labels.to(outputs.device)).abs()

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.get_buffer("mean").to(like.device), self.get_buffer("deviation").to(like.device)
