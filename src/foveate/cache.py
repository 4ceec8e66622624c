"""LRU cache of limited bytes that makes no entry twice at a time, and the three that a process has."""

import itertools
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence, Sized
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np

OVERHEAD = 400
"""Bytes that holding an entry takes beside its value, about: tiles of a few pixels must not go uncounted."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


class _Flight(Generic[Value]):
    """In-flight entries, which one thread is making; a lock is faster than a `Future`, which costs 1 % of a tile."""

    def __init__(self) -> None:
        self.made: dict[Hashable, Value] = {}
        self.landed = threading.Lock()
        self.landed.acquire()


class Cache(Generic[Value]):
    """LRU cache for several threads: where all owners together hold too much, the least recently used makes room.

    A value counts its `nbytes`, or its length where it has none, and `OVERHEAD`. It is shared: nobody may write to it.
    A forked process starts with empty caches; a pickle names the cache and holds nothing of it.

    Arguments:
        name: of the variable of this module that it is.
        limit: bytes that may be held; what was used last is held whatever its size.

    Example:
        >>> cache: Cache[bytes] = Cache("SMALL", 2 * OVERHEAD + 5)
        >>> owner = Owner(cache)
        >>> [owner.get(key, lambda: b"12") for key in "aba"], cache.memory
        ([b'12', b'12', b'12'], 804)
        >>> owner.get("c", lambda: b"34"), owner.holds("a"), owner.holds("b")
        (b'34', True, False)
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self._numbers = itertools.count()
        self._owned: dict[int, set[Hashable]] = {}
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        """Hold nothing: in a forked process, the threads that held the lock or were making entries do not exist."""
        self._owned = {number: set() for number in self._owned}
        self._held: OrderedDict[tuple[int, Hashable], tuple[Value, int]] = OrderedDict()
        self._flights: dict[tuple[int, Hashable], _Flight[Value]] = {}
        self._gone: deque[int] = deque()
        self.memory = 0
        self._lock = threading.Lock()

    def set_limit(self, limit: int) -> None:
        """Limit the bytes that may be held from now on."""
        with self._lock:
            self.limit = limit
            self._make_room()
        self._sweep()

    def _enter(self) -> int:
        with self._lock:
            number = next(self._numbers)
            self._owned[number] = set()
        self._sweep()
        return number

    def _leave(self, number: int) -> None:
        """Never waits: Python may collect an owner while this thread, or one that waits for it, has the lock."""
        self._gone.append(number)
        self._sweep()

    def _sweep(self) -> None:
        """Drop what is held for those who left; whoever lets go of the lock calls this for all who did not get it."""
        while self._gone and self._lock.acquire(blocking=False):
            try:
                while self._gone:
                    number = self._gone.popleft()
                    for key in self._owned.pop(number, ()):
                        self.memory -= self._held.pop((number, key))[1]
            finally:
                self._lock.release()

    def _get(
        self, number: int, keys: Sequence[Key], make: Callable[[list[Key]], Sequence[Value]], keep: bool
    ) -> list[Value]:
        found: dict[Key, Value] = {}
        mine: list[Key] = []
        theirs: list[tuple[Key, _Flight[Value]]] = []
        flight: _Flight[Value] | None = None
        with self._lock:
            for key in keys:
                name = (number, key)
                if (entry := self._held.get(name)) is not None:
                    self._held.move_to_end(name)
                    found[key] = entry[0]
                elif (other := self._flights.get(name)) is None:
                    self._flights[name] = flight = flight or _Flight()
                    mine.append(key)
                elif other is not flight:
                    theirs.append((key, other))
        self._sweep()
        if flight is not None:  # before waiting for others, who may be waiting for this
            try:
                made = dict(zip(mine, make(mine), strict=True))
                flight.made.update(made.items())
                found |= made
            finally:
                self._land(number, mine, flight.made, keep)
                flight.landed.release()
        for key, other in theirs:
            with other.landed:
                pass
            # if it failed there, it may work here, or fail with this caller's own error
            found[key] = other.made[key] if key in other.made else self._get(number, [key], make, keep)[0]
        return [found[key] for key in keys]

    def _land(self, number: int, keys: Sequence[Hashable], made: dict[Hashable, Value], keep: bool) -> None:
        with self._lock:
            owned = self._owned.get(number)
            for key in keys:
                self._flights.pop((number, key), None)
                if not keep or key not in made or owned is None or key in owned:
                    continue  # not to be held, or failed, or the owner left, or this process was forked meanwhile
                size = getattr(made[key], "nbytes", None)
                entry = made[key], OVERHEAD + (len(made[key]) if size is None else size)
                owned.add(key)
                self._held[number, key] = entry
                self.memory += entry[1]
                self._make_room()
        self._sweep()

    def _make_room(self) -> None:
        while self.memory > self.limit and len(self._held) > 1:
            (number, key), (_, size) = self._held.popitem(last=False)
            self._owned[number].discard(key)
            self.memory -= size

    def __reduce__(self) -> str:
        return self.name


class Owner(Generic[Value]):
    """Owner of entries of a cache, such as an image: they are dropped when this is closed or collected.

    Once closed, everything is made and nothing held. A copy, or one pickled, is another owner, who owns nothing yet.
    """

    def __init__(self, cache: Cache[Value]) -> None:
        self.cache, self._number = cache, cache._enter()
        self.close = weakref.finalize(self, cache._leave, self._number)
        self.close.atexit = False

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key: held, being made by another thread, or made now.

        Raises:
            Exception: of `make`, which everybody who waits for it tries again.
        """
        return self.get_many([key], lambda _: [make()])[0]

    def get_many(
        self, keys: Sequence[Key], make: Callable[[list[Key]], Sequence[Value]], keep: bool = True
    ) -> list[Value]:
        """The values of several keys, in order, of which `make` makes those that nobody holds or makes, in one call.

        Arguments:
            keys: of this owner.
            make: gives as many values as it is given keys.
            keep: whether what is made now is held.
        """
        return self.cache._get(self._number, keys, make, keep)

    def holds(self, key: Hashable) -> bool:
        """Whether the value of a key is held now."""
        return (self._number, key) in self.cache._held

    def __reduce__(self) -> tuple[type["Owner[Value]"], tuple[Cache[Value]]]:
        return Owner, (self.cache,)


TILES: "Cache[np.ndarray]" = Cache("TILES", 2**28)
"""Decoded tiles of all images."""

DECODED: "Cache[np.ndarray]" = Cache("DECODED", 2**30)
"""Images decoded whole, and views and overviews of them."""

ENCODED: Cache[bytes] = Cache("ENCODED", 2**26)
"""Encoded tiles and patches that the viewer shows."""
