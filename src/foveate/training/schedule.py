"""The learning rate as a pure function of the step: nothing to save, nothing to resume."""

import math

from foveate.training.config import TrainingSettings

__all__ = ["learning_rate", "total_steps"]

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
