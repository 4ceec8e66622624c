"""Place on earth (georeference), as rasterio reads it of a data set, of TIFF tags, and of files beside an image."""

import html
import math
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from foveate.errors import ImageError
from foveate.images.formats.library import installed, library
from foveate.images.formats.tiff.directory import GDAL_METADATA, GDAL_NODATA, GEO_TAGS, RPC, Directory
from foveate.images.header import Georeference, Header, Sides
from foveate.images.scale import mean_side, projected_mpp
from foveate.types import Affine

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

ASCII, SHORT, DOUBLE = 2, 3, 12

RPC_WORDS = "rational polynomial coefficients (RPC)"

NEEDS_RASTERIO = "its place on earth (pip install 'foveate[geo]')"

PLACE_IN_XML = (b"<SRS", b"<GeoTransform", b"<GCPList", b"<NoDataValue")
"""What GDAL's .aux.xml has if it says more of an image than the statistics of its pixels."""

IN_JPEG_2000 = (bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"), b"gml.root-instance")
"""What a JPEG 2000 file with a place on earth has in it: the identifier of GeoJP2's box, the name of GMLJP2's."""

MOST_XML = 2**22

_OPENING = threading.Lock()
"""Warnings are switched off for the whole process, so one file is opened at a time."""


@contextmanager
def quietly(rasterio: Any) -> Iterator[None]:
    """Opening without a warning that a file has no place on earth: most have none."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def georeference(dataset: Any) -> Georeference | None:
    """Place of a data set of rasterio: its reference system, its transform or its ground control points."""
    a, b, c, d, e, f = (float(value) for value in tuple(dataset.transform)[:6])
    found, theirs = dataset.gcps
    points = tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0)) for p in found)
    crs = dataset.crs or theirs
    if crs is None and not points and (a, b, c, d, e, f) == IDENTITY:
        return None
    return Georeference("" if crs is None else crs.to_wkt(), (a, b, c, d, e, f), points)


def ground_sides(dataset: Any) -> Sides | None:
    """(height, width) of a pixel in microns on the ground; None where the reference system has no unit of length."""
    if dataset.crs is None or not dataset.crs.is_projected:
        return None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    transform: Affine = (a, b, c, d, e, f)
    return projected_mpp(transform, float(dataset.crs.linear_units_factor[1]))


def placed_by_tags(page: Directory, name: str) -> tuple[Georeference | None, Sides | None, tuple[str, ...]]:
    """Place that the tags of a TIFF page tell, as GDAL reads them: near and far alike.

    Arguments:
        page: of the highest resolution.
        name: of the file.

    Returns:
        The place, the sides of a pixel on the ground in microns, and what is not used, in words.
    """
    unused = (RPC_WORDS,) if RPC in page.tags else ()
    if not any(tag in page.values for tag in GEO_TAGS):
        return None, None, unused
    if not installed("rasterio"):
        return None, None, (NEEDS_RASTERIO, *unused)
    import tifffile

    rasterio = library("rasterio", name)
    tags = []
    for tag in GEO_TAGS:
        if tag in page.values:
            kind = ASCII if tag == GEO_TAGS[-1] else SHORT if tag == GEO_TAGS[3] else DOUBLE
            value: Any = page.text(tag) if kind == ASCII else page.numbers(tag)
            value = value if kind != SHORT else tuple(map(int, value))
            tags.append((tag, kind, 0 if kind == ASCII else len(value), value, True))
    file = BytesIO()  # the same tags on a single pixel: what they mean is GDAL's to say
    tifffile.imwrite(file, shape=(1, 1), dtype="uint8", photometric="minisblack", metadata=None, extratags=tags)
    try:
        with rasterio.MemoryFile(file.getvalue()) as memory, quietly(rasterio), memory.open() as dataset:
            return georeference(dataset), ground_sides(dataset), unused
    except rasterio.errors.RasterioError:
        return None, None, ("its place on earth, which GDAL cannot make out", *unused)


def told_by_tags(header: Header, page: Directory, name: str) -> Header:
    """Header of a TIFF, and what the tags that GDAL knows tell beside it: place, names and meaning of bands.

    Arguments:
        header: what else is known.
        page: of the highest resolution.
        name: of the file.
    """
    where, sides, unused = placed_by_tags(page, name)
    bands, values = told_of_bands(page, header.channels)
    told = page.text(GDAL_NODATA)
    if told and header.nodata is None:
        unused = (f"no-data value {told}, which no {header.dtype} has", *unused)
    known = header if sides is None else replace(header, mpp=mean_side(sides), pixel=sides)
    return replace(known, georeference=where, bands=bands, values=values, unused=(*header.unused, *unused))


def told_of_bands(page: Directory, count: int) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...]]:
    """Names, scales and offsets of bands in GDAL's tag of metadata: an XML text of items.

    Arguments:
        page: of the highest resolution.
        count: of the bands.

    Returns:
        As `named` and `scaled` give them.
    """
    texts: dict[tuple[str, int], str] = {}
    for attributes, text in re.findall(r"<Item\b([^>]*)>([^<]*)</Item>", page.text(GDAL_METADATA)):
        said = {key: html.unescape(value) for key, _, value in re.findall(r"(\w+)\s*=\s*(['\"])(.*?)\2", attributes)}
        if said.get("sample", "").isdecimal():
            texts[said.get("role", ""), int(said["sample"])] = html.unescape(text)
    names = [texts.get(("description", band)) for band in range(count)]
    scales, offsets = (
        [_number(texts.get((role, i)), x) for i in range(count)] for role, x in (("scale", 1.0), ("offset", 0.0))
    )
    return named(names), scaled(scales, offsets)


def named(names: Sequence[str | None]) -> tuple[str, ...]:
    """Names of bands, of which only some may have one; () if none has."""
    return tuple(name or f"band {i}" for i, name in enumerate(names, 1)) if any(names) else ()


def scaled(scales: Sequence[float], offsets: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """(scale, offset) of every band; () if all are (1, 0)."""
    pairs = tuple((float(scale), float(offset)) for scale, offset in zip(scales, offsets, strict=True))
    return pairs if any(pair != (1.0, 0.0) for pair in pairs) else ()


def _number(text: str | None, default: float) -> float:
    try:
        value = default if text is None else float(text.replace(",", "."))
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def tells_place(xml: Path) -> bool:
    """Whether GDAL's .aux.xml beside an image has more of it than statistics of its pixels."""
    try:
        with xml.open("rb") as file:
            text = file.read(MOST_XML)
    except OSError:
        return False
    return any(word in text for word in PLACE_IN_XML)


def holds_place(path: Path) -> bool:
    """Whether a JPEG 2000 file, by its name, has a place on earth in it: GeoJP2, or GML (GMLJP2)."""
    if path.suffix.lower() not in (".jp2", ".j2k", ".jpx"):
        return False
    with path.open("rb") as file:
        head = file.read(2**16)
    return any(mark in head for mark in IN_JPEG_2000)


def told_beside(header: Header, path: Path, told: Path, upright: bool | None, by_gdal: bool) -> dict[str, Any]:
    """What files beside an image tell: fields of its header, the place and what is not used.

    Arguments:
        header: what is known without them.
        path: of the image.
        told: what lies beside it, or the image itself.
        upright: whether its pixels lie as they are stored, for the place is that of what is stored; None of a TIFF.
        by_gdal: whether GDAL has read the image, and what lies beside it with it.
    """
    where, unused = header.georeference, header.unused
    what = "its place on earth" if told == path else f"{told.name} beside it"
    if not by_gdal and not installed("rasterio"):
        unused = (*unused, f"{what} (pip install 'foveate[geo]')")
    elif upright is None and not by_gdal:
        unused = (*unused, what)
    elif upright is False:
        unused = (*unused, f"{what}, for the image is turned by its EXIF orientation")
    elif not by_gdal:
        where, more = _by_gdal(path, told)
        unused = (*unused, *more)
    return {"georeference": where, "unused": (*unused, *unused_beside(path, where))}


def _by_gdal(path: Path, told: Path) -> tuple[Georeference | None, tuple[str, ...]]:
    """Place of an image whose pixels another reader reads, and what GDAL would use of a file beside it."""
    rasterio = library("rasterio", str(path))
    try:
        with quietly(rasterio), rasterio.open(str(path)) as dataset:
            gone = any(value is not None for value in dataset.nodatavals)
            return georeference(dataset), (f"the value of no data in {told.name}",) if gone else ()
    except (rasterio.errors.RasterioError, ImageError):
        return None, (f"{told.name} beside it, which GDAL cannot make out",)


def unused_beside(path: Path, where: Georeference | None) -> tuple[str, ...]:
    """What beside an image GDAL makes nothing of: the .prj of one whose reference system nothing else tells."""
    prj = path.with_suffix(".prj")
    return (f"{prj.name} beside it",) if (where is None or not where.crs) and prj.is_file() else ()
