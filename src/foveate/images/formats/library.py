"""Library readers: images that another library opens by their path and reads in parts."""

import importlib
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.errors import ImageError, one_line
from foveate.images.header import Pixels, full_scale
from foveate.images.io.local import changed, not_readable
from foveate.images.source import Known, Source
from foveate.threads import in_threads
from foveate.types import Box, Level, Size

LIBRARY_HANDLES_OPEN = 32
"""Images held open by other libraries at a time; the one used longest ago is closed, and opened again if needed."""

EXTRAS = {"openslide": "openslide", "pyvips": "vips", "zarr": "zarr", "rasterio": "geo"}
"""Module: the extra that installs it."""


def library(module: str, name: str) -> Any:
    """Optional library, imported now.

    Arguments:
        module: what to import.
        name: of the image that needs it.

    Raises:
        ImageError: it is not installed; the line says how to install it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError):  # OSError: the Python part is there, the C library is not
        root = module.partition(".")[0]
        raise ImageError(
            f"{name}: reading it needs {root}, which is not installed: pip install 'foveate[{EXTRAS[root]}]'"
        ) from None


def installed(module: str) -> bool:
    """Whether an optional library can be imported."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True


class LibraryHandles:
    """LRU pool of open images: where there are too many, the one asked for longest ago is let go of.

    Nothing is closed by hand: rasterio, OpenSlide and libvips close what nobody refers to any more, so an image that is
    still being read is closed when whoever reads it has done. Processes that were forked open their own: what they
    inherit shares its place in the file with the parent, so it is neither used nor closed.

    Arguments:
        most: images kept open at a time; more are open only while more are being read.
    """

    def __init__(self, most: int = LIBRARY_HANDLES_OPEN) -> None:
        self.most = most
        self._open: OrderedDict[tuple[Hashable, int, int], Any] = OrderedDict()
        self._inherited: list[OrderedDict[tuple[Hashable, int, int], Any]] = []
        self._lock = threading.RLock()

    def get(self, file: Hashable, level: int, opens: Callable[[], Any], shared: bool) -> Any:
        """The open image of a level, for as long as the caller refers to it.

        Arguments:
            file: what is opened.
            level: of it.
            opens: opens it, if it is not open. What it raises goes on.
            shared: several threads may use one handle at a time; else every thread has its own.
        """
        key = file, level, 0 if shared else threading.get_ident()
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        handle = opens()
        with self._lock:
            handle = self._open.setdefault(key, handle)  # another thread may have been faster
            while len(self._open) > self.most:
                self._open.popitem(last=False)
        return handle

    def drop(self, file: Hashable) -> None:
        """Let go of all that is open of a file; who needs it next opens it again."""
        with self._lock:
            for key in [key for key in self._open if key[0] == file]:
                del self._open[key]

    def after_fork(self) -> None:
        """In a child process: set the parent's images aside, and the lock that one of its threads may have held."""
        self._lock = threading.RLock()
        self._inherited.append(self._open)
        self._open = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)


LIBRARY_HANDLES = LibraryHandles()
"""The open images of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LIBRARY_HANDLES.after_fork)


class LibraryFile(Source):
    """Library file: read through another library; what that holds open is bounded over all sources of the process.

    The library does not tell which bytes of the file it reads, so `bytes_read` counts the bytes of the pixels decoded.

    A subclass opens handles (`_handle`), and reads with them inside `_using`.

    Arguments:
        path: the file.
        mpp: microns per pixel; overrides what the file says.
    """

    threaded = True
    _shared = True
    """Whether several threads may use one handle at a time."""
    _remedy = "convert it, e.g. to a tiled TIFF, or leave it out"

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(str(path), mpp)
        self._path = Path(path)

    def _open(self) -> Hashable:
        """The state of the file, which tells it from one that replaces it."""
        try:
            state = self._state()
        except OSError as error:
            raise not_readable(self.name, error) from error
        if self._path.is_dir():
            raise not_readable(self.name, IsADirectoryError())
        return state

    def _state(self) -> tuple[int, int]:
        """What changes when the file is written anew, so that no handle of the old one is used for it."""
        state = self._path.stat()
        return state.st_mtime_ns, state.st_size

    @abstractmethod
    def _handle(self, level: int) -> Any:
        """Open the file anew, to read a level; what is opened is closed when nobody refers to it any more."""

    @contextmanager
    def _using(self, level: int, doing: str) -> Iterator[Any]:
        """An open handle of a level; whatever is raised meanwhile becomes one line, and the handle is let go of.

        Arguments:
            level: index into `levels`.
            doing: what is read, e.g. "level 1, rows 0 … 9"; "" while opening.
        """
        file = self._key()
        try:
            self._check()  # an open handle would go on with what the file was, or mix the two
            yield LIBRARY_HANDLES.get(file, level, lambda: self._anew(level), self._shared)
        except ImageError:
            raise
        except Exception as error:  # every library has errors of its own, and rasterio lets GDAL's pass through
            LIBRARY_HANDLES.drop(file)  # errors may stay with a handle; the next read opens another one
            what = f"{doing} cannot be read" if doing else "broken image, or of a kind not supported here"
            reason = error.__cause__ or error  # rasterio says there what GDAL said
            raise ImageError(f"{self.name}: {what} ({one_line(reason)}): {self._remedy}") from error

    def _anew(self, level: int) -> Any:
        self._check()
        return self._handle(level)

    def _check(self) -> None:
        if self._opened not in (None, self._state()):  # None: closed by another thread meanwhile
            raise changed(self.name)

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:
        return in_threads(lambda box: np.array(self._fetch(box, level), self.dtype), boxes, threads)

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        return in_threads(lambda box: self._fetch_known(box, level), boxes, threads)

    def _key(self) -> Hashable:
        return (type(self).__name__, self.name, self._ready())

    def close(self) -> None:
        """Let go of what is open; the next read opens again."""
        with self._lock:
            if self._opened is not None:
                LIBRARY_HANDLES.drop(self._key())
            super().close()


def where(box: Box, level: int) -> str:
    """The part of an image that could not be read."""
    return f"level {level}, {box.height}×{box.width} pixels at row {box.top}, column {box.left}"


def matches(full: Size, small: Size) -> bool:
    """Whether an image can be the same picture as another, but smaller: both sides shrink alike, within a pixel.

    Example:
        >>> matches((2967, 2220), (741, 555)), matches((2967, 2220), (431, 1280))
        (True, False)
    """
    fits = abs(full[0] * small[1] - full[1] * small[0]) <= full[0] + full[1]
    return fits and small[0] < full[0] and small[1] < full[1]


def levels_of(sizes: list[Size]) -> tuple[Level, ...]:
    """Levels of these sizes, finest first, with the exact factor of each axis."""
    height, width = sizes[0]
    return tuple(Level(size, (height / size[0], width / size[1])) for size in sizes)


def over_fill(
    rgba: Shaped[np.ndarray, "height width 4"], fill: tuple[int, int, int]
) -> Shaped[np.ndarray, "height width 3"]:
    """Lay colours (not multiplied by their opacity) over a colour, rounded to the nearest integer.

    Example:
        >>> over_fill(np.array([[[200, 100, 0, 255], [9, 9, 9, 0]]], np.uint8), (255, 255, 0)).tolist()
        [[[200, 100, 0], [255, 255, 0]]]
    """
    opacity = rgba[:, :, 3:]
    if opacity.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[:, :, :3])
    wide = rgba[:, :, :3].astype(np.uint32) * opacity + np.array(fill, np.uint32) * (255 - opacity.astype(np.uint32))
    result: np.ndarray = ((wide + 127) // 255).astype(np.uint8)
    return result


def over_black(array: Shaped[np.ndarray, "rows columns both"]) -> Shaped[np.ndarray, "rows columns channel"]:
    """Alpha compositing over black.

    Arguments:
        array: (rows, columns, C + 1) pixels of bool, uint8, uint16 or floating point, the last of them the opacity.

    Returns:
        (rows, columns, C) of the same type, value times opacity, rounded to the nearest integer in integer types.

    Example:
        >>> over_black(np.array([[[200, 100, 51]]], np.uint8)).tolist()
        [[[40, 20]]]
    """
    dtype: np.dtype[Any] = array.dtype
    if dtype.kind == "f":
        result: np.ndarray = array[:, :, :-1] * array[:, :, -1:]
        return result
    scale = full_scale(dtype)
    wide = array.astype(np.uint32)  # 65535 · 65535 + 32767 is below 2³²
    return ((wide[:, :, :-1] * wide[:, :, -1:] + np.uint32(scale // 2)) // np.uint32(scale)).astype(dtype)
