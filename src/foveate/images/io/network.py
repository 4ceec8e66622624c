"""Network: bytes behind http(s):// and s3://, asked for until they have come, or until the server is given up.

S3 is asked over HTTP too, by addresses that s3fs signs: so there is one way to count, to try again and to refuse.
fsspec and obstore read ranges as well, but neither keeps all that is promised here: fsspec loses what came before a
connection broke off, waits for a server that sends a byte now and then, and takes a whole file from one that knows no
ranges; obstore hangs in a forked process.
"""

import asyncio
import atexit
import functools
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError, ImageError, one_line
from foveate.images.io.local import changed

if TYPE_CHECKING:
    import aiohttp

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

LARGEST = 2**31
"""Bytes at most of a file that is asked for whole, of which nobody may have told the length."""

Span = tuple[int, int]
"""First byte and the byte after the last."""


class NoSuchFile(ImageError):  # noqa: N818  an answer, not a fault
    """Absence of a file on a server that was reached, and answered."""


class Refused(ImageError):  # noqa: N818  an answer, not a fault
    """Refusal by a server that wants credentials, or others: of one file, and maybe not of those beside it."""


class _Temporary(FoveateError):  # noqa: N818  it names a state of the network
    """Temporary failure: what may be over when it is tried again."""


@dataclass
class Resource:
    """Resource behind an address, which is one and the same, or refused, however often it is asked.

    Source: RFC 9110 (2022), section 14, range requests.

    Attributes:
        name: its address, as errors tell it.
        size: length in bytes; None before it is known.
        version: ETag or time of the last change, where the server tells one.
    """

    name: str
    size: int | None = None
    version: str = ""

    async def get(
        self, address: str, span: Span, data: bytearray, count: Callable[[int], None], whole: bool = False
    ) -> None:
        """Ask until all of a part has come, each time for what is missing.

        Arguments:
            address: to ask at: the name, or a signed one.
            span: the bytes wanted; what lies behind the end is not.
            data: takes what comes.
            count: called with the number of bytes, as they are transferred.
            whole: ask for all there is, as of servers that send no parts; `span` begins at 0.

        Raises:
            ImageError: it cannot be had.
        """
        tries = came = 0
        while tries <= len(WAITS):
            await asyncio.sleep(WAITS[tries - 1] if tries else 0)
            tries += 1
            try:
                await self._ask(address, span[0] + len(data), span[1], data, count, whole)
                missing = min(span[1], self.size or 0) - span[0] - len(data)
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

    async def _ask(
        self, address: str, start: int, stop: int, data: bytearray, count: Callable[[int], None], whole: bool
    ) -> None:
        """Ask once for bytes start … stop−1; what comes before a connection breaks off has come."""
        import aiohttp
        from yarl import URL

        # what is compressed on the way has no byte numbers
        headers = {"Accept-Encoding": "identity"}
        if start or not whole:
            headers["Range"] = f"bytes={start}-{min(stop, self.size or stop) - 1 if whole else stop - 1}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT / 3, sock_read=TIMEOUT)
        try:
            url = URL(address, encoded=address != self.name)  # a signature is of an address as it is written
            session = _session(asyncio.get_running_loop())
            async with (
                asyncio.timeout(TIMEOUT) as patience,  # a head may dawdle, too
                session.get(url, headers=headers, timeout=limits) as response,
            ):
                try:
                    size = await _whole_size(self.name, response, start, whole)
                    self._meets(size, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
                except Exception:
                    response.close()  # else what is left of the body would be waited for
                    raise
                clock = asyncio.get_running_loop().time
                again = start if response.status == 200 else 0  # bytes that come from the beginning once more
                known = start = start - again
                patience.reschedule(clock() + TIMEOUT)
                while response.status in (200, 206) and (some := await response.content.readany()):
                    count(len(some))
                    data += some[again:] if again else some
                    again = max(0, again - len(some))
                    start += len(some)
                    if start - known >= SLOWEST * TIMEOUT:
                        known = start
                        patience.reschedule(clock() + TIMEOUT)
                    if start > stop:
                        raise ImageError(
                            f"{self.name}: the server sends more than it is asked for: copy the file to this machine"
                        )
        except TimeoutError as error:
            total = self.size if whole else stop - start + len(data)
            brought = f", {len(data)} bytes{f' of {total}' if total else ''} came" if data else ""
            raise _Temporary(f"no answer in time{brought}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(self.name, error) from error

    def _meets(self, size: int | None, version: str) -> None:
        """Remember what file it is, or refuse another one."""
        if (self.size is not None and size not in (None, self.size)) or (
            version and self.version and version != self.version
        ):
            raise changed(self.name)
        self.size, self.version = self.size if size is None else size, version or self.version


def asked_at(name: str) -> str:
    """Address to ask at: that of an object in S3 is signed for the next hour, any other one stays as it is.

    Raises:
        ImageError: what it needs is not installed, or the settings of S3 are wrong.
    """
    try:
        import aiohttp  # noqa: F401  what is missing is named here
        import fsspec.asyn  # noqa: F401

        return _signed(name) if _is_s3(name) else name
    except ImportError as error:
        need = f"reading from the network needs {error.name or 'more packages'}"
        raise ImageError(f"{name}: {need}: pip install 'foveate[remote]'") from error


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


async def _whole_size(name: str, response: "aiohttp.ClientResponse", start: int, whole: bool) -> int | None:
    """Bytes of the whole file, from the head of an answer that is to begin at byte `start`; or why there is none.

    None is of a server that sends the whole file, as it may be asked to, and does not say how long it is.
    """
    status, told, s3 = response.status, response.headers, _is_s3(name)
    xml = await response.text() if s3 and status >= 400 else ""
    reason = dict(re.findall("<(Code|Message|ActualObjectSize)>(.*?)</", xml))  # S3's reply says more than its head
    why = " ".join(filter(None, (str(status), reason.get("Message") or response.reason)))
    if status == 416 and "ActualObjectSize" in reason:
        return int(reason["ActualObjectSize"])
    packed = told.get("Content-Encoding", "identity") != "identity"
    if status == 200 and (whole or told.get("Content-Length") == "0"):
        return None if packed or "Content-Length" not in told else int(told["Content-Length"])
    if status in (200, 206, 416):
        sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", told.get("Content-Range", "") if status > 200 else "")
        if (status == 206 and packed) or sent is None or int(sent[1] or start) != start:
            raise ImageError(
                f"{name}: the server does not send parts of files (HTTP range requests): "
                "copy the file to this machine, or put it on a server that does"
            )
        return int(sent[2])
    if status in BUSY or reason.get("Code") == "RequestTimeout":
        raise _Temporary(f"the server answers {why}")
    if status in (404, 410):
        kind = ImageError if status == 410 or reason.get("Code") == "NoSuchBucket" else NoSuchFile
        raise kind(f"{name}: no such {'object or bucket' if s3 else f'file there ({status})'}: check the address")
    if status in (401, 403):
        who = "the credentials, e.g. AWS_PROFILE or AWS_ACCESS_KEY_ID" if s3 else "who may read it"
        raise Refused(f"{name}: the server refuses it ({why if s3 else status}): check the address and {who}")
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
