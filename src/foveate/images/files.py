"""Bytes of a file, read where they are needed: on this machine now, elsewhere by `foveate.images.remote`."""

import io
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foveate.errors import ImageError

__all__ = ["HANDLES", "ByteFile", "Handles", "LocalFile", "open_bytes", "stream"]

SCHEMES = ("http", "https", "s3")
"""Addresses that are read in parts, through fsspec."""

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
    """Open files of this process, the one used longest ago closed when there are too many; forks open their own."""

    def __init__(self, most: int = HANDLES_OPEN) -> None:
        self.most = most
        self._open: OrderedDict[str, _Handle] = OrderedDict()
        self._process = os.getpid()
        self._lock = threading.Lock()

    def borrow(self, path: str) -> "_Handle":
        """The open file of a path, which stays open until it is given back.

        Raises:
            OSError: it cannot be opened.
        """
        with self._lock:
            if self._process != os.getpid():
                # the handles of a parent process share their place in the file with it
                self._open, self._process = OrderedDict(), os.getpid()
            handle = self._open.get(path)
            if handle is None:
                handle = self._open[path] = _Handle(path)
            self._open.move_to_end(path)
            handle.borrowed += 1
            self._trim()
            return handle

    def give_back(self, handle: "_Handle") -> None:
        """Say that a borrowed file is not being read any more."""
        with self._lock:
            handle.borrowed -= 1
            if handle.borrowed == 0 and self._open.get(handle.path) is not handle:
                handle.close()
            self._trim()

    def close(self, path: str) -> None:
        """Close a file as soon as nobody reads it."""
        with self._lock:
            handle = self._open.pop(path, None)
            if handle is not None and handle.borrowed == 0:
                handle.close()

    def __len__(self) -> int:
        return len(self._open)

    def _trim(self) -> None:
        idle = [path for path, handle in self._open.items() if handle.borrowed == 0]
        for path in idle[: max(0, len(self._open) - self.most)]:
            self._open.pop(path).close()


class _Handle:
    """An open file that several threads read at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.borrowed = 0
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._number, length, offset)
        with self._lock:
            os.lseek(self._number, offset, os.SEEK_SET)
            return os.read(self._number, length)

    @property
    def size(self) -> int:
        return os.fstat(self._number).st_size

    def close(self) -> None:
        os.close(self._number)


HANDLES = Handles()
"""The open files of this process."""


class LocalFile(ByteFile):
    """A file on this machine.

    Arguments:
        path: of the file.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(str(path))

    @property
    def size(self) -> int:
        """Length in bytes."""
        return int(self._borrowed(lambda handle: handle.size))

    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        return list(self._borrowed(lambda handle: [_whole(handle, *part) for part in parts]))

    def _borrowed(self, use: Callable[[_Handle], Any]) -> Any:
        try:
            handle = HANDLES.borrow(self.name)
            try:
                return use(handle)
            finally:
                HANDLES.give_back(handle)
        except FileNotFoundError:
            raise ImageError(f"{self.name}: no such file: check the path") from None
        except IsADirectoryError:
            raise ImageError(f"{self.name}: a folder, not an image: name a file in it") from None
        except PermissionError:
            raise ImageError(f"{self.name}: no permission to read it: check the file's mode") from None
        except OSError as error:
            raise ImageError(
                f"{self.name}: cannot be read ({error.strerror}): check the path and the file's mode"
            ) from error

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


def open_bytes(name: Path | str) -> ByteFile:
    """The file of a path, or of an address (https://…, s3://…); nothing is read yet.

    Raises:
        ImageError: what reads such addresses is not installed.
    """
    scheme, separator, _ = str(name).partition("://")
    if separator and scheme in SCHEMES:
        from foveate.images.remote import RemoteFile

        return RemoteFile(str(name))
    return LocalFile(name)


def stream(file: ByteFile, ahead: int = 16 * 1024) -> io.BufferedReader:
    """A file object for libraries that want one; it reads `ahead` bytes at a time where little is asked for."""
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
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size if whence == io.SEEK_END else 0}
        self._at = start[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
