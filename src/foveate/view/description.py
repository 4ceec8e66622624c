"""JSON for the viewer page: what it is told of an image, in plain lists and numbers."""

from dataclasses import asdict
from typing import Any

from foveate.explain import Explanation
from foveate.explain.picture import Scale
from foveate.view.pyramid import OVERLAP, TILE, Pyramid


def image_json(seen: Explanation, scale: Scale | None, pyramid: Pyramid, mpp: float | None) -> dict[str, Any]:
    """JSON of an image and what a model saw in it; boxes are [top, left, height, width] in level-0 pixels of the file.

    Arguments:
        seen: what the model saw.
        scale: of the colours of its map, or None.
        pyramid: over the image.
        mpp: microns per level-0 pixel, or None.
    """
    answer, shown = seen.prediction, seen.shown_classes
    return {
        "path": seen.path,
        "size": list(seen.size),
        "mpp": mpp,
        "pyramid": {"tile": TILE, "overlap": OVERLAP, "first": pyramid.first, "last": pyramid.last},
        "predicted": answer.predicted,
        "probabilities": [
            {"name": name, "value": answer.probabilities[name], "predicted": name in seen.answers}
            for name in (seen.classes[k] for k in shown)
        ],
        "classes_left_out": len(seen.classes) - len(shown),
        "shown_class": shown.index(seen.shown_class),
        "draws": len(seen.probabilities),
        "drawn": seen.drawn,
        "patches": [
            {
                "draw": patch.draw,
                "box": [patch.box.top, patch.box.left, patch.box.height, patch.box.width],
                "attention": patch.attention,
                "weight": patch.weight,
                "adds": row,
            }
            for patch, row in zip(seen.patches, seen.shown_contributions.tolist(), strict=True)
        ],
        "map": _legend(seen, scale),
        "warnings": list(seen.warnings),
        "note": seen.note,
    }


def dzi(pyramid: Pyramid) -> str:
    """DZI, the description of a pyramid that every Deep Zoom viewer understands.

    Example:
        >>> dzi(Pyramid((300, 1000))).splitlines()[1]
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpeg" Overlap="1" TileSize="254">'
    """
    height, width = pyramid.size
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpeg" Overlap="{OVERLAP}" '
        f'TileSize="{TILE}">\n<Size Width="{width}" Height="{height}"/>\n</Image>\n'
    )


def _legend(seen: Explanation, scale: Scale | None) -> dict[str, Any] | None:
    """Legend: what the heatmap's colours mean; None where there is no map."""
    if seen.attention is None or scale is None:
        return None
    return {"cells": list(seen.attention.shape), "stops": scale.stops(), **asdict(scale)}
