"""Sets of TIFF files: OME-TIFF in several files is one image, with the channels that its files hold."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote, unquote

from foveate.errors import ImageError
from foveate.images.formats.tiff.channels import DESCRIPTION, Channels, Home, alike, named, reduced_pages
from foveate.images.formats.tiff.directory import (
    REDUCED,
    Directory,
    Layout,
    Values,
    find_levels,
    read_directories,
    size_of,
)
from foveate.images.formats.tiff.ome import OmeImage, ome_image
from foveate.images.io.local import ByteFile, Stamp, stream
from foveate.images.io.open import open_bytes
from foveate.types import Size

Pages = Sequence[Sequence[Directory]]
"""Every page of a file and its sub-pages."""


@dataclass(frozen=True)
class FileSet:
    """Set of files that are one image.

    Attributes:
        file: all that are read, as one.
        layout: the levels of the first channel.
        channels: of the image; None where this file's first page is all that is read.
        unused: what is not read, in words.
    """

    file: ByteFile
    layout: Layout
    channels: Channels | None
    unused: tuple[str, ...]
    _homes: dict[int, Home]

    def home(self, page: Directory) -> Home:
        """The file that a page is in, and where that one begins in all of them."""
        return self._homes.get(id(page), (self.file, 0))


class SetFile(ByteFile):
    """Files one after the other, as one; no part that is read lies in two of them.

    Arguments:
        files: of which there is one at least.
    """

    def __init__(self, files: Sequence[ByteFile]) -> None:
        super().__init__(files[0].name)
        self._files = tuple(files)
        self.starts = (0, *accumulate(file.size for file in files[:-1]))

    @property
    def size(self) -> int:
        """Length of all of them in bytes."""
        return sum(file.size for file in self._files)

    @property
    def stamp(self) -> Stamp | None:
        """What tells them from any others: of the first its path or address, of all their lengths and versions."""
        stamps = [file.stamp for file in self._files]
        first = stamps[0]
        return None if first is None or None in stamps else (first[0], self.size, repr(stamps))

    def report_to(self, count: Callable[[int], None]) -> None:
        """Call a method with the number of bytes, after every read of each file."""
        for file in self._files:
            file.report_to(count)

    def read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes of (offset, length) parts; each file counts its own."""
        return self._read_many(parts)

    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        wanted: dict[int, list[tuple[int, int]]] = {}
        homes = [bisect_right(self.starts, offset) - 1 for offset, _ in parts]
        for number, (offset, length) in zip(homes, parts, strict=True):
            wanted.setdefault(number, []).append((offset - self.starts[number], length))
        found = {number: iter(self._files[number].read_many(some)) for number, some in wanted.items()}
        return [next(found[number]) for number in homes]


def beside(name: str, other: str) -> str:
    """Path or address of a file in the folder of another one.

    Example:
        >>> beside("https://host/a/b.ome.tif?key=1", "c d.tif"), beside("a/b.ome.tif", "c.tif")
        ('https://host/a/c%20d.tif?key=1', 'a/c.tif')
    """
    if "://" not in name:
        return str(Path(name).with_name(other))
    address, mark, query = name.partition("?")
    return f"{address.rpartition('/')[0]}/{quote(other)}{mark}{query}"


def read_set(file: ByteFile, pages: Pages, layout: Layout, name: str, count: Callable[[int], None]) -> FileSet | None:
    """Set that an OME-TIFF is a part of, whichever it is; None if its metadata name no other file.

    Channels of one depth and time are read as the bands of one image. Of several depths or times the first page of this
    file is read, as of a file that holds them all.

    Arguments:
        file: one of the set.
        pages: its pages.
        layout: its levels by themselves.
        name: of the image: the path or address of that file.
        count: called with the number of bytes, after every read of another file.

    Raises:
        ImageError: a file of the set is missing or broken, or has no such page.
    """

    def opened(other: str) -> ByteFile:
        found = open_bytes(beside(name, other))
        found.report_to(count)
        return found

    own = unquote(name.partition("?")[0].rpartition("/")[2]) if "://" in name else Path(name).name
    image = ome_image(pages[0][0].text(DESCRIPTION), own, opened)
    if image is None:
        return None
    if image.deep or len(image.channels) < 2:
        return _alone(file, layout, image) if len(image.files) > 1 else None
    names = list(dict.fromkeys(place[0] for place in image.channels))
    files = [file if other == own else opened(other) for other in names]
    inside = [pages if one is file else read_directories(stream(one), one.size, one.name) for one in files]
    return _whole(SetFile(files), files, dict(zip(names, inside, strict=True)), image)


def _alone(file: ByteFile, layout: Layout, image: OmeImage) -> FileSet:
    told = f"the other {image.planes - 1} planes, in {len(image.files)} files: the first of this one is read"
    return FileSet(file, replace(layout, note=f"one of {len(image.files)} files"), None, (told,), {})


def _whole(joined: SetFile, files: Sequence[ByteFile], inside: dict[str, Pages], image: OmeImage) -> FileSet | None:
    """The image of all channels; None if their pages are not alike, or of colours."""
    found: dict[tuple[str, int], dict[Size, Directory]] = {}
    homes: dict[int, Home] = {}
    for (name, own), file, start in zip(inside.items(), files, joined.starts, strict=True):
        numbers = [page for other, page in image.channels if other == name]
        if max(numbers) >= len(own):
            raise ImageError(
                f"{file.name}: an OME-TIFF of several files, of which this one has no page {max(numbers) + 1}, but "
                f"{len(own)} in all: copy all of its files"
            )
        for number, sizes in zip(numbers, _by_size(own, numbers, file.name), strict=True):
            found[name, number] = sizes
            homes |= {id(page): (file, start) for page in sizes.values()}
    channels = [found[place] for place in image.channels]
    shown = []
    for size, page in channels[0].items():
        some = tuple(channel[size] for channel in channels if size in channel and alike(channel[size], page))
        if len(some) == len(channels):
            shown.append(some)
        elif not shown:
            return None
    first = shown[0][0]
    if first.number(277, 1) != 1:
        return None
    pages = [page for some in inside.values() for page, *_ in some if not page.number(254, 0) & REDUCED]
    words = image.text.encode()
    told = replace(first, values=first.values | {DESCRIPTION: Values(2, len(words), words)})
    homes[id(told)] = homes[id(first)]
    shown[0] = (told, *shown[0][1:])
    note = f"{len(channels)} channels" + (f" in {len(files)} files" if len(files) > 1 else "")
    layout = Layout(tuple(page for page, *_ in shown), (), "OME-TIFF", note)
    rest = sum(alike(page, first) for page in pages) > len(channels)
    unused = ("the other pages: the first image is read",) if rest else ()
    return FileSet(joined, layout, Channels(named(image.names, len(channels)), tuple(shown), rest), unused, homes)


def _by_size(pages: Pages, numbers: Sequence[int], name: str) -> list[dict[Size, Directory]]:
    """Of channels in one file, given by their pages, the levels by their size, finest first."""
    base = min(numbers)
    order = [number - base for number in numbers]
    main, *reduced = find_levels(pages[base:], name).pages
    if main is not pages[base][0]:  # it is a reduced one itself
        reduced = []
    runs = [[pages[number][0] for number in numbers], *reduced_pages(pages, base, order, reduced)]
    found: list[dict[Size, Directory]] = [{} for _ in numbers]
    for run in runs:
        if len(run) == len(numbers):
            for sizes, page in zip(found, run, strict=True):
                sizes.setdefault(size_of(page), page)
    return found
