"""Remote files: byte ranges behind http(s):// and s3://, of which only what is asked for is transferred."""

import asyncio
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from foveate.images.io.local import ByteFile, Stamp
from foveate.images.io.network import TOGETHER, Resource, Span, asked_at

GAP = 8 * 1024
"""Bytes between two parts that are rather transferred than asked around: a request costs as much."""

AHEAD = 16 * 1024
"""Bytes transferred when a file is first looked at: enough for most headers."""


class RemoteFile(ByteFile):
    """Remote file behind https://, http:// or s3://, of which only what is asked for is transferred.

    What is counted is what was transferred: gaps between near parts and what came before a connection broke off
    included, bytes that several parts share once. The first bytes are kept. Can be pickled at any time, and is safe in
    threads, forks and spawned processes. Proxies, endpoint, region and credentials are taken from the usual variables
    and files; S3 is asked anonymously where there are no credentials.

    Source: RFC 9110 (2022), section 14, range requests.

    Arguments:
        address: of the file.

    Raises:
        ImageError: on first use, in one line: what it needs is not installed, the server cannot be reached, has no such
            file, refuses it, sends whole files only, or has another file than when it was first asked.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._there = Resource(address)
        self._head = b""
        self._lock = threading.Lock()
        self._uncounted: deque[int] = deque()

    @property
    def size(self) -> int:
        """Length in bytes; the first time, the first bytes are transferred with it."""
        if self._there.size is None:
            try:
                with self._lock:
                    if self._there.size is None:
                        self._head = self._transfer([(0, AHEAD)])[0]
            finally:
                self._settle()
        assert self._there.size is not None
        return self._there.size

    @property
    def stamp(self) -> Stamp | None:
        """Address, length and version (ETag, or time of the last change), where the server tells one."""
        size = self.size  # asked for first: with it the version is told
        return (self.name, size, self._there.version) if self._there.version else None

    def read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read (offset, length) parts, together; what is transferred is counted."""
        try:
            return self._read_many(parts)
        finally:
            self._settle()

    def _read_many(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        size, head = self.size, self._head
        wanted = [(min(offset, size), min(offset + length, size)) for offset, length in parts]
        spans = _merged([span for span in wanted if span[1] > max(span[0], len(head))])
        data, starts = self._transfer(spans), [start for start, _ in spans]
        result = []
        for start, stop in wanted:
            if start == stop or stop <= len(head):
                result.append(head[start:stop])
            else:
                holder = bisect_right(starts, start) - 1
                result.append(data[holder][start - starts[holder] : stop - starts[holder]])
        return result

    def _transfer(self, spans: Sequence[Span]) -> list[bytes]:
        if not spans:
            return []
        address = asked_at(self.name)
        from fsspec.asyn import get_loop, sync

        data = [bytearray() for _ in spans]

        async def get_all() -> None:
            limit = asyncio.Semaphore(TOGETHER)

            async def get(span: Span, come: bytearray) -> None:
                async with limit:
                    await self._there.get(address, span, come, self._uncounted.append)

            async with asyncio.TaskGroup() as group:  # the first that cannot be had ends it: nothing arrives afterwards
                for span, come in zip(spans, data, strict=True):
                    group.create_task(get(span, come))

        try:
            sync(get_loop(), get_all)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        return [bytes(come) for come in data]

    def _settle(self) -> None:
        """Tell what was transferred; holding no lock, for whoever counts may wait for one whose holder reads here."""
        while self._uncounted:
            with suppress(IndexError):  # another thread was faster
                amount = self._uncounted.popleft()
                if self.count is not None:
                    self.count(amount)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_head": b"", "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def _merged(spans: Sequence[Span], gap: int = GAP) -> list[Span]:
    """Coalesced ranges: those that overlap, touch or lie at most `gap` bytes apart made one; in ascending order.

    Example:
        >>> _merged([(100, 120), (0, 10), (5, 30), (35, 40)], gap=5)
        [(0, 40), (100, 120)]
    """
    result: list[Span] = []
    for start, stop in sorted(spans):
        if result and start - result[-1][1] <= gap:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result
