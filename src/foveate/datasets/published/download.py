"""Files fetched from the web, going on where an earlier attempt was cut off."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from foveate.errors import DataError

__all__ = ["check_md5", "download"]

_CHUNK = 1 << 16
_ATTEMPTS = 3
"""Attempts in a row that bring nothing new before giving up."""


class _CutOffError(Exception):
    """The connection was not made or did not last; another attempt may help."""


def download(
    url: str,
    file: Path,
    md5: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> Path:
    """Fetch a file; it is there whole or not at all.

    What has arrived is kept in `<file>.partial`, from where this call and later ones go on if the server can send
    the rest of a file (HTTP Range), and begin again if not.

    Arguments:
        url: an http or https address.
        file: where to put it; nothing is fetched if it is there.
        md5: its MD5 sum, if known, to which what is there or arrives is held.
        progress: called with the number of bytes that are here and their total.
        timeout: seconds without an answer after which a connection counts as cut off.
        pause: seconds between attempts.

    Returns:
        `file`.

    Raises:
        DataError: if the server refuses, cannot be reached or sends something else than was published.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no address to fetch a file from: it must begin with http:// or https://")
    if file.exists():
        check_md5(file, md5)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    furthest, idle = _size(partial), 0
    while True:
        try:
            _fetch(url, partial, progress, timeout)
            break
        except _CutOffError as error:
            idle = 0 if _size(partial) > furthest else idle + 1
            furthest = max(furthest, _size(partial))
            if idle == _ATTEMPTS:
                raise DataError(
                    f"{url} could not be fetched ({error}): check the connection and run this again, which goes on "
                    f"after {_size(partial)} bytes; or put the file at {file} yourself"
                ) from error
            time.sleep(pause)
    try:
        check_md5(partial, md5)
    except DataError as error:
        partial.unlink()
        raise DataError(f"{url}: {error}".replace(str(partial), "what arrived")) from error
    return partial.replace(file)


def check_md5(file: Path, md5: str | None) -> None:
    """Hold a file to its MD5 sum.

    Arguments:
        file: the file.
        md5: its sum, in hexadecimal; None accepts any.

    Raises:
        DataError: if it has another one.
    """
    if md5 is None:
        return
    with file.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DataError(
            f"{file} is not the published file (its MD5 sum is {found}, not {md5}): remove it and fetch it again"
        )


def _fetch(url: str, partial: Path, progress: Callable[[int, int], None] | None, timeout: float) -> None:
    """One attempt to make a partial file whole."""
    here = _size(partial)
    headers = {"User-Agent": "foveate", "Accept-Encoding": "identity", **({"Range": f"bytes={here}-"} if here else {})}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        with error:
            if error.code != 416:
                raise DataError(
                    f"{url} is refused by its server ({error.code} {error.reason}): look for where it is published "
                    f"now, and put it at {partial.with_suffix('')}"
                ) from error
            if _total(error.headers.get("Content-Range")) == here:
                return  # nothing was left to send
        partial.unlink()
        raise _CutOffError("the file there is shorter than what had arrived") from error
    except (OSError, HTTPException) as error:
        raise _CutOffError(_reason(error)) from error
    with response:
        if response.status == 206:
            sent = response.headers.get("Content-Range", "")
            total = _total(sent)
            if not re.match(rf"bytes {here}-", sent):
                partial.unlink()
                raise _CutOffError(f"asked for the bytes from {here}, got {sent or 'others'}")
        else:
            here, total = 0, response.length
        with partial.open("ab" if here else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                here += len(chunk)
                if progress is not None:
                    progress(here, total or here)
    if total is not None and here != total:
        raise _CutOffError(f"the connection was cut after {here} of {total} bytes")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _CutOffError(_reason(error)) from error


def _total(content_range: str | None) -> int | None:
    """The length of the whole file, from "bytes 5-9/10" or "bytes */10"."""
    found = re.fullmatch(r"bytes .*/([0-9]+)", content_range or "")
    return int(found[1]) if found else None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
