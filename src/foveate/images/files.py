"""Bytes of a file, read where they are needed: on this machine now, elsewhere by `foveate.images.remote`."""

import errno
import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from foveate.errors import ImageError

__all__ = [
    "HANDLES",
    "UNREADABLE",
    "ByteFile",
    "Handles",
    "LocalFile",
    "length_of",
    "not_readable",
    "open_bytes",
    "stream",
]

SCHEMES = ("http", "https", "s3")
"""Addresses that are read in parts, through fsspec."""

Stamp = tuple[int, int]
"""Size of a file in bytes and when it was last modified, in nanoseconds: what tells it from one that replaced it."""

Result = TypeVar("Result")

HANDLES_OPEN = 64
"""Local files open at a time in this process; the one used longest ago is closed, and opened again if needed."""


class ByteFile(ABC):
    """A file of which any part can be read, from several threads; it can be pickled at any time.

    Attributes:
        name: path or address.
        count: called with the number of bytes after every read; set by the source that owns it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count: Callable[[int], None] | None = None

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes.

        Raises:
            ImageError: the file is missing or cannot be read.
        """

    def read(self, offset: int, length: int) -> bytes:
        """Read a part.

        Arguments:
            offset: of the first byte.
            length: bytes wanted, at least 0.

        Returns:
            As many bytes, or fewer at the end of the file.

        Raises:
            ImageError: the file cannot be read.
        """
        return self.read_many([(offset, length)])[0]

    def read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read (offset, length) parts; together, where that is faster than one after the other."""
        data = self._read_many(parts)
        if self.count is not None:
            self.count(sum(map(len, data)))
        return data

    @abstractmethod
    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read parts, not counted."""

    def close(self) -> None:  # noqa: B027  not every file holds something open
        """Let go of what is open; the next read opens again."""


class Handles:
    """Open files of this process, the one used longest ago closed when there are too many; forks open their own.

    A file that was replaced since is another file, and opened by itself: whoever reads the old one reads on.

    Arguments:
        most: files open at a time, as long as no more are being read.
    """

    def __init__(self, most: int = HANDLES_OPEN) -> None:
        self.most = most
        self._open: OrderedDict[tuple[str, Stamp], _Handle] = OrderedDict()
        self._lock = threading.Lock()

    def borrow(self, path: str, stamp: Stamp | None = None) -> "_Handle":
        """The open file of a path, which stays open until it is given back.

        Arguments:
            path: of the file.
            stamp: that of the file as it was first opened, which it must still have; None takes what is there.

        Raises:
            OSError: it cannot be opened.
            ImageError: it has changed since.
        """
        with self._lock:
            held = None if stamp is None else self._open.get((path, stamp))
            if held is not None:
                self._open.move_to_end(held.key)
                held.borrowed += 1
                return held
        opened = _Handle(path)  # not while others wait: opening a file on a network may take long
        if stamp is not None and opened.key[1] != stamp:
            opened.close()
            raise ImageError(f"{path}: the file has changed since it was opened: open the image again")
        with self._lock:
            handle = self._open.setdefault(opened.key, opened)
            if handle is not opened:
                opened.close()
            self._open.move_to_end(handle.key)
            handle.borrowed += 1
            self._trim()
            return handle

    def give_back(self, handle: "_Handle") -> None:
        """Say that a borrowed file is not being read any more."""
        with self._lock:
            handle.borrowed -= 1
            if handle.borrowed == 0 and self._open.get(handle.key) is not handle:
                handle.close()
            self._trim()

    def close(self, path: str) -> None:
        """Close a file as soon as nobody reads it."""
        with self._lock:
            for key in [key for key in self._open if key[0] == path]:
                handle = self._open.pop(key)
                if handle.borrowed == 0:
                    handle.close()

    def after_fork(self) -> None:
        """In a child process: let go of the parent's files, and of the lock that one of its threads may have held."""
        self._lock = threading.Lock()
        while self._open:
            self._open.popitem()[1].close()

    def __len__(self) -> int:
        return len(self._open)

    def _trim(self) -> None:
        excess = len(self._open) - self.most
        if excess > 0:
            idle = [key for key, handle in self._open.items() if handle.borrowed == 0]
            for key in idle[:excess]:
                self._open.pop(key).close()


class _Handle:
    """An open file that several threads read at once.

    Attributes:
        key: path and stamp.
        borrowed: how often it is being read now.
    """

    def __init__(self, path: str) -> None:
        self.borrowed = 0
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        try:
            found = os.fstat(self._number)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        except OSError:
            self.close()
            raise
        self.key = (path, (found.st_size, found.st_mtime_ns))

    def read(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._number, length, offset)
        with self._lock:  # one place in the file for all: Windows
            os.lseek(self._number, offset, os.SEEK_SET)
            return os.read(self._number, length)

    def close(self) -> None:
        os.close(self._number)


HANDLES = Handles()
"""The open files of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HANDLES.after_fork)


UNREADABLE = (FileNotFoundError, IsADirectoryError, PermissionError)
"""Where the fault is not the file's content."""


def not_readable(name: str, error: OSError) -> ImageError:
    """What to say of a file that cannot be opened or read.

    Arguments:
        name: of the file.
        error: of the operating system.

    Example:
        >>> str(not_readable("a.png", FileNotFoundError()))
        'a.png: no such file: check the path'
    """
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{name}: no such file: check the path")
    if isinstance(error, IsADirectoryError):
        return ImageError(f"{name}: a folder, not an image: name a file in it")
    if isinstance(error, PermissionError):
        return ImageError(f"{name}: no permission to read it: check the file's mode")
    return ImageError(f"{name}: cannot be read ({error.strerror}): check the path and the file's mode")


class LocalFile(ByteFile):
    """A file on this machine; it is refused when it changes while it is being used.

    Arguments:
        path: of the file.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(str(path))
        self._stamp: Stamp | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._borrowed(lambda handle: handle.key[1][0]) if self._stamp is None else self._stamp[0]

    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._borrowed(lambda handle: [_whole(handle, *part) for part in parts])

    def _borrowed(self, use: "Callable[[_Handle], Result]") -> "Result":
        try:
            handle = HANDLES.borrow(self.name, self._stamp)
            try:
                self._stamp = handle.key[1]
                return use(handle)
            finally:
                HANDLES.give_back(handle)
        except OSError as error:
            raise not_readable(self.name, error) from error

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        HANDLES.close(self.name)


def _whole(handle: _Handle, offset: int, length: int) -> bytes:
    """A read may give fewer bytes than asked for, and not only at the end."""
    data = handle.read(offset, length)
    if len(data) == length or not data:
        return data
    parts = [data]
    missing = length - len(data)
    while missing and (more := handle.read(offset + length - missing, missing)):
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)


def length_of(name: str) -> int | None:
    """Bytes of a file, of all files in a folder, or at an address; None where that is not known."""
    if "://" in name and name.partition("://")[0].lower() in SCHEMES:
        try:
            return open_bytes(name).size
        except ImageError:  # a folder elsewhere
            return None
    path = Path(name)
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except (OSError, ValueError):  # a member of an archive, or no file at all
        return None


def open_bytes(name: Path | str) -> ByteFile:
    """The file of a path, or of an address (https://…, s3://…); nothing is read yet.

    Raises:
        ImageError: what reads such addresses is not installed, or they cannot be read at all.
    """
    scheme, separator, _ = str(name).partition("://")
    if not separator or isinstance(name, Path):
        return LocalFile(name)
    if scheme.lower() not in SCHEMES:
        raise ImageError(
            f"{name}: addresses of images begin with one of {', '.join(f'{known}://' for known in SCHEMES)}, "
            f"got {scheme}://: copy the file to this machine"
        )
    from foveate.images.remote import RemoteFile

    return RemoteFile(str(name))


def stream(file: ByteFile, ahead: int = 16 * 1024) -> io.BufferedReader:
    """A file object for libraries that want one; it reads `ahead` bytes at a time where little is asked for.

    Closing it leaves the file open. For one thread.
    """
    return io.BufferedReader(_Raw(file), ahead)


class _Raw(io.RawIOBase):
    def __init__(self, file: ByteFile) -> None:
        self._file = file
        self._at = 0
        self.name = file.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence must be 0, 1 or 2, got {whence}")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}[whence] if whence != io.SEEK_END else self._file.size
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.name)
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
