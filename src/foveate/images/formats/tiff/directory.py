"""TIFF directories: what pages say of themselves, but for their tables of tiles, and which of them are its levels."""

import html
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from typing import NamedTuple

from foveate.errors import ImageError, Unsupported
from foveate.types import Size

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of every type (TIFF 6.0, section 2; BigTIFF has 16 … 18)."""

LETTERS = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I",
           16: "Q", 17: "q", 18: "Q"}  # fmt: skip

TABLES = {273: "strip offsets", 279: "strip lengths", 324: "tile offsets", 325: "tile lengths"}
"""Tags that have a value for every strip or tile."""

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Tags of a place on earth (OGC GeoTIFF 1.1): pixel scale, tie points, transformation, keys, their numbers and text."""

GDAL_METADATA, GDAL_NODATA, RPC = 42112, 42113, 50844
"""Tags of GDAL: names and meaning of bands, the value of no data; and rational polynomial coefficients."""

TEXTS = {270: 2**24, 305: 2**10, GEO_TAGS[-1]: 2**16, GDAL_METADATA: 2**20}
"""Texts that are read (the description, the software, of a place and of bands), and the most bytes of each."""

NUMBERS = (254, 255, 256, 257, 258, 259, 262, 266, 274, 277, 278, 282, 283, 284, 292, 293, 296, 317, 320, 322, 323,
           330, 338, 339, 347, 512, 513, 530, 32997, *GEO_TAGS[:-1], 42113, 50674)  # fmt: skip
"""Other tags that are read."""

MOST_TAGS = 4096
MOST_PAGES = 1000
"""Pages looked at; of stacks of more, the first ones."""

CHANNEL_NAME = re.compile(r"<(?:\w+:)?Channel\b[^>]*\bName\s*=\s*\"([^\"]*)\"")
"""Where OME-XML says what a channel is called."""

MOST_BYTES = 2**20
"""Of a value that is no text."""


class Entry(NamedTuple):
    """Where the values of a tag lie in the file.

    Attributes:
        kind: their type, as TIFF numbers them.
        number: how many there are.
        at: byte the first one begins at.
    """

    kind: int
    number: int
    at: int


class Values(NamedTuple):
    """The values of a tag, as they lie in the file."""

    kind: int
    number: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """Directory: what a page says of itself.

    Attributes:
        order: "<" or ">", the byte order.
        values: by tag.
        tables: where the tables of its strips or tiles lie, by tag.
        tags: all its tags, read or not.
    """

    order: str
    values: dict[int, Values]
    tables: dict[int, Entry]
    tags: frozenset[int]

    def numbers(self, tag: int) -> tuple[int | float, ...]:
        """The numbers of a tag, fractions divided; none if there are none."""
        kind, count, data = self.values.get(tag, Values(1, 0, b""))
        letters = LETTERS.get(kind)
        if letters is None:
            return ()
        flat = struct.unpack(f"{self.order}{count * len(letters)}{letters[0]}", data)
        if len(letters) == 1:
            return flat
        return tuple(above / below if below else 0.0 for above, below in zip(flat[::2], flat[1::2], strict=True))

    def number(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        numbers = self.numbers(tag)
        return int(numbers[0]) if numbers else default

    def text(self, tag: int) -> str:
        """The text of a tag, "" if there is none."""
        data = self.values[tag].data.split(b"\0")[0] if tag in self.values else b""
        try:
            return data.decode().strip()
        except UnicodeDecodeError:
            return data.decode("latin-1").strip()


def read_directories(file: BufferedIOBase, size: int, name: str) -> list[list[Directory]]:
    """Read the pages of a TIFF file, each with its sub-pages (SubIFDs).

    "TIFF Revision 6.0", Adobe 1992, section 2; BigTIFF: "The BigTIFF File Format", Aware Systems 2004.

    Arguments:
        file: the file.
        size: its length in bytes.
        name: what to call it in errors.

    Returns:
        For every page itself, and after it its sub-pages.

    Raises:
        ImageError: if it is no TIFF file, or broken.
    """
    reader = _Reader(file, size, name, TEXTS, NUMBERS)
    at = reader.start
    pages: list[list[Directory]] = []
    while at and len(pages) < MOST_PAGES and at not in reader.seen:
        page, at = reader.directory(at)
        subs = [int(place) for place in page.numbers(330)]
        pages.append([page, *(reader.directory(sub)[0] for sub in subs if sub and sub not in reader.seen)])
    if not pages:
        raise ImageError(f"{name}: broken TIFF file (it has no page): copy the file again, or leave it out")
    return pages


def first_directory(file: BufferedIOBase, size: int, name: str, texts: Mapping[int, int]) -> Directory:
    """Read the first page alone, and of its values only some texts.

    Arguments:
        file: the file.
        size: its length in bytes.
        name: what to call it in errors.
        texts: tag → the most bytes of it.

    Raises:
        ImageError: if it is no TIFF file, or broken.
    """
    reader = _Reader(file, size, name, texts, ())
    return reader.directory(reader.start)[0]


class _Reader:
    """Parser of the directories of one file; it begins with the header, which says where the first one lies."""

    def __init__(
        self, file: BufferedIOBase, size: int, name: str, texts: Mapping[int, int], numbers: tuple[int, ...]
    ) -> None:
        self.file, self.size, self.name = file, size, name
        self.texts, self.numbers = texts, numbers
        self.seen: set[int] = set()
        file.seek(0)
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        version = struct.unpack(f"{order}H", start[2:4])[0] if order and len(start) == 16 else 0
        if version not in (42, 43):
            raise ImageError(
                f"{name}: not a TIFF file (it begins with {start[:4]!r}): give it as what it is, or leave it out"
            )
        big = version == 43
        (self.start,) = struct.unpack(f"{order}Q", start[8:16]) if big else struct.unpack(f"{order}I", start[4:8])
        self.order = order
        self.head, self.each, self.wide = ("Q", 20, "Q") if big else ("H", 12, "I")

    def directory(self, at: int) -> tuple[Directory, int]:
        """The directory at a place, and the place of the next one."""
        self.seen.add(at)
        head, wide = struct.calcsize(f"={self.head}"), struct.calcsize(f"={self.wide}")
        (count,) = struct.unpack(f"{self.order}{self.head}", self.part(at, head))
        if count > MOST_TAGS:
            raise self.broken(f"a page of {count} tags")
        body = self.part(at + head, count * self.each)
        # the last page of a file that was cut short there can still be read
        following = self.part(at + head + len(body), wide, strict=False)
        values: dict[int, Values] = {}
        tables: dict[int, Entry] = {}
        tags = set()
        for start in range(0, len(body), self.each):
            tag, kind, number = struct.unpack(f"{self.order}HH{self.wide}", body[start : start + 4 + wide])
            tags.add(tag)
            length = SIZES.get(kind, 0) * number
            place = at + head + start + 4 + wide
            if length > wide:
                (place,) = struct.unpack(f"{self.order}{self.wide}", body[start + 4 + wide : start + self.each])
            if tag in TABLES and length:
                tables[tag] = Entry(kind, number, place)
            elif length and (tag in self.texts or tag in self.numbers):
                most = self.texts.get(tag, MOST_BYTES)
                if tag in self.texts:
                    number = length = min(length, most)
                elif length > most:
                    raise self.broken(f"{number} values of tag {tag}")
                values[tag] = Values(kind, number, self.part(place, length))
        last = struct.unpack(f"{self.order}{self.wide}", following)[0] if len(following) == wide else 0
        return Directory(self.order, values, tables, frozenset(tags)), last

    def part(self, at: int, length: int, strict: bool = True) -> bytes:
        data = b""
        if at + length <= self.size or not strict:
            self.file.seek(min(at, self.size))
            data = self.file.read(length)
        if strict and len(data) != length:
            raise self.broken(f"{length} bytes at {at} of {self.size}")
        return data

    def broken(self, what: str) -> ImageError:
        return ImageError(f"{self.name}: broken TIFF file ({what}): copy the file again, or leave it out")


REDUCED, MASK = 1, 4
"""Bits of NewSubfileType (254)."""

SLACK = 1.0
"""Pixels by which a side of a reduced page may differ from the exact one, however often it was halved and rounded."""


@dataclass(frozen=True)
class Layout:
    """Pyramid layout: the pages of a TIFF file that make up one image.

    Attributes:
        pages: of its levels, finest first.
        masks: of the same levels: pages that say which pixels are data; none where the image has no mask.
        kind: what it is, e.g. "Aperio SVS".
        note: what else there is in it, or "".
    """

    pages: tuple[Directory, ...]
    masks: tuple[Directory, ...]
    kind: str
    note: str


def find_levels(pages: Sequence[Sequence[Directory]], name: str) -> Layout:
    """Pyramid levels: the image and its resolutions among the pages of a file.

    The image is the first page that is no reduced one; its resolutions are its sub-pages and the pages after it that
    are smaller and smaller, of its shape and of its kind. An Aperio slide has them tiled; its thumbnail, label and
    photograph of the glass are striped.

    Arguments:
        pages: every page and its sub-pages.
        name: of the file.

    Raises:
        Unsupported: if it is a slide that only OpenSlide reads right.
    """
    _refuse_others(pages[0][0], name)
    main = [i for i, (page, *_) in enumerate(pages) if not page.number(254, 0) & (REDUCED | MASK) and size_of(page)[0]]
    base = main[0] if main else 0
    first, *subs = pages[base]
    slide = first.text(270).startswith("Aperio")
    after = [page for page, *_ in pages[base + 1 :] if not (slide and 322 not in page.tags)]
    chosen = [first]
    for page in (*subs, *after):
        if not page.number(254, 0) & MASK and _is_reduced(page, chosen[-1], first):
            chosen.append(page)
    others = [i for i in main if i != base and pages[i][0] not in chosen]
    note = ""
    if others and not slide:
        count = len(others) + 1
        note = f"page {1 + main.index(base) if main else 1} of {count if len(pages) < MOST_PAGES else f'over {count}'}"
    files = len(set(re.findall('FileName="([^"]+)"', first.text(270)))) if _kind(first, slide) == "OME-TIFF" else 1
    note = f"one of {files} files" if files > 1 else note
    masks = {size_of(page): page for group in reversed(pages) for page in reversed(group) if _is_mask(page)}
    if size_of(first) in masks:  # a level without one would be data everywhere
        chosen = [page for page in chosen if size_of(page) in masks]
        return Layout(tuple(chosen), tuple(masks[size_of(page)] for page in chosen), _kind(first, slide), note)
    return Layout(tuple(chosen), (), _kind(first, slide), note)


def unused_pages(layout: Layout, rest: bool) -> tuple[str, ...]:
    """What of a file of several images is not read, in words; channels of an OME-TIFF by their names.

    Arguments:
        layout: the levels.
        rest: whether there are pages beside the channels that are read.
    """
    if rest:
        return ("the other pages: the first image is read",)
    if not layout.note.startswith(("page ", "one of ")):
        return ()
    names = CHANNEL_NAME.findall(layout.pages[0].text(270))
    if len(names) < 2:
        return ("the other pages: the first is read",)
    others = html.unescape(", ".join(names[1:]))
    return (
        f"channels {others}, on other pages or in other files (as OME-Zarr, e.g. by bioformats2raw, they are bands)",
    )


def _is_mask(page: Directory) -> bool:
    """Whether a page says which pixels of another are data (TIFF 6.0, section 8: PhotometricInterpretation 4)."""
    return bool(page.number(254, 0) & MASK) and page.number(262, 0) == 4 and page.number(277, 1) == 1


def size_of(page: Directory) -> Size:
    """(height, width) of a page, in pixels."""
    return page.number(257, 0), page.number(256, 0)


def _is_reduced(page: Directory, last: Directory, first: Directory) -> bool:
    """Whether a page shows the whole image at a lower resolution than the last one that does."""
    (height, width), (above, wide), (rows, columns) = size_of(first), size_of(last), size_of(page)
    smaller = 0 < rows <= above and 0 < columns <= wide and (rows, columns) != (above, wide)
    alike = abs(rows * width - columns * height) <= SLACK * (height + width)
    same = all(page.number(tag, 1) == first.number(tag, 1) for tag in (258, 277, 339))
    return smaller and alike and same and _colour(page) == _colour(first)


def _colour(page: Directory) -> int:
    kind = page.number(262, 1)
    return 2 if kind == 6 else kind  # YCbCr is a way to store RGB


def _kind(page: Directory, slide: bool) -> str:
    if slide:
        return "Aperio SVS"
    return "OME-TIFF" if "<OME" in page.text(270) or ":OME" in page.text(270) else "TIFF"


def _refuse_others(page: Directory, name: str) -> None:
    """Slides of these makers are TIFF files, but their pages are not what they seem: tiles overlap or are padded."""
    text, software = page.text(270), page.text(305)
    found = [
        maker
        for maker, is_theirs in (
            ("Hamamatsu NDPI", 65420 in page.tags),
            ("Ventana", 700 in page.tags and ("Ventana" in software or software.startswith("ScanOutputManager"))),
            ("Leica SCN", "<scn" in text[:400]),
            ("Philips", software.startswith("Philips DP")),
            ("Trestle", software.startswith("MedScan")),
        )
        if is_theirs
    ]
    if found:
        message = f"{name}: a slide of the kind {found[0]}, which OpenSlide reads: pip install 'foveate[openslide]'"
        raise Unsupported(message, vendor=True)
