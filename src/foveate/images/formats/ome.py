"""OME-Zarr metadata: axes, levels and scale as JSON, or the shape of a plain array, tells them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.errors import ImageError
from foveate.images.header import Georeference, Header, Pixels, kept_type
from foveate.images.scale import mean_side, ome_zarr_mpp
from foveate.types import Box, Level, Size

MOST_BANDS = 64
"""A plain array whose last axis is longer than this has its channels elsewhere, or lacks them."""


@dataclass(frozen=True)
class Picture:
    """Layout of an array as an image.

    Attributes:
        header: what is told of the image.
        axes: a letter for every axis of the arrays: y, x, c; any other one is read at index 0.
    """

    header: Header
    axes: str

    def selection(self, box: Box) -> tuple[slice | int, ...]:
        """The index into an array of all axes that takes out a box."""
        parts = {"y": slice(box.top, box.bottom), "x": slice(box.left, box.right), "c": slice(None)}
        return tuple(parts.get(axis, 0) for axis in self.axes)

    def tile(self, array: Any) -> Size:
        """(height, width) of the chunks of an array."""
        return int(array.chunks[self.axes.index("y")]), int(array.chunks[self.axes.index("x")])

    def keys(self, array: Any, tile: tuple[int, int]) -> list[str]:
        """Where a store keeps the chunks of a tile (row, column), or the shards that hold them."""
        stored, tiles = array.shards or array.chunks, dict(zip("yx", tile, strict=True))
        places = []
        for axis, length, chunk, whole in zip(self.axes, array.shape, array.chunks, stored, strict=True):
            first = tiles.get(axis, 0) * chunk // whole
            places.append(range(-(-length // whole)) if axis == "c" else range(first, first + 1))
        names = map(array.metadata.encode_chunk_key, itertools.product(*places))
        return [f"{array.path}/{name}" if array.path else name for name in names]

    def laid_out(self, part: Shaped[np.ndarray, "..."]) -> Pixels:
        """What was taken out, channels last."""
        left = [axis for axis in self.axes if axis in "yxc"]
        order = [left.index(axis) for axis in "yxc" if axis in left]
        turned = part.transpose(order)
        return turned if turned.ndim == 3 else turned[:, :, None]


@dataclass(frozen=True)
class Multiscale:
    """Multiscale metadata of an image, as its JSON tells them.

    Attributes:
        name: of the image, for errors.
        paths: of its arrays in the group.
        axes: a letter for every axis; "" if the JSON names none.
        scales: of every array, what its scale transformations multiply every axis with; () if there are none.
        units: of length along the axes, where they are told.
        bands: names of the channels.
        kind: what it is, in a few words.
        nodata: the value of pixels that mean nothing, where something tells one.
        meaning: other fields of the header that `foveate convert` has kept.
    """

    name: str
    paths: tuple[str, ...]
    axes: str
    scales: tuple[tuple[float, ...], ...]
    units: dict[str, str | None] = field(default_factory=dict)
    bands: tuple[str, ...] = ()
    kind: str = "OME-Zarr"
    nodata: float | None = None
    meaning: dict[str, Any] = field(default_factory=dict)

    def measured(self, arrays: Sequence[Any], inside: str = "") -> Picture:
        """The image of these arrays, finest first."""
        first = arrays[0]
        axes = self.axes or "tczyx"[-len(first.shape) :]
        for array in arrays:
            if len(array.shape) != len(axes) or 0 in array.shape or array.dtype != first.dtype:
                raise ImageError(
                    f"{self.name}: every level must have the axes {axes} and one type, got shape {tuple(array.shape)} "
                    f"of {array.dtype}: write the image again"
                )
        if axes.count("y") != 1 or axes.count("x") != 1 or len(set(axes)) != len(axes):
            raise ImageError(f"{self.name}: an image must have one axis y and one axis x, got {axes}: name its axes")
        if len({array.shape[axes.index("c")] for array in arrays if "c" in axes}) > 1:
            raise ImageError(f"{self.name}: every level must have the same channels: write the image again")
        down, along = axes.index("y"), axes.index("x")
        full = (first.shape[down], first.shape[along])
        levels = []
        for number, array in enumerate(arrays):
            size = (array.shape[down], array.shape[along])
            factor = tuple(self._factor(number, axis, full[i], size[i]) for i, axis in enumerate((down, along)))
            levels.append(Level(size, (factor[0], factor[1])))
        if any(one.size[0] < two.size[0] or one.size[1] < two.size[1] for one, two in itertools.pairwise(levels)):
            raise ImageError(f"{self.name}: levels must go from fine to coarse: write the image again")
        return Picture(self._header(self.kind + inside, axes, tuple(levels), first), axes)

    def _header(self, kind: str, axes: str, levels: tuple[Level, ...], array: Any) -> Header:
        shape, tile = (dict(zip(axes, sides, strict=True)) for sides in (array.shape, array.chunks))
        left = [f"{axis} = 0 of {length}" for axis, length in shape.items() if axis not in "yxc" and length > 1]
        stored: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")
        dtype = kept_type(stored, self.name)
        notes = [kind, *left, *([] if dtype == stored else [f"{stored} as {dtype}"])]
        channels, scale = shape.get("c", 1), dict(zip(axes, self.scales[0], strict=False))
        sides = ome_zarr_mpp([scale.get(axis, 0.0) for axis in "yx"], [self.units.get(axis) for axis in "yx"])
        bands = self.bands if len(self.bands) == channels else ()
        nodata = math.nan if self.nodata is None and _is_nan(array.fill_value) else self.nodata
        told = Header(
            levels, channels, dtype, ", ".join(notes), mean_side(sides), (tile["y"], tile["x"]), bands, nodata
        )
        return replace(told, pixel=sides, **self.meaning)

    def _factor(self, level: int, axis: int, full: int, size: int) -> float:
        """As the scale says, if a level so scaled has this size and reaches the border; else as the sizes say."""
        if all(len(scale) > axis for scale in (self.scales[0], self.scales[level])) and self.scales[0][axis] > 0:
            factor = self.scales[level][axis] / self.scales[0][axis]
            if factor > 0 and size - 1 < full / factor <= size + 1e-9:
                return factor
        return full / size


def group_pictures(attributes: dict[str, Any], name: str) -> Multiscale:
    """Multiscale metadata from the attributes of an OME-Zarr group; its first multiscale image counts.

    Raises:
        ImageError: there is none.
    """
    ome = attributes.get("ome", attributes)
    scenes = ome.get("multiscales") if isinstance(ome, dict) else None
    if not scenes:
        raise ImageError(f"{name}: a Zarr group with no multiscale image: name an image or an array inside it")
    scene = scenes[0]
    axes = [axis if isinstance(axis, str) else axis["name"] for axis in scene.get("axes", ())]
    units = {axis["name"]: axis.get("unit") for axis in scene.get("axes", ()) if isinstance(axis, dict)}
    letters = "".join(axis.lower() if len(axis) == 1 else "?" for axis in axes)
    common = _scale(scene)
    scales = [_product(_scale(dataset), common) for dataset in scene["datasets"]]
    labels = [channel.get("label") for channel in (ome.get("omero") or {}).get("channels", ())]
    return Multiscale(
        name,
        tuple(dataset["path"] for dataset in scene["datasets"]),
        letters,
        tuple(scales),
        units,
        tuple(str(label) for label in labels) if labels and all(labels) else (),
        f"OME-Zarr {ome.get('version') or scene.get('version') or ''}".strip(),
        _number((attributes.get("foveate") or {}).get("nodata")),
        _meaning(attributes.get("foveate") or {}),
    )


def _meaning(kept: dict[str, Any]) -> dict[str, Any]:
    """Fields of the header among what `foveate convert` kept."""
    found: dict[str, Any] = {}
    if kept.get("values"):
        found["values"] = tuple((float(scale), float(offset)) for scale, offset in kept["values"])
    where = kept.get("georeference")
    if where:
        a, b, c, d, e, f = map(float, where["transform"])
        points = tuple(
            (float(p[0]), float(p[1]), float(p[2]), float(p[3]), float(p[4])) for p in where.get("points", ())
        )
        found["georeference"] = Georeference(str(where["crs"]), (a, b, c, d, e, f), points)
    return found


def array_picture(array: Any, name: str) -> Picture:
    """Plain array as an image of one level.

    Raises:
        ImageError: it has another number of axes, or its channels are not last.
    """
    attributes = dict(array.attrs.asdict())
    named = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    names = [str(axis).lower() for axis in named or ()]
    short = {"height": "y", "width": "x", "row": "y", "column": "x", "channel": "c", "band": "c", "time": "t"}
    axes = "".join(axis if len(axis) == 1 else short.get(axis, "?") for axis in names)
    if not ("y" in axes and "x" in axes):
        axes = {2: "yx", 3: "yxc"}.get(len(array.shape), "")
        if not axes or (len(axes) == 3 and array.shape[2] > MOST_BANDS):
            raise ImageError(
                f"{name}: an array must be (height, width) or (height, width, channels), got shape "
                f"{tuple(array.shape)}: name its dimensions (dimension_names, e.g. c, y, x)"
            )
    nodata = _number(attributes.get("_FillValue"))
    return Multiscale(name, ("",), axes, ((),), kind="Zarr array", nodata=nodata).measured([array])


def _number(told: Any) -> float | None:
    """A number that JSON may hold as text, such as "nan"; None if it is none."""
    try:
        return None if told is None else float(told)
    except (TypeError, ValueError):
        return None


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _scale(described: dict[str, Any]) -> tuple[float, ...]:
    """The product of the scale transformations."""
    result: tuple[float, ...] = ()
    for change in described.get("coordinateTransformations") or ():
        if change.get("type") == "scale" and "scale" in change:
            result = _product(result, tuple(float(value) for value in change["scale"]))
    return result


def _product(one: tuple[float, ...], two: tuple[float, ...]) -> tuple[float, ...]:
    """Axis by axis; one without axes changes nothing."""
    if not one or not two:
        return one or two
    return tuple(a * b for a, b in zip(one, two, strict=True))
