"""Optimizer, weight averaging (EMA), learning-rate schedule and annealing.

Schedules are pure functions of the step: there is nothing of them to save, nothing to resume.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foveate.config.training import Ramp, RunSettings, TrainingSettings
from foveate.models import Model


class WeightAverage(AveragedModel):
    r"""Weight averaging: an exponential moving average (EMA) of a model's weights and buffers, as a model of its own.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t)\theta_t, \quad d_t = \min(d, (1 + t)/(10 + t))

    The shorter memory of the first steps forgets the initial weights. Batch statistics are averaged as the weights are,
    by torch.optim.swa_utils.

    Arguments:
        model: what is averaged; `module` is the copy that has the averages.
        decay: d in [0, 1].

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(model, 0.9)
        >>> _, _ = nn.init.ones_(model.weight), nn.init.zeros_(average.module.weight)
        >>> average.update_parameters(model)
        >>> average.module.weight.item()
        0.8999999761581421
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._take_in, use_buffers=True)
        self.n_averaged += 1  # the initial weights, which the first step's would replace otherwise
        self.decay = decay

    def _take_in(self, averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
        step = int(self.n_averaged) - 1  # not `updates`, the same number on a device that would have to be waited for
        get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))(averages, weights, updates)  # type: ignore[no-untyped-call]


def optimizer_groups(model: nn.Module, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups by peak learning rate, each group in the model's order, whatever the order of `groups`.

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
    """Learning rates of the next step: `rate`, in proportion where a group has a peak of its own.

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
    """Optimizer of a run; its learning rates are set anew for every step, by `set_rates`.

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


FIRST_SHARE = 1 / 25
"""Share of the peak at which "one-cycle" starts (Smith & Topin, "Super-Convergence", 2019)."""

LAST_SHARE = 1e-4
"""Share of its starting rate at which "one-cycle" ends."""


def total_steps(settings: TrainingSettings, steps_per_epoch: int) -> int:
    """Number of steps after which training, and its schedule, ends.

    Example:
        >>> total_steps(TrainingSettings(epochs=3, max_steps=20), steps_per_epoch=10)
        20
    """
    steps = settings.epochs * steps_per_epoch
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def scheduled_step(step: int, total: int, share: float) -> int:
    r"""Step of the schedule: where learning rate and ramps are, in steps; ahead of the run where time is what ends it.

    .. math:: s = \max(\text{step},\ \lfloor p\,(\text{total} - 1) \rfloor)

    So that both have come to their end when the time is over, or the steps, whichever comes first; and a limit that is
    not reached changes nothing.

    Arguments:
        step: steps taken, 0 … total − 1.
        total: number of steps.
        share: p, of the time that the run has; 0 where that is not limited.

    Example:
        >>> scheduled_step(10, 101, 0.0), scheduled_step(10, 101, 0.05), scheduled_step(10, 101, 0.5)
        (10, 10, 50)
    """
    return max(step, math.floor(share * (total - 1)))


def learning_rate(settings: TrainingSettings, step: int, total: int, steps_per_epoch: int) -> float:
    r"""Learning-rate schedule: the rate of one step.

    With progress p = step / (total − 1), warm-up share w and peak L:

    .. math:: \text{cosine}(p) = L\,\frac{1 + \cos(\pi (p - w)/(1 - w))}{2} \quad (p \ge w)

    "one-cycle" joins cosines L/25 → L → L/25·10⁻⁴, "cosine" and "constant" rise linearly, "step" is L, then L·drop.

    Arguments:
        settings: schedule, peak, warm-up share and drop.
        step: 0 … total − 1, of `scheduled_step`.
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
    r"""Annealing ramp: its value at one step.

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


Annealed = dict[str, float]
"""Annealed settings at one step, by name: "prior", "entropy", "variety", "patches"; only those that move."""


def annealed(settings: RunSettings, step: int, total: int) -> Annealed:
    """Annealing: where the ramps of a run are at one step.

    Arguments:
        settings: of the run.
        step: 0 … total − 1.
        total: number of steps.

    Returns:
        Strength of the contrast prior, weights of the attention's terms and patches drawn (whole), as far as they move.

    Example:
        >>> annealed(RunSettings(), step=3, total=10)
        {}
    """
    training, model, ramps = settings.training, settings.model, settings.training.anneal
    moving: dict[str, tuple[Ramp, float]] = {
        "prior": (ramps.prior, model.prior.contrast),
        "entropy": (ramps.entropy, training.entropy),
        "variety": (ramps.variety, training.variety),
        "patches": (ramps.patches, model.patches),
    }
    now = {name: ramp_value(ramp, own, step, total) for name, (ramp, own) in moving.items() if ramp.moves}
    return now | {"patches": round(now["patches"])} if "patches" in now else now


def anneal(model: Model, settings: RunSettings, step: int, total: int) -> Annealed:
    """Annealing of a model: what is to change before a step, changed.

    Arguments:
        model: that is trained.
        settings: of the run.
        step: 0 … total − 1, of `scheduled_step`.
        total: number of steps.

    Returns:
        What moves, as `annealed`.
    """
    now = annealed(settings, step, total)
    model.anneal(now.get("prior"), round(now["patches"]) if "patches" in now else None)
    model.progressed(step / max(total - 1, 1))
    return now
