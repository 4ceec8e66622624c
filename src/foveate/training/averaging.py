"""An exponential moving average of the weights, which is what a run with `averaging` validates and saves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    r"""Moving average of a model's parameters.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t)\theta_t, \quad d_t = \min(d, (1 + t)/(10 + t))

    The shorter memory of the first steps forgets the initial weights.

    Arguments:
        model: whose parameters are averaged.
        decay: d in [0, 1); 0 keeps no average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.tensors: dict[str, Tensor] = {}
        """Name → average; empty when switched off. Frozen parameters have none."""
        if decay:
            self.tensors = {name: one.detach().clone() for name, one in self._trained()}

    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, one in self._trained() if self.tensors else ():
                self.tensors[name].lerp_(one, 1 - decay)

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, one) for name, one in self._model.named_parameters() if one.requires_grad)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for name, one in self._trained() if self.tensors else ():
                kept = one.clone()
                one.copy_(self.tensors[name])
                self.tensors[name].copy_(kept)
