"""File signature (magic bytes): the format of a file by its content, whatever its name says."""

from dataclasses import dataclass

from foveate.errors import ImageError
from foveate.images.formats.tiff.directory import Directory, first_directory
from foveate.images.io.local import ByteFile, stream

__all__ = ["Signature", "signature"]

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
    b"[Virtual Microscope Specimen]": "slide",
    b"[Uncompressed Virtual Microscope Specimen]": "slide",
}
"""Magic bytes: how files begin, and what they are then."""

GEO_KEYS = 34735
"""TIFF tag GeoKeyDirectory: OGC GeoTIFF 1.1, section 7.1.1."""

NDPI = 65420
"""TIFF tag that only Hamamatsu's NDPI files have."""

DESCRIPTION, SOFTWARE, XMP = 270, 305, 700

LONGEST_TEXT = 4096
"""Bytes of a tag's text that are looked at."""


@dataclass(frozen=True)
class Signature:
    """Signature of a file: what it is.

    Attributes:
        kind: zip, npy, tiff, jpeg, png, gif, bmp, ppm, webp, jpeg2000, slide (of a vendor, not TIFF), modern (HEIF,
            AVIF, JPEG XL, SVG, OpenEXR) or "" for anything else.
        georeferenced: a TIFF that says where on the earth it lies.
        vendor: of a TIFF whose tiles lie in an order or overlap of the vendor's own: hamamatsu, leica, trestle or
            ventana; "" of any other.
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
    return Signature(kind, GEO_KEYS in page.tags, _vendor(page))


def _by_parts(first: bytes) -> str:
    """Format of a file whose magic bytes have gaps in them, or lie further on."""
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "webp"
    if first[:1] == b"P" and first[1:2] in b"123456" and first[2:3].isspace():
        return "ppm"
    if first[128:132] == b"DICM":
        return "slide"
    modern = first[4:8] == b"ftyp" or first[:2] == b"\xff\x0a" or first[4:12] == b"JXL \r\n\x87\n"
    return "modern" if modern or first[:4] == b"v/1\x01" or b"<svg" in first else ""


def _vendor(page: Directory) -> str:
    """Vendor of a slide, as OpenSlide tells them: https://openslide.org/formats/."""
    texts = {tag: page.values[tag].data if tag in page.values else b"" for tag in (DESCRIPTION, SOFTWARE, XMP)}
    if NDPI in page.tags:
        return "hamamatsu"
    if b"iScan" in texts[XMP]:
        return "ventana"
    if texts[SOFTWARE].startswith(b"MedScan"):
        return "trestle"
    return "leica" if b"http://www.leica-microsystems.com/scn/" in texts[DESCRIPTION] else ""
