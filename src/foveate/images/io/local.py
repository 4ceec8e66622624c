"""Bytes of a file, read where they are needed: on this machine now, elsewhere by `foveate.images.remote`."""

import errno
import io
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from foveate.errors import ImageError
from foveate.images.handles import HANDLES, Handle, Stamp

__all__ = [
    "UNREADABLE",
    "ByteFile",
    "LocalFile",
    "length_of",
    "not_readable",
    "open_bytes",
    "stream",
]

SCHEMES = ("http", "https", "s3")
"""Addresses that are read in parts, through fsspec."""

Result = TypeVar("Result")


class ByteFile(ABC):
    """A file of which any part can be read, from several threads; it can be pickled at any time.

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

    def close(self) -> None:  # noqa: B027  not every file holds something open
        """Let go of what is open; the next read opens again."""

    def forget(self) -> None:  # noqa: B027
        """Let go of what is open, from a finalizer of whoever owns this file."""


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

    def _borrowed(self, use: Callable[[Handle], Result]) -> Result:
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

    def forget(self) -> None:
        """Close the file, from a finalizer."""
        if self._stamp is not None:
            HANDLES.forget(self.name, self._stamp)


def _whole(handle: Handle, offset: int, length: int) -> bytes:
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
