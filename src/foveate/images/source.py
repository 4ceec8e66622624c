"""Base reader of images: what every image can do, whatever its format."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from foveate.cache import Cache, Owner
from foveate.errors import ImageError
from foveate.images.area import Bins, Region, average
from foveate.images.header import CacheKey, Header, PatchChange, Pixels, Reading, from_unit, full_scale
from foveate.images.io.open import length_of
from foveate.types import Box, Level, Size


class Source(ABC):
    """Source of pixels: an image of any size, of which only what is asked for is read.

    A format is a subclass that measures and reads (`_measure`, `_read`, and `_open` where there is a handle to hold);
    borders, fill, shapes, views and the count of bytes are settled here, once. Sources open on first use, can be
    pickled at any time (what is open or decoded stays behind) and can be read from several threads.

    Attributes:
        name: path of the file, or "" for an image in memory.
        patch_change: what a model does to every patch of this image that it reads; None for nothing.
    """

    patch_change: PatchChange | None = None
    _reads_file: bool = False
    _left_behind: tuple[str, ...] = ("_owner",)
    _owner: Owner[np.ndarray] | None = None

    def __init__(self, name: str = "", mpp: float | None = None) -> None:
        self.name = name
        self._mpp = mpp
        self._bytes = 0
        self._known: Header | None = None
        self._opened: Any = None
        self._lock = threading.RLock()

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel: as given, else as the file tells; None where unknown."""
        return self._told_mpp() if self._mpp is None else self._mpp

    @mpp.setter
    def mpp(self, value: float | None) -> None:
        self._mpp = value

    def _told_mpp(self) -> float | None:
        return self.header.mpp

    @property
    def threaded(self) -> bool:
        """Whether reading in threads is faster now, because the reader releases the interpreter lock."""
        return False

    @property
    def size(self) -> Size:
        """(height, width) at full resolution, in pixels."""
        return self.header.levels[0].size

    @property
    def channels(self) -> int:
        """Values per pixel."""
        return self.header.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that `read` gives."""
        return self.header.dtype

    @property
    def levels(self) -> tuple[Level, ...]:
        """The resolutions that can be read, finest first."""
        return self.header.levels

    @property
    def header(self) -> Header:
        """Header: what is known before any pixel is read; opens the file the first time."""
        if self._known is None:
            with self._lock, Reading(self._label()):
                if self._known is None:
                    self._ready()
                    self._known = self._measure()
        return self._known

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, views included: of the file, or of the pixels of an image in memory."""
        return self._bytes

    @property
    def file_bytes(self) -> int | None:
        """Bytes of the image's file, or of all files in its folder; None where there is none, or it is not known."""
        return length_of(self.name) if self.name else None

    def read(self, box: Box, level: int = 0) -> Pixels:
        """Read a rectangle of pixels.

        Arguments:
            box: the rectangle, in pixels of `level`; may hang over the border or miss the image altogether.
            level: index into `levels`.

        Returns:
            (box.height, box.width, channels) in the file's type, the caller's own; 0 outside the image.

        Raises:
            ImageError: if the box is empty, the level does not exist or the file cannot be read.
        """
        return self.read_many([box], level)[0]

    def read_many(self, boxes: Sequence[Box], level: int = 0, threads: int = 1) -> list[Pixels]:
        """Read several rectangles; what they share is decoded once.

        Arguments:
            boxes: in pixels of `level`, of any sizes; each may hang over the border or miss the image altogether.
            level: index into `levels`.
            threads: parts decoded at the same time, by readers for which that pays.

        Returns:
            As many arrays, (height, width, channels) in the file's type, the caller's own; 0 outside the image.

        Raises:
            ImageError: if a box is empty, the level does not exist or the file cannot be read.
        """
        levels = self.header.levels
        if not 0 <= level < len(levels):
            raise ImageError(f"{self._label()}: level must be one of 0 … {len(levels) - 1}, got {level}: see .levels")
        for box in boxes:
            if min(box.size) < 1:
                raise ImageError(
                    f"{self._label()}: a box must have at least one row and one column, got {box.height}×{box.width}: "
                    "ask for a larger one"
                )
        inside = [box.within(0, 0, *levels[level].size) for box in boxes]
        with Reading(self._label()):
            parts = iter(self._fetch_many([part for part in inside if part is not None], level, threads))
        results: list[np.ndarray] = []
        for box, part in zip(boxes, inside, strict=True):
            if part is not None and part == box:
                results.append(next(parts))
                continue
            result = np.zeros((box.height, box.width, self.header.channels), self.header.dtype)
            if part is not None:
                top, left = part.top - box.top, part.left - box.left
                result[top : top + part.height, left : left + part.width] = next(parts)
            results.append(result)
        return results

    def view(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns channel"]:
        """View of a region at another resolution: its exact area average.

        Arguments:
            size: (rows, columns) of the result.
            region: (top, left, bottom, right) in level-0 pixels, fractions allowed; may hang over the border, where
                pixels count as 0. The whole image if None.

        Returns:
            (rows, columns, channels) float32 in the unit range.

        Raises:
            ImageError: if the size or the region is empty or the file cannot be read.
        """
        top, left, bottom, right = region or (0, 0, *self.size)
        if min(size) < 1:
            raise ImageError(
                f"{self._label()}: a view must have at least one row and one column, got {size[0]}×{size[1]}: "
                "ask for a larger one"
            )
        if not (math.isfinite(top + left + bottom + right) and top < bottom and left < right):
            raise ImageError(
                f"{self._label()}: a region must go down and to the right, got top {top}, left {left}, "
                f"bottom {bottom}, right {right}: order it as (top, left, bottom, right)"
            )
        with Reading(self._label()):
            return self.average_of(size, (top, left, bottom, right), Box(0, 0, *self.size)).astype(np.float32)

    def average_of(self, size: Size, region: Region, window: Box) -> Float64[np.ndarray, "rows columns channel"]:
        """Area average behind `view`: exact, from the coarsest level that is fine enough; arguments are not checked.

        Wrappers call it of the image they wrap: it is not rounded to float32, and knows of a window.

        Arguments:
            size: (rows, columns) of the result.
            region: what it shows, in level-0 pixels.
            window: within the image; pixels outside it count as 0.

        Returns:
            (rows, columns, channels) in the unit range.

        Raises:
            ImageError: if the file cannot be read.
        """
        level = self.level_for(size, region)
        rows, columns = Bins.both(size, region, window, self.levels[level].factor)
        west, east = columns.extent()

        def strip(start: int, stop: int) -> Shaped[np.ndarray, "..."]:
            part = self._fetch(Box(start, west, stop - start, east - west), level)
            return part.reshape(*part.shape[:2], self.channels)

        return average(strip, rows, columns, self.channels) / full_scale(self.dtype)

    def thumbnail(self, longest_side: int) -> Pixels:
        """Thumbnail of the whole image; images that are smaller already are not enlarged.

        Arguments:
            longest_side: longest side of the result, in pixels; at least 1.

        Returns:
            (height, width, channels) in the file's type.
        """
        rows, columns = self.size
        longest = max(rows, columns)
        if longest > longest_side:
            rows, columns = (max(1, (2 * side * longest_side + longest) // (2 * longest)) for side in (rows, columns))
        return from_unit(self.view((rows, columns)), self.dtype)

    def to_file(self, box: Box) -> Box:
        """Coordinates in the file of a box of this image, whatever has been done to it on the way.

        Arguments:
            box: in level-0 pixels of this image.

        Returns:
            The box in level-0 pixels of the file; it may hang over the border there.
        """
        return box

    def valid(self, size: Size, region: Region | None = None) -> Bool[np.ndarray, "rows columns"] | None:  # noqa: ARG002
        """Validity mask of a view: False where most of a cell has no data, or a mask says no.

        Arguments:
            size: (rows, columns) of the view.
            region: as in `view`; outside the image nothing is valid.

        Returns:
            (rows, columns), or None where all of the image means something.

        Raises:
            ImageError: if it cannot be read.
        """
        return None

    def guide(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns"] | None:
        """Attention guide: log weights of the cells of a view, of what is known of where to look before any attention.

        Arguments:
            size: (rows, columns) of the view.
            region: as in `view`.

        Returns:
            (rows, columns): 0 where nothing speaks against looking, below 0 where something does, −inf where looking is
            out of the question; or None where nothing is known.

        Raises:
            ImageError: if it cannot be read.
        """
        valid = self.valid(size, region)
        return None if valid is None else np.where(valid, 0, -np.inf).astype(np.float32)

    def cache_key(self) -> CacheKey | None:
        """Cache key: all that determines the pixels, in any run; None where it is not known, as of arrays in memory."""
        return None

    def prefetch(self) -> None:  # noqa: B027  most formats have nothing to do
        """Prefetching: decode now, or raise now, what `read` would, of an image that can only be decoded whole."""

    def close(self) -> None:
        """Close what is open and drop what is decoded; the next read opens again."""
        with self._lock:
            for name in self._left_behind:
                setattr(self, name, None)
            self._opened = None

    def _open(self) -> Any:
        """What `_measure` and `_read` need, opened now: `_ready` hands it out until the source is closed."""
        return ()  # most formats hold nothing

    def _ready(self) -> Any:
        """What `_open` gave."""
        opened = self._opened
        if opened is None:  # for the first time, or closed by another thread since
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
                opened = self._opened
        return opened

    def _owned(self, cache: Cache[np.ndarray]) -> Owner[np.ndarray]:
        """What this source holds in a cache of the process, until it is closed."""
        with self._lock:
            self._owner = self._owner or Owner(cache)
            return self._owner

    @abstractmethod
    def _measure(self) -> Header:
        """Read the header."""

    @abstractmethod
    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:
        """Read a box that lies inside the image; (height, width) is welcome where there is one channel."""

    def level_for(self, size: Size, region: Region) -> int:
        """Pyramid level that a view is made from: the coarsest one that is as fine as the view.

        Arguments:
            size: (rows, columns) of the view.
            region: (top, left, bottom, right) in level-0 pixels.
        """
        down, along = (region[2] - region[0]) / size[0], (region[3] - region[1]) / size[1]
        factors = [level.factor for level in self.levels]
        fine = [i for i, factor in enumerate(factors) if factor[0] <= down and factor[1] <= along]
        return max(fine, key=factors.__getitem__, default=0)

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:  # noqa: ARG002
        """Read boxes that lie inside the image; arrays of the caller's own."""
        return [np.array(self._fetch(box, level), self.dtype) for box in boxes]

    def _fetch(self, box: Box, level: int) -> Pixels:
        self._ready()
        part = self._read(box, level)
        if not self._reads_file:
            self._count(part.nbytes)
        return part if part.ndim == 3 else part[:, :, None]

    def _count(self, amount: int) -> None:
        with self._lock:
            self._bytes += amount

    def _label(self) -> str:
        return self.name or "image in memory"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return state | dict.fromkeys(self._left_behind) | {"_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        known = self._known
        size = "" if known is None else f", {known.levels[0].size[0]}×{known.levels[0].size[1]}×{known.channels}"
        return f"{type(self).__name__}({self._label()!r}{size})"
