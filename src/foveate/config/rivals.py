"""Settings of rivals of attention sampling, each of which has a group of its own.

The string under each field is its help text. Nothing here imports torch.
"""

from dataclasses import dataclass

from foveate.errors import ConfigError


@dataclass(frozen=True)
class PerturbedSettings:
    """Perturbed top-k: how far, and how often, the scores of an image's cells are perturbed in training.

    Noise of a deviation far below the distance between two scores leaves their order as it is, and then nothing is
    learnt of them; far above it, every cell is chosen as often as any other. Scores are brought to 0 … 1 in each image,
    so that one σ serves all.

    Source: Cordonnier, Mahendran, Dosovitskiy, Weissenborn, Uszkoreit & Unterthiner, "Differentiable Patch Selection
    for Image Recognition" (CVPR 2021), whose values these are.

    Example:
        >>> PerturbedSettings().samples
        500
        >>> PerturbedSettings(sigma=-1.0)
        Traceback (most recent call last):
        foveate.errors.ConfigError: model.perturbed.sigma must be 0 or more, got -1.0: set it to e.g. 0.05
    """

    sigma: float = 0.05
    """σ, deviation of the noise on scores from 0 to 1, as training begins; it falls to 0 in a straight line until
    training ends. 0 perturbs nothing, and then the attention learns nothing."""
    samples: int = 500
    """Perturbations of every image in a step; the time and memory of choosing grow with it."""

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < float("inf"):
            raise ConfigError(f"model.perturbed.sigma must be 0 or more, got {self.sigma}: set it to e.g. 0.05")
        if self.samples < 1:
            raise ConfigError(f"model.perturbed.samples must be at least 1, got {self.samples}: set it to e.g. 500")
