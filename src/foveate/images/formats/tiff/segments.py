"""TIFF tiles of one page: where its strips or tiles lie in the file, and how tifffile decodes them."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt64

from foveate.errors import ImageError, Unsupported, one_line
from foveate.images.formats.tiff.colours import finish_for, opacity_of
from foveate.images.formats.tiff.directory import GDAL_METADATA, GEO_TAGS, Directory, Entry, Values, size_of
from foveate.images.formats.tiled import TileName
from foveate.images.header import is_stored, kept_type
from foveate.images.io.local import ByteFile
from foveate.types import Size

COMPRESSIONS = {
    1: "uncompressed", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 7: "JPEG", 8: "deflate", 32946: "deflate",
    32773: "PackBits", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip

WHOLE_BITS = (1, 8, 16, 24, 32, 64)
"""Bits of a value whose full scale is that of its type."""

PIECE = 2**17
"""Bytes read at a time of pixels that lie uncompressed in one strip, about."""

NOT_FOR_DECODING = {254, 270, 274, 282, 283, 296, 305, 317, 320, 330, 513, 530, 32997, *GEO_TAGS, GDAL_METADATA, 42113}
"""Tags that the decoder needs not, or needs only at times."""

PALETTE, YCBCR, APERIO_YCBCR = 3, 6, 33003

BLOCK = 1024
"""Entries read at a time: a level of 25 gigapixels has 400,000 of them, of which a prediction needs a few."""

TYPES = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""Of the entries, by the number TIFF has for them."""


class Table:
    """Tile table: offsets and lengths of the strips or tiles of a page.

    Arguments:
        offsets: where the table of offsets lies.
        lengths: where that of lengths does; None if the page has none.
        order: "<" or ">".
        count: strips or tiles there must be.
        default: length of every one, where there is no table.

    Attributes:
        bytes_read: of the tables, so far.
        has_gaps: whether some strip or tile is not stored, of those looked up so far.

    Raises:
        ValueError: the tables are too short, or not of whole numbers; or their part of the file is missing.
    """

    def __init__(self, offsets: Entry, lengths: Entry | None, order: str, count: int, default: int) -> None:
        for what, entry in (("offsets", offsets), ("lengths", lengths)):
            if entry is not None and (entry.number < count or entry.kind not in TYPES):
                raise ValueError(f"{entry.number} {what} of type {entry.kind} for {count} tiles")
        self._entries = [entry for entry in (offsets, lengths) if entry is not None]
        self._types: list[np.dtype[Any]] = [np.dtype(order + TYPES[entry.kind]) for entry in self._entries]
        self._count, self._default = count, default
        self._blocks: dict[int, UInt64[np.ndarray, "table entry"]] = {}
        self.bytes_read, self.has_gaps = 0, False

    def look_up(self, file: ByteFile) -> None:
        """Look up all of it, to know whether there are gaps."""
        missing = sorted(set(range(-(-self._count // BLOCK))) - self._blocks.keys())
        if missing:
            self._load(missing, file)

    def parts(self, numbers: Sequence[int], file: ByteFile) -> list[tuple[int, int]]:
        """(offset, length) of strips or tiles, in bytes; both 0 where nothing is stored."""
        missing = sorted({number // BLOCK for number in numbers} - self._blocks.keys())
        if missing:
            self._load(missing, file)
        found = []
        for number in numbers:
            block, at = self._blocks[number // BLOCK], number % BLOCK
            offset, length = int(block[0, at]), int(block[1, at])
            found.append((offset, length) if offset and length else (0, 0))
        return found

    def first(self, file: ByteFile) -> tuple[int, int]:
        """(offset, length) of one of the first that are stored; both 0 if none is."""
        some = self.parts(range(min(self._count, BLOCK)), file)
        return next((part for part in some if part[1]), (0, 0))

    def _load(self, blocks: Sequence[int], file: ByteFile) -> None:
        spans = [(block * BLOCK, min((block + 1) * BLOCK, self._count)) for block in blocks]
        asked = [
            (entry.at + start * kind.itemsize, (stop - start) * kind.itemsize)
            for start, stop in spans
            for entry, kind in zip(self._entries, self._types, strict=True)
        ]
        data = iter(file.read_many(asked))
        for block, (start, stop) in zip(blocks, spans, strict=True):
            table = np.full((2, stop - start), self._default, np.uint64)
            for row, kind in enumerate(self._types):
                found = next(data)
                self.bytes_read += len(found)
                if len(found) != (stop - start) * kind.itemsize:
                    raise ValueError("its table of tiles is cut short")
                table[row] = np.frombuffer(found, kind)
            self.has_gaps |= not table.all()
            self._blocks[block] = table


class RowTable:
    """Row table: the same for pixels that lie there uncompressed in one strip, which can be read a few rows at a time.

    Arguments:
        starts: where every band begins, or the only strip does.
        row: bytes of a row.
        rows: of a piece.
        height: of the image.
    """

    bytes_read, has_gaps = 0, False

    def __init__(self, starts: Sequence[int], row: int, rows: int, height: int) -> None:
        self._starts, self._row, self._rows, self._height = tuple(starts), row, rows, height
        self._pieces = -(-height // rows)

    def look_up(self, file: ByteFile) -> None:
        """There is nothing to look up, and no gap."""

    def parts(self, numbers: Sequence[int], file: ByteFile) -> list[tuple[int, int]]:  # noqa: ARG002
        """(offset, length) of pieces."""
        found = []
        for number in numbers:
            band, piece = divmod(number, self._pieces)
            first = piece * self._rows
            start = self._starts[band] + first * self._row
            found.append((start, min(self._rows, self._height - first) * self._row))
        return found

    def first(self, file: ByteFile) -> tuple[int, int]:
        """(offset, length) of the first piece."""
        return self.parts([0], file)[0]


class Segments:
    """Tile decoder of a page; strips are tiles as wide as the image.

    Arguments:
        page: its directory.
        file: the file it is in.
        name: of the file.
        raster: whether it is of a raster with a place on earth; see `colours.finish_for`.

    Attributes:
        size: (height, width) of the page.
        tile: (height, width) of its tiles.
        channels: values of a pixel.
        opacity: whether its opacity follows them.
        alpha: which of them is the opacity, where it is one of them.
        dtype: their type; integers of no known range become floating point.
        nodata: the value of pixels that mean nothing, or None.
        table: where the tiles lie.
        layout: in a few words, e.g. "tiled, JPEG".

    Raises:
        ImageError: the page is broken.
        Unsupported: it is of a kind that cannot be read here.
    """

    def __init__(self, page: Directory, file: ByteFile, name: str, raster: bool = False) -> None:
        try:
            self._prepare(page, file, name, raster)
        except ImageError:
            raise
        except NotImplementedError as error:
            raise Unsupported(
                f"{name}: a TIFF of a kind not supported here ({error}): "
                "export it again, e.g. as a tiled TIFF, or leave it out"
            ) from error
        except Exception as error:  # whatever tifffile makes of a broken page
            raise ImageError(
                f"{name}: broken TIFF page ({one_line(error)}): copy the file again, or leave it out"
            ) from error

    def _prepare(self, page: Directory, file: ByteFile, name: str, raster: bool) -> None:
        self.size = height, width = size_of(page)
        samples, compression = page.number(277, 1), page.number(259, 1)
        bits = set(page.numbers(258)) or {1}
        if min(height, width, samples) < 1:
            raise ValueError(f"{height}×{width} pixels of {samples} values")
        if len(bits) > 1 or (page.number(262, 1) != PALETTE and not bits <= set(WHOLE_BITS)):
            raise NotImplementedError(f"values of {' and '.join(map(str, sorted(bits)))} bits")
        if page.number(32997, 1) > 1:
            raise NotImplementedError("an image of several layers (ImageDepth)")
        self.planes = samples if page.number(284, 1) == 2 else 1
        tiled = 322 in page.values
        self.tile: Size = (page.number(323, 0), page.number(322, 0)) if tiled else (
            min(page.number(278, height) or height, height), width
        )  # fmt: skip
        if min(self.tile) < 1:
            raise ValueError(f"tiles of {self.tile[0]}×{self.tile[1]} pixels")
        row = width * (samples // self.planes) * int(bits.copy().pop()) // 8
        self.table = self._find(page, file, tiled, row)
        self._grid = -(-height // self.tile[0]), -(-width // self.tile[1])
        found = _alone(page, self._first_bytes(file), self.tile, tiled, self._count())
        self._decode, decoded = found.decode, np.dtype(found.dtype)
        self._tables = page.values[347].data if 347 in page.values else None
        self._finish, self.channels, dtype = finish_for(page, samples, decoded, raster)
        seen_through = opacity_of(page, samples) != 0
        self.dtype, self.opacity = kept_type(dtype, name), seen_through and not raster
        self.alpha = samples - 1 if seen_through and raster else None
        self._decoded = decoded
        self.nodata = _nodata(page, self.dtype)
        fill = 0 if self.nodata is None or self._finish is not None else self.nodata
        with np.errstate(over="ignore"):  # of what float16 cannot hold, infinity
            self._fill = np.asarray(fill).astype(self.dtype)
        how = "tiled" if tiled else "striped"
        if self._grid == (1, 1) and not tiled and compression != 1:
            how = "one strip, decoded whole"
        self.layout = f"{how}, {COMPRESSIONS.get(compression, f'compression {compression}')}"
        self.layout += "" if self.dtype == dtype else f", {dtype} as {self.dtype}"
        self._subsampled_is_rgb = compression == APERIO_YCBCR

    def _count(self) -> int:
        rows, columns = -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])
        return rows * columns * self.planes

    def _find(self, page: Directory, file: ByteFile, tiled: bool, row: int) -> Table | RowTable:
        codes = ((324, 273), (325, 279)) if tiled else ((273, 324), (279, 325))
        offsets, lengths = (page.tables.get(first) or page.tables.get(other) for first, other in codes)
        if offsets is None:
            raise ValueError("it does not say where its pixels are")
        plain = page.number(259, 1) == 1
        if lengths is None and not plain:
            raise ValueError("it does not say how long its tiles are")
        rows = self.tile[0] * (row if not tiled else self.tile[1] * row // self.size[1])
        table = Table(offsets, lengths, page.order, self._count(), rows)
        few = max(1, PIECE // max(row, 1))
        whole = page.number(258, 1) % 8 == 0 and page.number(266, 1) == 1
        if not tiled and plain and whole and few < self.tile[0] == self.size[0]:
            starts = [offset for offset, _ in table.parts(range(self.planes), file)]
            if all(starts):
                self.tile = few, self.tile[1]
                return RowTable(starts, row, few, self.size[0])
        return table

    def _first_bytes(self, file: ByteFile) -> bytes:
        """How a tile begins: it tells whether JPEG data is in the colours of JFIF."""
        offset, length = self.table.first(file)
        return file.read(offset, min(64, length)) if length else b""

    def numbers(self, wanted: Sequence[TileName]) -> list[int]:
        """Entries of the tiles in the table, all planes of a tile one after the other."""
        rows, columns = self._grid
        step = rows * columns
        if self.planes == 1:
            return [row * columns + column for row, column in wanted]
        return [plane * step + row * columns + column for row, column in wanted for plane in range(self.planes)]

    def absent(self, wanted: Sequence[TileName], file: ByteFile) -> list[TileName]:
        """The tiles of which some part is not stored."""
        places = self.table.parts(self.numbers(wanted), file)
        lengths = [places[i : i + self.planes] for i in range(0, len(places), self.planes)]
        return [name for name, parts in zip(wanted, lengths, strict=True) if not all(length for _, length in parts)]

    def pixels(
        self, numbers: Sequence[int], encoded: Sequence[bytes | None]
    ) -> Shaped[np.ndarray, "rows columns channel"]:
        """Decode the planes of a tile; None is one that is not stored, and means nothing.

        Raises:
            Exception: whatever the decoder raises on broken data.
        """
        if None in encoded:
            return np.broadcast_to(self._fill, (*self.tile, self.channels + self.opacity))
        planes = zip(encoded, numbers, strict=True)
        parts = [self._decode(data, number, jpegtables=self._tables)[0][0] for data, number in planes]
        values = parts[0] if self.planes == 1 else np.concatenate(parts, axis=2)
        if values.dtype != self._decoded:
            values = values.astype(self._decoded)
        if self._finish is None or (self._subsampled_is_rgb and _is_subsampled(encoded[0])):
            return values.astype(self.dtype, copy=False)
        return self._finish(values)


def _alone(page: Directory, sample: bytes, tile: Size, tiled: bool, count: int) -> Any:
    """Page as tifffile sees it, which can decode its tiles: `TiffPage.decode` is public, and takes bytes and no file.

    Why not of the file itself: a page is made of a file only, and with it tifffile reads the tables of all tiles into
    Python integers, 30 MB for a level of 25 gigapixels. So it gets to see the page alone, with tables of one byte an
    entry, in a file of a few hundred bytes that has no pixels but the first of one tile, which say whether it is JFIF.

    Why not imagecodecs alone: which codec takes what of jpegtables, colour spaces, predictors, fill and byte order and
    bits, and what it gives for tiles that are cut off, is hundreds of lines of tifffile, right in many odd cases.
    """
    import tifffile

    values = {tag: value for tag, value in page.values.items() if tag not in NOT_FOR_DECODING}
    if page.number(259, 1) not in tifffile.TIFF.IMAGE_COMPRESSIONS and 317 in page.values:
        values[317] = page.values[317]
    if page.number(262, 1) == YCBCR and 530 in page.values:
        values[530] = page.values[530]
    if not tiled:
        values[278] = Values(4, 1, struct.pack(f"{page.order}I", tile[0]))
    entries = 1 if tiled else count
    for tag, entry in ((324, 16), (325, len(sample))) if tiled else ((273, 16), (279, len(sample))):
        values[tag] = Values(1, entries, bytes([entry]) + bytes(entries - 1))
    file = tifffile.TiffFile(io.BytesIO(_miniature(page.order, values, sample)))
    found = file.pages.first
    try:
        found.decode(None, 0)  # says what it cannot decode
    except ValueError as error:
        raise NotImplementedError(" ".join(str(error).split())) from error
    assert found.dtype is not None
    return found


def _miniature(order: str, values: dict[int, Values], sample: bytes) -> bytes:
    """BigTIFF file of one page without pixels; `sample` lies at byte 16."""
    start = 16 + -(-len(sample) // 8) * 8
    at = start + 8 + 20 * len(values) + 8
    head = struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, start)
    entries, rest = [struct.pack(f"{order}Q", len(values))], []
    for tag, (kind, count, data) in sorted(values.items()):
        place = data.ljust(8, b"\0") if len(data) <= 8 else struct.pack(f"{order}Q", at)
        entries.append(struct.pack(f"{order}HHQ", tag, kind, count) + place)
        if len(data) > 8:
            rest.append(data)
            at += len(data)
    return b"".join([head, sample.ljust(start - 16, b"\0"), *entries, bytes(8), *rest])


def _nodata(page: Directory, dtype: np.dtype[Any]) -> float | None:
    """GDAL's tag 42113, a number written out; None if there is none, or none that a pixel can have."""
    try:
        value = float(page.text(42113).replace(",", "."))
    except ValueError:
        return None
    return value if is_stored(value, dtype) else None


def _is_subsampled(codestream: bytes | None) -> bool:
    """Whether the second component of JPEG 2000 data is coarser than the first (ISO 15444-1, A.5.1).

    The decoder then makes RGB of it by itself.
    """
    return codestream is not None and codestream[2:4] == b"\xff\x51" and codestream[46:48] != b"\x01\x01"
