"""How parts of files elsewhere are asked for: what every kind of address has in common."""

import os
import re
from abc import ABC, abstractmethod
from typing import Any

from foveate.errors import FoveateError, ImageError

__all__ = ["Part", "Temporary", "Transport", "no_ranges", "size_of", "transport_for"]

TIMEOUT = 60.0
"""Seconds a server may say nothing; a third of it for the connection to come about."""

CHUNK = 64 * 1024
"""Bytes taken off a connection at a time."""


class Temporary(FoveateError):  # noqa: N818  it names a state of the network
    """What may be over when it is tried again."""


class Part(ABC):
    """What becomes of an answer."""

    @abstractmethod
    def begins(self, size: int, version: str) -> None:
        """The server answers: the file has `size` bytes and is of this version; raises if that will not do."""

    @abstractmethod
    def add(self, data: bytes) -> None:
        """More bytes of the part have come."""


class Transport(ABC):
    """Asks for parts of files; made once for each process and kind of address."""

    @property
    @abstractmethod
    def loop(self) -> Any:
        """The event loop it runs in, which is in a thread of its own."""

    @abstractmethod
    async def get(self, address: str, start: int, stop: int, part: Part) -> None:
        """Transfer bytes start … stop−1, fewer where the file ends; none of an empty file.

        Raises:
            Temporary: it may work when tried again; what has come until then has come.
            ImageError: it will not.
        """


_TRANSPORTS: dict[tuple[int, str], Transport] = {}
"""By process, for neither threads nor connections survive a fork, and kind of address."""


def transport_for(address: str) -> Transport:
    """The transport of this process for an address.

    Raises:
        ImageError: what it needs is not installed.
    """
    kind = "s3" if address.lower().startswith("s3://") else "http"
    known = _TRANSPORTS.get((os.getpid(), kind))
    if known is None:
        try:
            # kept for good, even the parent's in a fork: closing those would close the parent's connections
            known = _TRANSPORTS.setdefault((os.getpid(), kind), _make(kind))
        except ImportError as error:
            raise ImageError(
                f"{address}: reading from the network needs {error.name or 'more packages'}: "
                "pip install 'foveate[remote]'"
            ) from error
    return known


def _make(kind: str) -> Transport:
    if kind == "s3":
        from foveate.images.remote.s3 import S3Transport

        return S3Transport()
    from foveate.images.remote.http import HttpTransport

    return HttpTransport()


def size_of(content_range: str | None, start: int) -> int | None:
    """Bytes of the file, by the header Content-Range of an answer that begins at `start`; None if it tells no such.

    Example:
        >>> size_of("bytes 0-99/1234", 0), size_of("bytes */0", 0), size_of("bytes 0-99/*", 0), size_of(None, 0)
        (1234, 0, None, None)
    """
    told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", content_range or "")
    if told is None or (told[1] is not None and int(told[1]) != start):
        return None
    return int(told[2])


def no_ranges(address: str) -> ImageError:
    """What to raise where a server sends whole files only."""
    return ImageError(
        f"{address}: the server does not send parts of files (HTTP range requests): "
        "copy the file to this machine, or put it on a server that does"
    )
