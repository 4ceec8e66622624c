"""OME-Zarr images, written as their specification says."""

from pathlib import Path
from typing import Any

import numpy as np

UNITS = {"y": "micrometer", "x": "micrometer"}


def write_zarr(
    path: Path,
    arrays: list[np.ndarray],
    axes: str = "tczyx",
    version: str = "0.5",
    scales: list[float] | None = None,
    units: dict[str, str] | None = None,
    shards: bool = False,
    omero: dict[str, Any] | None = None,
) -> Path:
    """The arrays (height, width, channel) as an OME-Zarr image; of t and z there are two, the second one empty."""
    format_ = 3 if version == "0.5" else 2
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=format_)
    datasets = []
    for number, array in enumerate(arrays):
        lengths = {"y": array.shape[0], "x": array.shape[1], "c": array.shape[2], "t": 2, "z": 2}
        chunks = {"y": 32, "x": 24}
        more = {"shards": tuple(2 * chunks.get(axis, 1) for axis in axes)} if shards else {}
        target = group.create_array(
            str(number),
            shape=tuple(lengths[axis] for axis in axes),
            chunks=tuple(chunks.get(axis, 1) for axis in axes),
            dtype=array.dtype,
            **more,
        )
        order = [axis for axis in axes if axis in "yxc"]
        laid = array if "c" in axes else array[:, :, 0]
        laid = laid.transpose(["yxc".index(axis) for axis in order])
        target[tuple(0 if axis in "tz" else slice(None) for axis in axes)] = laid
        scale = [(scales[number] if scales else 0.25 * 2**number) if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in described:
        axis |= {"unit": (units or UNITS)[axis["name"]]} if axis["name"] in (units or UNITS) else {}
    scene = {"axes": described, "datasets": datasets, "name": "scene"}
    ome = {"multiscales": [scene | ({} if version == "0.5" else {"version": version})]}
    ome |= {} if omero is None else {"omero": omero}
    group.attrs.update({"ome": ome | {"version": version}} if version == "0.5" else ome)
    return path
