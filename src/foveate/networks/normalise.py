"""Normalisation of bands of any unit and range, to mean 0 and deviation 1."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.errors import ConfigError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Layers that normalise by statistics of a batch, and keep running ones."""


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of each band: mean and standard deviation over the training images, in the unit range that models see.

    Attributes:
        mean: one finite number per band.
        deviation: one finite number per band, not negative; 0 where a band is constant.

    Raises:
        ConfigError: if the numbers cannot be statistics.

    Example:
        >>> BandStatistics((0.5, 271.0), (0.25, 8.0)).mean
        (0.5, 271.0)
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.deviation):
            raise ConfigError(
                f"band statistics need one mean and one deviation per band, got {len(self.mean)} means and "
                f"{len(self.deviation)} deviations: give as many of one as of the other"
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 <= value < math.inf for value in self.deviation):
            raise ConfigError(
                f"band statistics must be finite and deviations not negative, got means {list(self.mean)} and "
                f"deviations {list(self.deviation)}: look for nan and infinite pixels in the training images"
            )


class BandNormalisation(nn.Module):
    r"""Normalisation: each band minus its mean, over its standard deviation.

    .. math:: y_c = (x_c - \mu_c) / \sigma_c \qquad \text{and } y_c = x_c - \mu_c \text{ for a constant band}

    The constants are buffers: saved with a model, moved with it, never trained. Computed in float32 at least, also
    under autocast: half precision does not reach beyond 65,504.

    Arguments:
        channels: C, bands of an image.
        statistics: mean and deviation of the C bands; None leaves pixels as they are until a saved model's constants
            are loaded.

    Raises:
        ConfigError: if there are statistics for another number of bands.

    Example:
        >>> normalise = BandNormalisation(2, BandStatistics((0.5, 270.0), (0.25, 10.0)))
        >>> normalise(torch.tensor([1.0, 265.0]).reshape(1, 2, 1, 1)).flatten()
        tensor([ 2.0000, -0.5000])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, statistics: BandStatistics | None = None) -> None:
        super().__init__()
        if statistics is None:
            statistics = BandStatistics((0.0,) * channels, (1.0,) * channels)
        if len(statistics.mean) != channels:
            raise ConfigError(
                f"there are band statistics for {len(statistics.mean)} bands, but images of {channels}: measure them "
                "on images of the same bands"
            )
        self.register_buffer("mean", torch.tensor(statistics.mean, dtype=torch.float32))
        # A constant band says nothing: whatever it is divided by, it becomes 0.
        deviations = [value if value > 0 else 1.0 for value in statistics.deviation]
        self.register_buffer("deviation", torch.tensor(deviations, dtype=torch.float32))

    @property
    def statistics(self) -> BandStatistics:
        """The constants in use."""
        return BandStatistics(tuple(self.mean.tolist()), tuple(self.deviation.tolist()))

    def means(self) -> tuple[float, ...]:
        """What is subtracted from each band."""
        return tuple(self.mean.tolist())

    def forward(
        self, pixels: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Normalise (B, C, h, w) pixels, views or patches; returns float32 or better."""
        with torch.autocast(pixels.device.type, enabled=False):
            values = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
            return (values - self.mean[:, None, None]) / self.deviation[:, None, None]
