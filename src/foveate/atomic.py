"""Atomic writing: files and folders that are there whole, or as they were before, whatever breaks off.

What is new is written beside its place, under a hidden name of this process, and renamed once it is complete: only
within one folder, so one file system, is a rename a single step. Rights follow the umask, as of any file.
"""

import errno
import glob
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foveate.errors import FoveateError, WriteError


def replace_file(path: Path, content: bytes) -> None:
    """Atomic replacement of a file: a reader, or a crash, sees either the old content or the new one."""
    with whole_file(path) as beside:
        beside.write_bytes(content)


@contextmanager
def whole_file(path: Path, over_folder: bool = False) -> Iterator[Path]:
    """Atomic file: yields the path to write to, which takes its place when the block ends and goes if it fails.

    Arguments:
        path: of the file; folders on the way are made.
        over_folder: whether a folder there is replaced too, rather than refused (IsADirectoryError).
    """
    with _beside(path) as beside:
        beside.touch()
        rights = beside.stat().st_mode
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # else a crash of the system may leave the name and not the content
        beside.chmod(stat.S_IMODE(rights))  # a writer may have put a file of its own there, for its user's eyes alone
        if over_folder and path.is_dir():
            _swap(beside, path)
        else:
            beside.replace(path)


FULL = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EFBIG: "write to another file system",
    errno.EROFS: "write elsewhere",
}
"""Faults of the disk that is written to, which no reading has, and what to do about each."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Writing of a file: a full disk within becomes an error that names the file, which the system's own does not.

    Arguments:
        path: of the file.

    Raises:
        WriteError: the disk is full, the file too large for it, or the disk cannot be written to.

    Example:
        >>> with writing("a.csv"):
        ...     raise OSError(errno.EROFS, "Read-only file system")
        Traceback (most recent call last):
        ...
        foveate.errors.WriteError: a.csv: cannot be written (Read-only file system): write elsewhere
    """
    try:
        yield
    except Exception as error:
        raise not_written(path, error) from error


def not_written(path: Path | str, error: Exception) -> Exception:
    """Error of writing a file: one that names it, where it is a full disk; else the same."""
    # writers of other languages, and those that copy many files, have the number in their text alone
    number = next((one for one in FULL if _is(error, one)), None)
    if number is None or isinstance(error, FoveateError):
        return error
    return WriteError(f"{path}: cannot be written ({os.strerror(number)}): {FULL[number]}")


def _is(error: Exception, number: int) -> bool:
    return getattr(error, "errno", None) == number or os.strerror(number) in str(error)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Atomic folder: yields an empty one to write into, which takes its place when the block ends and goes if it fails.

    A folder or file that is there is replaced with all that is in it.
    """
    with _beside(path) as beside:
        beside.mkdir()
        yield beside
        _swap(beside, path)


def leftovers(folder: Path) -> list[Path]:
    """Unfinished files directly in a folder: of processes at work now, or killed before they could remove them."""
    return list(folder.glob(".*.part"))


def sweep(folder: Path) -> None:
    """Removal of unfinished files, in a folder and all below, of which the caller knows that nobody writes to it."""
    for left in list(folder.rglob(".*.part")):
        _remove(left)


UNTOUCHED = 600.0
"""Seconds after which what a process left that is no more on this machine is not one's of another machine at work."""


def _sweep_before(path: Path) -> None:
    """Remove what killed processes left of earlier tries to write the same file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = left.name.removeprefix(f".{path.name}.").removesuffix(".part")
        try:
            if process.isdigit() and not _lives(int(process)) and time.time() - left.stat().st_mtime > UNTOUCHED:
                _remove(left)
        except (OSError, OverflowError):  # another process was faster; a number that no process has
            continue


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        _sweep_before(path)
        _remove(beside)
        try:
            yield beside
        finally:
            _remove(beside)


def _swap(beside: Path, path: Path) -> None:
    """Replace where no single step does it, as one of the two is a folder: the old steps aside, and back on failure."""
    old = beside.with_suffix(".old")
    if os.path.lexists(path):
        path.replace(old)
    try:
        beside.replace(path)
    except BaseException:
        if os.path.lexists(old):
            old.replace(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink()
