"""Settings of augmentation: how training images, and every patch for itself, are changed at random.

The string under each field is its help text. Nothing here imports torch.
"""

from dataclasses import dataclass

from foveate.errors import ConfigError


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation: random changes of a training image, alike for view and patches, seeded per image and epoch."""

    flip: bool = False
    """Flip upside down and left to right, each with probability ½."""
    turn: bool = False
    """Turn by a multiple of 90°."""
    translate: tuple[int, int] = (0, 0)
    """Largest shift (rows, columns) in full-resolution pixels, uniform; uncovered pixels are 0."""
    gain: tuple[float, float] = (1.0, 1.0)
    """Range of the factor on pixel values."""
    bias: tuple[float, float] = (0.0, 0.0)
    """Range of the term added to pixel values, as a share of the valid range."""
    probability: float = 1.0
    """Probability of the translation and, apart from it, of gain and bias (the paper: 0.8)."""
    stain: float = 0.0
    """Strength σ of changes of haematoxylin and eosin staining: each stain is scaled by 1 ± σ and shifted by ± σ."""
    patch_turn: float = 0.0
    """Largest turn of every patch for itself about its centre, in degrees; the view does not change."""
    patch_scale: tuple[float, float] = (1.0, 1.0)
    """Range of the factor by which every patch for itself is enlarged about its centre."""
    patch_shift: int = 0
    """Most pixels by which every patch for itself is read beside its place, down and along."""
    patch_gain: tuple[float, float] = (1.0, 1.0)
    """Range of the factor on the values of every patch for itself."""
    patch_bias: tuple[float, float] = (0.0, 0.0)
    """Range of the term added to the values of every patch for itself, as a share of the valid range."""
    patch_colour: float = 0.0
    """Every channel of every patch has a factor of its own, within 1 ± this."""
    patch_flip: bool = False
    """Flip every patch for itself upside down, left to right and, if it is square, about its diagonal, each with
    probability ½: for what has no up and no left."""

    def __post_init__(self) -> None:
        if min(self.translate) < 0:
            raise ConfigError(f"augment.translate must not be negative, got {self.translate}: set it to e.g. 0 10")
        if self.patch_shift < 0:
            raise ConfigError(f"augment.patch_shift must not be negative, got {self.patch_shift}: set it to e.g. 12")
        if not 0 <= self.patch_colour < 1:
            raise ConfigError(f"augment.patch_colour must be in [0, 1), got {self.patch_colour}: set it to e.g. 0.1")
        for name in ("gain", "bias", "patch_scale", "patch_gain", "patch_bias"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ConfigError(
                    f"augment.{name} must go from low to high, got {low} {high}: write the smaller number first"
                )
        if not self.patch_scale[0] > 0:
            raise ConfigError(f"augment.patch_scale must be positive, got {self.patch_scale[0]}: set it to 0.9 1.1")
        if not 0 <= self.patch_turn <= 180:
            raise ConfigError(
                f"augment.patch_turn must be in [0, 180] degrees, got {self.patch_turn}: set it to e.g. 15"
            )
        if not 0 <= self.stain < 1:
            raise ConfigError(f"augment.stain must be in [0, 1), got {self.stain}: set it to e.g. 0.05")
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"augment.probability must be in [0, 1], got {self.probability}: set it to e.g. 0.8")
