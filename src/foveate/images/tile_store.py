"""Decoded tiles of all sources of this process, in a memory of limited size; no tile is decoded twice at a time."""

import itertools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Shaped

__all__ = ["TILES", "TILE_BYTES", "Tenant", "TileName", "TileStore"]

TILE_BYTES = 2**28
"""Memory for decoded tiles in this process, all sources together; the last one decoded is kept whatever its size."""

OVERHEAD = 400
"""Bytes that holding a tile takes beside its pixels, about: strips of a few pixels must not go uncounted."""

TileName = tuple[int, int]
"""(row, column) of a tile in the grid of its level."""

_Key = tuple[int, int, int, int]
_Tile = Shaped[np.ndarray, "rows columns channel"]


class _Flight:
    """Tiles that a thread is decoding; others that want one of them wait for it."""

    def __init__(self) -> None:
        self.tiles: dict[TileName, np.ndarray] = {}
        self.landed = threading.Lock()
        self.landed.acquire()


class TileStore:
    """Tiles of all open sources, the least recently used dropped first; of closed sources nothing is kept."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._keys: dict[int, set[_Key]] = {}
        self._start()

    def _start(self) -> None:
        self._held: OrderedDict[_Key, np.ndarray] = OrderedDict()
        self._flying: dict[_Key, _Flight] = {}
        self._bytes = 0
        # re-entrant: a source may be collected, and leave, while its thread is in here
        self._lock = threading.RLock()

    def after_fork(self) -> None:
        """Start anew in a child process, where the threads that held the lock or were decoding do not exist."""
        self._keys = {number: set() for number in self._keys}
        self._start()

    def enter(self) -> int:
        """A number for a source that opens."""
        with self._lock:
            number = next(self._numbers)
            self._keys[number] = set()
            return number

    def leave(self, number: int) -> None:
        """Drop all tiles of a source; those that are still being decoded will not be kept."""
        with self._lock:
            for key in self._keys.pop(number, ()):
                self._bytes -= self._held.pop(key).nbytes + OVERHEAD

    def tiles(
        self,
        number: int,
        level: int,
        wanted: Sequence[TileName],
        decode: Callable[[list[TileName]], Sequence[_Tile]],
        keep: bool = True,
    ) -> list[_Tile]:
        """Tiles of a source, in the order wanted, not to be written to.

        Arguments:
            number: of the source.
            level: of the tiles.
            wanted: their names, all different.
            decode: makes those that nobody has or makes already.
            keep: whether tiles decoded now are kept.

        Returns:
            As many tiles.
        """
        found: dict[TileName, np.ndarray] = {}
        mine: list[TileName] = []
        theirs: list[tuple[TileName, _Flight]] = []
        flight: _Flight | None = None
        with self._lock:
            for name in wanted:
                key = (number, level, *name)
                tile = self._held.get(key)
                if tile is not None:
                    self._held.move_to_end(key)
                    found[name] = tile
                elif (other := self._flying.get(key)) is not None:
                    theirs.append((name, other))
                else:
                    flight = flight or _Flight()
                    self._flying[key] = flight
                    mine.append(name)
        if flight is not None:
            self._decode(number, level, mine, decode, keep, flight)
            found |= flight.tiles
        for name, other in theirs:
            with other.landed:
                pass
            if name not in other.tiles:  # it failed there: it may work here, or fail with this caller's own error
                other.tiles[name] = self.tiles(number, level, [name], decode, keep)[0]
            found[name] = other.tiles[name]
        return [found[name] for name in wanted]

    def _decode(
        self,
        number: int,
        level: int,
        mine: list[TileName],
        decode: Callable[[list[TileName]], Sequence[_Tile]],
        keep: bool,
        flight: _Flight,
    ) -> None:
        try:
            flight.tiles = dict(zip(mine, decode(mine), strict=True))
        finally:
            with self._lock:
                for name in mine:
                    key = (number, level, *name)
                    self._flying.pop(key, None)
                    if keep and name in flight.tiles:
                        self._put(number, key, flight.tiles[name])
            flight.landed.release()

    def _put(self, number: int, key: _Key, tile: np.ndarray) -> None:
        names = self._keys.get(number)
        if names is None or key in names:  # closed meanwhile, or kept already
            return
        names.add(key)
        self._held[key] = tile
        self._bytes += tile.nbytes + OVERHEAD
        while self._bytes > TILE_BYTES and len(self._held) > 1:
            old, dropped = self._held.popitem(last=False)
            self._bytes -= dropped.nbytes + OVERHEAD
            self._keys[old[0]].discard(old)

    @property
    def memory(self) -> int:
        """Memory taken."""
        return self._bytes

    def names(self) -> Iterable[tuple[int, int, int, int]]:
        """(source, level, row, column) of all that is held, the least recently used first."""
        return tuple(self._held)


TILES = TileStore()
"""The one store of the process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TILES.after_fork)


class Tenant:
    """A source's place in the store, until this is collected; a copy, or one pickled, has a place of its own."""

    def __init__(self) -> None:
        self.number = TILES.enter()
        weakref.finalize(self, TILES.leave, self.number).atexit = False

    def __reduce__(self) -> tuple[type["Tenant"], tuple[()]]:
        return Tenant, ()

    def leave(self) -> None:
        """Drop all tiles."""
        TILES.leave(self.number)
