"""Pyramid levels, made strip by strip from the finest one."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Shaped

from foveate.convert.settings import stored_type
from foveate.images.header import Header, is_stored, missing_values
from foveate.images.source import Source
from foveate.types import Box, Size

STRIP_BYTES = 2**28
"""Pixels read of the source at a time; more only if one row of tiles is more."""

Data = Bool[np.ndarray, "rows width 1"]
"""True where pixels are data."""

Strip = tuple[int, int, Shaped[np.ndarray, "rows width channel"], Data | None]
"""Level, first row there, a row of tiles (as many rows as a tile has, fewer at the lower border), and where it is data:
of images whose missing data no value tells; None of others."""


def level_sizes(size: Size, tile: int) -> list[Size]:
    """Level sizes, (height, width): each half the one before, rounded up, until one tile holds it.

    Example:
        >>> level_sizes((601, 300), 256)
        [(601, 300), (301, 150), (151, 75)]
    """
    sizes = [size]
    while max(sizes[-1]) > tile:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def strips(source: Source, tile: int, threads: int = 1) -> Iterator[Strip]:
    """Strips: all levels of a source in rows of tiles; every level from its top down, none before what it is made of.

    The source is read once, at level 0. What is held is a strip of it and, of every other level, a row of tiles.

    Arguments:
        source: the image.
        tile: rows of a strip; even.
        threads: with which the source is read.
    """
    sizes, nodata = level_sizes(source.size, tile), told_by(source.header)
    pending: list[list[tuple[np.ndarray, Data | None]]] = [[] for _ in sizes]
    tops = [0] * len(sizes)
    for read in _level_0(source, tile, threads):
        (ready, data), level = read, 0
        while True:
            yield level, tops[level], ready, data
            tops[level] += len(ready)
            if level + 1 == len(sizes):
                break
            some = None if data is None else _sums(data, np.uint32) > 0
            pending[level + 1].append((halved(ready, nodata, data), some))
            finished = tops[level] == sizes[level][0]
            level += 1
            if sum(len(pixels) for pixels, _ in pending[level]) < tile and not finished:
                break
            ready = np.concatenate([pixels for pixels, _ in pending[level]])
            data = None if data is None else np.concatenate([part for _, part in pending[level] if part is not None])
            pending[level] = []


def told_by(header: Header) -> float | None:
    """The value of missing data, if pixels can have it."""
    nodata = header.nodata
    return nodata if nodata is not None and is_stored(nodata, header.dtype) else None


def _level_0(source: Source, tile: int, threads: int) -> Iterator[tuple[np.ndarray, Data | None]]:
    height, width = source.size
    dtype, nodata, masked = stored_type(source.header), told_by(source.header), source.may_miss
    step = tile * _tiles_at_a_time(source, tile)
    for top in range(0, height, step):
        box = Box(top, 0, min(step, height - top), width)
        if masked:
            strip, missing = source.read_known([box], 0, threads)[0]
        else:
            strip, missing = source.read_many([box], 0, threads)[0], None
        data = np.ones((*box.size, 1), np.bool_) if masked and nodata is None else None
        if missing is not None and nodata is not None:
            strip = np.where(missing, np.array(nodata).astype(strip.dtype), strip)
        elif missing is not None:
            data = np.asarray(~missing.all(2, keepdims=True))
        if strip.dtype == np.bool_:
            strip = strip.astype(np.uint8) * np.uint8(255)
        for start in range(0, len(strip), tile):
            part = slice(start, start + tile)
            yield strip[part].astype(dtype, copy=False), None if data is None else data[part]


def _tiles_at_a_time(source: Source, tile: int) -> int:
    """Rows of tiles read together: as high as the source's own tiles, that none is decoded twice."""
    wanted = -(-source.header.tile[0] // tile) if source.header.tile is not None else 1
    row = tile * source.size[1] * source.channels * source.dtype.itemsize
    return max(1, min(wanted, STRIP_BYTES // row))


def halved(
    pixels: Shaped[np.ndarray, "rows width channel"], nodata: float | None = None, data: Data | None = None
) -> Shaped[np.ndarray, "half_rows half_width channel"]:
    """Downsampling by 2: the average of every 2×2 pixels, of fewer at the lower and right border; halves round up.

    Arguments:
        pixels: of an even first row.
        nodata: values that are missing by it are left out; where there are no others, it stays.
        data: where pixels are data; the others are left out, and where there are none the result is 0.

    Returns:
        (⌈rows / 2⌉, ⌈width / 2⌉, channels) of the same type.

    Example:
        >>> halved(np.array([[1, 2, 9], [3, 4, 10]], np.uint8)[:, :, None])[:, :, 0]
        array([[ 3, 10]], dtype=uint8)
    """
    exact = np.float64 if pixels.dtype.kind == "f" else np.uint32
    missing = missing_values(pixels, nodata) if nodata is not None else None if data is None else ~data
    if missing is None or not missing.any():
        return _mean(_sums(pixels, exact), _sums(np.ones((*pixels.shape[:2], 1), np.uint8), np.uint32), pixels.dtype)
    count = _sums(~missing, np.uint32)
    mean = _mean(_sums(np.where(missing, 0, pixels), exact), np.maximum(count, 1), pixels.dtype)
    return np.where(count > 0, mean, np.array(0 if nodata is None else nodata).astype(pixels.dtype))


def _sums(pixels: Shaped[np.ndarray, "rows width channel"], dtype: type) -> Shaped[np.ndarray, "..."]:
    down: np.ndarray = pixels[::2].astype(dtype)
    down[: len(pixels) // 2] += pixels[1::2].astype(dtype)
    along = down[:, ::2].copy()
    along[:, : down.shape[1] // 2] += down[:, 1::2]
    return along


def _mean(
    sums: Shaped[np.ndarray, "rows width channel"],
    count: Shaped[np.ndarray, "rows width _"],
    dtype: "np.dtype[np.generic]",
) -> Shaped[np.ndarray, "rows width channel"]:
    mean = sums / count if dtype.kind == "f" else (2 * sums + count) // (2 * count)
    return np.asarray(mean).astype(dtype)
