"""Maps and patches on the earth, for images that say where they lie."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from foveate.explain.explanation import Explanation
from foveate.explain.geojson import Point, feature_collection
from foveate.images import Georeference
from foveate.images.formats.optional import library
from foveate.types import Affine

__all__ = ["compose", "write_geotiff", "write_wgs84"]

NOWHERE = -1.0
"""No-data value of cells that may not be looked at; attention is never negative."""


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine map that applies `inner` first: from cells to pixels, and from there to the ground.

    Example:
        >>> compose((10.0, 0.0, 500.0, 0.0, -10.0, 900.0), (4.0, 0.0, 1.0, 0.0, 8.0, 2.0))
        (40.0, 0.0, 510.0, 0.0, -80.0, 880.0)
    """
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f


def write_geotiff(path: Path, seen: Explanation, where: Georeference) -> None:
    """Write the attention map as a float32 GeoTIFF of one pixel per cell, with the image's reference system.

    Arguments:
        path: file to write.
        seen: with an attention map.
        where: where the image lies.

    Raises:
        ImageError: rasterio is not installed.
    """
    rasterio = library("rasterio", seen.path)
    assert seen.attention is not None
    assert seen.cell_mask is not None
    assert seen.affine is not None
    rows, columns = seen.attention.shape
    with rasterio.open(
        str(path),
        "w",
        driver="GTiff",
        height=rows,
        width=columns,
        count=1,
        dtype="float32",
        crs=where.crs or None,
        transform=rasterio.Affine(*compose(where.transform, seen.affine)),
        nodata=NOWHERE,
        compress="deflate",
    ) as dataset:
        dataset.write(np.where(seen.cell_mask, seen.attention, np.float32(NOWHERE)), 1)
        dataset.set_band_description(1, "attention")


def write_wgs84(path: Path, seen: Explanation, where: Georeference) -> None:
    """Write the patches as GeoJSON in degrees, (longitude, latitude) of WGS84, as RFC 7946 wants it.

    Corners are carried over and joined by straight lines, and rings run counter-clockwise.

    Arguments:
        path: file to write.
        seen: whose patches.
        where: where the image lies; its reference system must be known.

    Raises:
        ImageError: rasterio is not installed.
    """
    warp = library("rasterio.warp", seen.path)
    a, b, c, d, e, f = where.transform

    def on_earth(points: Sequence[Point]) -> list[Point]:
        ground = [(a * x + b * y + c, d * x + e * y + f) for x, y in points]
        longitudes, latitudes = warp.transform(where.crs, "EPSG:4326", *map(list, zip(*ground, strict=True)))
        ring = list(zip(longitudes, latitudes, strict=True))
        area = sum(x * v - u * y for (x, y), (u, v) in pairwise(ring))
        return ring if area > 0 else ring[::-1]

    path.write_text(json.dumps(feature_collection(seen, on_earth), ensure_ascii=False) + "\n", encoding="utf-8")
