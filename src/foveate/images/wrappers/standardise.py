"""Standardisation of images: every band to mean 0 and deviation 1."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from foveate.images.area import Bins, Region
from foveate.images.header import Header, Pixels, unit_range
from foveate.images.source import Source
from foveate.images.wrappers.base import PixelWrapper
from foveate.types import Box, Size

LONGEST_SIDE = 128
"""Of the view that mean and deviation are taken from, in pixels."""

LEAST_DEVIATION = 1e-4
"""A band that varies less, as a share of its full scale, is only centred."""


class Standardised(PixelWrapper):
    r"""Standardised image: it less its own mean, over its own standard deviation, band by band; everything stays lazy.

    .. math:: y_c = (x_c - m_c) / s_c

    with m and s those of a view of the whole image whose longest side is 128 pixels: what differs from image to image
    as a whole, such as the light or the strength of a stain, is taken away (Reinhard et al., "Color Transfer between
    Images", IEEE Computer Graphics and Applications 2001, of which this is the linear part, in RGB). The change is
    linear, so views are exact averages of the changed pixels. Outside the image the result is 0, the image's mean.

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
        """Mean and standard deviation of every band, as shares of the full scale; pixels that are not finite count not.

        Raises:
            ImageError: if the image cannot be read.
        """
        with self._lock:
            if self._statistics is None:
                height, width = self.source.size
                scale = min(1.0, LONGEST_SIDE / max(height, width))
                seen = self.source.view((max(1, round(height * scale)), max(1, round(width * scale))))
                count, mean, squares = finite_moments(seen.reshape(-1, seen.shape[2]).astype(np.float64), axis=0)
                deviation = np.sqrt(squares / np.maximum(count, 1))
                self._statistics = mean, np.where(deviation < LEAST_DEVIATION, 1.0, deviation)
            return self._statistics

    def _measure(self) -> Header:
        return replace(self.source.header, dtype=np.dtype(np.float32), nodata=None)

    def _change(self, pixels: Pixels) -> Float32[np.ndarray, "height width channel"]:
        mean, deviation = self.statistics()
        result: np.ndarray = (unit_range(pixels) - mean.astype(np.float32)) / deviation.astype(np.float32)
        return result

    def average_of(self, size: Size, region: Region, window: Box) -> Float64[np.ndarray, "rows columns channel"]:
        """Area average of the original, standardised; what lies outside stays 0."""
        mean, deviation = self.statistics()
        seen = self.source.average_of(size, region, window)
        rows, columns = Bins.both(size, region, window)
        result: np.ndarray = (seen - np.outer(rows.coverage, columns.coverage)[:, :, None] * mean) / deviation
        return result


def finite_moments(
    values: Float64[np.ndarray, "_ _"], axis: int
) -> tuple[Int64[np.ndarray, " channel"], Float64[np.ndarray, " channel"], Float64[np.ndarray, " channel"]]:
    r"""Moments of the finite values of every channel.

    .. math:: n_c, \qquad \mu_c = \frac1{n_c} \sum_p x_{pc}, \qquad \sum_p (x_{pc} - \mu_c)^2

    Arguments:
        values: a row or a column per channel.
        axis: the other one, of the pixels: 0 where channels are columns, 1 where they are rows.

    Returns:
        Per channel the number of finite values, their mean (0 of none), and their summed squared distances from it.

    Example:
        >>> count, mean, squares = finite_moments(np.array([[1.0, 3.0, np.nan]]), axis=1)
        >>> count.tolist(), mean.tolist(), squares.tolist()
        ([2], [2.0], [2.0])
    """
    finite = np.isfinite(values)
    count = finite.sum(axis)
    mean = np.where(finite, values, 0).sum(axis) / np.maximum(count, 1)
    squares = np.where(finite, np.square(values - np.expand_dims(mean, axis)), 0).sum(axis)
    return count, mean, squares
