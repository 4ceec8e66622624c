"""Pyramid levels, made strip by strip from the finest one."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from foveate.convert.settings import stored_type
from foveate.images.source import Source
from foveate.types import Box, Size

STRIP_BYTES = 2**28
"""Pixels read of the source at a time; more only if one row of tiles is more."""

Strip = tuple[int, int, Shaped[np.ndarray, "rows width channel"]]
"""Level, first row there, and a row of tiles: as many rows as a tile has, fewer at the lower border."""


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
    sizes = level_sizes(source.size, tile)
    pending: list[list[np.ndarray]] = [[] for _ in sizes]
    tops = [0] * len(sizes)
    for read in _level_0(source, tile, threads):
        ready, level = read, 0
        while True:
            top = tops[level]
            yield level, top, ready
            tops[level] += len(ready)
            if level + 1 == len(sizes):
                break
            pending[level + 1].append(halved(ready, source.header.nodata))
            finished = tops[level] == sizes[level][0]
            level += 1
            if sum(map(len, pending[level])) < tile and not finished:
                break
            ready = np.concatenate(pending[level])
            pending[level] = []


def _level_0(source: Source, tile: int, threads: int) -> Iterator[Shaped[np.ndarray, "rows width channel"]]:
    height, width = source.size
    dtype = stored_type(source.header)
    step = tile * _tiles_at_a_time(source, tile)
    for top in range(0, height, step):
        (strip,) = source.read_many([Box(top, 0, min(step, height - top), width)], 0, threads)
        if strip.dtype == np.bool_:
            strip = strip.astype(np.uint8) * np.uint8(255)
        for start in range(0, len(strip), tile):
            yield strip[start : start + tile].astype(dtype, copy=False)


def _tiles_at_a_time(source: Source, tile: int) -> int:
    """Rows of tiles read together: as high as the source's own tiles, that none is decoded twice."""
    wanted = -(-source.header.tile[0] // tile) if source.header.tile is not None else 1
    row = tile * source.size[1] * source.channels * source.dtype.itemsize
    return max(1, min(wanted, STRIP_BYTES // row))


def halved(
    pixels: Shaped[np.ndarray, "rows width channel"], nodata: float | None = None
) -> Shaped[np.ndarray, "half_rows half_width channel"]:
    """Downsampling by 2: the average of every 2×2 pixels, of fewer at the lower and right border; halves round up.

    Arguments:
        pixels: of an even first row.
        nodata: pixels of this value are left out; where there are no others, it stays.

    Returns:
        (⌈rows / 2⌉, ⌈width / 2⌉, channels) of the same type.

    Example:
        >>> halved(np.array([[1, 2, 9], [3, 4, 10]], np.uint8)[:, :, None])[:, :, 0]
        array([[ 3, 10]], dtype=uint8)
    """
    exact = np.float64 if pixels.dtype.kind == "f" else np.uint32
    if nodata is None:
        return _mean(_sums(pixels, exact), _sums(np.ones((*pixels.shape[:2], 1), np.uint8), np.uint32), pixels.dtype)
    valid = ~np.isnan(pixels) if np.isnan(nodata) else pixels != nodata
    count = _sums(valid, np.uint32)
    mean = _mean(_sums(np.where(valid, pixels, 0), exact), np.maximum(count, 1), pixels.dtype)
    return mean if count.all() else np.where(count > 0, mean, np.array(nodata).astype(pixels.dtype))


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
