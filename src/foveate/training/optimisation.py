"""What changes from step to step as a pure function of the step: nothing to save, nothing to resume."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.config.training import Ramp, RunSettings, TrainingSettings

__all__ = ["Annealed", "WeightAverage", "annealed", "learning_rate", "ramp_value", "total_steps"]


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


FIRST_SHARE = 1 / 25
"""Share of the peak at which "one-cycle" starts (Smith & Topin, "Super-Convergence", 2019)."""

LAST_SHARE = 1e-4
"""Share of its starting rate at which "one-cycle" ends."""


def total_steps(settings: TrainingSettings, steps_per_epoch: int) -> int:
    """Steps after which training, and its schedule, ends.

    Example:
        >>> total_steps(TrainingSettings(epochs=3, max_steps=20), steps_per_epoch=10)
        20
    """
    steps = settings.epochs * steps_per_epoch
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def learning_rate(settings: TrainingSettings, step: int, total: int, steps_per_epoch: int) -> float:
    r"""Learning rate of one step.

    With progress p = step / (total − 1), warm-up share w and peak L:

    .. math:: \text{cosine}(p) = L\,\frac{1 + \cos(\pi (p - w)/(1 - w))}{2} \quad (p \ge w)

    "one-cycle" joins cosines L/25 → L → L/25·10⁻⁴, "cosine" and "constant" rise linearly, "step" is L, then L·drop.

    Arguments:
        settings: schedule, peak, warm-up share and drop.
        step: 0 … total − 1.
        total: number of steps.
        steps_per_epoch: steps in an epoch, for "step".

    Returns:
        The rate to take this step with.

    Example:
        >>> settings = TrainingSettings(learning_rate=1.0, schedule="cosine", warm_up=0.0)
        >>> [round(learning_rate(settings, step, 5, 5), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    peak, warm_up = settings.learning_rate, settings.warm_up
    progress = step / max(total - 1, 1)
    rising = progress < warm_up
    share = progress / warm_up if rising else (progress - warm_up) / (1 - warm_up)
    if settings.schedule == "one-cycle":
        first, last = (FIRST_SHARE, 1.0) if rising else (1.0, FIRST_SHARE * LAST_SHARE)
        return peak * (last + (first - last) * (1 + math.cos(math.pi * share)) / 2)
    if settings.schedule == "step":
        return peak * (settings.drop if step >= settings.drop_epoch * steps_per_epoch else 1.0)
    if rising:
        return peak * (step + 1) / max(warm_up * (total - 1) + 1, 1)
    if settings.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * share)) / 2
    return peak


def ramp_value(ramp: Ramp, own: float, step: int, total: int) -> float:
    r"""Where a ramp is at one step.

    With progress p = step / (total − 1), held over a share h and moving over a share m:

    .. math:: \text{first} + (\text{last} - \text{first}) \cdot \min(1, \max(0, (p - h) / m))

    Arguments:
        ramp: its ends and shares.
        own: the setting, which an end of None stands for.
        step: 0 … total − 1.
        total: number of steps.

    Example:
        >>> [ramp_value(Ramp(last=0.0, hold=0.25, over=0.5), 4.0, step, 5) for step in range(5)]
        [4.0, 4.0, 2.0, 0.0, 0.0]
    """
    first, last = (own if end is None else end for end in (ramp.first, ramp.last))
    beyond = step / max(total - 1, 1) - ramp.hold
    if beyond >= ramp.over:
        return last
    return first if beyond <= 0 else first + (last - first) * beyond / ramp.over


@dataclass(frozen=True)
class Annealed:
    """What is annealed, at one step; None for what stays as it is set.

    Attributes:
        prior: strength of the contrast prior.
        entropy: weight of the attention's entropy.
        variety: weight of the variety of what is drawn.
        patches: patches drawn per training image.
    """

    prior: float | None
    entropy: float | None
    variety: float | None
    patches: int | None


def annealed(settings: RunSettings, step: int, total: int) -> Annealed:
    """Where the ramps of a run are at one step.

    Arguments:
        settings: of the run.
        step: 0 … total − 1.
        total: number of steps.

    Example:
        >>> annealed(RunSettings(), step=3, total=10)
        Annealed(prior=None, entropy=None, variety=None, patches=None)
    """
    ramps, model = settings.training.anneal, settings.model

    def value(ramp: Ramp, own: float) -> float | None:
        return ramp_value(ramp, own, step, total) if ramp.moves else None

    patches = value(ramps.patches, model.patches)
    return Annealed(
        prior=value(ramps.prior, model.prior.contrast),
        entropy=value(ramps.entropy, settings.training.entropy),
        variety=value(ramps.variety, settings.training.variety),
        patches=None if patches is None else round(patches),
    )
