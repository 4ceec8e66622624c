"""Base reader of images: what every image can do, whatever its format."""

import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.cache import Cache, Owner
from foveate.errors import ImageError
from foveate.images.header import (
    CacheKey,
    Header,
    Missing,
    PatchChange,
    Pixels,
    Reading,
    Sides,
    missing_values,
    without,
)
from foveate.images.io.open import length_of
from foveate.images.view import Viewed
from foveate.types import Box

Known = tuple[Pixels, Missing | None]
"""Pixels, 0 where a value is missing, and which values are; None if none is."""


class Source(Viewed):
    """Source of pixels: an image of any size, of which only what is asked for is read.

    A format is a subclass that measures and reads (`_measure`, `_read`, and `_open` where there is a handle to hold),
    and says what is no data, if anything but the header's `nodata` can be (`_missing`); borders, fill, shapes, views
    and the count of bytes are settled here and in `Viewed`, once. Sources open on first use, can be pickled at any time
    (what is open or decoded stays behind) and can be read from several threads.

    Attributes:
        name: path of the file, or "" for an image in memory.
        patch_change: what a model does to every patch of this image that it reads; None for nothing.
    """

    patch_change: PatchChange | None = None
    _reads_file: bool = False
    _left_behind: tuple[str, ...] = ("_owner", "_seen", "_means")
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

    @property
    def pixel(self) -> Sides | None:
        """Height and width of a level-0 pixel in microns: `mpp` of both as given, else as the file tells."""
        if self._mpp is not None:
            return self._mpp, self._mpp
        return self._told_pixel()

    def _told_mpp(self) -> float | None:
        return self.header.mpp

    def _told_pixel(self) -> Sides | None:
        header = self.header
        return header.pixel if header.pixel or header.mpp is None else (header.mpp, header.mpp)

    def tell(self, **facts: Any) -> None:
        """Say more of the image than its file does: fields of the header, of what lies beside the file."""
        self._known = replace(self.header, **facts)

    @property
    def threaded(self) -> bool:
        """Whether reading in threads is faster now, because the reader releases the interpreter lock."""
        return False

    @property
    def header(self) -> Header:
        """Header: what is known before any pixel is read; opens the file the first time."""
        if self._known is None:
            with self._lock, Reading(self._label()):
                if self._known is None:
                    self._ready()
                    header = self._measure()
                    place = header.georeference
                    if place is not None and not np.isfinite(place.transform).all():
                        header = replace(header, georeference=None)  # a place of nan is none
                    self._known = header
        return self._known

    @property
    def may_miss(self) -> bool:
        """Whether some pixel may be missing at full resolution; False is known without reading one."""
        return self._may_miss(0)

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
        """Read several rectangles as they are stored, missing data included; what they share is decoded once.

        Arguments:
            boxes: in pixels of `level`, of any sizes; each may hang over the border or miss the image altogether.
            level: index into `levels`.
            threads: parts decoded at the same time, by readers for which that pays.

        Returns:
            As many arrays, (height, width, channels) in the file's type, the caller's own; 0 outside the image.

        Raises:
            ImageError: if a box is empty, the level does not exist or the file cannot be read.
        """
        inside = self._inside(boxes, level)
        with Reading(self._label()):
            parts = iter(self._fetch_many([part for part in inside if part is not None], level, threads))
        return [self._laid(box, part, parts) for box, part in zip(boxes, inside, strict=True)]

    def read_known(self, boxes: Sequence[Box], level: int = 0, threads: int = 1) -> list[Known]:
        """Read several rectangles as a model sees them: what is no data is 0, whatever is stored there.

        Arguments:
            boxes: as for `read_many`.
            level: likewise.
            threads: likewise.

        Returns:
            As many arrays, as `read_many` gives them, each with its missing values: True where they are; None if none
            is. Outside the image nothing is missing.

        Raises:
            ImageError: as `read_many`.

        Example:
            >>> from foveate.images import ArraySource
            >>> pixels, missing = ArraySource(np.ones((2, 3), np.uint8)).read_known([Box(0, 1, 2, 3)])[0]
            >>> pixels[:, :, 0].tolist(), missing
            ([[1, 1, 0], [1, 1, 0]], None)
        """
        inside = self._inside(boxes, level)
        with Reading(self._label()):
            known = self._known_many([part for part in inside if part is not None], level, threads)
        pixels, missing = (part for part, _ in known), (part for _, part in known)
        results = []
        for box, part in zip(boxes, inside, strict=True):
            marked = None if part is None else next(missing)
            if marked is not None and part is not None and part != box:
                marked = _placed(np.zeros((*box.size, marked.shape[2]), np.bool_), box, part, marked)
            results.append((self._laid(box, part, pixels), marked))
        return results

    def _inside(self, boxes: Sequence[Box], level: int) -> list[Box | None]:
        """The parts of boxes that lie inside the image."""
        levels = self.header.levels
        if not 0 <= level < len(levels):
            raise ImageError(f"{self._label()}: level must be one of 0 … {len(levels) - 1}, got {level}: see .levels")
        for box in boxes:
            if min(box.size) < 1:
                raise ImageError(
                    f"{self._label()}: a box must have at least one row and one column, got {box.height}×{box.width}: "
                    "ask for a larger one"
                )
        return [box.within(0, 0, *levels[level].size) for box in boxes]

    def _laid(self, box: Box, part: Box | None, parts: Iterator[Pixels]) -> Pixels:
        """The pixels of a box: the next part, if any of it is inside the image, and 0 around it."""
        if part is not None and part == box:
            return next(parts)
        result = np.zeros((box.height, box.width, self.header.channels), self.header.dtype)
        return result if part is None else _placed(result, box, part, next(parts))

    def to_file(self, box: Box) -> Box:
        """Coordinates in the file of a box of this image, whatever has been done to it on the way.

        Arguments:
            box: in level-0 pixels of this image.

        Returns:
            The box in level-0 pixels of the file; it may hang over the border there.
        """
        return box

    def cache_key(self) -> CacheKey | None:
        """Cache key: all that determines the pixels, in any run; None where it is not known, as of arrays in memory."""
        return None

    def prefetch(self) -> None:
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

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:  # noqa: ARG002
        """Read boxes that lie inside the image; arrays of the caller's own."""
        return [np.array(self._fetch(box, level), self.dtype) for box in boxes]

    def _fetch(self, box: Box, level: int) -> Pixels:
        self._ready()
        part = self._read(box, level)
        if not self._reads_file:
            self._count(part.nbytes)
        return part if part.ndim == 3 else part[:, :, None]

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:  # noqa: ARG002
        """The same as `_fetch_many`, but for what is missing."""
        found = [self._fetch_known(box, level) for box in boxes]
        return [(pixels if missing is not None else np.array(pixels, self.dtype), missing) for pixels, missing in found]

    def _fetch_known(self, box: Box, level: int) -> Known:
        return self._cleaned(self._fetch(box, level), box, level)

    def _cleaned(self, pixels: Pixels, box: Box, level: int) -> Known:
        """Pixels as they are stored, of a box inside the image, without what is missing."""
        return without(pixels, self._missing(pixels, box, level))

    def _missing(self, pixels: Pixels, box: Box, level: int) -> Missing | None:  # noqa: ARG002
        """Which of the pixels of a box are no data, as they are stored; None if all are."""
        nodata = self.header.nodata
        return None if nodata is None else missing_values(pixels, nodata)

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


def _placed(
    result: Shaped[np.ndarray, "height width some"], box: Box, part: Box, pixels: Shaped[np.ndarray, "_ _ some"]
) -> Shaped[np.ndarray, "height width some"]:
    """What is known of a box, with what is known of a part of it."""
    result[part.place_in(box)] = pixels
    return result
