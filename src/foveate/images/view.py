"""Views of images: area averages of what is data, which of their cells are valid, and what stands for missing data."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from foveate.errors import ImageError
from foveate.images.area import Bins, Region, average
from foveate.images.header import Header, Missing, Pixels, Reading, from_unit, full_scale
from foveate.types import Box, Level, Size

Averages = tuple[Float64[np.ndarray, "rows columns channel"], Float64[np.ndarray, "rows columns some"] | None]
"""Of the cells of a view: the average, to which missing values and those outside a window contribute 0, and the share
of every cell that is data, by area, in all channels or in each; None where nothing is missing."""

LEAST = 1e-6
"""Less than this of a cell is none of it: sums of shares are rounded."""

SMALL = 128
"""Longest side, in pixels, of the view whose means stand for missing data."""


class Viewed(ABC):
    """View of an image: what every image can do at a lower resolution.

    **Missing data.** A reader says of every box which of its values are no data (`_fetch_known`), and from there on
    these are 0 and weigh nothing, whatever bytes the file has for them: a cell of a view is the average of what is data
    in it. A cell without any, and a missing value of a patch, has the image's `neutral` value.
    """

    name: str
    told_by_pixels: bool = False
    """Whether it takes more than the header to say where data may be missing."""
    _seen: tuple[Any, Float64[np.ndarray, "rows columns some"] | None] | None = None
    _means: Float32[np.ndarray, " channel"] | None = None

    @property
    @abstractmethod
    def header(self) -> Header:
        """Header: what is known before any pixel is read."""

    @property
    def size(self) -> Size:
        """(height, width) at full resolution, in pixels."""
        return self.header.levels[0].size

    @property
    def channels(self) -> int:
        """Values per pixel."""
        return self.header.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that `read` gives."""
        return self.header.dtype

    @property
    def levels(self) -> tuple[Level, ...]:
        """The resolutions that can be read, finest first."""
        return self.header.levels

    def view(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns channel"]:
        """View of a region at another resolution: its exact area average, over what is data.

        Arguments:
            size: (rows, columns) of the result.
            region: (top, left, bottom, right) in level-0 pixels, fractions allowed; may hang over the border, where
                pixels count as 0. The whole image if None.

        Returns:
            (rows, columns, channels) float32 in the unit range; `neutral` where nothing is data.

        Raises:
            ImageError: if the size or the region is empty, or the file cannot be read.
        """
        region = self._region_or_all(size, region)
        with Reading(self._label()):
            return self.filled(self.average_of(size, region, Box(0, 0, *self.size)), size, region)

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average behind `view`: exact, from the coarsest level that is fine enough; arguments are not checked.

        Wrappers call it of the image they wrap: it is not rounded to float32, and knows of a window.

        Arguments:
            size: (rows, columns) of the result.
            region: what it shows, in level-0 pixels.
            window: within the image; pixels outside it count as 0.

        Returns:
            (rows, columns, channels) in the unit range, and the share that is data; see `Averages`.

        Raises:
            ImageError: if the file cannot be read.
        """
        level = self.level_for(size, region)
        rows, columns = Bins.both(size, region, window, self.levels[level].factor)
        west, east = columns.extent()

        def strip(start: int, stop: int) -> tuple[Pixels, Missing | None]:
            return self._fetch_known(Box(start, west, stop - start, east - west), level)

        sums, lost = known_average(strip, rows, columns, self.channels)
        return sums / full_scale(self.dtype), self._share(lost, size, region, window)

    def thumbnail(self, longest_side: int) -> Pixels:
        """Thumbnail of the whole image, (height, width, channels) in the file's type; smaller images are not enlarged.

        Arguments:
            longest_side: longest side of the result, in pixels; at least 1.
        """
        return from_unit(self.view(shrunk_size(self.size, longest_side)), self.dtype)

    def valid(self, size: Size, region: Region | None = None) -> Bool[np.ndarray, "rows columns"] | None:
        """Validity mask of a view: False where most of a cell is no data or outside the image, or a mask says no.

        Of channels that miss different values, the one that misses least counts.

        Arguments:
            size: (rows, columns) of the view.
            region: as in `view`.

        Returns:
            (rows, columns), or None where all of the image means something.

        Raises:
            ImageError: if it cannot be read.
        """
        whole = Box(0, 0, *self.size)
        region = region or (0, 0, *self.size)
        noted, share = self._seen or (None, None)
        if noted != (size, region):
            if not self._may_miss(self.level_for(size, region)):
                return None
            share = self.average_of(size, region, whole)[1]
        if share is None and region == (0, 0, *self.size):
            return None
        inside: np.ndarray = (coverage(size, region, whole) if share is None else share).max(2) >= 0.5 - LEAST
        return inside

    def guide(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns"] | None:
        """Attention guide: log weights of the cells of a view, of what is known of where to look before any attention.

        Arguments:
            size: (rows, columns) of the view.
            region: as in `view`.

        Returns:
            (rows, columns): 0 where nothing speaks against looking, below 0 where something does, −inf where looking is
            out of the question; or None where nothing is known.

        Raises:
            ImageError: if the image cannot be read.
        """
        valid = self.valid(size, region)
        return None if valid is None else np.where(valid, 0, -np.inf).astype(np.float32)

    def neutral(self) -> Float32[np.ndarray, " channel"]:
        """Neutral value of every channel, in the unit range, which stands for missing data: the mean of what is data.

        It is that of a view whose longest side is 128 pixels, and asked for only where something is missing.

        Raises:
            ImageError: if no pixel of the image is data, or it cannot be read.
        """
        if self._means is None:
            noted = self._seen
            count, mean, _ = self.moments(shrunk_size(self.size, SMALL))
            self._seen = noted
            if not count.any():
                raise nothing_there(self._label())
            self._means = mean.astype(np.float32)
        return self._means

    def moments(self, size: Size) -> Float64[np.ndarray, "3 channel"]:
        r"""Moments of every channel over a view of the image, in which each cell counts by its share of data.

        .. math:: n_c = \sum_p w_{pc}, \qquad \mu_c = \frac1{n_c} \sum_p w_{pc} x_{pc}, \qquad
            \sum_p w_{pc} (x_{pc} - \mu_c)^2

        Arguments:
            size: (rows, columns) of the view.

        Returns:
            (3, channels) the three, in the unit range; values that are not finite do not count, and the mean of none
            is 0.

        Raises:
            ImageError: if the image cannot be read.

        Example:
            >>> from foveate.images import ArraySource
            >>> ArraySource(np.array([[1.0, 3.0, np.nan]])).moments((1, 3)).ravel().tolist()
            [2.0, 2.0, 2.0]
        """
        sums, share = self.average_of(size, (0, 0, *self.size), Box(0, 0, *self.size))
        values, weights = _rounded(sums), np.ones((1, 1, 1))
        if share is not None:
            share = _rounded(share)
            weights = np.where(share > LEAST, share, 0)
            values = np.divide(values, share, out=np.zeros(values.shape), where=weights > 0)
        weights = np.where(np.isfinite(values), weights, 0)
        count = weights.sum((0, 1))
        known = np.where(weights > 0, values, 0)
        mean = (weights * known).sum((0, 1)) / np.where(count > 0, count, 1)
        return np.stack([count, mean, (weights * np.square(known - mean)).sum((0, 1))])

    def level_for(self, size: Size, region: Region) -> int:
        """Pyramid level that a view is made from: the coarsest one that is as fine as the view.

        Arguments:
            size: (rows, columns) of the view.
            region: (top, left, bottom, right) in level-0 pixels.
        """
        down, along = (region[2] - region[0]) / size[0], (region[3] - region[1]) / size[1]
        factors = [level.factor for level in self.levels]
        fine = [i for i, factor in enumerate(factors) if factor[0] <= down and factor[1] <= along]
        return max(fine, key=factors.__getitem__, default=0)

    @abstractmethod
    def _fetch_known(self, box: Box, level: int) -> tuple[Pixels, Missing | None]:
        """Read a box that lies inside the image: its pixels, 0 where a value is missing, and which are, if any is."""

    @abstractmethod
    def _label(self) -> str:
        """What to call the image in errors."""

    def _may_miss(self, level: int) -> bool:  # noqa: ARG002
        """Whether some value of a level may be missing; False is known without reading a pixel."""
        return self.header.nodata is not None

    def _share(
        self, lost: Float64[np.ndarray, "rows columns some"] | None, size: Size, region: Region, window: Box
    ) -> Float64[np.ndarray, "rows columns some"] | None:
        """The share of every cell that is data, from what is missing of it; noted, for `valid` asks for it next."""
        share = None if lost is None else coverage(size, region, window) - lost
        if window.size == self.size:
            self._seen = (size, region), share
        return share

    def filled(self, averages: Averages, size: Size, region: Region) -> Float32[np.ndarray, "rows columns channel"]:
        """View from its averages: `neutral` where nothing is data.

        Arguments:
            averages: as `average_of` gives them of all of the image.
            size: for which it was asked.
            region: likewise.

        Raises:
            ImageError: if nothing of the whole image is data.
        """
        sums, share = averages
        if share is None:
            return sums.astype(np.float32)
        inside = coverage(size, region, Box(0, 0, *self.size))
        sums, share = _rounded(sums), _rounded(share)  # as they are kept, so that what is kept changes nothing
        some = share > LEAST * inside
        means = np.divide(sums, share, out=np.zeros(sums.shape), where=some) * inside
        means = np.where(share < (1 - LEAST) * inside, means, sums)
        blank = ~some & (inside > 0)
        if not some.any() and region == (0, 0, *self.size):
            raise nothing_there(self._label())
        return (np.where(blank, self.neutral() * inside, means) if blank.any() else means).astype(np.float32)

    def _region_or_all(self, size: Size, region: Region | None) -> Region:
        """The region, or the whole image; refused if it or the size is empty."""
        top, left, bottom, right = region or (0, 0, *self.size)
        if min(size) < 1:
            raise ImageError(
                f"{self._label()}: a view must have at least one row and one column, got {size[0]}×{size[1]}: "
                "ask for a larger one"
            )
        if not (math.isfinite(top + left + bottom + right) and top < bottom and left < right):
            raise ImageError(
                f"{self._label()}: a region must go down and to the right, got top {top}, left {left}, "
                f"bottom {bottom}, right {right}: order it as (top, left, bottom, right)"
            )
        return top, left, bottom, right


def known_average(
    read: Callable[[int, int], tuple[Pixels, Missing | None]],
    rows: Bins,
    columns: Bins,
    channels: int,
    together: int = 1,
) -> Averages:
    """Area average of pixels some of which may be missing; these are 0 as they are handed over.

    Arguments:
        read: as for `average`; gives which values are missing, too, or None.
        rows: the bins down the rows.
        columns: the bins along the columns.
        channels: of the pixels.
        together: rows that the reader decodes together.

    Returns:
        (rows, columns, channels) in the reader's units, and the share of every cell that is missing; None for nothing.
    """
    lost: Float64[np.ndarray, "rows columns some"] | None = None

    def strip(start: int, stop: int) -> Shaped[np.ndarray, "..."]:
        nonlocal lost
        pixels, missing = read(start, stop)
        if missing is not None:
            marked = missing.view(np.uint8)
            part = average(
                lambda a, b: marked[a - start : b - start], rows.within(start, stop), columns, marked.shape[2]
            )
            lost = part if lost is None else lost + part
        return pixels

    return average(strip, rows, columns, channels, together), lost


def _rounded(values: Float64[np.ndarray, "rows columns some"]) -> Float64[np.ndarray, "rows columns some"]:
    return values.astype(np.float32).astype(np.float64)


def nothing_there(name: str) -> ImageError:
    """Error of an image of which no pixel is data, or allowed."""
    return ImageError(
        f"{name}: there is nothing to look at: all of it is no data or outside its mask: leave it out, or see to its "
        "no-data value and its mask"
    )


def coverage(size: Size, region: Region, window: Box) -> Float64[np.ndarray, "rows columns 1"]:
    """(rows, columns, 1) the share of every cell of a view that lies inside a window."""
    rows, columns = Bins.both(size, region, window)
    return np.outer(rows.coverage, columns.coverage)[:, :, None]


def shrunk_size(size: Size, longest_side: int) -> Size:
    """Thumbnail size (height, width): small enough, in its own proportions and never enlarged.

    Example:
        >>> shrunk_size((300, 1000), 100), shrunk_size((30, 40), 100)
        ((30, 100), (30, 40))
    """
    longest = max(size)
    if longest <= longest_side:
        return size
    rows, columns = (max(1, (2 * side * longest_side + longest) // (2 * longest)) for side in size)
    return rows, columns
