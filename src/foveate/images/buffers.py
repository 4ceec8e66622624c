"""Memory that tiles are decoded into, used again and again.

A tile takes hundreds of kilobytes, which the operating system hands over page by page and takes back when the tile is
dropped. That can cost as much as decoding it, and threads wait for each other meanwhile.
"""

import math
import os
import threading
import weakref
from collections import deque

import numpy as np
from jaxtyping import Shaped

import foveate.cache as cache

__all__ = ["BUFFERS", "Buffers"]

LEAST_SPARE = 2**24
"""Bytes that may lie idle even while the cache of decoded tiles is full: it drops one for each that it takes in."""


class Buffers:
    """Memory for arrays; when the last one who looks at an array lets go of it, the next array gets its memory.

    What lies idle and what the cache of decoded tiles holds together take at most
    `foveate.cache.TILES`' limit, and `LEAST_SPARE` more.

    Example:
        >>> buffers = Buffers()
        >>> array = buffers.take((2, 3, 4))
        >>> array.shape, buffers.spare
        ((2, 3, 4), 0)
        >>> del array
        >>> buffers.spare
        24
    """

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Start anew, in a child process without the lock that a thread of its parent may have held."""
        self._idle: dict[int, list[bytearray]] = {}
        self._bytes = 0
        self._returned: deque[bytearray] = deque()
        self._lock = threading.Lock()

    @property
    def spare(self) -> int:
        """Bytes that lie idle."""
        return self._bytes

    def take(self, shape: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
        """An array of bytes that hold anything.

        Arguments:
            shape: its shape.

        Returns:
            A uint8 array; every view of it keeps its memory, too.
        """
        size = math.prod(shape)
        with self._lock:
            self._settle()
            idle = self._idle.get(size)
            memory = idle.pop() if idle else None
            if memory is not None:
                self._bytes -= size
        if memory is None:
            memory = bytearray(size)
        # memory is no array itself: views of this one refer to this one, and not to what is behind it
        array: np.ndarray = np.ndarray(shape, np.uint8, memory)
        weakref.finalize(array, self._give_back, memory).atexit = False
        return array

    def _give_back(self, memory: bytearray) -> None:
        """Never waits: Python may collect an array while this thread, or one that waits for it, is in here."""
        self._returned.append(memory)
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Put what came back with what lies idle, and let go of what is too much."""
        while self._returned:
            memory = self._returned.popleft()
            self._idle.setdefault(len(memory), []).append(memory)
            self._bytes += len(memory)
        room = max(cache.TILES.limit - cache.TILES.memory, LEAST_SPARE)
        while self._bytes > room:
            size, idle = next(iter(self._idle.items()))
            if idle:
                idle.pop()
                self._bytes -= size
            else:
                del self._idle[size]


BUFFERS = Buffers()
"""Those of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BUFFERS.after_fork)
