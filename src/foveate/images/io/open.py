"""Opening files for reading in parts (a path, an address) or whole (a member of a zip archive, a download)."""

import functools
import io
import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foveate.cache import DECODED, Owner
from foveate.errors import ImageError, one_line
from foveate.images.io.local import ByteFile, LocalFile, Stamp, file_stamp

SCHEMES = ("http", "https", "s3")
"""Addresses that are read in parts."""

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)
"""Errors that zipfile raises on archives that are cut short, damaged, encrypted or packed in an unknown way."""

ARCHIVES = 4
"""Archives a process keeps open: the directory of a large one takes longer to read than a member."""


def open_bytes(name: Path | str) -> ByteFile:
    """File of a path, or of an address (https://…, s3://…); nothing is read yet.

    Raises:
        ImageError: such addresses are not read.
    """
    if "://" not in str(name) or isinstance(name, Path):
        return LocalFile(name)
    check_scheme(name)
    from foveate.images.io.remote import RemoteFile  # loads asyncio, for which most have no use

    return RemoteFile(str(name))


def check_scheme(address: str) -> None:
    """Refuse an address of a scheme that is not read.

    Raises:
        ImageError: it is none of `SCHEMES`.
    """
    scheme = address.partition("://")[0]
    if scheme.lower() not in SCHEMES:
        raise ImageError(
            f"{address}: addresses of images begin with one of {', '.join(f'{known}://' for known in SCHEMES)}, "
            f"got {scheme}://: copy the file to this machine"
        )


def length_of(name: str) -> int | None:
    """Length in bytes of a file, of all files in a folder, or at an address; None where that is not known."""
    try:
        if name.partition("://")[0].lower() in SCHEMES and "://" in name:
            return open_bytes(name).size
        path = Path(name)
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except (ImageError, OSError, ValueError):  # a folder elsewhere, a member of an archive, or no file at all
        return None


def state_of(name: str) -> tuple[object, ...] | None:
    """What tells that a file, or what lies directly in a folder, is not what it was; None of an address and of nothing.

    Arguments:
        name: as `Source.name`: a path, or that of an archive and a member.
    """
    path = Path(name)
    with suppress(OSError, ValueError):
        if path.is_dir():
            return tuple(sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(path)))
    return file_stamp(path)


@dataclass(frozen=True)
class ZipMember:
    """Member of a zip archive; it opens like a path does.

    Attributes:
        archive: the zip file.
        member: name of the file in it, with slashes.
    """

    archive: Path
    member: str

    def __str__(self) -> str:
        return f"{self.archive}/{self.member}"

    def open(self, mode: str = "rb") -> io.BytesIO:  # noqa: ARG002  only so can an image be opened
        """The file's bytes, unpacked in memory.

        Raises:
            OSError: if the archive cannot be opened.
            ImageError: if it is broken, encrypted, or has no such member.
        """
        try:
            return io.BytesIO(self._opened().read(self.member))
        except KeyError:
            raise ImageError(f"{self}: no such file in the zip archive: check its name") from None
        except OSError:
            raise
        except Exception as error:  # cut short, damaged, encrypted: every way of packing has errors of its own
            why = f"broken or encrypted zip archive ({one_line(error)})"
            raise ImageError(f"{self}: {why}: copy it again, or unpack it yourself") from error

    def stored_bytes(self) -> int:
        """Bytes the file takes in the archive."""
        return self._opened().getinfo(self.member).compress_size

    @property
    def stamp(self) -> tuple[object, ...] | None:
        """Stamp of the archive, and the name in it."""
        archive = file_stamp(self.archive)
        return None if archive is None else (*archive, self.member)

    def _opened(self) -> zipfile.ZipFile:
        state = self.archive.stat()
        return _archive(str(self.archive), state.st_mtime_ns, state.st_size, os.getpid())


@functools.lru_cache(maxsize=ARCHIVES)
def _archive(path: str, changed: int, length: int, process: int) -> zipfile.ZipFile:  # noqa: ARG001
    """Open archive, as it is now; a forked process opens its own, for the position in the file would be shared."""
    return zipfile.ZipFile(path)


@dataclass
class Download:
    """Download: a file that is read whole when it is opened; it opens like a path does.

    Its bytes are held among the decoded images of the process, and downloaded again when they had to make room.

    Attributes:
        file: where it is.
    """

    file: ByteFile
    _owner: Owner[np.ndarray] = field(default_factory=lambda: Owner(DECODED), repr=False, compare=False)
    _fetched: int = field(default=0, repr=False, compare=False)

    def __str__(self) -> str:
        return self.file.name

    def open(self, mode: str = "rb") -> io.BytesIO:  # noqa: ARG002  only so can an image be opened
        """The file's bytes, in memory.

        Raises:
            ImageError: it cannot be read.
        """
        return io.BytesIO(self._owner.get("file", self._download).tobytes())

    @property
    def stamp(self) -> Stamp | None:
        """What tells it from any other, where the server says."""
        return self.file.stamp

    def stored_bytes(self) -> int:
        """Bytes downloaded since this was last asked."""
        fetched, self._fetched = self._fetched, 0
        return fetched

    def _download(self) -> np.ndarray:
        data = np.frombuffer(self.file.read(0, self.file.size), np.uint8)
        self._fetched += data.nbytes
        return data
