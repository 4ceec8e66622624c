"""What was made before and may be asked for again, within a limit of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["Kept"]


class Kept:
    """Encoded pictures, of which those asked for longest ago make room for new ones; for several threads.

    Arguments:
        most_bytes: that may be held.

    Example:
        >>> kept = Kept(most_bytes=5)
        >>> kept.put("a", b"123"), kept.put("b", b"45"), kept.put("c", b"6")
        (None, None, None)
        >>> kept.get("a"), kept.get("b")
        (None, b'45')
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._pictures: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> bytes | None:
        """The picture of that key, or None if it is not held."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: Hashable, picture: bytes) -> None:
        """Hold a picture, in the place of one of the same key."""
        with self._lock:
            self._held += len(picture) - len(self._pictures.pop(key, b""))
            self._pictures[key] = picture
            while self._held > self._most:
                self._held -= len(self._pictures.popitem(last=False)[1])
