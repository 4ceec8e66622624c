"""TIFF writer of pyramids: one BigTIFF of tiled pages, the finest first, the others marked as reduced."""

import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from jaxtyping import Shaped

from foveate.convert.pyramid import Strip, level_sizes
from foveate.convert.settings import Conversion, is_colour, stored_type
from foveate.errors import ImageError
from foveate.images.formats.tiff.colours import TRANSPARENCY
from foveate.images.formats.tiff.directory import GDAL_METADATA, GDAL_NODATA, GEO_TAGS
from foveate.images.header import Georeference, Header, Sides
from foveate.images.source import Source
from foveate.threads import in_threads, reading_threads
from foveate.types import Size

ExtraTag = tuple[int, int, int, Any, bool]
"""Number, type, count (0: as many as there are), value, and whether it is written once only: as tifffile wants it."""

ASCII = 2

FULL_COLOUR = 90
"""Quality of JPEG from which colours are kept at full resolution."""

PREDICTED = ("deflate", "zstd", "lzw")
"""Compressions that code differences between neighbours: TIFF 6.0, section 14, and Adobe's floating-point predictor."""


def write_tiff(path: Path, source: Source, settings: Conversion, strips: Iterable[Strip]) -> None:
    """TIFF pyramid; tiles of coarser levels wait in a temporary file until those of level 0 are written.

    Missing data that no value tells becomes a mask page of every level.

    Source: TIFF 6.0 (1992), section 15, tiled images; section 8, NewSubfileType; Adobe Photoshop TIFF notes, deflate.

    Arguments:
        path: of the file, which is made.
        source: what it is made of, for its header.
        settings: resolved.
        strips: of all levels, as `pyramid.strips` gives them.

    Raises:
        OSError: it cannot be written.
    """
    from tifffile import TiffWriter

    sizes = level_sizes(source.size, settings.tile)
    encode = _encoder(settings, stored_type(source.header), source.channels)
    with (
        tempfile.TemporaryFile(dir=path.parent, prefix=".foveate-") as waiting,
        tempfile.TemporaryFile(dir=path.parent, prefix=".foveate-") as aside,
        path.open("wb") as file,
        TiffWriter(file, bigtiff=True) as tiff,
    ):
        kept, masks, gaps = _Waiting(waiting, len(sizes)), _Waiting(aside, len(sizes)), False

        def finest() -> Iterator[bytes]:
            nonlocal gaps
            for level, _, strip, data in strips:
                if data is not None:
                    gaps = gaps or not data.all()
                    masks.add(level, map(_packed, _tiles(data, settings.tile)))
                encoded = in_threads(encode, _tiles(strip, settings.tile), reading_threads())
                if level == 0:
                    yield from encoded
                else:
                    kept.add(level, encoded)

        for level, size in enumerate(sizes):
            # a chain, for tifffile closes generators that it has had enough of
            tiles = chain(finest() if level == 0 else kept.tiles(level))
            tiff.write(
                tiles,
                **_page(source, settings, size),
                subfiletype=0 if level == 0 else 1,
                **_resolution(source.pixel, float(2**level)),
                extratags=_meaning_tags(source.header, source.name) if level == 0 else [],
                software="foveate",
                metadata=None,
            )
            for _ in tiles:  # what follows the last tile of level 0: the ends of the other levels
                pass
        for level, size in enumerate(sizes if gaps else ()):
            tiff.write(
                masks.tiles(level),
                shape=size,
                dtype=np.bool_,
                tile=(settings.tile, settings.tile),
                compression="adobe_deflate",
                photometric=TRANSPARENCY,
                subfiletype=4 if level == 0 else 5,
                software="foveate",
                metadata=None,
            )


def _packed(tile: Shaped[np.ndarray, "side side 1"]) -> bytes:
    """A tile of a mask, a bit a pixel."""
    return zlib.compress(np.packbits(tile[:, :, 0], axis=1).tobytes())


class _Waiting:
    """Encoded tiles in a temporary file, in order of arrival."""

    def __init__(self, file: IO[bytes], levels: int) -> None:
        self._file = file
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(levels)]
        self._end = 0

    def add(self, level: int, tiles: Iterable[bytes]) -> None:
        self._file.seek(self._end)
        for tile in tiles:
            self._file.write(tile)
            self._places[level].append((self._end, len(tile)))
            self._end += len(tile)

    def tiles(self, level: int) -> Iterator[bytes]:
        for offset, length in self._places[level]:
            self._file.seek(offset)
            yield self._file.read(length)


def _resolution(pixel: Sides | None, factor: float) -> dict[str, Any]:
    """Resolution tags, along and down, as tifffile wants them, of a level so many times coarser."""
    if pixel is None:
        return {}
    height, width = pixel
    return {"resolution": (10_000 / (width * factor), 10_000 / (height * factor)), "resolutionunit": "CENTIMETER"}


def _meaning_tags(header: Header, name: str) -> list[ExtraTag]:
    """GDAL tags: bands and nodata as GDAL writes them, and the georeference as GeoTIFF does."""
    tags: list[ExtraTag] = []
    told = [("description", number, band) for number, band in enumerate(header.bands)]
    for number, (scale, offset) in enumerate(header.values):
        told += [("scale", number, f"{scale:.17g}"), ("offset", number, f"{offset:.17g}")]
    if told:
        items = "".join(
            f'<Item name="{role.upper()}" sample={quoteattr(str(number))} role="{role}">{escape(text)}</Item>'
            for role, number, text in told
        )
        tags.append((GDAL_METADATA, ASCII, 0, f"<GDALMetadata>{items}</GDALMetadata>", True))
    if header.nodata is not None:
        tags.append((GDAL_NODATA, ASCII, 0, f"{header.nodata:.17g}", True))
    if header.georeference is not None:
        tags += _geotiff(header.georeference, name)
    return tags


def _geotiff(where: Georeference, name: str) -> list[ExtraTag]:
    """The tags that rasterio writes of a place; the keys are too many to be written by hand."""
    try:
        import rasterio
        import rasterio.control
    except ImportError as error:
        raise ImageError(f"{name}: to keep where on the earth it lies: pip install 'foveate[geo]'") from error
    import tifffile

    with rasterio.MemoryFile() as memory:
        profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
        crs = rasterio.crs.CRS.from_user_input(where.crs) if where.crs else None
        points = [rasterio.control.GroundControlPoint(*point) for point in where.points]
        how = {"gcps": points} if points else {"transform": rasterio.Affine(*where.transform)}
        with memory.open(**profile, crs=crs, **how) as one:
            one.write(np.zeros((1, 1, 1), np.uint8))
        with tifffile.TiffFile(BytesIO(memory.read())) as tiff:
            page = tiff.pages.first
            found = [page.tags.get(code) for code in GEO_TAGS]
            return [
                (tag.code, int(tag.dtype), 0 if isinstance(tag.value, str) else tag.count, tag.value, True)
                for tag in found
                if tag is not None
            ]


def _page(source: Source, settings: Conversion, size: Size) -> dict[str, Any]:
    """What tifffile is to be told of a level's pixels."""
    channels, dtype = source.channels, stored_type(source.header)
    colour = is_colour(source.header)
    jpeg, kind = settings.compression == "jpeg", "adobe_deflate" if settings.compression == "deflate" else None
    return {
        "shape": size if channels == 1 else (*size, channels),
        "dtype": dtype.newbyteorder("<"),
        "tile": (settings.tile, settings.tile),
        "compression": kind or (None if settings.compression == "none" else settings.compression),
        "predictor": settings.compression in PREDICTED,
        "photometric": "rgb" if colour or (jpeg and channels == 3) else "minisblack",
        "planarconfig": None if channels == 1 else "contig",
        "extrasamples": None if channels == 1 or colour or jpeg else ["unspecified"] * (channels - 1),
        "subsampling": _subsampling(settings) if jpeg and channels == 3 else None,
    }


def _subsampling(settings: Conversion) -> tuple[int, int]:
    return (1, 1) if settings.quality >= FULL_COLOUR else (2, 2)


def _tiles(
    strip: Shaped[np.ndarray, "rows width channel"], side: int
) -> Iterator[Shaped[np.ndarray, "side side channel"]]:
    """The tiles of a row; beyond the border the last pixels are repeated, which compresses well and does not ring."""
    for left in range(0, strip.shape[1], side):
        tile = strip[:, left : left + side]
        missing = side - tile.shape[0], side - tile.shape[1]
        yield np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else tile


def _encoder(
    settings: Conversion, dtype: "np.dtype[np.generic]", channels: int
) -> Callable[[Shaped[np.ndarray, "side side channel"]], bytes]:
    import imagecodecs

    if settings.compression == "jpeg":
        colours: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": _subsampling(settings)}
        more: dict[str, Any] = colours if channels == 3 else {}

        def encode_jpeg(tile: Shaped[np.ndarray, "side side channel"]) -> bytes:
            plain = np.ascontiguousarray(tile if channels == 3 else tile[:, :, 0])
            return bytes(imagecodecs.jpeg8_encode(plain, level=settings.quality, **more))

        return encode_jpeg
    little = dtype.newbyteorder("<")
    if settings.compression == "none":
        return lambda tile: tile.astype(little, copy=False).tobytes()
    differences: Callable[..., Any] = imagecodecs.floatpred_encode if dtype.kind == "f" else imagecodecs.delta_encode
    squeeze: Callable[[Any], bytes | bytearray] = {
        "deflate": lambda data: imagecodecs.zlib_encode(data, level=6),
        "zstd": lambda data: imagecodecs.zstd_encode(data, level=9),
        "lzw": imagecodecs.lzw_encode,
    }[str(settings.compression)]

    def encode(tile: Shaped[np.ndarray, "side side channel"]) -> bytes:
        plain = np.ascontiguousarray(tile, little)
        return bytes(squeeze(differences(plain, axis=-2)))

    return encode
