"""Zarr reader: OME-Zarr images and plain arrays, in folders and at addresses."""

import contextlib
import itertools
import os
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.errors import ImageError, one_line
from foveate.images.formats.library import library
from foveate.images.formats.ome import Picture, array_picture, group_pictures
from foveate.images.formats.tiled import TiledSource, TileName, touched_tiles
from foveate.images.header import Header
from foveate.threads import in_threads
from foveate.types import Box, Size

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""One of these files is in every folder of Zarr, versions 3 and 2."""

Block = tuple[range, range]
"""Rows and columns of tiles that are read together: Zarr fetches their chunks at the same time."""


class ZarrSource(TiledSource):
    """Zarr image: OME-Zarr (0.4 and 0.5) or a plain Zarr array, in a folder or at an address, read in chunks.

    Of an image with axes t and z the first of each is read, which the header's format says; channels are laid last.
    Chunks that are left out hold the fill value, and are missing data; so is a fill value that is nan. Integers
    other than uint8 and uint16 become floating point. `bytes_read` counts the bytes that come from the store, JSON
    included.

    A plain array is (height, width) or (height, width, channels) unless it names its dimensions x, y and c.

    Reference: https://ngff.openmicroscopy.org/0.4/, https://ngff.openmicroscopy.org/0.5/ (multiscales).

    Arguments:
        path: the folder, or its address (https://…, s3://…).
        mpp: microns per pixel at full resolution; overrides what the image says.
    """

    told_by_pixels = True
    threaded = True

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(str(path), mpp)
        self._amounts: deque[int] = deque()
        self._looked_for: deque[str] = deque()
        self._left_out: set[str] = set()

    def _measure(self) -> Header:
        picture, _ = self._ready()
        return picture.header

    def _tile(self, level: int) -> Size:
        picture, arrays = self._ready()
        return picture.tile(arrays[level])

    def _decode(
        self, level: int, wanted: Sequence[TileName], threads: int
    ) -> Sequence[Shaped[np.ndarray, "rows columns channel"]]:
        found = in_threads(lambda block: self._block(level, block), blocks(wanted), threads)
        tiles = {name: tile for some in found for name, tile in some.items()}
        return [tiles[name] for name in wanted]

    def _block(self, level: int, block: Block) -> dict[TileName, Shaped[np.ndarray, "rows columns channel"]]:
        """The tiles of a rectangle, read at once."""
        picture, arrays = self._ready()
        array = arrays[level]
        (rows, columns), (height, width) = block, picture.tile(array)
        box = Box(rows[0] * height, columns[0] * width, len(rows) * height, len(columns) * width)
        tiles: dict[TileName, Shaped[np.ndarray, "rows columns channel"]] = {}
        try:
            part = picture.laid_out(np.asarray(array[picture.selection(box)]))
        except ImageError:  # of an address: no tile is broken, and asking for each by itself would take as long again
            raise
        except Exception as error:  # every store and every codec has errors of its own
            if len(rows) * len(columns) == 1:
                raise self._broken_tile(level, (rows[0], columns[0]), one_line(error)) from error
            for row, column in itertools.product(rows, columns):  # which of them it is
                tiles |= self._block(level, (range(row, row + 1), range(column, column + 1)))
            return tiles
        finally:
            self._settle()
        for row, column in itertools.product(rows, columns):
            down, along = (row - rows[0]) * height, (column - columns[0]) * width
            tiles[row, column] = np.array(part[down : down + height, along : along + width], picture.header.dtype)
        return tiles

    def _absent(self, level: int, box: Box) -> Sequence[TileName]:
        if not self._left_out:
            return ()
        picture, arrays = self._ready()
        array = arrays[level]
        names = touched_tiles(box, picture.tile(array))
        return [name for name in names if self._left_out.issuperset(picture.keys(array, name))]

    def _may_miss(self, level: int) -> bool:  # noqa: ARG002  nobody knows without asking for every chunk
        return True

    def _ready(self) -> tuple[Picture, tuple[Any, ...]]:
        """The image, and the arrays of all its levels; a forked process opens its own."""
        process, picture, arrays = super()._ready()
        if process != os.getpid():
            with self._lock:
                self._opened = None
                _, picture, arrays = super()._ready()
        return picture, arrays

    def _open(self) -> tuple[int, Picture, tuple[Any, ...]]:
        zarr = library("zarr", self.name)
        from foveate.images.formats.zarr_stores import local_store, remote_store  # load asyncio, as Zarr does

        try:
            make = remote_store if "://" in self.name else local_store
            store = make(self.name, self._amounts.append, self._looked_for.append)
            node, inside = _first_image(_opened(zarr, store))
            if isinstance(node, zarr.Array):
                arrays: tuple[Any, ...] = (node,)
                picture = array_picture(node, self.name)
            else:
                described = group_pictures(dict(node.attrs.asdict()), self.name)
                arrays = tuple(node[path] for path in described.paths)
                picture = described.measured(arrays, inside)
        except ImageError:
            raise
        except FileNotFoundError:
            raise ImageError(f"{self.name}: no Zarr array or group there: check the path") from None
        except Exception as error:  # what the JSON says may be wrong in any way
            raise ImageError(
                f"{self.name}: broken Zarr, or of a kind not supported here ({one_line(error)}): "
                "copy it again, or leave it out"
            ) from error
        finally:
            self._settle()
        return os.getpid(), picture, arrays

    def _settle(self) -> None:
        """Note what the store has read and not found; it reads in a thread that must not wait for this source."""
        with contextlib.suppress(IndexError):
            while True:
                self._count(self._amounts.popleft())
        with contextlib.suppress(IndexError):
            while True:
                self._left_out.add(self._looked_for.popleft())


def blocks(names: Sequence[TileName]) -> list[Block]:
    """Tiles in as few rectangles as going through them row by row finds.

    Example:
        >>> blocks([(0, 1), (0, 2), (1, 1), (1, 2), (2, 5)])
        [(range(0, 2), range(1, 3)), (range(2, 3), range(5, 6))]
    """
    found: list[Block] = []
    for row, group in itertools.groupby(sorted(names), key=lambda name: name[0]):
        columns = [name[1] for name in group]
        for _, run in itertools.groupby(enumerate(columns), key=lambda pair: pair[1] - pair[0]):
            seen = [column for _, column in run]
            along = range(seen[0], seen[-1] + 1)
            above = next((i for i, block in enumerate(found) if block == (range(block[0].start, row), along)), None)
            if above is None:
                found.append((range(row, row + 1), along))
            else:
                found[above] = (range(found[above][0].start, row + 1), along)
    return found


def is_zarr(folder: Path) -> bool:
    """Whether a folder holds a Zarr array or group."""
    return any((folder / name).is_file() for name in ZARR_FILES)


def _opened(zarr: Any, store: Any) -> Any:
    """The group or array at the root of a store, of either version."""
    from foveate.images.io.network import Refused

    first: Exception | None = None
    for version in (3, 2):
        for opens, more in ((zarr.open_group, {"use_consolidated": False}), (zarr.open_array, {})):
            try:
                return opens(store=store, mode="r", zarr_format=version, **more)
            except Exception as error:  # of the other kind, of the other version, or broken
                if isinstance(error, ImageError) and not isinstance(error, Refused):
                    raise  # an address that does not answer; S3 may refuse to say that something is not there
                # Zarr's frames hold the error, and it them and their callers', in one of which the source is
                traceback.clear_frames(error.__traceback__)
                if not isinstance(error, FileNotFoundError):
                    first = first or error.with_traceback(None)
    raise first or FileNotFoundError


def _first_image(node: Any) -> tuple[Any, str]:
    """The image itself, or the first of those that bioformats2raw puts into one group."""
    attributes = dict(node.attrs.asdict())
    described = attributes.get("ome", attributes)
    if isinstance(described, dict) and "bioformats2raw.layout" in described and "multiscales" not in described:
        return node["0"], ", series 0"
    return node, ""
