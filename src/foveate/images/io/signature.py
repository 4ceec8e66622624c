"""What a file is, by its content."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from foveate.images.io.local import ByteFile

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
"""How files begin, and what they are then."""

GEO_KEYS = 34735
"""TIFF tag GeoKeyDirectory: OGC GeoTIFF 1.1, section 7.1.1."""

NDPI = 65420
"""TIFF tag that only Hamamatsu's NDPI files have."""

DESCRIPTION, SOFTWARE, XMP = 270, 305, 700

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by the type of the tag."""

MOST_TAGS = 4096
"""Tags of a page that are believed; a broken file may claim any number."""

LONGEST_TEXT = 4096
"""Bytes of a tag's text that are looked at."""


@dataclass(frozen=True)
class Signature:
    """What a file is.

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
    """Tell what a file is.

    Raises:
        ImageError: it is missing or cannot be read.
    """
    first = file.read(0, FIRST_BYTES)
    kind = next((kind for magic, kind in MAGIC.items() if first.startswith(magic)), "") or _by_parts(first)
    if kind != "tiff":
        return Signature(kind)
    try:
        tags = dict(_tags(file, first))
    except (struct.error, IndexError):  # cut short: whoever reads it says so
        return Signature(kind)
    return Signature(kind, GEO_KEYS in tags, _vendor(tags))


def _by_parts(first: bytes) -> str:
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "webp"
    if first[:1] == b"P" and first[1:2] in b"123456" and first[2:3].isspace():
        return "ppm"
    if first[128:132] == b"DICM":
        return "slide"
    modern = first[4:8] == b"ftyp" or first[:2] == b"\xff\x0a" or first[4:12] == b"JXL \r\n\x87\n"
    return "modern" if modern or first[:4] == b"v/1\x01" or b"<svg" in first else ""


def _tags(file: ByteFile, first: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags of the first page and the beginning of the texts among them: TIFF 6.0, section 2; BigTIFF."""
    order = "<" if first[:2] == b"II" else ">"
    big = first[2:4] in (b"+\x00", b"\x00+")
    word, count_type, step = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = struct.unpack_from(order + word, first, 8 if big else 4)
    head = struct.calcsize(order + count_type)
    (count,) = struct.unpack(order + count_type, file.read(start, head))
    table = file.read(start + head, step * min(count, MOST_TAGS))
    for at in range(0, len(table) - step + 1, step):
        tag, kind, length = struct.unpack_from(order + "HH" + word, table, at)
        text = b""
        if tag in (DESCRIPTION, SOFTWARE, XMP):
            total, room = length * SIZES.get(kind, 1), step - 4 - struct.calcsize(word)
            inline = table[at + step - room : at + step]
            (place,) = struct.unpack(order + word, inline)
            text = inline[:total] if total <= room else file.read(place, min(total, LONGEST_TEXT))
        yield tag, text


def _vendor(tags: dict[int, bytes]) -> str:
    """As OpenSlide tells them: https://openslide.org/formats/."""
    if NDPI in tags:
        return "hamamatsu"
    if b"iScan" in tags.get(XMP, b""):
        return "ventana"
    if tags.get(SOFTWARE, b"").startswith(b"MedScan"):
        return "trestle"
    return "leica" if b"http://www.leica-microsystems.com/scn/" in tags.get(DESCRIPTION, b"") else ""
