"""Source cache: images that stay open from one pass over them to the next, with views that were made of them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from foveate.cache import DECODED, TILES, Owner
from foveate.config.settings import DataSettings
from foveate.datasets.types import ImageDataset
from foveate.disk_cache import DiskCache, cache_folder
from foveate.images import Canvas, PillowSource, Source, TiffSource, original
from foveate.images.area import Region
from foveate.images.header import Pixels
from foveate.images.source import Known
from foveate.images.view import Averages
from foveate.images.wrappers.base import Unchanged, Wrapper
from foveate.images.wrappers.guide import Guided
from foveate.images.wrappers.mask import Masked
from foveate.types import Box, Size

OPEN_BYTES = 2**28
"""Bytes that open images may take, beside what is decoded of them; those used longest ago are closed."""

OPEN_LEAST, PER_TILE, PER_CANVAS = 2**12, 16, 2**16
"""Bytes that an open image takes, about: at least; for a tile's place in its file; and for the strokes of a canvas."""

LOCKS = 64
"""Images opened at a time, at most."""

What = str
"""What is kept of an image: "average", "guide", "valid", or whatever else is made of its view."""


def open_disk_cache(data: DataSettings) -> DiskCache | None:
    """Disk cache of decoded images and views that the settings ask for, or None."""
    if data.cache != "disk":
        return None
    folder = cache_folder() / "images" if data.cache_folder is None else Path(data.cache_folder)
    return DiskCache(folder, round(1e9 * data.cache_gigabytes))


@contextmanager
def memory_limits(data: DataSettings) -> Generator[None, None, None]:
    """Limits of the memory for decoded images, views and tiles, as the settings have them, while the block runs."""
    before = DECODED.limit, TILES.limit
    try:
        DECODED.set_limit(round(1e9 * data.memory_gigabytes))
        TILES.set_limit(round(1e9 * data.tile_gigabytes))
        yield
    finally:
        DECODED.set_limit(before[0])
        TILES.set_limit(before[1])


class CachedViews(Unchanged):
    """View cache of an image: views of the whole of it, their guides and validity masks are made once.

    They are kept in memory, then on disk, and rounded to float32 whether they are kept or not: no result depends on it.

    Arguments:
        source: the image, as the model wants it.
        number: of the image.
        memory: where they are kept, with the number; None keeps nothing there.
        disk: where they are kept of images that have a cache key; None keeps nothing there.
    """

    def __init__(
        self, source: Source, number: int = 0, memory: Owner[np.ndarray] | None = None, disk: DiskCache | None = None
    ) -> None:
        super().__init__(source)
        self._number, self._memory, self._disk = number, memory, disk

    @property
    def unkept(self) -> "CachedViews":
        """The same image, whose views are made anew: for who keeps what is made of them, which is smaller."""
        return CachedViews(self.source, self._number)

    def read_many(self, boxes: Sequence[Box], level: int = 0, threads: int = 1) -> list[Pixels]:
        """Read several rectangles, of the original."""
        return self.source.read_many(boxes, level, threads)

    def read_known(self, boxes: Sequence[Box], level: int = 0, threads: int = 1) -> list[Known]:
        """Read several rectangles, and what is missing of them, of the original."""
        return self.source.read_known(boxes, level, threads)

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original; of the whole of it as it is kept."""
        if not self._is_whole(region) or window != Box(0, 0, *self.size):
            return self.source.average_of(size, region, window)
        kept = self._average(size).astype(np.float64)
        return kept[:, :, : self.channels], kept[:, :, self.channels :] if kept.shape[2] > self.channels else None

    def _average(self, size: Size) -> Float32[np.ndarray, "rows columns some"]:
        """Area average of the whole image as it is kept; the share of data follows, where any is missing."""

        def make() -> np.ndarray:
            whole = Box(0, 0, *self.size)
            sums, share = self.source.average_of(size, (0, 0, *self.size), whole)
            return (sums if share is None else np.concatenate([sums, share], axis=2)).astype(np.float32)

        return self.kept("average", size, make)

    def view(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns channel"]:
        """View of a region; of the whole image as it is kept, in an array of the caller's own."""
        if min(size) < 1 or not self._is_whole(region):
            return super().view(size, region)
        kept = self._average(size)
        return kept.copy() if kept.shape[2] == self.channels else super().view(size, region)

    def valid(self, size: Size, region: Region | None = None) -> Bool[np.ndarray, "rows columns"] | None:
        """Validity mask of a view of the original."""
        valid: np.ndarray | None = self._told("valid", self.source.valid, size, region)
        return valid

    def guide(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns"] | None:
        """Attention guide of a view of the original."""
        guide: np.ndarray | None = self._told("guide", self.source.guide, size, region)
        return guide

    def _told(self, what: What, tell: Callable[..., Any], size: Size, region: Region | None) -> Any:
        if not (self._is_whole(region) and self._is_guided()):
            return tell(size, region)
        kept = self.kept(what, size, lambda: _or_empty(tell(size)))
        return None if kept.size == 0 else kept.copy()

    def _is_whole(self, region: Region | None) -> bool:
        return region is None or region == (0, 0, *self.size)

    def _is_guided(self) -> bool:
        """Whether there may be something to tell of where to look, that takes longer than finding it again."""
        source = self.source
        while isinstance(source, Wrapper):
            if isinstance(source, Guided | Masked):
                return True
            source = source.source
        return source.header.nodata is not None or source.told_by_pixels

    def kept(self, what: What, size: Size, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What is kept of a view of this size, or made now; nobody may write to it."""
        if self._memory is None:
            return make()
        return self._memory.get((self._number, what, size), lambda: self._stored(what, size, make))

    def _stored(self, what: What, size: Size, make: Callable[[], np.ndarray]) -> np.ndarray:
        identity = None if self._disk is None else self.source.cache_key()
        if self._disk is None or identity is None:
            return make()
        key = (what, size, identity)
        array = self._disk.read(key)
        if array is None:
            array = make()
            if self.source.cache_key() == identity:  # else it is not of the file it was to be of
                self._disk.write(key, array)
        return array


def _or_empty(array: np.ndarray | None) -> np.ndarray:
    return np.zeros((0, 0)) if array is None else array


class SourceCache:
    """LRU cache of open images, from epoch to epoch, and of their views.

    Images that hold no file open and no pixels of their own stay open, with what a model's intake found out of them:
    those decoded whole, whose pixels lie in a cache of limited bytes (`foveate.cache.DECODED`) or on the
    disk; TIFF; and canvases. Others may hold handles or arrays and are opened anew, which reads no pixel. Views are
    kept of all. Several threads may open images; none is opened by two at a time. What is held stays behind when this
    is pickled.

    Arguments:
        dataset: the images.
        intake: gives an image as the model wants it, or raises (`Model.intake`); None takes it as it is.
        limit: how many to hold.
        views: whether views are kept in memory.
        disk: where decoded images and views are kept for the next run, too; None keeps nothing there.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        intake: Callable[[Source], Source] | None = None,
        limit: int = 4096,
        views: bool = False,
        disk: DiskCache | None = None,
    ) -> None:
        self.dataset, self.intake, self.limit, self.disk = dataset, intake, limit, disk
        self._views: Owner[np.ndarray] | None = Owner(DECODED) if views else None
        self._start()

    def _start(self) -> None:
        self._held: OrderedDict[int, tuple[Source, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._opening = tuple(threading.Lock() for _ in range(LOCKS))

    @classmethod
    def of_settings(
        cls, dataset: ImageDataset, intake: Callable[[Source], Source] | None, data: DataSettings
    ) -> "SourceCache":
        """Source cache that keeps what the settings say (`data.cache`)."""
        return cls(dataset, intake, views=data.cache != "off", disk=open_disk_cache(data))

    def __len__(self) -> int:
        return len(self._held)

    def open(self, index: int) -> Source:
        """The image of example `index`, as the model wants it.

        Raises:
            ImageError: as the data set's `open`, and the intake.
        """
        source = self._find(index)
        if source is not None:
            return source
        with self._opening[index % LOCKS]:
            source = self._find(index)  # another thread may have opened it meanwhile
            return self._open(index) if source is None else source

    def _find(self, index: int) -> Source | None:
        with self._lock:
            if index not in self._held:
                return None
            self._held.move_to_end(index)
            return self._held[index][0]

    def _open(self, index: int) -> Source:
        opened = self.dataset.open(index)
        inner = original(opened)
        if isinstance(inner, PillowSource):
            inner.disk = self.disk
        wanted = opened if self.intake is None else self.intake(opened)
        source = CachedViews(wanted, index, self._views, self.disk)
        size = _open_bytes(inner)
        if size is not None:
            with self._lock:
                self._held[index] = source, size
                self._bytes += size
                while len(self._held) > self.limit or (self._bytes > OPEN_BYTES and len(self._held) > 1):
                    self._bytes -= self._held.popitem(last=False)[1][1]
        return source

    def __getstate__(self) -> dict[str, Any]:
        gone = ("_held", "_bytes", "_lock", "_opening")
        return {name: value for name, value in self.__dict__.items() if name not in gone}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _open_bytes(source: Source) -> int | None:
    """Bytes that an open image takes, at most and about; None if it is not to stay open."""
    if isinstance(source, TiffSource):
        tiles = sum(rows * columns for rows, columns in map(source.grid, range(len(source.levels))))
        return OPEN_LEAST + PER_TILE * tiles
    if isinstance(source, Canvas):
        return PER_CANVAS
    return OPEN_LEAST if isinstance(source, PillowSource) else None
