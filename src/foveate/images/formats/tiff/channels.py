"""TIFF channels on pages of their own, as in fluorescence: which pages they are, read as the bands of one image."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from foveate.images.formats.tiff.directory import CHANNEL_NAME, MASK, REDUCED, Directory, Layout
from foveate.images.formats.tiff.segments import RowTable, Segments, Table
from foveate.images.formats.tiled import TileName
from foveate.images.io.local import ByteFile

DESCRIPTION = 270
SAME = (256, 257, 258, 259, 262, 277, 278, 284, 322, 323, 339)
"""Tags that pages of one image have in common: size, type and colour of pixels, and how their tiles are laid out."""

Home = tuple[ByteFile, int]
"""A file, and where it begins among the files of a set."""


@dataclass(frozen=True)
class Channels:
    """Channels of an image: the pages that show it, one for each.

    Attributes:
        names: of the channels; "channel 0" … if they have none, or not one each: three bands without are colours.
        levels: for every level of the image a page for each channel.
        rest: whether there are more pages like these, of another time, depth or image.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[Directory, ...], ...]
    rest: bool


def find_channels(pages: Sequence[Sequence[Directory]], layout: Layout) -> Channels | None:
    """Channels of an OME-TIFF, a QPTIFF of Akoya or PerkinElmer, or a hyperstack of ImageJ; None if it has one alone.

    One page is one channel, all of them in this file; of several depths or times nothing is known to be a channel. The
    reduced pages of a channel are its sub-pages (OME-TIFF 6.0), or the run of pages that begins with the first's
    (QPTIFF): as many, in the same order.

    Sources: "OME-TIFF specification", Open Microscopy Environment; "QPTIFF File Format", PerkinElmer.

    Arguments:
        pages: every page and its sub-pages.
        layout: the levels of the first page that is no reduced one.
    """
    if layout.note.startswith("one of "):  # the file of a set
        return None
    first, *reduced = layout.pages
    base = next(number for number, (page, *_) in enumerate(pages) if page is first)
    last = base + 1
    while last < len(pages) and alike(pages[last][0], first) and not pages[last][0].number(254, 0) & (REDUCED | MASK):
        last += 1
    order = _pages_of_channels(first, [page for page, *_ in pages[base:last]]) if first.number(277, 1) == 1 else ()
    if len(order) < 2 or max(order) >= last - base:
        return None
    levels = [tuple(pages[base + number][0] for number in order)]
    for found, page in zip(reduced_pages(pages, base, order, reduced), reduced, strict=True):
        if len(found) == len(order) and all(alike(one, page) for one in found):
            levels.append(tuple(found))
    names = named(_names(first.text(DESCRIPTION), levels[0]), len(order))
    return Channels(names, tuple(levels), len(order) < last - base)


def named(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of channels; "channel 0" … where there is not one for each, and another for every one."""
    whole = len(names) == count == len(set(names)) and all(names)
    return tuple(names) if whole else tuple(f"channel {number}" for number in range(count))


def reduced_pages(
    pages: Sequence[Sequence[Directory]], base: int, order: Sequence[int], reduced: Sequence[Directory]
) -> list[list[Directory]]:
    """Reduced pages of channels, for each of those of one channel; fewer than there are channels where some are not.

    Arguments:
        pages: every page and its sub-pages.
        base: the page that the reduced ones are of.
        order: channel → its page, counted from that one.
        reduced: sub-pages of that page, or pages with which the runs of reduced ones begin.
    """
    subs, top = list(map(id, pages[base])), [id(page) for page, *_ in pages]
    results = []
    for page in reduced:
        if id(page) in subs:
            place = subs.index(id(page))
            found = [pages[base + number][place] for number in order if place < len(pages[base + number])]
        else:
            place = top.index(id(page))
            found = [pages[place + number][0] for number in order if place + number < len(pages)]
        results.append(found)
    return results


def alike(page: Directory, other: Directory) -> bool:
    """Whether two pages can be channels of one image."""
    return all(page.numbers(tag) == other.numbers(tag) for tag in SAME)


def _pages_of_channels(first: Directory, alike: Sequence[Directory]) -> Sequence[int]:
    """Channel → its number among the pages like the first; nothing where these are no channels."""
    text = first.text(DESCRIPTION)
    if "PerkinElmer-QPI" in text:
        return range(len(alike))
    if text.startswith("ImageJ="):
        told = {key: int(value) for key, value in re.findall(r"^(\w+)=(\d+)\s*$", text, re.MULTILINE)}
        return range(told.get("channels", 1)) if told.get("images") == told.get("channels") else ()
    start = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text)
    if start is None:
        return ()
    told_of = _attributes(start[0])
    count, *others = (told_of.get(key, "1") for key in ("SizeC", "SizeZ", "SizeT"))
    if others != ["1", "1"] or not count.isdecimal():
        return ()
    end = text.find("Pixels>", start.end())
    data = [_attributes(one) for one in re.findall(r"<(?:\w+:)?TiffData\b[^>]*>", text[start.end() : end])]
    told_each = {int(one.get("FirstC", 0)): int(one["IFD"]) for one in data if one.get("IFD", "").isdecimal()}
    if len(data) < int(count) or len(told_each) != int(count):  # one that tells of all planes, in their order
        return range(int(count))
    begin = min(told_each.values())
    return [told_each.get(channel, begin) - begin for channel in range(int(count))]


def _attributes(element: str) -> Mapping[str, str]:
    return dict(re.findall(r"([\w:]+)\s*=\s*\"([^\"]*)\"", element))


def _names(text: str, pages: Sequence[Directory]) -> list[str]:
    """Names of channels: those of OME's first image, or what each page says of itself."""
    if "PerkinElmer-QPI" in text:
        said = [page.text(DESCRIPTION) for page in pages]
        found = [re.search(r"<Biomarker>([^<]+)<", one) or re.search(r"<Name>([^<]+)<", one) for one in said]
        return [html.unescape(one[1]) for one in found if one is not None]
    return [html.unescape(name) for name in CHANNEL_NAME.findall(text.partition("Pixels>")[0])]


class ChannelSegments(Segments):
    """Tile decoder of several pages, each a channel: its tiles are theirs, one channel after another.

    Arguments:
        parts: decoders of the pages, alike in size, tiles and type.
        homes: of each, the file that it is in, and where that one begins in what is read; None if it is that.

    Attributes: those of `Segments`.
    """

    def __init__(self, parts: Sequence[Segments], homes: Sequence[Home] | None = None) -> None:
        first = parts[0]
        self._parts = tuple(parts)
        self.size, self.tile, self.dtype, self.nodata = first.size, first.tile, first.dtype, first.nodata
        self.layout, self.opacity, self.alpha = first.layout, False, None
        self.channels = sum(part.channels for part in parts)
        self.planes = len(parts)
        rows, columns = (-(-side // length) for side, length in zip(self.size, self.tile, strict=True))
        self._each = rows * columns
        self.table = ChannelTable([part.table for part in parts], self._each, homes)

    def numbers(self, wanted: Sequence[TileName]) -> list[int]:
        """Entries of the tiles in the tables of all pages, all channels of a tile one after the other."""
        each = self._parts[0].numbers(wanted)
        return [channel * self._each + number for number in each for channel in range(self.planes)]

    def pixels(
        self, numbers: Sequence[int], encoded: Sequence[bytes | None]
    ) -> Shaped[np.ndarray, "rows columns channel"]:
        """Decode the channels of a tile; see `Segments.pixels`."""
        each = zip(numbers, encoded, strict=True)
        parts = [self._parts[number // self._each].pixels([number % self._each], [data]) for number, data in each]
        return np.concatenate(parts, axis=2)


class ChannelTable(Table):
    """Tile tables of several pages as one: those of the second page are numbered on from those of the first.

    Arguments:
        tables: of the pages.
        each: entries of every one.
        homes: of each, its file, as of `ChannelSegments`.
    """

    def __init__(self, tables: Sequence[Table | RowTable], each: int, homes: Sequence[Home] | None = None) -> None:
        self._tables, self._each, self._homes = tuple(tables), each, homes

    @property
    def bytes_read(self) -> int:  # type: ignore[override]
        """Of all the tables, so far."""
        return sum(table.bytes_read for table in self._tables)

    @property
    def has_gaps(self) -> bool:  # type: ignore[override]
        """Whether some tile of some page is not stored, of those looked up so far."""
        return any(table.has_gaps for table in self._tables)

    def look_up(self, file: ByteFile) -> None:
        """Look up all of all pages."""
        for page, table in enumerate(self._tables):
            table.look_up(self._home(page, file)[0])

    def parts(self, numbers: Sequence[int], file: ByteFile) -> list[tuple[int, int]]:
        """(offset, length) of tiles; each table is asked once."""
        wanted: dict[int, list[int]] = {}
        for number in numbers:
            wanted.setdefault(number // self._each, []).append(number % self._each)
        found = {page: iter(self._inside(page, some, file)) for page, some in wanted.items()}
        return [next(found[number // self._each]) for number in numbers]

    def _inside(self, page: int, numbers: Sequence[int], file: ByteFile) -> list[tuple[int, int]]:
        home, start = self._home(page, file)
        parts = self._tables[page].parts(numbers, home)
        if self._homes is not None:
            for offset, length in parts:
                if offset + length > home.size:  # behind it lies another file
                    raise ValueError(f"{home.name}: it ends at byte {offset + length} of {home.size}")
        return [(start + offset, length) if length else (0, 0) for offset, length in parts]

    def _home(self, page: int, file: ByteFile) -> Home:
        return (file, 0) if self._homes is None else self._homes[page]
