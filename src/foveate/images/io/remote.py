"""Remote files: byte ranges behind http(s):// and s3://, of which only what is asked for is transferred.

S3 is asked over HTTP too, by addresses that s3fs signs: so there is one way to count, to try again and to refuse.
fsspec and obstore read ranges as well, but neither keeps all that is promised here: fsspec loses what came before a
connection broke off, and takes a whole file from a server that knows no ranges; obstore hangs in a forked process.
"""

import asyncio
import atexit
import functools
import os
import re
import socket
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError, ImageError, one_line
from foveate.images.io.local import ByteFile, Stamp, changed

if TYPE_CHECKING:
    import aiohttp

GAP = 8 * 1024
"""Bytes between two parts that are rather transferred than asked around: a request costs as much."""

AHEAD = 16 * 1024
"""Bytes transferred when a file is first looked at: enough for most headers."""

TOGETHER = 16
"""Requests under way at a time, of one reading."""

WAITS = (0.25, 1.0, 4.0)
"""Seconds before a part is asked for again, as often as there are waits without progress in between."""

PROGRESS = 64 * 1024
"""Bytes that are worth asking anew: a connection that brought so many before it broke off was no failure."""

TIMEOUT = 60.0
"""Seconds a server may say nothing; a third of it for the connection to come about."""

SLOWEST = 1024
"""Bytes a second, over `TIMEOUT` seconds, below which a server dawdles and is given up."""

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may answer better later."""

NO_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
"""What a resolver says of a name that it does not know, or knows no address of."""

Span = tuple[int, int]
"""First byte and the byte after the last."""


class _Temporary(FoveateError):  # noqa: N818  it names a state of the network
    """Temporary failure: what may be over when it is tried again."""


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
        self._size: int | None = None
        self._version = ""
        self._head = b""
        self._lock = threading.Lock()
        self._uncounted: deque[int] = deque()

    @property
    def size(self) -> int:
        """Length in bytes; the first time, the first bytes are transferred with it."""
        if self._size is None:
            try:
                with self._lock:
                    if self._size is None:
                        self._head = self._transfer([(0, AHEAD)])[0]
            finally:
                self._settle()
        assert self._size is not None
        return self._size

    @property
    def stamp(self) -> Stamp | None:
        """Address, length and version (ETag, or time of the last change), where the server tells one."""
        size = self.size  # asked for first: with it the version is told
        return (self.name, size, self._version) if self._version else None

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
        try:
            import aiohttp  # noqa: F401  what is missing is named here
            from fsspec.asyn import get_loop, sync

            address = _signed(self.name) if _is_s3(self.name) else self.name
        except ImportError as error:
            need = f"reading from the network needs {error.name or 'more packages'}"
            raise ImageError(f"{self.name}: {need}: pip install 'foveate[remote]'") from error
        data = [bytearray() for _ in spans]

        async def get_all() -> None:
            limit = asyncio.Semaphore(TOGETHER)
            async with asyncio.TaskGroup() as group:  # the first that cannot be had ends it: nothing arrives afterwards
                for span, come in zip(spans, data, strict=True):
                    group.create_task(self._get(address, span, come, limit))

        try:
            sync(get_loop(), get_all)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        finally:
            self._uncounted.append(sum(map(len, data)))
        return [bytes(come) for come in data]

    async def _get(self, address: str, span: Span, data: bytearray, limit: asyncio.Semaphore) -> None:
        """Ask until all of a part has come, each time for what is missing."""
        async with limit:
            tries = came = 0
            while tries <= len(WAITS):
                await asyncio.sleep(WAITS[tries - 1] if tries else 0)
                tries += 1
                try:
                    await self._ask(address, span[0] + len(data), span[1], data)
                    missing = min(span[1], self._size or 0) - span[0] - len(data)
                    if missing <= 0:
                        return
                    problem = f"{missing} bytes were not sent"
                except _Temporary as error:
                    problem = str(error)
                if len(data) - came >= PROGRESS:
                    tries, came = 1, len(data)
        raise ImageError(
            f"{self.name}: cannot be read ({problem}; asked {len(WAITS) + 1} times): "
            "check the network, or try again later"
        )

    async def _ask(self, address: str, start: int, stop: int, data: bytearray) -> None:
        """Ask once for bytes start … stop−1; what comes before a connection breaks off has come."""
        import aiohttp
        from yarl import URL

        # what is compressed on the way has no byte numbers
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT / 3, sock_read=TIMEOUT)
        try:
            url = URL(address, encoded=address != self.name)  # a signature is of an address as it is written
            session = _session(asyncio.get_running_loop())
            async with (
                asyncio.timeout(TIMEOUT) as patience,  # a head may dawdle, too
                session.get(url, headers=headers, timeout=limits) as response,
            ):
                try:
                    size = await _whole_size(self.name, response, start)
                    self._meets(size, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
                except Exception:
                    response.close()  # else what is left of the body would be waited for
                    raise
                clock = asyncio.get_running_loop().time
                known = start
                patience.reschedule(clock() + TIMEOUT)
                while response.status == 206 and (some := await response.content.readany()):
                    data += some
                    start += len(some)
                    if start - known >= SLOWEST * TIMEOUT:
                        known = start
                        patience.reschedule(clock() + TIMEOUT)
                    if start > stop:
                        raise ImageError(
                            f"{self.name}: the server sends more than it is asked for: copy the file to this machine"
                        )
        except TimeoutError as error:
            brought = f", {len(data)} bytes of {stop - start + len(data)} came" if data else ""
            raise _Temporary(f"no answer in time{brought}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(self.name, error) from error

    def _meets(self, size: int, version: str) -> None:
        """Remember what file it is, or refuse another one."""
        if self._size is None:
            self._size, self._version = size, version
        elif size != self._size or (version and self._version and version != self._version):
            raise changed(self.name)

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


@functools.lru_cache
def _session(loop: asyncio.AbstractEventLoop) -> "aiohttp.ClientSession":
    """HTTP session, which keeps connections; in a forked process fsspec starts another loop: it gets another one."""
    import aiohttp
    from fsspec.asyn import sync

    session, process = aiohttp.ClientSession(loop=loop, trust_env=True), os.getpid()
    atexit.register(lambda: os.getpid() == process and sync(loop, session.close))  # a fork does not run that loop
    return session


@functools.lru_cache
def _s3(process: int) -> Any:  # noqa: ARG001  neither threads nor connections survive a fork
    """S3 by the usual variables and files, anonymous where there are no credentials."""
    from aiobotocore.session import AioSession
    from fsspec.asyn import get_loop, sync
    from s3fs import S3FileSystem

    session = AioSession()
    return S3FileSystem(
        session=session,
        anon=sync(get_loop(), session.get_credentials) is None,
        cache_regions=True,  # a signature is for a region: that of a bucket is asked for, once
        skip_instance_cache=True,
        config_kwargs={"signature_version": "s3v4", "connect_timeout": TIMEOUT / 3, "read_timeout": TIMEOUT},
    )


def _signed(name: str) -> str:
    """Signed address (https://…) of an object in S3."""
    bucket, _, key = name.partition("://")[2].partition("/")
    if not bucket or not key:
        raise ImageError(f"{name}: an address in S3 is s3://bucket/path: check how it is written")
    from botocore.exceptions import BotoCoreError

    try:
        return str(_s3(os.getpid()).sign(f"{bucket}/{key}", expiration=3600))  # seconds; every reading signs anew
    except BotoCoreError as error:
        raise ImageError(f"{name}: cannot be asked for ({one_line(error)}): check the AWS settings") from error


async def _whole_size(name: str, response: "aiohttp.ClientResponse", start: int) -> int:
    """Bytes of the whole file, from the head of an answer that is to begin at byte `start`; or why there is none."""
    status, told, s3 = response.status, response.headers, _is_s3(name)
    xml = await response.text() if s3 and status >= 400 else ""
    reason = dict(re.findall("<(Code|Message|ActualObjectSize)>(.*?)</", xml))  # S3's reply says more than its head
    why = " ".join(filter(None, (str(status), reason.get("Message") or response.reason)))
    if status == 416 and "ActualObjectSize" in reason:
        return int(reason["ActualObjectSize"])
    if status == 200 and told.get("Content-Length") == "0":
        return 0
    if status in (200, 206, 416):
        sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", told.get("Content-Range", "") if status > 200 else "")
        packed = status == 206 and told.get("Content-Encoding", "identity") != "identity"
        if packed or sent is None or int(sent[1] or start) != start:
            raise ImageError(
                f"{name}: the server does not send parts of files (HTTP range requests): "
                "copy the file to this machine, or put it on a server that does"
            )
        return int(sent[2])
    if status in BUSY or reason.get("Code") == "RequestTimeout":
        raise _Temporary(f"the server answers {why}")
    if status in (404, 410):
        raise ImageError(f"{name}: no such {'object or bucket' if s3 else f'file there ({status})'}: check the address")
    if status in (401, 403):
        who = "the credentials, e.g. AWS_PROFILE or AWS_ACCESS_KEY_ID" if s3 else "who may read it"
        raise ImageError(f"{name}: the server refuses it ({why if s3 else status}): check the address and {who}")
    raise ImageError(f"{name}: the server answers {why}: check the address")


def _failure(name: str, error: Exception) -> FoveateError:
    """Network error: whether it may be over later, and what to say of it."""
    import aiohttp

    match error:
        case aiohttp.ClientSSLError():  # before ValueError, which an error about a certificate is, too
            remedy = "check the address and this machine's certificates"
            return ImageError(f"{name}: no secure connection ({one_line(error)}): {remedy}")
        case ValueError():
            return ImageError(f"{name}: not an address: check how it is written")
        case aiohttp.ClientConnectorError(os_error=socket.gaierror(errno=number)) if number in NO_HOST:
            return ImageError(f"{name}: there is no host {error.host}: check the address and the network")
        case aiohttp.ClientConnectorError():
            return _Temporary(f"no connection to {error.host}:{error.port}, {error.os_error.strerror}")
        case aiohttp.TooManyRedirects():
            return ImageError(f"{name}: the server redirects in circles: check the address")
    return _Temporary(f"the connection broke off, {one_line(error)}")


def _is_s3(name: str) -> bool:
    return name.lower().startswith("s3://")
