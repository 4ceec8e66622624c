"""Forecast of a prediction: what it would read of an image, before it reads it."""

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from foveate.errors import UNREADABLE
from foveate.images import Source
from foveate.images.describe import describe, is_lazy
from foveate.images.header import Reading
from foveate.images.tensors import view_size
from foveate.models import Model
from foveate.models.receipts import covering
from foveate.predict.predict import Row
from foveate.types import Size


def describe_rows(rows: Iterable[Row], model: Model | None = None) -> Iterator[dict[str, Any]]:
    """Description of images: say of each what it is, and what a prediction would read of it.

    Arguments:
        rows: rows of `find_rows`.
        model: what would predict; None leaves that out.

    Yields:
        As `foveate.images.describe.describe` says, with `prediction` as `forecast` says if there is a model. Of an
        image that cannot be read, or not be predicted: `path`, `error` (one line), and what else is known.
    """
    for row in rows:
        told: dict[str, Any] = {"path": row.path}
        try:
            with Reading(row.path), closing(row.open()) as source:
                told |= describe(source) | told
                if model is not None:
                    told["prediction"] = forecast(model, source)
        except UNREADABLE as error:
            told["error"] = " ".join(str(error).split())
        yield told


def forecast(model: Model, source: Source) -> dict[str, Any]:
    """Forecast: what a prediction with one draw would read of an image; no pixel is read.

    Tiles and bytes are expectations: patches lie anywhere, so that a patch of p pixels touches 1 + (p − 1) / t tiles of
    t pixels along an axis, and tiles are taken to have as many bytes as they have in the mean.

    Arguments:
        model: what would predict.
        source: the image as it was opened.

    Returns:
        view ([rows, columns], or None), view_level (index of the level it is made from, or None), patches (at most),
        patch ([height, width] in pixels of the image as the model takes it, or None), tiles and bytes (None where they
        are not known), tiles_of (tiles of the levels that are read, or None) and levels (which these are, or None).

    Raises:
        ImageError: if the image is not one that the model takes.
    """
    taken = model.intake(source)
    view = None if model.view is None else view_size(model.view, taken)
    patch, patches = model.patch, _patches(model, taken, view)
    level = None if view is None else source.level_for(view, (0, 0, *source.size))
    scale = source.size[0] / taken.size[0], source.size[1] / taken.size[1]
    in_file = (0.0, 0.0) if patch is None else (patch[0] * scale[0], patch[1] * scale[1])
    told: dict[str, Any] = {
        "view": None if view is None else list(view),
        "view_level": level,
        "patches": patches,
        "patch": None if patch is None else list(patch),
        "tiles": None,
        "tiles_of": None,
        "levels": None,
        "bytes": source.file_bytes,
    }
    tile, levels = source.header.tile, sorted({0, 0 if level is None else level})
    if is_lazy(source) and tile is None:
        pixels = patches * in_file[0] * in_file[1] + (0 if level is None else math.prod(source.levels[level].size))
        told["bytes"] = round(pixels * source.channels * source.dtype.itemsize)
    elif is_lazy(source) and tile is not None:
        counts = [covering(one.size, tile) for one in source.levels]
        touched = patches * math.prod(1 + max(0.0, side - 1) / of for side, of in zip(in_file, tile, strict=True))
        tiles = min(counts[0], math.ceil(touched)) if patches else 0
        if level is not None:  # whose view takes all of them
            tiles = counts[level] + (tiles if level else 0)
        told |= {"tiles": tiles, "tiles_of": sum(counts[one] for one in levels), "levels": levels}
        told["bytes"] = None if told["bytes"] is None else round(told["bytes"] * min(1.0, tiles / sum(counts)))
    return told


def _patches(model: Model, taken: Source, view: Size | None) -> int:
    """Patches of one draw, of a model without draws all; cells that a mask may leave out are counted."""
    if model.patch is None or model.grid is None:
        return 0
    cells = math.prod(model.grid.shape(taken.size if view is None else view))
    return min(model.patches, cells) if model.patches else cells
