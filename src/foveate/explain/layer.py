"""Layer of predictions for maps: the footprint of every image that has a place on earth, with its answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.atomic import whole_file
from foveate.errors import FoveateError
from foveate.explain.export import ring
from foveate.explain.ground import in_degrees
from foveate.images.formats.library import library
from foveate.models.types import Prediction
from foveate.predict import Failure, Row
from foveate.types import Box


class Layer:
    """GeoJSON layer of predictions: a polygon in degrees of WGS84 for every image, as RFC 7946 wants it.

    It is called with every row, as `foveate.predict.predict_rows` calls its sinks, and reads headers alone.

    Arguments:
        classes: names of the classes.
        more: what else of a prediction is a property, e.g. "decision".

    Attributes:
        features: what has been said so far.
        nowhere: number of images that were predicted and have no place on earth.

    Raises:
        ImageError: rasterio is not installed.
    """

    def __init__(self, classes: Sequence[str], more: Sequence[str] = ()) -> None:
        library("rasterio.warp", "a layer for maps")
        self._classes, self._more = tuple(classes), tuple(more)
        self.features: list[dict[str, Any]] = []
        self.nowhere = 0

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:
        """Take in a prediction; what failed has none."""
        if isinstance(outcome, Failure):
            return
        try:
            header = row.open().header
        except FoveateError:  # it has gone since it was predicted
            self.nowhere += 1
            return
        where = header.georeference
        if where is None or not where.crs:
            self.nowhere += 1
            return
        size = header.levels[0].size
        footprint = in_degrees(where, outcome.path)(ring(Box(0, 0, *size), size))
        shares = {f"p_{name}": outcome.probabilities[name] for name in self._classes}
        told = {name: getattr(outcome, name) for name in self._more}
        own = {"path": outcome.path, "predicted": outcome.predicted, **shares, "patches": outcome.patches, **told}
        self.features.append({"type": "Feature", "geometry": footprint, "properties": own})

    def write(self, path: Path) -> str:
        """Write the layer, whole or not at all.

        Returns:
            A line that says what is in it.
        """
        text = json.dumps({"type": "FeatureCollection", "features": self.features}, ensure_ascii=False)
        with whole_file(path) as part:
            part.write_text(text + "\n", encoding="utf-8", errors="replace")
        without = f"; {self.nowhere} without a place on earth are not in it" if self.nowhere else ""
        return f"{len(self.features)} footprints in {path}{without}"
