"""Description of an image, in words and numbers that JSON can hold."""

import math
from typing import Any

from foveate.images.formats.arrays import ArraySource, NpySource
from foveate.images.formats.canvas import Canvas
from foveate.images.header import Georeference
from foveate.images.source import Source

BY_PIXEL = (ArraySource, NpySource, Canvas)
"""Of these any part is had by itself, and there are no tiles."""

SMALL = 256
"""Longest side of an image that is one tile when it is converted."""

NAMES = {"ArraySource": "array in memory", "NpySource": "NumPy array", "Canvas": "canvas of stamps"}
"""Of sources whose header has no word for what they are."""


def describe(source: Source) -> dict[str, Any]:
    """Description of an image; no pixel is read.

    Arguments:
        source: the image.

    Returns:
        path, format, size ([height, width] in pixels), channels, dtype, bands (their names), mpp (microns per pixel, or
        None), pixel ([height, width] of a pixel in microns, or None), levels (a list of {size, factor}, the factors
        level-0 pixels per pixel, down and along), tile ([height, width] of what is decoded at a time, or None), lazy
        (whether less than the whole image can be read), reading
        (the same in words), nodata (a number, or "nan"), masked (what else tells missing data, in words), values
        ([scale, offset] of every band, which nothing is made of), georeference ({crs, transform, points: [row, column,
        x, y, z] each}, or None), unused (what the file says and nothing is made of, in words), bytes (of the file, or
        None where that is not known).

    Raises:
        ImageError: if the image cannot be read.

    Example:
        >>> import numpy as np
        >>> told = describe(ArraySource(np.zeros((600, 800, 3), np.uint8)))
        >>> told["size"], told["format"], told["reading"]
        ([600, 800], 'array in memory', 'any part by itself')
    """
    header = source.header
    nodata, place = header.nodata, header.georeference
    return {
        "path": source.name,
        "format": header.format or NAMES.get(type(source).__name__, type(source).__name__.removesuffix("Source")),
        "size": list(source.size),
        "channels": source.channels,
        "dtype": str(source.dtype),
        "bands": list(header.bands),
        "mpp": source.mpp,
        "pixel": None if source.pixel is None else list(source.pixel),
        "levels": [{"size": list(level.size), "factor": list(level.factor)} for level in source.levels],
        "tile": None if header.tile is None else list(header.tile),
        "lazy": is_lazy(source),
        "reading": _reading(source),
        "nodata": nodata if nodata is None or math.isfinite(nodata) else str(nodata),
        "masked": header.masked,
        "values": [list(pair) for pair in header.values],
        "georeference": None if place is None else _placed(place),
        "unused": list(header.unused),
        "bytes": source.file_bytes,
    }


def _placed(place: Georeference) -> dict[str, Any]:
    return {"crs": place.crs, "transform": list(place.transform), "points": [list(point) for point in place.points]}


def is_lazy(source: Source) -> bool:
    """Whether less than the whole image can be read."""
    tile = source.header.tile
    if tile is None:
        return isinstance(source, BY_PIXEL)
    return tile[0] < source.size[0] or tile[1] < source.size[1]


def _reading(source: Source) -> str:
    tile = source.header.tile
    if not is_lazy(source):
        return "decoded whole" + (
            ": `foveate convert` makes it lazy" if max(source.size) > SMALL else ", for it is small"
        )
    if tile is None:
        return "any part by itself"
    if tile[1] >= source.size[1]:
        return f"in strips of {tile[0]} row{'s' if tile[0] > 1 else ''}"
    return f"in tiles of {tile[0]}×{tile[1]}"
