"""Open files of this process: a limited number, shared by threads, let go of in forks."""

import errno
import os
import stat
import threading
from collections import OrderedDict, deque

from foveate.errors import ImageError

__all__ = ["HANDLES", "Handle", "Handles", "Stamp"]

Stamp = tuple[int, int]
"""Size of a file in bytes and when it was last modified, in nanoseconds: what tells it from one that replaced it."""

HANDLES_OPEN = 64
"""Local files open at a time in this process; the one used longest ago is closed, and opened again if needed."""


class Handle:
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
        """Read a part; fewer bytes at the end of the file, and now and then elsewhere."""
        if hasattr(os, "pread"):
            return os.pread(self._number, length, offset)
        with self._lock:  # one place in the file for all: Windows
            os.lseek(self._number, offset, os.SEEK_SET)
            return os.read(self._number, length)

    def close(self) -> None:
        """Close the file for good."""
        os.close(self._number)


class Handles:
    """Open files of this process, the one used longest ago closed when there are too many; forks open their own.

    A file that was replaced since is another file, and opened by itself: whoever reads the old one reads on.

    Arguments:
        most: files open at a time, as long as no more are being read.
    """

    def __init__(self, most: int = HANDLES_OPEN) -> None:
        self.most = most
        self._open: OrderedDict[tuple[str, Stamp], Handle] = OrderedDict()
        self._forgotten: deque[tuple[str, Stamp]] = deque()
        self._lock = threading.Lock()

    def borrow(self, path: str, stamp: Stamp | None = None) -> Handle:
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
        opened = Handle(path)  # not while others wait: opening a file on a network may take long
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

    def give_back(self, handle: Handle) -> None:
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
                self._close(key)

    def forget(self, path: str, stamp: Stamp) -> None:
        """Close a file whose last reader is being collected; others that read it open it again.

        Python collects at any time, even while this thread is in here: then it is closed by whoever comes next.
        """
        self._forgotten.append((path, stamp))
        if self._lock.acquire(blocking=False):
            try:
                self._trim()
            finally:
                self._lock.release()

    def after_fork(self) -> None:
        """In a child process: let go of the parent's files, and of the lock that one of its threads may have held."""
        self._lock = threading.Lock()
        while self._open:
            self._open.popitem()[1].close()

    def __len__(self) -> int:
        return len(self._open)

    def _close(self, key: tuple[str, Stamp]) -> None:
        handle = self._open.pop(key, None)
        if handle is not None and handle.borrowed == 0:  # else whoever gives it back does
            handle.close()

    def _trim(self) -> None:
        while self._forgotten:
            self._close(self._forgotten.popleft())
        excess = len(self._open) - self.most
        if excess > 0:
            idle = [key for key, handle in self._open.items() if handle.borrowed == 0]
            for key in idle[:excess]:
                self._open.pop(key).close()


HANDLES = Handles()
"""The open files of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HANDLES.after_fork)
