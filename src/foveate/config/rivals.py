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


@dataclass(frozen=True)
class GmicSettings:
    """GMIC: saliency maps of classes, of which patches are taken where they are highest.

    Source: Shen et al., "An interpretable classifier for high-resolution breast cancer screening images utilizing
    weakly supervised localization" (GMIC, Medical Image Analysis 2021), which searches t of 0.01 to 0.2 and β of
    10^-5.5 to 10^-3.5.
    """

    top: float = 0.05
    """t, share of the cells where a map is highest, whose mean is its answer; from 1 on a number of cells."""
    sparsity: float = 3e-5
    """β, weight of the sum of all saliency in the loss, by which maps are empty where nothing speaks for a class."""
    width: int = 32
    """Numbers of a cell that maps are made of; those of a backbone take their place."""

    def __post_init__(self) -> None:
        if not self.top > 0:
            raise ConfigError(f"model.gmic.top must be positive, got {self.top}: set it to e.g. 0.05, a share of all")
        if not 0 <= self.sparsity < float("inf"):
            raise ConfigError(f"model.gmic.sparsity must be 0 or more, got {self.sparsity}: set it to e.g. 3e-5")
        if self.width < 1:
            raise ConfigError(f"model.gmic.width must be at least 1, got {self.width}: set it to e.g. 32")
