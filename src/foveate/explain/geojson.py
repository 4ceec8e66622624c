"""Patches as GeoJSON: for QuPath in pixels of the image, for maps in degrees."""

import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foveate.explain.colours import class_colour
from foveate.explain.explanation import Explanation, SeenPatch
from foveate.types import Box, Size

__all__ = ["feature_collection", "ring", "write_geojson"]

Point = tuple[float, float]
"""(x, y)."""


def write_geojson(path: Path, seen: Explanation) -> None:
    """Write the patches as annotations that QuPath (0.4 and later) opens by dropping the file on the image.

    Coordinates are (x, y) in level-0 pixels from the top left corner, as QuPath's documentation, "Exporting
    annotations", says.

    Arguments:
        path: file to write.
        seen: whose patches.
    """
    path.write_text(json.dumps(feature_collection(seen), ensure_ascii=False) + "\n", encoding="utf-8")


def feature_collection(seen: Explanation, place: Callable[[Sequence[Point]], list[Point]] = list) -> dict[str, Any]:
    """The patches as a GeoJSON object (RFC 7946): a closed ring each, cut at the border of the image.

    Each is of the class that it speaks for most; its attention, its weight and what it adds to every class are its
    measurements. They are locked, for they are what was seen.

    Arguments:
        seen: whose patches.
        place: from points (x, y) in level-0 pixels to where they go.
    """
    return {
        "type": "FeatureCollection",
        "features": [_feature(seen, number, patch, place) for number, patch in enumerate(seen.patches)],
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


def _feature(
    seen: Explanation, number: int, patch: SeenPatch, place: Callable[[Sequence[Point]], list[Point]]
) -> dict[str, Any]:
    spoken_for = max(range(len(seen.classes)), key=patch.contributions.__getitem__)
    named = zip(seen.classes, patch.contributions, strict=True)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"foveate:{seen.path!a}:{number}:{patch.box}")),
        "geometry": {"type": "Polygon", "coordinates": [place(ring(patch.box, seen.size))]},
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
