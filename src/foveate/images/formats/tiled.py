"""Tiled images: every tile is decoded once, however many boxes and threads want it."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

import foveate.images.area as averages
from foveate.cache import TILES
from foveate.errors import ImageError
from foveate.images.area import Bins, Region
from foveate.images.header import Missing, Pixels, full_scale, united, unseen, without
from foveate.images.orientation import Orientation
from foveate.images.source import Known, Source
from foveate.images.view import Averages, known_average
from foveate.types import Box, Size

TileName = tuple[int, int]
"""(row, column) of a tile in the grid of its level."""

BATCH_BYTES = 2**25
"""Decoded tiles held at a time while a large box is read, beside those kept."""

Tile = Shaped[np.ndarray, "rows columns channel"]


class TiledSource(Source):
    """Tiled image: its levels are decoded in tiles; a subclass says how large they are and decodes them.

    Boxes are put together of tiles here, each decoded once per call however many boxes share it, and held in a cache
    that all sources of the process share (`foveate.cache.TILES`). Views are averaged in strips that end where tiles do,
    so that memory is bounded and no tile is decoded twice; a view, or a box, of more than a quarter of the cache passes
    by it, or it would drop all that is in there.

    Attributes:
        tiles_decoded: tiles decoded so far, views included.
    """

    _reads_file = True
    _orientation: Orientation = Orientation()
    """How to lay down what is stored, known once the header is; levels are those of what is laid down."""
    _opacity: bool = False
    """Whether the opacity of a pixel follows its channels in every tile, likewise."""

    def __init__(self, name: str = "", mpp: float | None = None) -> None:
        super().__init__(name, mpp)
        self.tiles_decoded = 0

    @abstractmethod
    def _tile(self, level: int) -> Size:
        """(height, width) of the tiles of a level, as they are stored."""

    @abstractmethod
    def _decode(self, level: int, wanted: Sequence[TileName], threads: int) -> Sequence[Tile]:
        """Decode tiles; at the border they may end where the image does, or go on.

        Arguments:
            level: index into `levels`.
            wanted: (row, column) in the grid of tiles, all different.
            threads: tiles decoded at the same time; see `foveate.threads`.
        """

    def grid(self, level: int = 0) -> Size:
        """(rows, columns) of the tiles of a level."""
        height, width = self._stored(level)
        rows, columns = self._tile(level)
        return -(-height // rows), -(-width // columns)

    def _stored(self, level: int) -> Size:
        return self._orientation.size(self.levels[level].size)

    def _read(self, box: Box, level: int) -> Pixels:
        return self._fetch_many([box], level, 1)[0]

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:
        self._ready()
        turn = self._orientation
        if turn == Orientation() and not self._opacity:
            return self._assembled(boxes, level, threads)
        size = self._stored(level)
        before = self._assembled([turn.box_before(box, size) for box in boxes], level, threads)
        return [np.ascontiguousarray(turn.apply(part)[:, :, : self.channels]) for part in before]

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        self._ready()
        turn, size = self._orientation, self._stored(level)
        before = boxes if turn == Orientation() else [turn.box_before(box, size) for box in boxes]
        parts = self._assembled(before, level, threads)
        known = [self._cleaned(part, box, level) for part, box in zip(parts, before, strict=True)]
        if turn == Orientation():
            return known
        return [
            (np.ascontiguousarray(turn.apply(part)), missing if missing is None else turn.apply(missing).copy())
            for part, missing in known
        ]

    def _cleaned(self, pixels: Shaped[np.ndarray, "_ _ _"], box: Box, level: int) -> Known:
        """The same of a box of what is stored, and of its opacity, where there is one."""
        if not self._opacity:
            return super()._cleaned(pixels, box, level)
        pixels, opacity = pixels[:, :, : self.channels], pixels[:, :, self.channels :]
        return without(pixels, united(self._missing(pixels, box, level), unseen(opacity)))

    def _missing(self, pixels: Pixels, box: Box, level: int) -> Missing | None:
        """The header's no data, and tiles that are not there; the box is one of what is stored."""
        missing = super()._missing(pixels, box, level)
        absent = self._absent(level, box)
        if not absent:
            return missing
        height, width = self._tile(level)
        marked = np.zeros((*box.size, 1), np.bool_) if missing is None else missing
        blank = np.ones((height, width, marked.shape[2]), np.bool_)
        for row, column in absent:
            _paste(marked, box, blank, row * height, column * width)
        return marked

    def _absent(self, level: int, box: Box) -> Sequence[TileName]:  # noqa: ARG002
        """Tiles that a box touches and that the file leaves out; asked for when they have been decoded."""
        return ()

    def _assembled(self, boxes: Sequence[Box], level: int, threads: int, keep: bool | None = None) -> list[Pixels]:
        """Boxes that lie inside the image as it is stored, put together of tiles."""
        height, width = self._tile(level)
        if len(boxes) == 1:  # most reads: nothing is shared
            touched = touched_tiles(boxes[0], (height, width))
            shares = {name: [0] for name in touched}
        else:
            shares = {}
            for i, box in enumerate(boxes):
                for name in touched_tiles(box, (height, width)):
                    shares.setdefault(name, []).append(i)
            touched = list(shares)
        channels, dtype = self.channels + self._opacity, self.dtype
        each = height * width * channels * dtype.itemsize
        if keep is None:
            keep = self._to_be_kept(len(touched), each)
        results = [np.empty((box.height, box.width, channels), dtype) for box in boxes]
        batch = max(threads, BATCH_BYTES // each, 1)
        for start in range(0, len(touched), batch):
            some = touched[start : start + batch]
            for (row, column), tile in zip(some, self._tiles(level, some, threads, keep), strict=True):
                for i in shares[row, column]:
                    _paste(results[i], boxes[i], tile, row * height, column * width)
        return results

    def _to_be_kept(self, count: int, each: int) -> bool:
        return count == 1 or count * each <= TILES.limit // 4

    def _tiles(self, level: int, wanted: Sequence[TileName], threads: int, keep: bool) -> list[Tile]:
        def decode(some: list[tuple[int, int, int]]) -> Sequence[Tile]:
            names = [(row, column) for _, row, column in some]
            tiles = self._decode(level, names, threads)
            self._check(level, names, tiles)
            with self._lock:
                self.tiles_decoded += len(tiles)
            return tiles

        owner = self._owner or self._owned(TILES)  # the lock is not waited for by every read
        return owner.get_many([(level, row, column) for row, column in wanted], decode, keep)

    def _check(self, level: int, names: Sequence[TileName], tiles: Sequence[np.ndarray]) -> None:
        (bottom, right), (height, width) = self._stored(level), self._tile(level)
        channels, dtype = self.channels + self._opacity, self.dtype
        for (row, column), tile in zip(names, tiles, strict=True):
            need = min(height, bottom - row * height), min(width, right - column * width)
            shape = tile.shape
            if len(shape) != 3 or shape[0] < need[0] or shape[1] < need[1] or shape[2] != channels:
                raise self._broken_tile(level, (row, column), f"it is {shape}, not {(*need, channels)}")
            if tile.dtype != dtype:
                raise self._broken_tile(level, (row, column), f"its values are {tile.dtype}, not {dtype}")

    def _broken_tile(self, level: int, name: TileName, reason: str) -> ImageError:
        return ImageError(
            f"{self._label()}: broken tile at row {name[0]}, column {name[1]} of level {level} ({reason}): "
            "copy the file again, or leave it out"
        )

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average, in strips that end where tiles do."""
        level, wanted = self.level_for(size, region), (size, region, window)
        self._ready()
        down, along = self.levels[level].factor
        turn, whole = self._orientation, self._orientation.size(self.size)
        if turn.transpose:
            down, along = along, down
        region, window, size = turn.region_before(region, whole), turn.box_before(window, whole), turn.size(size)
        rows, columns = Bins.both(size, region, window, (down, along))
        (north, south), (west, east) = rows.extent(), columns.extent()
        height, width = self._tile(level)
        grid = (-(-south // height) - north // height) * (-(-east // width) - west // width)
        keep = self._to_be_kept(grid, height * width * self.channels * self.dtype.itemsize)
        # where a row of tiles is too much to hold, some columns of tiles are averaged, then the next
        wide = max(1, averages.BLOCK_ELEMENTS // (height * width * self.channels)) * width
        result, lost = np.zeros((*size, self.channels)), None
        for left in range(west // width * width, east, wide):
            first, stop = max(left, west), min(left + wide, east)

            def strip(top: int, bottom: int, first: int = first, stop: int = stop) -> Known:
                box = Box(top, first, bottom - top, stop - first)
                return self._cleaned(self._assembled([box], level, 1, keep)[0], box, level)

            some = columns if (first, stop) == (west, east) else columns.within(first, stop)
            sums, part = known_average(strip, rows, some, self.channels, height)
            result += sums
            if part is not None:
                lost = part if lost is None else lost + part
        result /= full_scale(self.dtype)
        return turn.apply(result), self._share(None if lost is None else turn.apply(lost), *wanted)


def touched_tiles(box: Box, tile: Size) -> list[TileName]:
    """The tiles that a box touches, row by row."""
    height, width = tile
    columns = range(box.left // width, (box.right - 1) // width + 1)
    return [(row, column) for row in range(box.top // height, (box.bottom - 1) // height + 1) for column in columns]


def _paste(result: Pixels, box: Box, tile: Tile, top: int, left: int) -> None:
    """Copy what a tile whose corner lies at (top, left) shows of a box."""
    down, along = top - box.top, left - box.left
    first, start = max(0, down), max(0, along)
    last, stop = min(box.height, down + tile.shape[0]), min(box.width, along + tile.shape[1])
    result[first:last, start:stop] = tile[first - down : last - down, start - along : stop - along]
