"""One file elsewhere: what of it is asked for, how often, and what is known of it."""

import asyncio
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from foveate.errors import ImageError
from foveate.images.io.local import ByteFile
from foveate.images.remote.transport import Part, Temporary, Transport, transport_for

__all__ = ["RemoteFile", "merged"]

GAP = 8 * 1024
"""Bytes between two parts that are rather transferred than asked around: a request costs as much."""

AHEAD = 16 * 1024
"""Bytes transferred when a file is first looked at: enough for most headers."""

TOGETHER = 16
"""Requests under way at a time, of one reading."""

WAITS = (0.25, 1.0, 4.0)
"""Seconds before a part is asked for again, as often as there are waits."""

Span = tuple[int, int]
"""First byte and the byte after the last."""


class RemoteFile(ByteFile):
    """A file behind https://, http:// or s3://, of which only what is asked for is transferred.

    What is counted is what was transferred: gaps between near parts and what came before a connection broke off
    included, bytes that several parts share once. The first bytes are kept. Can be pickled at any time, and is safe in
    threads, forks and spawned processes.

    Arguments:
        address: of the file.

    Raises:
        ImageError: on first use, in one line: what it needs is not installed, the server cannot be reached, has no such
            file, refuses it, sends whole files only, or has another file than when it was first asked.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._size: int | None = None
        self._version = ""
        self._head = b""
        self._lock = threading.Lock()
        self._uncounted: deque[int] = deque()

    @property
    def size(self) -> int:
        """Length in bytes; the first time, the first bytes are transferred with it."""
        try:
            if self._size is None:
                with self._lock:
                    if self._size is None:
                        self._head = self._transfer([(0, AHEAD)])[0]
        finally:
            self._settle()
        assert self._size is not None
        return self._size

    def read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read (offset, length) parts, together; what is transferred is counted."""
        try:
            return self._read_many(parts)
        finally:
            self._settle()

    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        size, head = self.size, self._head
        wanted = [(min(offset, size), min(offset + length, size)) for offset, length in parts]
        spans = merged([span for span in wanted if span[1] > max(span[0], len(head))])
        data, starts = self._transfer(spans), [start for start, _ in spans]
        result = []
        for start, stop in wanted:
            if stop <= len(head):
                result.append(head[start:stop])
            elif start == stop:
                result.append(b"")
            else:
                holder = bisect_right(starts, start) - 1
                result.append(data[holder][start - starts[holder] : stop - starts[holder]])
        return result

    def _transfer(self, spans: Sequence[Span]) -> list[bytes]:
        if not spans:
            return []
        transport = transport_for(self.name)
        from fsspec.asyn import sync

        asked = [_Asked(self, *span) for span in spans]
        try:
            sync(transport.loop, _get_all, transport, asked)
        finally:
            self._uncounted.append(sum(len(one.data) for one in asked))
        return [bytes(one.data) for one in asked]

    def _settle(self) -> None:
        """Tell what was transferred; holding no lock, for whoever counts may wait for one whose holder reads here."""
        while self._uncounted:
            with suppress(IndexError):  # another thread was faster
                amount = self._uncounted.popleft()
                if self.count is not None:
                    self.count(amount)

    def _meets(self, size: int, version: str) -> None:
        """Remember what file it is, or refuse another one."""
        if self._size is None:
            self._size, self._version = size, version
        elif size != self._size or (version and self._version and version != self._version):
            raise ImageError(f"{self.name}: the file has changed since it was opened: open the image again")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_head": b"", "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class _Asked(Part):
    """One request, and what has come of it."""

    def __init__(self, file: RemoteFile, start: int, stop: int) -> None:
        self.name, self.start, self.stop = file.name, start, stop
        self.data = bytearray()
        self._file = file

    def begins(self, size: int, version: str) -> None:
        self._file._meets(size, version)
        self.stop = min(self.stop, size)

    def add(self, data: bytes) -> None:
        self.data += data
        if self.missing < 0:
            raise ImageError(f"{self.name}: the server sends more than it is asked for: copy the file to this machine")

    @property
    def missing(self) -> int:
        return self.stop - self.start - len(self.data)


async def _get_all(transport: Transport, asked: Sequence[_Asked]) -> None:
    """Ask for several parts at a time; the first that cannot be had ends it."""
    limit = asyncio.Semaphore(TOGETHER)
    tasks = [asyncio.ensure_future(_get(transport, one, limit)) for one in asked]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # nothing may arrive any more once we are back


async def _get(transport: Transport, one: _Asked, limit: asyncio.Semaphore) -> None:
    """Ask until all of a part has come, each time for what is missing."""
    async with limit:
        for wait in (*WAITS, None):
            try:
                await transport.get(one.name, one.start + len(one.data), one.stop, one)
                problem = f"{one.missing} bytes were not sent"
            except Temporary as error:
                problem = str(error)
            if one.missing == 0:
                return
            if wait is not None:
                await asyncio.sleep(wait)
    raise ImageError(
        f"{one.name}: cannot be read ({problem}; asked {len(WAITS) + 1} times): check the network, or try again later"
    )


def merged(spans: Sequence[Span], gap: int = GAP) -> list[Span]:
    """Spans that overlap, touch or nearly touch made into one.

    Arguments:
        spans: in any order.
        gap: bytes between two that are made one.

    Returns:
        Disjoint spans in ascending order; all that was asked for lies in them.

    Example:
        >>> merged([(100, 120), (0, 10), (5, 30), (35, 40)], gap=5)
        [(0, 40), (100, 120)]
    """
    result: list[Span] = []
    for start, stop in sorted(spans):
        if result and start - result[-1][1] <= gap:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result
