"""Local files: any part of one, read when it is asked for; and what files of every kind have in common."""

import errno
import io
import os
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foveate.errors import Changed, ImageError

Stamp = tuple[str, int, int | str]
"""Path or address of a file, its length in bytes, and the time or version of its last change."""


def file_stamp(path: Path | str) -> Stamp | None:
    """Stamp of a local file; None if there is no such file."""
    try:
        state = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return (os.path.realpath(path), state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


class ByteFile(ABC):
    """File of bytes of which any part can be read, from several threads; it can be pickled at any time.

    Attributes:
        name: path or address.
        count: called with the number of bytes after every read; see `report_to`.
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

    @property
    def stamp(self) -> Stamp | None:
        """What tells the file from any other, and from what it was before it changed; None where that is not known."""
        return None

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a part.

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
        """Bytes of (offset, length) parts, read together where that is faster than one after the other."""
        data = self._read_many(parts)
        if self.count is not None:
            self.count(sum(map(len, data)))
        return data

    @abstractmethod
    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read parts, not counted."""

    def report_to(self, count: Callable[[int], None]) -> None:
        """Call a method of whoever owns this file with the number of bytes, after every read.

        The file does not keep its owner: both would stay, with all tiles that the owner has decoded, until Python looks
        for cycles, which it does after hundreds of images.
        """
        method = weakref.WeakMethod(count)

        def told(amount: int) -> None:
            known = method()
            if known is not None:
                known(amount)

        self.count = told


UNREADABLE = (FileNotFoundError, IsADirectoryError, PermissionError)
"""Errors whose fault is not the file's content."""


def not_readable(name: str, error: OSError) -> ImageError:
    """Error of a file that cannot be opened or read.

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


def changed(name: str) -> Changed:
    """Error of a file that is not any more what it was when its image was opened."""
    return Changed(f"{name}: the file has changed since it was opened: open the image again")


class LocalFile(ByteFile):
    """Local file; it is refused when it changes while it is being used.

    Every read opens it anew, which costs a few hundredths of decoding a tile: any number of files can be in use,
    threads and forks share nothing, and a file that was replaced is noticed.

    Arguments:
        path: of the file.
        dated: whether the time of its last change tells it from another one; else its length alone does.
    """

    def __init__(self, path: Path | str, dated: bool = True) -> None:
        super().__init__(str(path))
        self._dated = dated
        self._stamp: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        if self._stamp is None:
            self._read_many([])
        assert self._stamp is not None
        return self._stamp[0]

    @property
    def stamp(self) -> Stamp | None:
        """Path, length and time of the last change, when it was first read."""
        return None if self._stamp is None else (os.path.realpath(self.name), *self._stamp)

    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        try:
            with open(self.name, "rb", buffering=0) as file:  # noqa: PTH123  no Path is made for every read
                size = self._check(os.fstat(file.fileno()))
                data = [_part(file, offset, min(length, size - offset)) for offset, length in parts]
                self._check(os.fstat(file.fileno()))  # else what is read may be half of it new
        except OSError as error:
            raise not_readable(self.name, error) from error
        return data

    def _check(self, found: os.stat_result) -> int:
        """Length and time of the last change tell a file from one that replaced it; its length."""
        stamp = found.st_size, found.st_mtime_ns if self._dated else 0
        if self._stamp is not None and stamp != self._stamp:
            raise changed(self.name)
        self._stamp = stamp
        return found.st_size


def _part(file: io.FileIO, offset: int, length: int) -> bytes:
    """Bytes of a part, of which the system may hand out less than it is asked for; no memory is mapped.

    A map of a file that somebody cuts ends the process that looks at it (SIGBUS).
    """
    if length <= 0:
        return b""
    data = _pread(file, offset, length)
    while len(data) < length and (more := _pread(file, offset + len(data), length - len(data))):
        data += more
    return data


def _pread(file: io.FileIO, offset: int, length: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), length, offset)
    file.seek(offset)
    return file.read(length)


def stream(file: ByteFile, ahead: int = 16 * 1024) -> io.BufferedReader:
    """File object for libraries that want one; it reads `ahead` bytes at a time where little is asked for.

    Closing it leaves the file open. For one thread.
    """
    return io.BufferedReader(_Raw(file), ahead)


class _Raw(io.RawIOBase):
    """File object without a buffer, at a position of its own."""

    def __init__(self, file: ByteFile) -> None:
        self._file = file
        self._at = 0
        self.name = file.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = self._file.size if whence == io.SEEK_END else (0, self._at)[whence]
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
