"""Exports of an explanation: its record as JSON, its heatmap as arrays and GeoTIFF, its patches as GeoJSON."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from foveate.explain.explanation import Explanation, SeenPatch
from foveate.explain.ground import Placing, Point, in_degrees
from foveate.explain.picture import class_colour
from foveate.images import Georeference
from foveate.images.formats.library import library
from foveate.types import Affine, Box, Size

AFFINE = (
    "x = a*column + b*row + c, y = d*column + e*row + f; cell (row, column) covers [row, row+1) x [column, column+1)"
)
"""What the six numbers mean, in words that go into the files."""

NOWHERE = -1.0
"""No-data value of cells that may not be looked at; attention is never negative."""

HEALTH = ("findings", "cells", "effective_cells", "border_mass", "border_cells")
"""What a record says of the health of an attention map."""

MOST_DETECTIONS = 5_000
"""Cells of a heatmap as GeoJSON, at most."""


def write_record(path: Path, seen: Explanation, settings: dict[str, str]) -> None:
    """JSON record of all figures of an explanation.

    Arguments:
        path: file to write.
        seen: what it says.
        settings: how it was made, name → text.
    """
    path.write_text(
        json.dumps(_plain(seen) | {"made": settings}, indent=1, ensure_ascii=False) + "\n", "utf-8", "replace"
    )


def _plain(seen: Explanation) -> dict[str, Any]:
    prediction = seen.prediction
    draws = zip(seen.logits, seen.probabilities, strict=True)
    return {
        "path": seen.path,
        "predicted": prediction.predicted,
        "probabilities": prediction.probabilities,
        "truth": seen.truth,
        "classes": seen.classes,
        "size": seen.size,
        "patches": [_plain_patch(patch) for patch in seen.patches],
        "draws": [
            {"number": values[0]} if seen.numeric else {"logits": logits.tolist(), "probabilities": values.tolist()}
            for logits, values in draws
        ],
        "bias": None if seen.bias is None else seen.bias.tolist(),
        "unlisted": None if seen.rest is None else seen.rest.tolist(),
        "affine": seen.affine,
        "health": None if seen.health is None else {name: getattr(seen.health, name) for name in HEALTH},
        "warnings": seen.warnings,
        "note": seen.note,
        **({"number": prediction.value} if seen.numeric else {}),
        "what_if": [
            {
                "seed": seed,
                "predicted": other.predicted,
                "probabilities": other.probabilities,
                "boxes": [astuple(box) for box in other.boxes],
            }
            for seed, other in seen.others
        ],
    }


def _plain_patch(patch: SeenPatch) -> dict[str, Any]:
    """A patch in lists and numbers; of a model that zooms with what it looked at on the way."""
    told = {name: value for name, value in vars(patch).items() if name != "regions"} | {"box": astuple(patch.box)}
    return told | {"regions": [astuple(box) for box in patch.regions]} if patch.regions else told


def write_map(folder: Path, seen: Explanation) -> None:
    """Heatmap files: the attention map at its own resolution, `attention.npz`, and `attention.tif` of float32.

    The .npz file has attention (rows, columns), cell_mask, affine (a, b, c, d, e, f) from cells to level-0 pixels of
    the file, and size (height, width) of the image. The TIFF file has the same affine map in its description.

    Arguments:
        folder: where to write.
        seen: with an attention map.
    """
    import tifffile

    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.affine is not None
    np.savez_compressed(
        folder / "attention.npz",
        attention=seen.attention.astype(np.float32),
        cell_mask=seen.cell_mask,
        affine=np.array(seen.affine, np.float64),
        size=np.array(seen.size, np.int64),
    )
    description = json.dumps({"affine": seen.affine, "meaning": AFFINE, "size": seen.size})
    tifffile.imwrite(
        folder / "attention.tif",
        seen.attention.astype(np.float32),
        photometric="minisblack",
        description=description,
        metadata=None,
    )


def write_geotiff(path: Path, seen: Explanation, where: Georeference) -> None:
    """GeoTIFF of the heatmap: float32, one pixel per cell, with the image's reference system.

    Arguments:
        path: file to write.
        seen: with an attention map.
        where: where the image lies.

    Raises:
        ImageError: rasterio is not installed.
    """
    rasterio, control = library("rasterio", seen.path), library("rasterio.control", seen.path)
    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.affine is not None
    rows, columns = seen.attention.shape
    a, _, c, _, e, f = seen.affine  # a cell is a rectangle of pixels
    points = [control.GroundControlPoint((row - f) / e, (column - c) / a, *to) for row, column, *to in where.points]
    placed = {"gcps": points} if points else {"transform": rasterio.Affine(*compose(where.transform, seen.affine))}
    with rasterio.open(
        str(path),
        "w",
        driver="GTiff",
        height=rows,
        width=columns,
        count=1,
        dtype="float32",
        crs=rasterio.crs.CRS.from_user_input(where.crs) if where.crs else None,
        nodata=NOWHERE,
        compress="deflate",
        **placed,
    ) as dataset:
        dataset.write(np.where(seen.cell_mask, seen.attention, np.float32(NOWHERE)), 1)
        dataset.set_band_description(1, "attention")


def compose(outer: Affine, inner: Affine) -> Affine:
    """Affine map that applies `inner` first: from cells to pixels, and from there to the ground.

    Example:
        >>> compose((10.0, 0.0, 500.0, 0.0, -10.0, 900.0), (4.0, 0.0, 1.0, 0.0, 8.0, 2.0))
        (40.0, 0.0, 510.0, 0.0, -80.0, 880.0)
    """
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f


def write_geojson(path: Path, seen: Explanation) -> None:
    """GeoJSON of the patches: annotations that QuPath (0.4 and later) opens by dropping the file on the image.

    Coordinates are (x, y) in level-0 pixels from the top left corner, as QuPath's documentation, "Exporting
    annotations", says.

    Arguments:
        path: file to write.
        seen: whose patches.
    """
    path.write_text(json.dumps(feature_collection(seen), ensure_ascii=False) + "\n", encoding="utf-8")


def write_heatmap(path: Path, seen: Explanation) -> None:
    """GeoJSON of the heatmap: detections that QuPath (0.4 and later) colours by their measurements, a rectangle a cell.

    Of more than `MOST_DETECTIONS` cells that may be looked at, those with the most attention.
    """
    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.affine is not None
    a, _, c, _, e, f = seen.affine
    values = np.where(seen.cell_mask, seen.attention, NOWHERE)
    most = np.argsort(-values, axis=None, kind="stable")[: min(MOST_DETECTIONS, int(seen.cell_mask.sum()))]
    features = []
    for row, column in np.stack(np.unravel_index(most, values.shape), 1).tolist():
        top, left, bottom, right = (
            round(one) for one in (f + e * row, c + a * column, f + e * row + e, c + a * column + a)
        )
        told = {"objectType": "detection", "measurements": {"attention": float(values[row, column])}}
        corners = ring(Box(top, left, bottom - top, right - left), seen.size)
        features.append({"type": "Feature", "geometry": polygon(corners), "properties": told})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}) + "\n", encoding="utf-8")


def polygon(points: Sequence[Point]) -> dict[str, Any]:
    """GeoJSON geometry of a closed ring."""
    return {"type": "Polygon", "coordinates": [list(points)]}


def feature_collection(seen: Explanation, place: Placing = polygon) -> dict[str, Any]:
    """GeoJSON object (RFC 7946) of the patches: a closed ring each, cut at the border of the image.

    Each is of the class that it speaks for most; its attention, its weight and what it adds to every class are its
    measurements. They are locked, for they are what was seen.

    Arguments:
        seen: whose patches.
        place: from a ring in level-0 pixels to its geometry.
    """
    return {
        "type": "FeatureCollection",
        "features": [_feature(seen, number, patch, place) for number, patch in enumerate(seen.patches)]
        + [_region(seen, number, box, place) for number, box in enumerate(seen.regions)],
    }


def ring(box: Box, size: Size) -> list[Point]:
    """Corners (x, y) of what of a box lies in the image, the first one again at the end; counter-clockwise as seen.

    Example:
        >>> ring(Box(-5, 10, 20, 30), (100, 35))
        [(10, 0), (10, 15), (35, 15), (35, 0), (10, 0)]
    """
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, size[0]), min(box.right, size[1])
    return [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]


def _feature(seen: Explanation, number: int, patch: SeenPatch, place: Placing) -> dict[str, Any]:
    spoken_for = max(range(len(seen.classes)), key=patch.contributions.__getitem__)
    named = zip(seen.classes, patch.contributions, strict=True)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"foveate:{seen.path!a}:{number}:{patch.box}")),
        "geometry": place(ring(patch.box, seen.size)),
        "properties": {
            "objectType": "annotation",
            "name": f"draw {patch.draw + 1}, patch {number + 1}",
            "classification": {"name": seen.classes[spoken_for], "color": list(class_colour(spoken_for))},
            "isLocked": True,
            "measurements": {
                "attention": patch.attention,
                "weight": patch.weight,
                **{f"contribution to {name}": value for name, value in named},
            },
        },
    }


def _region(seen: Explanation, number: int, box: Box, place: Placing) -> dict[str, Any]:
    """A region that a model that zooms looked at on the way to its patches."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"foveate:{seen.path!a}:region:{number}:{box}")),
        "geometry": place(ring(box, seen.size)),
        "properties": {"objectType": "annotation", "name": f"region {number + 1}", "isLocked": True},
    }


def write_wgs84(path: Path, seen: Explanation, where: Georeference) -> None:
    """GeoJSON of the patches in degrees, (longitude, latitude) of WGS84, as RFC 7946 wants it.

    Corners are carried over and joined by straight lines; rings run counter-clockwise, and those that cross the
    antimeridian are cut there.

    Arguments:
        path: file to write.
        seen: whose patches.
        where: where the image lies; its reference system must be known.

    Raises:
        ImageError: rasterio is not installed.
    """
    collection = feature_collection(seen, in_degrees(where, seen.path))
    path.write_text(json.dumps(collection, ensure_ascii=False) + "\n", encoding="utf-8")
