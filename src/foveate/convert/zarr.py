"""OME-Zarr writer of pyramids."""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from foveate.convert.pyramid import Strip, level_sizes
from foveate.convert.settings import Conversion, stored_type
from foveate.errors import ImageError
from foveate.images.header import Header
from foveate.images.source import Source

RGB = ("FF0000", "00FF00", "0000FF")


def write_zarr(path: Path, source: Source, settings: Conversion, strips: Iterable[Strip]) -> None:
    """OME-Zarr pyramid of axes c, y, x; a chunk is a tile with all its channels.

    Source: OME-NGFF 0.4 (2022) and 0.5 (2024), multiscales and omero; what they have no word for (nodata, where on the
    earth the image lies) stands under "foveate".

    Arguments:
        path: of the folder, which is made.
        source: what it is made of, for its header.
        settings: resolved.
        strips: of all levels, as `pyramid.strips` gives them.

    Raises:
        ImageError: if zarr is not installed.
        OSError: it cannot be written.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImageError(f"{source.name or 'image'}: OME-Zarr needs zarr: pip install 'foveate[zarr]'") from error
    faults: list[Exception] = []
    store = _store(zarr, path, faults)
    try:
        arrays = _arrays(zarr, store, source, settings)
        for level, top, strip, data in strips:
            if faults:
                break
            if data is not None and not data.all():
                raise ImageError(
                    f"{source.name or 'image'}: OME-Zarr has no place for its mask, and no value of it means no data: "
                    "convert it to TIFF"
                )
            arrays[level][:, top : top + len(strip), :] = np.moveaxis(strip, 2, 0)
    except Exception:
        if not faults:
            raise
    if faults:
        raise faults[0]


def _store(zarr: Any, path: Path, faults: list[Exception]) -> Any:
    """Store of a folder that notes why writing fails and raises nothing.

    Of what zarr writes at once it would wait for nothing more after the first error: files would come after it.
    """

    class Noting(zarr.storage.WrapperStore):  # type: ignore[misc]
        async def set(self, key: str, value: Any) -> None:
            await self._noted(self._store.set, key, value)

        async def set_if_not_exists(self, key: str, default: Any) -> None:
            await self._noted(self._store.set_if_not_exists, key, default)

        async def _noted(self, write: Callable[[str, Any], Awaitable[None]], key: str, value: Any) -> None:
            try:
                if not faults:
                    await write(key, value)
            except Exception as error:
                faults.append(error)

    return Noting(zarr.storage.LocalStore(path))


def _arrays(zarr: Any, store: Any, source: Source, settings: Conversion) -> list[Any]:
    """Empty arrays of all levels."""
    new = settings.format == "ome-zarr-0.5"
    sizes = level_sizes(source.size, settings.tile)
    group = zarr.open_group(store=store, mode="w", zarr_format=3 if new else 2)
    group.attrs.update(attributes(source, len(sizes), new))
    return [
        group.create_array(
            str(level),
            shape=(source.channels, *size),
            chunks=(source.channels, settings.tile, settings.tile),
            dtype=stored_type(source.header),
            compressors=_compressors(settings, new),
            fill_value=0,
            config={"write_empty_chunks": True},  # a chunk left out would say that nothing is known there
            **(
                {"dimension_names": ["c", "y", "x"]}
                if new
                else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            ),
        )
        for level, size in enumerate(sizes)
    ]


def _compressors(settings: Conversion, new: bool) -> Any:
    if settings.compression == "none":
        return None
    if new:
        from zarr.codecs import GzipCodec, ZstdCodec

        return [GzipCodec(level=6) if settings.compression == "deflate" else ZstdCodec(level=5)]
    import numcodecs

    return [numcodecs.GZip(level=6) if settings.compression == "deflate" else numcodecs.Zstd(level=5)]


def attributes(source: Source, levels: int, new: bool) -> dict[str, Any]:
    """OME-Zarr metadata of the image.

    Arguments:
        source: the image.
        levels: how many there are; each of half the resolution of the one before.
        new: of version 0.5, else 0.4.
    """
    header = source.header
    unit = {} if source.pixel is None else {"unit": "micrometer"}
    height, width = source.pixel or (1.0, 1.0)
    multiscale = {
        "name": Path(source.name).name,
        "axes": [
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", **unit},
            {"name": "x", "type": "space", **unit},
        ],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": [1.0, height * 2**level, width * 2**level]}],
            }
            for level in range(levels)
        ],
        "type": "2×2 area average",
    }
    channels = _channels(header)
    told: dict[str, Any] = {"multiscales": [multiscale], **({"omero": {"channels": channels}} if channels else {})}
    own = _own(header)
    if new:
        return {"ome": {"version": "0.5", **told}, **own}
    multiscale["version"] = "0.4"
    return {**told, **own}


def _channels(header: Header) -> list[dict[str, Any]]:
    """Names and colours of the channels; none where there is nothing to tell."""
    top = {1: 255, 2: 65535}.get(header.dtype.itemsize, 1) if header.dtype.kind == "u" else 1
    window = {"min": 0, "max": top, "start": 0, "end": top}
    names = header.bands or (("red", "green", "blue") if header.channels == 3 else ())
    colours = RGB if header.channels == 3 else ("FFFFFF",) * header.channels
    return [
        {"label": name, "color": colour, "active": True, "window": window}
        for name, colour in zip(names, colours, strict=False)
    ]


def _own(header: Header) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if header.nodata is not None:
        own["nodata"] = header.nodata if np.isfinite(header.nodata) else str(header.nodata)
    if header.georeference is not None:
        where = header.georeference
        own["georeference"] = {"crs": where.crs, "transform": list(where.transform)}
        if where.points:
            own["georeference"]["points"] = [list(point) for point in where.points]
    if header.values:
        own["values"] = [list(pair) for pair in header.values]
    return {"foveate": own} if own else {}
