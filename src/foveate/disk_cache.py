"""Disk cache: arrays by key in files of one folder, of limited bytes, which processes and runs share.

A file is there whole or not at all, and what is in it depends on its key alone, so nobody waits for anybody.
"""

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from foveate._version import __version__
from foveate.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    from foveate.cache import Owner

HEADER = 128
"""Bytes of a file before those of the array, at least."""

OPEN = 4096
"""Files whose headers are held at a time: opening one anew takes a tenth of a millisecond."""

TOUCHED = 60.0
"""Seconds after which the use of an open file is noted again."""

RECENT = 600.0
"""A file used within so many seconds is not removed: whoever reads it would have to make it again."""

SPARE_SHARE, SPARE = 0.05, 10**10
"""Of the disk, this share stays free, or so many bytes of a large one."""

PACKAGES = ("numpy", "scipy", "pillow", "tifffile", "imagecodecs")
"""Packages whose version may change what is made of a file."""

BROKEN = (OSError, EOFError, ValueError, TypeError, SyntaxError, KeyError, OverflowError)
"""What NumPy raises on files that are cut short or damaged."""

Opened = TypeVar("Opened")

_NAME = re.compile(r"[0-9a-f]{64}\.npy")


def cache_folder(environment: Mapping[str, str] = os.environ, system: str = sys.platform) -> Path:
    """User cache folder of foveate: $FOVEATE_CACHE, or a folder of its own where the platform has such files.

    Arguments:
        environment: variables.
        system: as `sys.platform`.

    Example:
        >>> cache_folder({"XDG_CACHE_HOME": "/var/tmp/me"}, "linux").as_posix()
        '/var/tmp/me/foveate'
    """
    if named := environment.get("FOVEATE_CACHE"):
        return Path(named)
    if system == "darwin":
        return Path.home() / "Library" / "Caches" / "foveate"
    if system == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "foveate" / "Cache"
    named = environment.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "foveate"  # noqa: PTH117  its rule


class DiskCache:
    """Disk cache of arrays: the least recently used make room, but none that were used since this was made.

    Otherwise a set that is larger than the limit would go round in circles, written in every epoch and found in none;
    as it is, a part of it is found. A disk that is full or cannot be written to is one warning, and then nothing more
    is written. Files that are damaged are removed. Threads and processes may share a folder; a pickle names it.

    Arguments:
        folder: where the files are; made with the first.
        limit: bytes that they may take.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = DiskCache(Path(folder), 10**6)
        ...     found = [cache.read(("a.png", 1)), cache.write(("a.png", 1), np.arange(3)), cache.read(("a.png", 1))]
        >>> found
        [None, True, array([0, 1, 2])]
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._begun = time.time()
        self._lock, self._room = threading.Lock(), threading.Lock()
        self._open: OrderedDict[Path, tuple[Any, float]] = OrderedDict()
        self._taken, self._looked = 0, 0.0
        """Bytes of all files when last looked at, with those written here since; and when that was."""
        self._coming = 0
        """Bytes that threads are writing now."""
        self._unseen = limit
        """Bytes written since: others may have written as many."""
        self._works = True

    def takes(self, size: int) -> bool:
        """Whether an array of so many bytes would be written now, as far as is known without looking."""
        full = self._taken + size > self.limit and time.time() - self._looked < TOUCHED
        return self._works and size <= self.limit and not full

    def read(self, key: tuple[object, ...]) -> "np.ndarray | None":
        """The array of a key, read into memory; None if it is not there."""
        import numpy as np

        path = self._path(key)
        try:
            with path.open("rb") as file:
                array: np.ndarray = np.load(file, allow_pickle=False)
            os.utime(path)
        except BROKEN as error:
            self._clear(path, error)
            return None
        return array

    def open(self, key: tuple[object, ...], opens: "Callable[[Path], Opened]") -> "Opened | None":
        """The file of a key, opened by `opens`, which may hold no descriptor of it; None if it is not there.

        It is opened once; later calls hand out the same. Whoever reads it finds that it was removed, or damaged, and
        then forgets it.

        Arguments:
            key: here.
            opens: reads the header of a file; what it raises of damaged ones removes them.
        """
        path = self._path(key)
        with self._lock:
            opened, touched = self._open.pop(path, (None, 0.0))
        now = time.monotonic()
        try:
            if opened is None or now - touched > TOUCHED:
                os.utime(path)
                touched = now
            if opened is None:
                opened = opens(path)
        except (*BROKEN, ImageError) as error:
            self._clear(path, error)
            return None
        with self._lock:
            self._open[path] = opened, touched
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
        result: Opened = opened
        return result

    def forget(self, key: tuple[object, ...]) -> None:
        """Remove the file of a key, which cannot be read."""
        path = self._path(key)
        with self._lock:
            self._open.pop(path, None)
        _remove(path)

    def open_or_make(
        self,
        key: tuple[object, ...],
        opens: "Callable[[Path], Opened]",
        make: "Callable[[], np.ndarray]",
        is_right: Callable[[], bool],
        memory: "Owner[np.ndarray]",
        name: Hashable,
        size: int,
    ) -> "np.ndarray | Opened":
        """The array of a key: its file, opened, or made now and written, by one thread at a time.

        Arguments:
            key: here.
            opens: as for `open`.
            make: makes it.
            is_right: whether what was made is still what the key says.
            memory: who holds it in memory where the disk takes no more, and no longer than it is made where it does.
            name: of it there.
            size: its bytes.

        Returns:
            What `opens` gives, or the array itself, to which nobody may write.
        """
        found = self.open(key, opens)
        if found is not None:
            return found

        def made(_: list[Hashable]) -> "list[np.ndarray]":
            array = make()
            if is_right():
                self.write(key, array)
            return [array]

        (array,) = memory.get_many([name], made, keep=not self.takes(size + HEADER))
        return array

    def write(self, key: tuple[object, ...], array: "np.ndarray") -> bool:
        """Write the array of a key, unless there is no room; whether it was written."""
        import numpy as np

        path = self._path(key)
        if not self.takes(array.nbytes):
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._make_room(array.nbytes + HEADER):
                return False
            # a name that no process has, on no machine; what several of them make at once is the same
            part = path.with_name(f".{uuid.uuid4().hex}.part")
            try:
                with part.open("xb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())  # else a crash of the system may leave the name and not the content
                part.replace(path)
            finally:
                _remove(part)
                with self._room:
                    self._coming -= array.nbytes + HEADER
        except OSError as error:
            self._give_up(error.strerror or type(error).__name__)
            return False
        return True

    def size(self) -> int:
        """Bytes that all files take now."""
        return sum(size for _, size, _ in self._files())

    def _path(self, key: tuple[object, ...]) -> Path:
        name = hashlib.sha256(repr((_versions(), key)).encode(errors="surrogateescape")).hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def _clear(self, path: Path, error: Exception) -> None:
        """Remove what is damaged, if anything is there."""
        if not isinstance(error, OSError):
            _remove(path)

    def _make_room(self, size: int) -> bool:
        with self._room:
            if self._taken + size > self.limit or self._unseen + size > self.limit // 20:
                left = self._shrink(self.limit - size - self._coming, self.limit // 20)
                self._taken, self._unseen, self._looked = left + self._coming, 0, time.time()
            if self._taken + size > self.limit:
                return False
            lack = self._lack(size)
            if lack > 0:
                self._taken = self._shrink(self.size() - lack, 0) + self._coming
                if self._lack(size) > 0:
                    self._give_up("it is nearly full")
                    return False
            self._taken += size
            self._unseen += size
            self._coming += size
        return True

    def _lack(self, size: int) -> int:
        """Bytes that are missing on the disk for so many more to be written."""
        disk = shutil.disk_usage(self.folder)
        return size + min(int(SPARE_SHARE * disk.total), SPARE) - disk.free

    def _shrink(self, wanted: int, more: int) -> int:
        """Remove the least recently used until the others take `wanted` bytes, and then so many more; what is left."""
        files = sorted(self._files())
        taken = sum(size for _, size, _ in files)
        if taken <= wanted:
            return taken
        last = min(self._begun, time.time() - RECENT)
        for used, size, path in files:
            if taken <= wanted - more or used >= last:
                break
            if _remove(path):
                taken -= size
        return taken

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, bytes and path of every file; unfinished ones of processes that were killed go."""
        found = []
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        state = entry.stat()
                        if _NAME.fullmatch(entry.name):
                            found.append((state.st_mtime, state.st_size, Path(entry.path)))
                        elif entry.name.endswith(".part") and state.st_mtime < time.time() - 24 * 3600:
                            _remove(Path(entry.path))
        return found

    def _give_up(self, reason: str) -> None:
        with self._lock:
            works, self._works = self._works, False
        if works:
            logging.getLogger("foveate").warning(
                "foveate: warning: no more is kept in the cache in %s (%s): free some space there, or set "
                "data.cache_folder, data.cache_gigabytes or data.cache",
                self.folder,
                reason,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskCache, (self.folder, self.limit)


def _remove(path: Path) -> bool:
    """Remove a file; where another process reads it, the system keeps its content, or (Windows) refuses."""
    try:
        path.unlink()
    except OSError:
        return not path.exists()
    return True


@functools.cache
def _versions() -> tuple[str, ...]:
    """Versions of whatever decodes and averages: what others made is made anew."""
    found = [__version__]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return tuple(found)
