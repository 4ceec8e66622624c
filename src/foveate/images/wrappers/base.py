"""Base of wrappers: sources that make something else of another source's pixels."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from foveate.images.area import Region
from foveate.images.header import CacheKey, Header, Missing, Pixels, Sides, without
from foveate.images.source import Known, Source
from foveate.images.view import Averages
from foveate.types import Box, Size

Told = Callable[[Size, Region | None], Shaped[np.ndarray, "rows columns"] | None]
"""What a source tells of the cells of a view: `valid` or `guide`."""


class Wrapper(Source):
    """Wrapper of a source; name, microns per pixel, threads, bytes and handles are those of the source it reads.

    Attributes:
        source: the other one.
    """

    _reads_file = True
    _made_with: tuple[str, ...] | None = None
    """Attributes that, with the original, determine the pixels; None where something else does, too."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self.source = source

    @property
    def threaded(self) -> bool:
        """Whether reading the original in threads is faster now."""
        return self.source.threaded

    def _told_mpp(self) -> float | None:
        return self.source.mpp

    def _told_pixel(self) -> Sides | None:
        return self.source.pixel

    @property
    def bytes_read(self) -> int:
        """Bytes read of the original so far."""
        return self.source.bytes_read

    @property
    def file_bytes(self) -> int | None:
        """Length of the original's file."""
        return self.source.file_bytes

    def cache_key(self) -> CacheKey | None:
        """Cache key: the original's, and what is made of it."""
        inner = self.source.cache_key()
        if inner is None or self._made_with is None:
            return None
        return (type(self).__qualname__, *(getattr(self, name) for name in self._made_with), inner)

    def to_file(self, box: Box) -> Box:
        """Coordinates in the file of a box: where the original says."""
        return self.source.to_file(box)

    def valid(self, size: Size, region: Region | None = None) -> Bool[np.ndarray, "rows columns"] | None:
        """Validity mask of a view: the original's, moved as its pixels are."""
        return self._moved(self.source.valid, size, region)

    def guide(self, size: Size, region: Region | None = None) -> Float32[np.ndarray, "rows columns"] | None:
        """Attention guide of a view: the original's, moved as its pixels are."""
        return self._moved(self.source.guide, size, region)

    def neutral(self) -> Float32[np.ndarray, " channel"]:
        """Neutral value of every channel: the original's."""
        return self.source.neutral()

    @abstractmethod
    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        """What the original knows (`read_known`), changed and moved as its pixels are: it alone sees missing data."""

    def _fetch_known(self, box: Box, level: int) -> Known:
        return self._known_many([box], level, 1)[0]

    def _may_miss(self, level: int) -> bool:  # noqa: ARG002  it may have other levels
        return any(map(self.source._may_miss, range(len(self.source.levels))))

    def _moved(self, told: Told, size: Size, region: Region | None) -> Shaped[np.ndarray, "rows columns"] | None:
        """What the original tells of a view of this image; None stays None."""
        return told(size, region)

    def prefetch(self) -> None:
        """Decode the original, if it can only be decoded whole."""
        self.source.prefetch()

    def close(self) -> None:
        """Close the original."""
        self.source.close()


class PixelWrapper(Wrapper):
    """Wrapper pixel by pixel: each is made of the same pixel of the other source, whose levels it has."""

    @abstractmethod
    def _change(self, pixels: Shaped[np.ndarray, "height width *band"]) -> Shaped[np.ndarray, "height width *channel"]:
        """Pixels made of the other's; these may be written to."""

    def _change_missing(self, missing: Missing) -> Missing:
        """Which values of the result are missing, made of which of the other's are."""
        return missing

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:
        return self._change(self.source.read(box, level))

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:
        return [self._change(pixels) for pixels in self.source.read_many(boxes, level, threads)]

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        return [
            without(self._change(pixels), None if missing is None else self._change_missing(missing))
            for pixels, missing in self.source.read_known(boxes, level, threads)
        ]


class Unchanged(PixelWrapper):
    """Wrapper that leaves pixels, levels and header as they are, for those that say something more of an image.

    Arguments:
        source: the other one.
    """

    def _measure(self) -> Header:
        return self.source.header

    def _change(self, pixels: Pixels) -> Pixels:
        return pixels

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        return self.source.read_known(boxes, level, threads)

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original."""
        return self.source.average_of(size, region, window)


def original(source: Source) -> Source:
    """Innermost source, under all wrappers: the one that reads a file."""
    while isinstance(source, Wrapper):
        source = source.source
    return source
