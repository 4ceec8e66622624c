"""LRU pool of open handles: what other libraries hold open of images, bounded in number over the process."""

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LIBRARY_HANDLES", "LibraryHandles", "state_of"]

LIBRARY_HANDLES_OPEN = 32
"""Images held open by other libraries at a time; the one used longest ago is closed, and opened again if needed."""


class LibraryHandles:
    """LRU pool of open images: the one used longest ago is closed when there are too many.

    Processes that were forked open their own: what they inherit shares its place in the file with the parent, so it is
    neither used nor closed.

    Arguments:
        most: images kept open at a time; more are open only while more are being read.
    """

    def __init__(self, most: int = LIBRARY_HANDLES_OPEN) -> None:
        self.most = most
        self._open: list[_Held] = []  # the one used longest ago first
        self._inherited: list[list[_Held]] = []
        self._lock = threading.RLock()

    @contextmanager
    def borrow(
        self, key: Hashable, opens: Callable[[], Any], closes: Callable[[Any], None], shared: bool
    ) -> Iterator[Any]:
        """Borrowed handle, an open image, which stays open until the `with` block ends.

        Arguments:
            key: what is opened; those who give the same key may get the same handle.
            opens: opens it; called if no handle is free. What it raises goes on.
            closes: closes it, later.
            shared: several threads may use one handle at a time.
        """
        held = self._taken(key, shared)
        if held is None:
            held = _Held(key, opens(), closes)
            with self._lock:
                self._open.append(held)
                self._trim()
        try:
            yield held.value
        finally:
            with self._lock:
                held.borrowed -= 1
                if held.dropped and held.borrowed == 0:
                    held.close()
                self._trim()

    def drop(self, *keys: Hashable) -> None:
        """Close what is open under these keys, as soon as nobody reads it; the next to borrow it opens it again."""
        with self._lock:
            for held in [held for held in self._open if held.key in keys]:
                self._open.remove(held)
                held.dropped = True
                if held.borrowed == 0:
                    held.close()

    def after_fork(self) -> None:
        """In a child process: set the parent's images aside, and the lock that one of its threads may have held."""
        self._lock = threading.RLock()
        self._inherited.append(self._open)
        self._open = []

    def __len__(self) -> int:
        return len(self._open)

    def _taken(self, key: Hashable, shared: bool) -> "_Held | None":
        with self._lock:
            for held in self._open:
                if held.key == key and (shared or held.borrowed == 0):
                    held.borrowed += 1
                    self._open.remove(held)
                    self._open.append(held)
                    return held
        return None

    def _trim(self) -> None:
        idle = [held for held in self._open if held.borrowed == 0]
        for held in idle[: max(0, len(self._open) - self.most)]:
            self._open.remove(held)
            held.close()


@dataclass(eq=False)
class _Held:
    """Open image, borrowed by whoever opened it; told from others by being itself."""

    key: Hashable
    value: Any
    closes: Callable[[Any], None]
    borrowed: int = 1
    dropped: bool = False

    def close(self) -> None:
        self.closes(self.value)


LIBRARY_HANDLES = LibraryHandles()
"""The open images of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LIBRARY_HANDLES.after_fork)


def state_of(path: Path) -> tuple[int, int]:
    """File state, which changes when a file is written anew, so that no handle of the old one is used for it.

    Raises:
        OSError: there is no such file.
    """
    state = path.stat()
    return state.st_mtime_ns, state.st_size
