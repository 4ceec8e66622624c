"""Decoded pixels of all sources of this process, in a memory of limited size."""

import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from jaxtyping import Shaped

__all__ = ["DECODED", "DECODED_BYTES", "Decoded", "Store"]

DECODED_BYTES = 2**30
"""Memory for decoded images in this process, all sources together; the image in use is kept whatever its size."""

Key = tuple[int, Hashable]
"""Number of a source's `Decoded`, and what is held of it: the scale it was decoded at, or the size of its view."""


class Store:
    """Decoded images of all sources, the least recently used dropped first."""

    def __init__(self) -> None:
        self._held: OrderedDict[Key, np.ndarray] = OrderedDict()
        self._bytes = 0
        # re-entrant: a source may be collected, and dropped from here, while its own thread is in `put`
        self._lock = threading.RLock()

    def get(self, key: Key) -> np.ndarray | None:
        """The pixels held under a key, or None; they become the last to be dropped."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def holds(self, key: Key) -> bool:
        """Whether something is held under a key."""
        with self._lock:
            return key in self._held

    def put(self, key: Key, pixels: np.ndarray) -> None:
        """Hold pixels, and drop others while all together are too large."""
        with self._lock:
            self.drop(key)
            self._held[key] = pixels
            self._bytes += pixels.nbytes
            while len(self._held) > 1 and self._bytes > DECODED_BYTES:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    def drop(self, *keys: Key) -> None:
        """Let go of what is held under these keys, if anything is."""
        with self._lock:
            for key in keys:
                pixels = self._held.pop(key, None)
                self._bytes -= 0 if pixels is None else pixels.nbytes


DECODED = Store()
"""The one store of the process."""

_NUMBERS = itertools.count()


class Decoded:
    """What the store holds of one image, decoded at every scale and seen whole; it goes when this is collected."""

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self._names: set[Hashable] = set()
        weakref.finalize(self, _drop, self.number, self._names).atexit = False

    def pixels(
        self, name: Hashable, make: Callable[[], Shaped[np.ndarray, "rows columns channel"]]
    ) -> Shaped[np.ndarray, "rows columns channel"]:
        """The pixels of this name, not to be written to; made now if they are not held."""
        held = DECODED.get((self.number, name))
        if held is None:
            held = make()
            self._names.add(name)
            DECODED.put((self.number, name), held)
        return held

    def holds(self, name: Hashable) -> bool:
        """Whether the pixels of this name are held now."""
        return DECODED.holds((self.number, name))

    def drop(self) -> None:
        """Let go of all of them."""
        _drop(self.number, self._names)


def _drop(number: int, names: set[Hashable]) -> None:
    DECODED.drop(*((number, name) for name in names))
