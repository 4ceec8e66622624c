"""Standardisation of images: every band to mean 0 and deviation 1."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from foveate.images.area import Region
from foveate.images.header import Header, Pixels, unit_range
from foveate.images.source import Source
from foveate.images.view import SMALL, Averages, coverage, shrunk_size
from foveate.images.wrappers.base import PixelWrapper, Unchanged
from foveate.types import Box, Size

LEAST_DEVIATION = 1e-4
"""A band that varies less, as a share of its full scale, is only centred."""


class Standardised(PixelWrapper):
    r"""Standardised image: it less its own mean, over its own standard deviation, band by band; everything stays lazy.

    .. math:: y_c = (x_c - m_c) / s_c

    with m and s those of a view of the whole image whose longest side is 128 pixels: what differs from image to image
    as a whole, such as the light or the strength of a stain, is taken away (Reinhard et al., "Color Transfer between
    Images", IEEE Computer Graphics and Applications 2001, of which this is the linear part, in RGB). The change is
    linear, so views are exact averages of the changed pixels. Outside the image, and where data is missing, the result
    is 0, the image's mean.

    Arguments:
        source: the image; its pixels are read when the first of the result is.

    Example:
        >>> from foveate.images import ArraySource
        >>> image = Standardised(ArraySource(np.array([[0, 0, 255, 255]], np.uint8)))
        >>> image.read(Box(0, 1, 1, 3))[0, :, 0].tolist()
        [-1.0, 1.0, 1.0]
    """

    _made_with = ()

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._statistics: tuple[Float64[np.ndarray, " channel"], Float64[np.ndarray, " channel"]] | None = None

    def statistics(self) -> tuple[Float64[np.ndarray, " channel"], Float64[np.ndarray, " channel"]]:
        """Mean and standard deviation of every band, as shares of the full scale, over what is data and finite.

        Raises:
            ImageError: if the image cannot be read.
        """
        with self._lock:
            if self._statistics is None:
                count, mean, squares = self.source.moments(shrunk_size(self.source.size, SMALL))
                deviation = np.sqrt(squares / np.maximum(count, 1))
                self._statistics = mean, np.where(deviation < LEAST_DEVIATION, 1.0, deviation)
            return self._statistics

    def _measure(self) -> Header:
        return replace(self.source.header, dtype=np.dtype(np.float32), nodata=None)

    def _change(self, pixels: Pixels) -> Float32[np.ndarray, "height width channel"]:
        mean, deviation = self.statistics()
        result: np.ndarray = (unit_range(pixels) - mean.astype(np.float32)) / deviation.astype(np.float32)
        return result

    def neutral(self) -> Float32[np.ndarray, " channel"]:
        """Neutral value of every channel: 0."""
        return np.zeros(self.channels, np.float32)

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original, standardised; what lies outside stays 0, and so does what is missing."""
        mean, deviation = self.statistics()
        sums, share = self.source.average_of(size, region, window)
        inside = coverage(size, region, window) if share is None else share
        return (sums - inside * mean) / deviation, share


class Neutral(Unchanged):
    """Image whose missing data has another neutral value, such as the means of the bands that a model subtracts.

    Arguments:
        source: the image.
        values: called when a value is missing; gives one number per channel, in the unit range.
    """

    _made_with = ()

    def __init__(self, source: Source, values: Callable[[], Sequence[float]]) -> None:
        super().__init__(source)
        self._values = values

    def neutral(self) -> Float32[np.ndarray, " channel"]:
        """Neutral value of every channel, as given."""
        if self._means is None:
            self._means = np.array(self._values(), np.float32)
        return self._means
