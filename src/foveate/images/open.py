"""Opening images: whatever names one becomes a source; its signature (magic bytes) chooses the reader, not its name."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foveate.errors import ArgumentTypeError, ImageError, Unsupported
from foveate.hooks import READERS, reader_of
from foveate.images.formats.arrays import ArraySource, NpySource, array_of, read_by
from foveate.images.formats.canvas import Canvas
from foveate.images.formats.library import installed
from foveate.images.formats.openslide import OpenSlideSource, is_slide
from foveate.images.formats.pillow import PillowSource
from foveate.images.formats.place import holds_place, tells_place, told_beside
from foveate.images.formats.raster import RasterSource
from foveate.images.formats.several import MIRAX_INDEX, check_whole, image_of, whole_dicom
from foveate.images.formats.tiff.directory import GEO_TAGS, Directory, first_directory
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.formats.vips import VipsSource, knows_format
from foveate.images.formats.zarr import ZarrSource, is_zarr
from foveate.images.header import Reading
from foveate.images.io.local import ByteFile, stream
from foveate.images.io.open import Download, ZipMember, open_bytes
from foveate.images.source import Source

FIRST_BYTES = 512
"""Bytes looked at; more only of TIFF files, for the tags of the first page."""

MAGIC = {
    b"PK\x03\x04": "zip",
    b"\x93NUMPY": "npy",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"ZISRAWFILE": "slide",
    b"SQLite format 3\x00": "slide",
    b"[Virtual Microscope Specimen]": "vms",
    b"[Uncompressed Virtual Microscope Specimen]": "vms",
}
"""Magic bytes: how files begin, and what they are then."""

MASK_BESIDE = ".msk"
"""What GDAL adds to a file's name for that of its mask."""

DESCRIPTION, SOFTWARE, XMP = 270, 305, 700

LONGEST_TEXT = 4096
"""Bytes of a tag's text that are looked at."""


@dataclass(frozen=True)
class Signature:
    """Signature of a file: what it is.

    Attributes:
        kind: zip, npy, tiff, jpeg, png, gif, bmp, ppm, webp, jpeg2000, dicom, vms (a list of a Hamamatsu slide's
            files), slide (of another vendor, not TIFF), modern (HEIF, AVIF, JPEG XL, SVG, OpenEXR) or "" for anything
            else.
        georeferenced: a TIFF that says where on the earth it lies.
        vendor: of a TIFF whose tiles lie in an order or overlap of the vendor's own, one of `OVERLAPPING`; "ome" of
            OME-TIFF, whose planes may lie in several files; "" of any other.
    """

    kind: str
    georeferenced: bool = False
    vendor: str = ""


def signature(file: ByteFile) -> Signature:
    """Signature of a file, from its first bytes and, of TIFF, the tags of its first page.

    Raises:
        ImageError: it is missing or cannot be read.
    """
    first = file.read(0, FIRST_BYTES)
    kind = next((kind for magic, kind in MAGIC.items() if first.startswith(magic)), "") or _by_parts(first)
    if kind != "tiff":
        return Signature(kind)
    texts = dict.fromkeys((DESCRIPTION, SOFTWARE, XMP), LONGEST_TEXT)
    try:
        page = first_directory(stream(file, FIRST_BYTES), file.size, file.name, texts)
    except ImageError:  # broken: whoever reads it says so
        return Signature(kind)
    return Signature(kind, not page.tags.isdisjoint(GEO_TAGS), _vendor(page))


def _by_parts(first: bytes) -> str:
    """Format of a file whose magic bytes have gaps in them, or lie further on."""
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "webp"
    if first[:1] == b"P" and first[1:2] in b"123456" and first[2:3].isspace():
        return "ppm"
    if first[128:132] == b"DICM":
        return "dicom"
    modern = first[4:8] == b"ftyp" or first[:2] == b"\xff\x0a" or first[4:12] == b"JXL \r\n\x87\n"
    return "modern" if modern or first[:4] == b"v/1\x01" or b"<svg" in first else ""


def _vendor(page: Directory) -> str:
    """Vendor of a slide, as OpenSlide tells them: https://openslide.org/formats/."""
    texts = {tag: page.values[tag].data if tag in page.values else b"" for tag in (DESCRIPTION, SOFTWARE, XMP)}
    if b"iScan" in texts[XMP]:
        return "ventana"
    if texts[SOFTWARE].startswith(b"MedScan"):
        return "trestle"
    if b"http://www.leica-microsystems.com/scn/" in texts[DESCRIPTION]:
        return "leica"
    return "ome" if b"openmicroscopy.org/Schemas/OME" in texts[DESCRIPTION] else ""


Reader = Literal["auto", "tiff", "openslide", "vips", "zarr", "raster", "pillow"]
"""What reads an image; "auto" chooses by its content."""

OVERLAPPING = ("leica", "trestle", "ventana")
"""Vendors whose TIFF files are no single picture, or one of tiles that overlap: read as plain TIFF they are wrong."""


def open_image(path_or_array: object, mpp: float | None = None, reader: Reader = "auto") -> Source:
    """Image source: the header is read, the pixels are not.

    Arguments:
        path_or_array: a file, known by its content and not by its name; a folder of Zarr; an address (https://…,
            s3://…) of one of both; an array (H, W) or (H, W, C) of bool, uint8, uint16 or floating point; a tensor
            (C, H, W) or a Pillow image; or a source, which is given back.
        mpp: microns per pixel at full resolution; overrides what the file says.
        reader: what is to read a file; "auto" chooses. GeoTIFF is read by rasterio and slides by OpenSlide where they
            are installed, other TIFF by ourselves, what nobody else knows by libvips.

    Returns:
        The image.

    Raises:
        ImageError: if the file is missing or cannot be read, what reads it is not installed, or (PixelError) the array
            is not an image.
        ArgumentTypeError: it is none of these.

    Example:
        >>> import numpy as np
        >>> open_image(np.zeros((600, 800, 3), np.uint8)).size
        (600, 800)
    """
    if isinstance(path_or_array, Source):
        if mpp is None:
            return path_or_array
        source = copy.copy(path_or_array)
        source.mpp = mpp
        return source
    if not isinstance(path_or_array, str | Path):
        pixels = array_of(path_or_array)
        if pixels is None:
            raise ArgumentTypeError(
                "an image is a path, an array, a Pillow image, a tensor or a Source, got "
                f"{type(path_or_array).__name__}: give one image at a time, or many to predict_paths or a Classifier"
            )
        return ArraySource(pixels, mpp)
    name = str(path_or_array)
    remote = isinstance(path_or_array, str) and "://" in name
    with Reading(name):
        own = reader_of(name) if READERS and reader == "auto" else None
        if own is not None:
            source = open_image(read_by(own, name), mpp)
        elif reader != "auto":
            source = _forced(name, mpp, reader, remote)
        else:
            source = _remote(name, mpp) if remote else placed(_local(Path(path_or_array), mpp))
        _ = source.header
    return source


def open_zip_member(archive: Path | str, member: str, mpp: float | None = None) -> Source:
    """Zip member as an image; the archive is not unpacked: the header is read, the pixels are not.

    Arguments:
        archive: the zip file.
        member: name of the image's file in it, with slashes.
        mpp: microns per pixel, if known.

    Returns:
        The image; its name is "archive/member".

    Raises:
        ImageError: if the archive or the member is missing or cannot be read.
    """
    source = PillowSource(ZipMember(Path(archive), member), mpp)
    _ = source.header
    return source


def _forced(name: str, mpp: float | None, reader: Reader, remote: bool) -> Source:
    if reader == "tiff":
        return TiffSource(name, mpp)
    if reader == "zarr":
        return ZarrSource(name, mpp)
    if reader == "pillow":
        return _pillow(Download(open_bytes(name)) if remote else name, mpp)
    readers: dict[str, type[Source]] = {"openslide": OpenSlideSource, "vips": VipsSource, "raster": RasterSource}
    if reader not in readers:
        raise ImageError(f"{name}: reader must be auto, tiff, zarr, pillow, {', '.join(readers)}, got {reader}")
    if remote:
        raise ImageError(f"{name}: {reader} reads files of this machine only: download it, or take the reader tiff")
    return readers[reader](name, mpp)


def _remote(address: str, mpp: float | None) -> Source:
    if ".zarr" in address.rstrip("/").rpartition("/")[2] or ".zarr/" in address:
        return ZarrSource(address, mpp)
    file = open_bytes(address)
    kind = signature(file).kind
    if kind == "tiff":
        return TiffSource(address, mpp)
    if kind in ("jpeg", "png", "gif", "bmp", "ppm", "webp", "jpeg2000"):
        return PillowSource(Download(file), mpp)
    raise ImageError(
        f"{address}: only TIFF, Zarr (a folder named ….zarr), JPEG, PNG and the like are read from an address: "
        "download it first"
    )


def _local(path: Path, mpp: float | None) -> Source:
    if path.is_dir():
        if is_zarr(path):
            return ZarrSource(path, mpp)
        whole = image_of(path)
        if whole is not None:
            return _local(whole, mpp)
    known = signature(open_bytes(path))
    if known.kind == "zip":
        return Canvas.load(path, mpp)
    if known.kind == "npy":
        return NpySource(path, mpp)
    if known.kind == "tiff":
        return _local_tiff(path, mpp, known)
    if known.kind == "jpeg" and (path.suffix.lower() == ".mrxs" or (path.with_suffix("") / MIRAX_INDEX).is_file()):
        check_whole(path, "mirax")  # the JPEG is a thumbnail of what lies in the folder
        return OpenSlideSource(path, mpp)
    if known.kind == "dicom":
        return OpenSlideSource(whole_dicom(path), mpp)
    if known.kind == "vms":
        check_whole(path, "vms")
        return OpenSlideSource(path, mpp)
    if known.kind == "jpeg2000":
        return _jpeg_2000(path, mpp)
    if known.kind in ("jpeg", "png", "gif", "bmp", "ppm", "webp"):
        return PillowSource(path, mpp)
    return _stranger(path, mpp, known)


def placed(source: Source) -> Source:
    """The same image, and the place on earth that a file beside it tells."""
    path, decoded = Path(source.name), isinstance(source, PillowSource | VipsSource)
    told = _beside(path) if decoded or isinstance(source, TiffSource | RasterSource) else None
    told = path if told is None and decoded and holds_place(path) else told
    if told is not None:
        upright = source.upright if isinstance(source, PillowSource | VipsSource) else None
        source.tell(**told_beside(source.header, path, told, upright, isinstance(source, RasterSource)))
    return source


def _beside(path: Path) -> Path | None:
    """World file (a.tfw, a.tifw or a.wld of a.tif) or .aux.xml beside an image that says where it lies; or None."""
    ending = path.suffix
    worlds = {".wld", f".{ending[1:2]}{ending[-1:]}w", f"{ending}w"} if ending else {".wld"}
    names = [path.with_suffix(world) for known in sorted(worlds) for world in (known, known.upper())]
    xml = path.with_name(f"{path.name}.aux.xml")
    return next((name for name in names if name.is_file()), xml if xml.is_file() and tells_place(xml) else None)


def _local_tiff(path: Path, mpp: float | None, known: Signature) -> Source:
    if known.vendor in OVERLAPPING:
        return OpenSlideSource(path, mpp)
    if path.suffix.lower() == ".vsi":
        check_whole(path, "olympus")
    if known.vendor == "ome":
        check_whole(path, "ome")
    beside = path.with_name(path.name + MASK_BESIDE).is_file() or _beside(path) is not None
    if (known.georeferenced or beside) and installed("rasterio"):
        return RasterSource(path, mpp)
    source = TiffSource(path, mpp)
    try:
        _ = source.header
    except Unsupported as refusal:  # of a broken file no other reader is asked: what it gave would be less, or other
        if refusal.vendor:
            return OpenSlideSource(path, mpp)
        return _first(
            [lambda: OpenSlideSource(path, mpp), lambda: _vips(path, mpp), lambda: _pillow(path, mpp)], refusal
        )
    return source


def _pillow(path: str | Path | Download, mpp: float | None) -> Source:
    """What Pillow reads, without its warnings of tags that it cannot make out: what matters is an error."""
    source = PillowSource(path, mpp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _ = source.header
    return source


def _jpeg_2000(path: Path, mpp: float | None) -> Source:
    """By libvips, which reads it in parts, where it is there and knows the format."""
    return VipsSource(path, mpp) if knows_format("jp2k") else PillowSource(path, mpp)


def _stranger(path: Path, mpp: float | None, known: Signature) -> Source:
    """A file of a kind that neither we nor Pillow read."""
    if known.kind == "slide" or (installed("openslide") and is_slide(path)):
        return OpenSlideSource(path, mpp)
    if known.kind == "modern":
        return VipsSource(path, mpp)
    return _first([lambda: PillowSource(path, mpp), lambda: _vips(path, mpp)])


def _first(readers: list[Callable[[], Source]], refusal: ImageError | None = None) -> Source:
    """The first reader that can open the image; if none can, what the first of them, or of those before, says."""
    for reader in readers:
        try:
            source = reader()
            _ = source.header
        except ImageError as error:
            refusal = refusal or error
        else:
            return source
    raise refusal or ImageError("no reader for this image")


def _vips(path: Path, mpp: float | None) -> Source:
    """What libvips reads, without a word on its absence: it is not the only one that might."""
    if not installed("pyvips"):
        raise ImageError(f"{path}: of a kind that is not supported here: pip install 'foveate[vips]'")
    return VipsSource(path, mpp)
