"""TIFF reader: tile by tile, of files near and far."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from foveate.errors import ImageError, one_line
from foveate.images.formats.place import told_by_tags
from foveate.images.formats.tiff.channels import ChannelSegments, find_channels
from foveate.images.formats.tiff.directory import (
    GDAL_METADATA,
    GDAL_NODATA,
    GEO_TAGS,
    RPC,
    Directory,
    Layout,
    find_levels,
    read_directories,
    unused_pages,
)
from foveate.images.formats.tiff.segments import Segments
from foveate.images.formats.tiff.sets import read_set
from foveate.images.formats.tiled import TiledSource, TileName, touched_tiles
from foveate.images.formats.vips import remedy
from foveate.images.header import CacheKey, Header, Missing, Pixels, united, unseen
from foveate.images.io.local import ByteFile, changed, stream
from foveate.images.io.open import open_bytes
from foveate.images.orientation import ORIENTATION_TAG, Orientation
from foveate.images.scale import mean_side, tiff_mpp
from foveate.threads import in_threads
from foveate.types import Box, Level, Size

MAX_PIXELS = 2**30
"""Strips and tiles of more pixels are refused: decoding takes them into memory whole."""

SOFTWARE = 305
"""Tag: what wrote the file."""

MEANING = {*GEO_TAGS, GDAL_METADATA, GDAL_NODATA, RPC}
"""Tags that tell more of an image than its pixels."""

_Opened = tuple[ByteFile, tuple[Segments, ...]]
"""The file, and what decodes its levels."""


class TiffSource(TiledSource):
    """TIFF file of any kind: tiled or striped, classic or BigTIFF, a pyramid, an Aperio slide, OME-TIFF, COG.

    Only the tiles that a box touches are read and decoded, and of the tables that say where they are, the parts that
    tell of them. Strips are tiles as wide as the image; a strip that is all of the image is decoded whole, unless it is
    uncompressed. Channels on pages of their own are bands; of several images in a file the first is taken, and
    `header.format` says so.

    Palettes and CMYK become RGB, opacity is laid over black, other extra bands are kept. A raster, which says where on
    earth it lies, has all its values as bands, as GDAL has them. Missing data is what has
    GDAL's value of no data, what a mask page leaves out, what is wholly transparent, and tiles that are not stored,
    which read as the value of no data, or 0.

    Arguments:
        path: the file, or an address (https://…, s3://…).
        mpp: microns per pixel, if known.
    """

    threaded = True

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(str(path), mpp)
        self._path = path
        self._words = ""
        self._first: Directory | None = None
        self._bands: tuple[str, ...] = ()
        self._unused: tuple[str, ...] = ()
        self._halved = False
        self._mask: MaskPages | None = None

    @property
    def bytes_read(self) -> int:
        """Bytes read so far of the file, its mask included."""
        return super().bytes_read + (0 if self._mask is None else self._mask.bytes_read)

    @property
    def table_bytes(self) -> int:
        """Bytes read so far of the tables that say where the tiles are; they are part of `bytes_read`."""
        return sum(segments.table.bytes_read for segments in (self._opened or (None, ()))[1])

    @property
    def file_bytes(self) -> int:
        """Length of the file; elsewhere it was told with the header."""
        file, _ = self._file()
        return file.size

    def cache_key(self) -> CacheKey | None:
        """Cache key: the file as it was when opened; one that has changed since is not read."""
        stamp = self._file()[0].stamp
        return None if stamp is None else ("TiffSource", stamp)

    def _open(self) -> _Opened:
        file = open_bytes(self._path)
        file.report_to(self._count)
        pages = read_directories(stream(file), file.size, self.name)
        layout = find_levels(pages, self.name)
        raster = not layout.pages[0].tags.isdisjoint(GEO_TAGS)
        whole = read_set(file, pages, layout, self.name, self._count) if layout.kind == "OME-TIFF" else None
        if whole is None:
            channels = find_channels(pages, layout) if layout.note and not layout.masks else None
            if channels is not None:
                layout = replace(layout, note=f"{len(channels.levels[0])} channels")
            self._unused = unused_pages(layout, channels is not None and channels.rest)
        else:
            file, layout, channels, self._unused = whole.file, whole.layout, whole.channels, whole.unused
        shown = channels.levels if channels is not None else [(page,) for page in self._pages(layout)]
        homes = [[(file, 0) if whole is None else whole.home(page) for page in some] for some in shown]
        decoders = [
            [Segments(page, home, home.name, raster) for page, (home, _) in zip(some, there, strict=True)]
            for some, there in zip(shown, homes, strict=True)
        ]
        first, *others = (
            some[0] if channels is None else ChannelSegments(some, None if whole is None else there)
            for some, there in zip(decoders, homes, strict=True)
        )
        kind = first.channels, first.opacity, first.dtype
        levels = [first, *(level for level in others if (level.channels, level.opacity, level.dtype) == kind)]
        self._opacity = first.opacity
        if self._mask is None and layout.masks and not isinstance(self, MaskPages):
            self._mask = MaskPages(self._path)
        self._orientation = Orientation.tagged(layout.pages[0].number(ORIENTATION_TAG, 1))
        if self._known is not None and [level.size for level in self._known.levels] != self._sizes(levels):
            raise changed(self.name)
        how = ", ".join(filter(None, (layout.kind, first.layout, layout.note)))
        self._words, self._first, self._bands = how, layout.pages[0], () if channels is None else channels.names
        self._halved = layout.pages[0].text(SOFTWARE).startswith("foveate")
        return file, tuple(levels)

    def _pages(self, layout: Layout) -> tuple[Directory, ...]:
        """The pages to read."""
        return layout.pages

    def _missing(self, pixels: Pixels, box: Box, level: int) -> Missing | None:
        missing, alpha = super()._missing(pixels, box, level), self._file()[1][0].alpha
        if alpha is not None:
            missing = united(missing, unseen(pixels[:, :, alpha, None]))
        if self._mask is None:
            return missing
        return united(missing, ~self._mask.data_in(box, self._stored(level)))

    def _absent(self, level: int, box: Box) -> Sequence[TileName]:
        file, levels = self._file()
        if not levels[level].table.has_gaps:
            return ()
        return levels[level].absent(touched_tiles(box, levels[level].tile), file)

    def _may_miss(self, level: int) -> bool:
        file, levels = self._file()
        opaque = not self._opacity and levels[0].alpha is None
        if not opaque or self._mask is not None or self.header.nodata is not None:
            return True
        levels[level].table.look_up(file)
        return levels[level].table.has_gaps

    def close(self) -> None:
        """Close the file, and drop what is decoded."""
        super().close()
        if self._mask is not None:
            self._mask.close()

    def _sizes(self, levels: Sequence[Segments]) -> list[Size]:
        return [self._orientation.size(level.size) for level in levels]

    def _measure(self) -> Header:
        _, segments = self._file()
        sizes, first = self._sizes(segments), segments[0]
        levels = tuple(Level(size, self._factor(k, sizes)) for k, size in enumerate(sizes))
        whole = first.tile[0] >= first.size[0] and first.tile[1] >= first.size[1]
        tile = None if whole else self._orientation.size(first.tile)
        assert self._first is not None
        sides = tiff_mpp(self._first)
        masked = ["opacity"] * (first.opacity or first.alpha is not None) + ["mask"] * (self._mask is not None)
        told = Header(
            levels,
            first.channels,
            first.dtype,
            self._words,
            mean_side(sides),
            tile,
            self._bands,
            nodata=first.nodata,
            pixel=None if sides is None else self._orientation.sides(sides),
            masked=" and ".join(masked),
            unused=self._unused,
        )
        return told if self._first.tags.isdisjoint(MEANING) else told_by_tags(told, self._first, self.name)

    def _factor(self, level: int, sizes: Sequence[Size]) -> tuple[float, float]:
        """Level-0 pixels per pixel: the ratio of sizes, unless the file says how its levels were made.

        `foveate convert` halves, and the last pixel of an odd row stands for one that is not there.
        """
        (height, width), (rows, columns) = sizes[0], sizes[level]
        halved = 2.0**level
        if self._halved and (rows, columns) == (math.ceil(height / halved), math.ceil(width / halved)):
            return halved, halved
        return height / rows, width / columns

    def _tile(self, level: int) -> Size:
        return self._file()[1][level].tile

    def _decode(
        self, level: int, wanted: Sequence[TileName], threads: int
    ) -> Sequence[Shaped[np.ndarray, "rows columns channel"]]:
        file, levels = self._file()
        segments, size = levels[level], file.size
        if segments.tile[0] * segments.tile[1] > MAX_PIXELS:
            here = Path(self.name) if "://" not in self.name else None
            raise ImageError(
                f"{self.name}: a strip or tile of {segments.tile[0]}×{segments.tile[1]} pixels is more than the "
                f"{MAX_PIXELS} that can be decoded whole: {remedy(here, streamed=True)}"
            )
        numbers = segments.numbers(wanted)
        each = segments.planes
        try:
            parts = segments.table.parts(numbers, file)
        except ValueError as error:
            raise self._broken_tile(level, wanted[0], one_line(error)) from error
        stored = [part for part in parts if part[1]]
        for i, (offset, length) in enumerate(parts):
            if offset + length > size:
                reason = f"it ends at byte {offset + length} of {size}"
                raise self._broken_tile(level, wanted[i // each], reason)
        data = iter(file.read_many(stored))
        encoded = [next(data) if length else None for _, length in parts]

        def decode(i: int) -> np.ndarray:
            some = slice(i * each, (i + 1) * each)
            try:
                return segments.pixels(numbers[some], encoded[some])
            except MemoryError:
                raise
            except Exception as error:  # every codec has errors of its own
                raise self._broken_tile(level, wanted[i], one_line(error)) from error

        return in_threads(decode, range(len(wanted)), threads)

    def _file(self) -> _Opened:
        opened: _Opened = self._ready()
        return opened


class MaskPages(TiffSource):
    """Mask of a TIFF file: the pages that say which pixels of its levels are data, as an image of their own."""

    def _pages(self, layout: Layout) -> tuple[Directory, ...]:
        return layout.masks

    def data_in(self, box: Box, size: Size) -> Bool[np.ndarray, "height width 1"]:
        """True where the pixels of a box are data.

        Arguments:
            box: in pixels of a level as it is stored.
            size: of the level.
        """
        level = [one.size for one in self._file()[1]].index(size)
        marked: np.ndarray = self._assembled([box], level, 1)[0] != 0
        return marked
