"""Parts of files behind http:// and https://."""

import socket
from typing import TYPE_CHECKING, Any

from foveate.errors import ImageError, one_line
from foveate.images.remote.transport import TIMEOUT, Part, Temporary, Transport, no_ranges, size_of

if TYPE_CHECKING:
    from aiohttp import ClientResponse

__all__ = ["HttpTransport"]

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may answer better later."""


class HttpTransport(Transport):
    """HTTP range requests, over connections that are kept; proxies as the environment says.

    Source: RFC 9110 (2022), section 14, range requests.
    """

    def __init__(self) -> None:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT / 3, sock_read=TIMEOUT)
        settings = {"timeout": limits, "trust_env": True}
        self._system = HTTPFileSystem(skip_instance_cache=True, client_kwargs=settings)

    @property
    def loop(self) -> Any:
        """The event loop of fsspec."""
        return self._system.loop

    async def get(self, address: str, start: int, stop: int, part: Part) -> None:
        """Transfer bytes start … stop−1."""
        import aiohttp

        # what is compressed on the way has no byte numbers
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            session = await self._system.set_session()
            async with session.get(self._system.encode_url(address), headers=headers) as response:
                try:
                    size = _size(address, response, start)
                    part.begins(size, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
                except Exception:
                    response.close()  # else what is left of the body would be waited for
                    raise
                if response.status == 206:
                    async for data in response.content.iter_any():
                        part.add(data)
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise Temporary("no answer in time") from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise ImageError(f"{address}: not an address: check how it is written") from error
        except aiohttp.ClientSSLError as error:
            raise ImageError(
                f"{address}: no secure connection ({one_line(error)}): "
                "check the address and this machine's certificates"
            ) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, socket.gaierror) and error.os_error.errno == socket.EAI_NONAME:
                raise ImageError(
                    f"{address}: there is no host {error.host}: check the address and the network"
                ) from error
            raise Temporary(f"no connection to {error.host}:{error.port}, {error.os_error.strerror}") from error
        except aiohttp.TooManyRedirects as error:
            raise ImageError(f"{address}: the server redirects in circles: check the address") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Temporary(f"the connection broke off, {one_line(error)}") from error


def _size(address: str, response: "ClientResponse", start: int) -> int:
    """Bytes of the whole file, from the head of an answer."""
    status, told = response.status, response.headers
    if status in (206, 416):
        size = size_of(told.get("Content-Range"), start)
        if size is None or (status == 206 and told.get("Content-Encoding", "identity") != "identity"):
            raise no_ranges(address)
        return size
    if status in BUSY:
        raise Temporary(f"the server answers {status} {response.reason}")
    if status in (404, 410):
        raise ImageError(f"{address}: no such file there ({status}): check the address")
    if status in (401, 403):
        raise ImageError(f"{address}: the server refuses it ({status}): check the address and who may read it")
    if status == 200:
        if told.get("Content-Length") == "0":
            return 0
        raise no_ranges(address)
    raise ImageError(f"{address}: the server answers {status} {response.reason}: check the address")
