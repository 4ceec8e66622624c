"""Masks of images: a picture of where to look, or polygons around it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from foveate.errors import ImageError
from foveate.images.area import Region
from foveate.images.header import CacheKey, Header
from foveate.images.io.local import file_stamp
from foveate.images.io.open import open_bytes
from foveate.images.open import open_image
from foveate.images.source import Source
from foveate.images.wrappers.base import PixelWrapper, Unchanged
from foveate.types import Size

FINER = 4
"""Polygons are drawn so many times finer than a view's cells, of which half must be inside."""

MOST_STRETCH = 0.02
"""Height over width of a mask may differ from its image's by so much: each was rounded to whole pixels."""

Ring = Shaped[np.ndarray, "point 2"]
"""Corners of a polygon's outline, row and column in level-0 pixels."""


class Masked(Unchanged):
    """Masked image: the attention looks where the mask says; pixels stay as they are.

    Arguments:
        source: the image.
        mask: an image of the same shape and any size, other than 0 where to look; or a GeoJSON file of polygons around
            where to look, x and y in level-0 pixels from the top left corner, as QuPath exports them. It is read when
            it is first asked for.
    """

    _left_behind = ("_picture", "_polygons")

    def __init__(self, source: Source, mask: Path | str) -> None:
        super().__init__(source)
        self.mask = str(mask)
        self._picture: Source | None = None
        self._polygons: list[list[Ring]] | None = None

    def cache_key(self) -> CacheKey | None:
        """Cache key: the image's, and the mask's file."""
        inner, mask = self.source.cache_key(), file_stamp(self.mask)
        return None if inner is None or mask is None else ("Masked", mask, inner)

    def valid(self, size: Size, region: Region | None = None) -> Bool[np.ndarray, "rows columns"]:
        """Validity mask of a view: cells of which the mask, and the image itself, allow a half or more.

        Arguments:
            size: (rows, columns) of the view.
            region: as in `view`.

        Raises:
            ImageError: if the mask is missing, broken, or has another shape than the image.
        """
        height, width = self.size
        region = region or (0, 0, height, width)
        with self._lock:
            if self._picture is None and self._polygons is None:
                self._load()
        inside: np.ndarray
        if self._polygons is not None:
            inside = _drawn(self._polygons, size, region) & _within(size, region, self.size)
        else:
            assert self._picture is not None
            down, along = (theirs / ours for theirs, ours in zip(self._picture.size, self.size, strict=True))
            scaled = (region[0] * down, region[1] * along, region[2] * down, region[3] * along)
            inside = self._picture.view(size, scaled)[:, :, 0] >= 0.5
        own = self.source.valid(size, region)
        both: np.ndarray = inside if own is None else inside & own
        return both

    def guide(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns"] | None:
        """Attention guide of a view: −inf where the mask, or the image itself, says no."""
        return Source.guide(self, size, region)

    def _load(self) -> None:
        if _is_json(self.mask):
            self._polygons = _read_polygons(self.mask)
            return
        picture = open_image(self.mask)
        (rows, columns), (height, width) = picture.size, self.size
        slack = MOST_STRETCH + 1 / min(rows, columns)
        if abs(rows * width / (columns * height) - 1) > slack:
            raise ImageError(
                f"{self.mask}: a mask must have the shape of its image, got {rows}×{columns} for {height}×{width} of "
                f"{self._label()}: export it over the whole image"
            )
        self._picture = _Nonzero(picture)


class _Nonzero(PixelWrapper):
    """Mask of a picture: 1 where any of its bands is not 0."""

    def _measure(self) -> Header:
        original = self.source.header
        return Header(original.levels[:1], 1, np.dtype(np.bool_))

    def _change(self, pixels: Shaped[np.ndarray, "height width band"]) -> Bool[np.ndarray, "height width channel"]:
        marked: np.ndarray = (pixels != 0).any(2, keepdims=True)
        return marked


def _is_json(path: str) -> bool:
    return open_bytes(path).read(0, 64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def _read_polygons(path: str) -> list[list[Ring]]:
    """Polygons of a GeoJSON file, each the rings of its outline and of its holes."""
    file = open_bytes(path)
    try:
        content = json.loads(file.read(0, file.size).decode("utf-8-sig"))
        polygons = [rings for geometry in _geometries(content) for rings in _polygons_of(geometry)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ImageError(f"{path}: not a GeoJSON file of polygons ({error}): export annotations as GeoJSON") from error
    if not polygons:
        raise ImageError(f"{path}: no polygon in it: draw one around where to look, or take the mask away")
    return polygons


def _geometries(content: Any) -> list[Any]:
    if isinstance(content, list):
        return [geometry for one in content for geometry in _geometries(one)]
    kind = content["type"]
    if kind == "FeatureCollection":
        return _geometries(content["features"])
    if kind == "Feature":
        return [] if content["geometry"] is None else _geometries(content["geometry"])
    return _geometries(content["geometries"]) if kind == "GeometryCollection" else [content]


def _polygons_of(geometry: Any) -> list[list[Ring]]:
    several = {"Polygon": [geometry.get("coordinates")], "MultiPolygon": geometry.get("coordinates")}
    polygons = several.get(geometry["type"]) or []  # points and lines enclose nothing
    return [[_ring(ring) for ring in polygon] for polygon in polygons]


def _ring(points: Any) -> Ring:
    ring = np.array([(float(point[1]), float(point[0])) for point in points])
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"a ring of {len(ring)} points")
    return ring


def _drawn(polygons: list[list[Ring]], size: Size, region: Region) -> Bool[np.ndarray, "rows columns"]:
    """Which cells of a view are inside one of the polygons by half or more."""
    from PIL import Image, ImageDraw

    rows, columns = size[0] * FINER, size[1] * FINER
    scale = np.array([rows / (region[2] - region[0]), columns / (region[3] - region[1])])
    inside = np.zeros((rows, columns), np.bool_)
    for outline, *holes in polygons:
        picture = Image.new("1", (columns, rows))
        pen = ImageDraw.Draw(picture)
        for ring, colour in ((outline, 1), *((hole, 0) for hole in holes)):
            # Pillow's coordinates are those of pixels' centres
            corners = (ring - np.array(region[:2])) * scale - 0.5
            pen.polygon([(float(column), float(row)) for row, column in corners], fill=colour)
        inside |= np.asarray(picture)
    share: np.ndarray = inside.reshape(size[0], FINER, size[1], FINER).mean((1, 3))
    return share >= 0.5


def _within(size: Size, region: Region, image: Size) -> Bool[np.ndarray, "rows columns"]:
    """Which cells of a view have their centre inside the image."""
    axes = []
    for count, low, high, side in zip(size, region[:2], region[2:], image, strict=True):
        centres = low + (np.arange(count) + 0.5) * (high - low) / count
        axes.append((centres >= 0) & (centres < side))
    inside: np.ndarray = np.outer(*axes)
    return inside
