"""Area average, exact: by which every low-resolution view is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from foveate.images.header import full_scale
from foveate.types import Box, Size

Number = int | float

Region = tuple[Number, Number, Number, Number]
"""(top, left, bottom, right) in level-0 pixels, as edge coordinates: pixel p covers [p, p + 1). May hang over."""

BLOCK_ELEMENTS = 1 << 24
"""Pixel values held at a time while a view is made, whatever the size of the image."""

GROUP_ELEMENTS = 1 << 18
"""Sums of columns held at a time while a view is made."""

LONG_SUM = 1 << 14
"""Pixel values in the sum of a bin from which it pays to sum bins one after the other."""

SHORT_BIN, BAND, PRODUCT = 12, 4, 1 << 18
"""Pixels across the largest bins averaged by products with matrices of weights, bins in a product, and multiplications
at most: from more on OpenBLAS would start threads of its own in every thread that reads."""

SNAP = 1e-9
"""Bin edges this close to a pixel edge are on it, in pixels: 18 · (1500 / 180) is 150."""


@dataclass(frozen=True)
class Bins:
    """Bins along one axis of a view: the pixels that each averages, and how much of each pixel.

    Attributes:
        first: (n,) first pixel of the bin.
        stop: (n,) the pixel after its last one; equal to `first` where a bin sees no pixel.
        head: (n,) weight of the first pixel.
        tail: (n,) weight of the last pixel; 0 where the bin has only one.
        inner: weight of every pixel in between.
        coverage: (n,) sum of the bin's weights: the share of it that lies inside the image; 1 away from the border.
    """

    first: Int64[np.ndarray, " bin"]
    stop: Int64[np.ndarray, " bin"]
    head: Float64[np.ndarray, " bin"]
    tail: Float64[np.ndarray, " bin"]
    inner: float
    coverage: Float64[np.ndarray, " bin"]

    @classmethod
    def over(cls, count: int, start: Number, end: Number, window: tuple[Number, Number], factor: Number = 1) -> "Bins":
        """Cut [start, end) into `count` equal bins.

        Arguments:
            count: number of bins.
            start: where the first bin starts, in level-0 pixels.
            end: where the last bin ends.
            window: what lies outside [window[0], window[1]) counts as 0; must lie within the image.
            factor: level-0 pixels per pixel of the array averaged; its last pixel may reach beyond the image.
        """
        edges = _snapped((start + (end - start) * np.arange(count + 1) / count) / factor)
        inside = _snapped(np.array(window) / factor)
        low = np.maximum(edges[:-1], inside[0])
        high = np.maximum(np.minimum(edges[1:], inside[1]), low)
        length = (end - start) / factor / count
        first = np.floor(low).astype(np.int64)
        stop = np.where(high > low, np.ceil(high).astype(np.int64), first)
        several = stop - first > 1
        head = np.where(several, first + 1, high) - low
        tail = np.where(several, high - (stop - 1), 0.0)
        return cls(first, stop, head / length, tail / length, 1 / length, (high - low) / length)

    @classmethod
    def both(
        cls, size: Size, region: Region, window: Box, factor: tuple[Number, Number] = (1, 1)
    ) -> tuple["Bins", "Bins"]:
        """Bins of a view down the rows and along the columns.

        Arguments:
            size: (rows, columns) of the view.
            region: what it shows, in level-0 pixels.
            window: pixels outside it count as 0; must lie within the image.
            factor: level-0 pixels per pixel of the array averaged, down and along.
        """
        rows = cls.over(size[0], region[0], region[2], (window.top, window.bottom), factor[0])
        return rows, cls.over(size[1], region[1], region[3], (window.left, window.right), factor[1])

    def extent(self) -> tuple[int, int]:
        """First pixel of all bins and the pixel after the last; (0, 0) if no bin sees a pixel."""
        seen = self.stop > self.first
        return (int(self.first[seen].min()), int(self.stop[seen].max())) if seen.any() else (0, 0)

    def whole(self) -> Bool[np.ndarray, " bin"]:
        """Whether a bin is made of whole pixels, or sees none."""
        alike = (self.head == self.inner) & ((self.stop - self.first < 2) | (self.tail == self.inner))
        whole: Bool[np.ndarray, " bin"] = (self.first == self.stop) | alike
        return whole

    def chosen(self, index: Int64[np.ndarray, " some"]) -> "Bins":
        """Some of the bins."""
        first, stop, head, tail = (each[index] for each in (self.first, self.stop, self.head, self.tail))
        return Bins(first, stop, head, tail, self.inner, self.coverage[index])

    def bands(self, start: int, stop: int) -> tuple[Int64[np.ndarray, " band"], Float32[np.ndarray, "band bin pixel"]]:
        """Bins, `BAND` at a time: the first pixel of each band, and what its pixels weigh, if an inner one weighs 1.

        No band reaches before `start` or beyond `stop`: where one would, pixels that weigh 0 fill it up.
        """
        count = -(-len(self.first) // BAND) * BAND
        first, end, head, tail = (
            np.pad(each, (0, count - len(each))).reshape(-1, BAND, 1)
            for each in (self.first, self.stop, self.head / self.inner, self.tail / self.inner)
        )
        seen = end > first
        lows = np.where(seen, first, stop).min(1).ravel()
        length = min(max(1, int((np.where(seen, end, 0).max(1).ravel() - lows).max())), stop - start)
        lows = np.clip(lows, start, stop - length)
        pixel = lows[:, None, None] + np.arange(length)
        weights = ((pixel >= first) & (pixel < end)).astype(np.float32)
        np.copyto(weights, tail, where=(pixel == end - 1) & seen)
        np.copyto(weights, head, where=(pixel == first) & seen)
        return lows, weights

    def within(self, start: int, stop: int) -> "Bins":
        """The same bins, of which only pixels start … stop−1 count; those of adjoining parts add up to the whole."""
        first = np.clip(self.first, start, stop)
        end = np.maximum(np.clip(self.stop, start, stop), first)

        def weight(pixel: Int64[np.ndarray, " bin"]) -> Float64[np.ndarray, " bin"]:
            last = np.where(pixel == self.stop - 1, self.tail, self.inner)
            return np.where(pixel == self.first, self.head, last)

        count = end - first
        head = np.where(count > 0, weight(first), 0.0)
        tail = np.where(count > 1, weight(end - 1), 0.0)
        return Bins(first, end, head, tail, self.inner, head + tail + np.maximum(count - 2, 0) * self.inner)


def _snapped(edges: Float64[np.ndarray, " edge"]) -> Float64[np.ndarray, " edge"]:
    whole = np.rint(edges)
    return np.where(np.abs(edges - whole) < SNAP, whole, edges)


def area_average(
    array: Shaped[np.ndarray, "height width channel"], size: Size, region: Region | None = None
) -> Float32[np.ndarray, "rows columns channel"]:
    r"""Average an image over the cells of a regular grid, by exact fractional coverage.

    .. math:: v_{ij} = \frac{1}{|C_{ij}|} \sum_p |C_{ij} \cap p| \, x_p

    where :math:`C_{ij}` is a cell of the view and p the pixels, as unit squares; outside the image x is 0.

    Arguments:
        array: (H, W, C) pixels; bool, uint8, uint16 or floating point.
        size: (rows, columns) of the result.
        region: what the result shows, in pixels of the array; the whole array if None.

    Returns:
        (rows, columns, C) float32 in the unit range. Sums are made in float64.

    Example:
        >>> area_average(np.array([[[0], [51], [255]]], dtype=np.uint8), (1, 2))[0, :, 0]
        array([0.06666667, 0.73333335], dtype=float32)
    """
    height, width, channels = array.shape
    rows, columns = Bins.both(size, region or (0, 0, height, width), Box(0, 0, height, width))
    west, east = columns.extent()
    result = average(lambda start, stop: array[start:stop, west:east], rows, columns, channels)
    return (result / full_scale(array.dtype)).astype(np.float32)


def average(
    read: Callable[[int, int], Shaped[np.ndarray, "..."]], rows: Bins, columns: Bins, channels: int, together: int = 1
) -> Float64[np.ndarray, "rows columns channel"]:
    """Average the pixels that a reader hands over in strips of rows.

    Arguments:
        read: read(start, stop) gives rows start … stop−1 of the columns in `columns.extent()`, (stop − start, w, C).
        rows: the bins down the rows.
        columns: the bins along the columns.
        channels: C.
        together: rows that the reader decodes together: but for the first, strips start at multiples of it.

    Returns:
        (rows, columns, C) float64, in the reader's units.
    """
    result = np.zeros((len(rows.first), len(columns.first), channels))
    (north, south), (west, east) = rows.extent(), columns.extent()
    if north == south or west == east:
        return result
    width, every = east - west, np.arange(len(columns.first))
    block, group = (max(1, elements // (width * channels)) for elements in (BLOCK_ELEMENTS, GROUP_ELEMENTS))
    block = max(1, block // together) * together
    products: _Products | None = None
    starts = [north, *range((north // together) * together + block, south, block)]
    for start, stop in zip(starts, [*starts[1:], south], strict=True):
        strip = read(start, stop)
        if strip.dtype.itemsize > 8:
            strip = strip.astype(np.float64)
        largest = float(full_scale(strip.dtype)) if strip.dtype.kind in "bu" else np.inf
        pixels = _Sums(strip.reshape(len(strip), -1), 1.0, largest)
        touched = np.flatnonzero((rows.first < stop) & (rows.stop > start) & (rows.stop > rows.first))
        if products is None and _Products.fit(rows, columns, channels, strip.dtype):
            products = _Products(columns, west, east, channels)
            group = min(4 * group, products.most) // BAND * BAND or BAND
        for some in range(0, len(touched), group):
            chosen = touched[some : some + group]
            if products is not None:
                result[_steps(chosen)] += products.average(pixels.values, start, rows.chosen(chosen))
                continue
            down = _weigh(pixels, start, rows, chosen)
            # the columns, laid down as rows: their sums run along memory then, too
            turned = np.ascontiguousarray(down.values.T).reshape(width, -1)
            both = _weigh(_Sums(turned, down.weight, down.largest), west, columns, every)
            result[_steps(chosen)] += both.values.reshape(-1, channels, len(chosen)).transpose(2, 0, 1) * both.weight
    return result


class _Products:
    """Averages over short bins of 8-bit or 16-bit pixels, as products with bands of weights in float32.

    Of every pixel about the mean is taken away, and added again in the end: that leaves small numbers, whose rounding
    is small, and of what is flat nothing. Only numbers that cannot be NaN are averaged so; see `_weigh`.
    """

    def __init__(self, columns: Bins, west: int, east: int, channels: int) -> None:
        self._columns, self._channels = columns, channels
        lows, weights = columns.bands(west, east)
        self._lows: list[int] = ((lows - west) * channels).tolist()
        across = weights.swapaxes(1, 2)[:, :, None, :, None] * np.eye(channels, dtype=np.float32)[:, None]
        self._across = across.reshape(len(weights), -1, BAND * channels)
        self.most = PRODUCT // self._across[0].size

    @staticmethod
    def fit(rows: Bins, columns: Bins, channels: int, dtype: np.dtype[Any]) -> bool:
        """Whether these are short bins, not of whole pixels, of few channels of small integers."""
        short = all((bins.stop - bins.first).max() <= SHORT_BIN for bins in (rows, columns))
        small = dtype.kind in "bu" and dtype.itemsize <= 2 and channels <= BAND
        return short and small and not (rows.whole().all() and columns.whole().all())

    def average(
        self, pixels: Shaped[np.ndarray, "rows values"], start: int, rows: Bins
    ) -> Float64[np.ndarray, "bin column channel"]:
        """Average a strip of rows, the first of which is row `start`; `rows` are the bins that it touches."""
        channels, columns, wide = self._channels, self._columns, pixels.shape[1]
        rows = rows.within(start, start + len(pixels))
        base = np.rint(pixels[:: len(pixels) // 8 + 1].mean(0).reshape(-1, channels).mean(0))
        bases = np.tile(base.astype(np.float32), wide // channels)
        lows, bands = rows.bands(start, start + len(pixels))
        down = np.empty((len(lows) * BAND, wide), np.float32)
        piece = max(1, PRODUCT // bands[0].size)
        for part in (slice(left, left + piece) for left in range(0, wide, piece)):
            some = np.empty((bands.shape[2], len(bases[part])), np.float32)
            for number, low in enumerate((lows - start).tolist()):
                np.copyto(some, pixels[low : low + len(some), part])
                some -= bases[part]
                np.matmul(bands[number], some, out=down[number * BAND : (number + 1) * BAND, part])
        bins, length, step = self._across.shape
        both = np.empty((len(down), bins * step), np.float32)
        for number, low in enumerate(self._lows):
            part = slice(number * step, (number + 1) * step)
            np.matmul(down[:, low : low + length], self._across[number], out=both[:, part])
        values = np.outer(rows.coverage, columns.coverage[:, None] * base)
        values += np.multiply(both[: len(values), : values.shape[1]], rows.inner * columns.inner, dtype=np.float64)
        return values.reshape(len(values), -1, channels)


class _Sums(NamedTuple):
    """Sums of pixels, or pixels: integers as long as all weights are alike, which is faster, and exact.

    Attributes:
        values: (rows, values).
        weight: what all of them are still to be multiplied with.
        largest: none of the values is larger; infinite in floating point.
    """

    values: Shaped[np.ndarray, "rows values"]
    weight: float
    largest: float


def _weigh(pixels: _Sums, start: int, bins: Bins, chosen: Int64[np.ndarray, " chosen"]) -> _Sums:
    """Weighted sums of the chosen bins over a strip of rows, the first of which is row `start`.

    A bin that straddles two strips gets its share of each. A product with a matrix of weights would be shorter, but
    multiplies every pixel by 0 for every bin that it is not in: a NaN would spread to all bins, and time go to nothing.
    """
    rows, first, stop = pixels.values, bins.first[chosen] - start, bins.stop[chosen] - start
    head, tail, several = bins.head[chosen], bins.tail[chosen], stop - first > 1
    low, high = np.maximum(first, 0), np.minimum(stop, len(rows))
    longest = max(int((high - low).max()), 0)
    # where every bin is made of whole pixels all weights are one number, which is left for the end: sums of integers
    # are exact and, in a type just wide enough, several times as fast as products
    if bins.chosen(chosen).whole().all():
        sums = _sums(rows, low, high, longest, pixels.largest)
        return _Sums(sums, pixels.weight * bins.inner, longest * pixels.largest)
    # else only the first and the last pixel of a bin weigh less than the others, and only where they are in this strip
    weights = np.full((len(chosen), longest), bins.inner)
    for some, row, weight in ((first >= 0, first, head), (several & (stop <= len(rows)), stop - 1, tail)):
        seen = np.flatnonzero(some & (low < high))
        weights[seen, (row - low)[seen]] = weight[seen]
    sums = np.zeros((len(chosen), rows.shape[1]))
    kind = _sum_type(longest * pixels.largest)
    for total, share, i, j in zip(sums, weights, low.tolist(), high.tolist(), strict=True):
        if (j - i) * rows.shape[1] > LONG_SUM and j - i > 2:  # a plain sum of what is in between, then both ends
            np.multiply(np.add.reduce(rows[i + 1 : j - 1], axis=0, dtype=kind), bins.inner, out=total)
            total += rows[i] * share[0]
            total += rows[j - 1] * share[j - i - 1]
        elif i < j:
            np.einsum("r,rv->v", share[: j - i], rows[i:j], out=total)
    return _Sums(sums, pixels.weight, np.inf)


def _sums(
    rows: Shaped[np.ndarray, "rows values"],
    low: Int64[np.ndarray, " bin"],
    high: Int64[np.ndarray, " bin"],
    longest: int,
    largest: float,
) -> Shaped[np.ndarray, "bin values"]:
    """Sums of rows low … high−1, at most `longest` rows of values up to `largest`; 0 where there are none."""
    kind = _sum_type(longest * largest)
    sums = np.zeros((len(low), rows.shape[1]), kind)
    if longest > len(low) or longest * rows.shape[1] > LONG_SUM:
        for total, i, j in zip(sums, low.tolist(), high.tolist(), strict=True):
            if i < j:
                np.add.reduce(rows[i:j], axis=0, dtype=kind, out=total)
        return sums
    # short sums of many bins: the first row of every bin, then the second of every bin, …
    for k in range(longest):
        some = np.flatnonzero(high - low > k)
        sums[_steps(some)] += rows[_steps(low[some] + k)]
    return sums


def _sum_type(largest: float) -> type[np.generic]:
    """The narrowest type that holds integers so large, for narrow ones are faster; or else float64."""
    return next((kind for kind in (np.uint16, np.uint32) if largest <= np.iinfo(kind).max), np.float64)


def _steps(index: Int64[np.ndarray, " some"]) -> slice | Int64[np.ndarray, " some"]:
    """An index as a slice, which copies nothing, if it goes up in equal steps."""
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    even = step > 0 and (index[1:] - index[:-1] == step).all()
    return slice(int(index[0]), int(index[-1]) + 1, step) if even else index
