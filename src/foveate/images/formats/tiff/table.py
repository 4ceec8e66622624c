"""TIFF tile tables: where the strips or tiles of a page lie in the file, looked up a block of entries at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt64

from foveate.images.formats.tiff.directory import Entry
from foveate.images.io.local import ByteFile

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
        self.bytes_read = 0

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
            self._blocks[block] = table


class RowTable:
    """Row table: the same for pixels that lie there uncompressed in one strip, which can be read a few rows at a time.

    Arguments:
        starts: where every band begins, or the only strip does.
        row: bytes of a row.
        rows: of a piece.
        height: of the image.
    """

    bytes_read = 0

    def __init__(self, starts: Sequence[int], row: int, rows: int, height: int) -> None:
        self._starts, self._row, self._rows, self._height = tuple(starts), row, rows, height
        self._pieces = -(-height // rows)

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
