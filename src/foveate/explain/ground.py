"""Ground under an image: from level-0 pixels to its reference system, and to degrees cut at the antimeridian."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from foveate.images import Georeference
from foveate.images.formats.library import library

LEAST_DEGREES = 1e-9
"""Parts of a polygon less wide are rounding."""

Point = tuple[float, float]
"""(x, y)."""

Placing = Callable[[Sequence[Point]], dict[str, Any]]
"""From a ring of points (x, y) in level-0 pixels to its geometry."""


def in_degrees(where: Georeference, name: str) -> Placing:
    """From rings in level-0 pixels to their geometry in degrees; arguments and errors as of `write_wgs84`."""
    warp, ground = library("rasterio.warp", name), on_ground(where, name)

    def on_earth(points: Sequence[Point]) -> dict[str, Any]:
        xs, ys = map(list, zip(*ground(points), strict=True))
        longitudes, latitudes = warp.transform(where.crs, "EPSG:4326", xs, ys)
        rings = cut(list(zip(longitudes, latitudes, strict=True)))
        if len(rings) == 1:
            return {"type": "Polygon", "coordinates": rings}
        return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}

    return on_earth


def on_ground(where: Georeference, name: str) -> Callable[[Sequence[Point]], list[Point]]:
    """From points (x, y) in level-0 pixels to the ground: by the transform, or between ground control points.

    Between control points it is a thin plate spline through all of them.

    Arguments:
        where: the place.
        name: of the image.
    """
    if not where.points:
        a, b, c, d, e, f = where.transform
        return lambda points: [(a * x + b * y + c, d * x + e * y + f) for x, y in points]
    transform, control = library("rasterio.transform", name), library("rasterio.control", name)
    known = [control.GroundControlPoint(*point) for point in where.points]

    def between(points: Sequence[Point]) -> list[Point]:
        columns, rows = map(list, zip(*points, strict=True))
        with transform.GCPTransformer(known, tps=True) as spline:
            xs, ys = spline.xy(rows, columns, offset="ul")
        return list(zip(xs, ys, strict=True))

    return between


def cut(ring: Sequence[Point]) -> list[list[Point]]:
    """Parts of a closed ring of degrees on either side of the antimeridian (RFC 7946, 3.1.9), counter-clockwise each.

    Neighbouring corners are less than half way round the earth from each other; a ring that goes all the way round a
    pole is led along it.

    Example:
        >>> cut([(179.0, 0.0), (-179.0, 0.0), (-179.0, 5.0), (179.0, 5.0), (179.0, 0.0)])[1]
        [(-180.0, 0.0), (-179.0, 0.0), (-179.0, 5.0), (-180.0, 5.0), (-180.0, 0.0)]
    """
    unrolled = [ring[0]]
    for longitude, latitude in ring[1:]:
        step = (longitude - unrolled[-1][0] + 180) % 360 - 180
        unrolled.append((unrolled[-1][0] + step, latitude))
    first, last = unrolled[0], unrolled[-1]
    if abs(last[0] - first[0]) > 180:  # the pole is inside
        pole = 90.0 if sum(y for _, y in unrolled) > 0 else -90.0
        unrolled += [(last[0], pole), (first[0], pole), first]
    area = sum(x * v - u * y for (x, y), (u, v) in pairwise(unrolled))
    corners = unrolled[:-1] if area > 0 else unrolled[:0:-1]
    west = min(x for x, _ in corners)
    turn = 360 * math.floor((west + 180) / 360)
    parts = []
    while west < max(x for x, _ in corners) - LEAST_DEGREES:
        some = _beyond(_beyond(corners, turn - 180.0, 1), turn + 180.0, -1)
        if some and max(x for x, _ in some) - min(x for x, _ in some) > LEAST_DEGREES:
            parts.append([(x - turn, y) for x, y in (*some, some[0])])
        west, turn = turn + 180.0, turn + 360
    return parts or [list(ring)]


def _beyond(corners: Sequence[Point], meridian: float, side: int) -> list[Point]:
    """What of a polygon lies east (1) or west (−1) of a meridian (Sutherland & Hodgman, 1974)."""
    kept: list[Point] = []
    for (x, y), (u, v) in zip(corners, (*corners[1:], *corners[:1]), strict=True):
        inside, follows = side * (x - meridian) >= 0, side * (u - meridian) >= 0
        if inside:
            kept.append((x, y))
        if inside != follows and meridian not in (x, u):
            kept.append((meridian, y + (v - y) * (meridian - x) / (u - x)))
    return kept
