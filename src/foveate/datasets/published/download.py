"""Web download of Swedish Traffic Signs: resumed where it was cut off, held to its MD5 sum, unpacked."""

import errno
import hashlib
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from foveate.atomic import replace_file, writing
from foveate.datasets.manifest.folders import image_files
from foveate.datasets.published.swedish import SETS, PublishedSet, read_annotations
from foveate.errors import DataError, one_line
from foveate.images import BROKEN_ZIP

ADDRESS = "http://www.isy.liu.se/cvl/research/trafficSigns/swedishSignsSummer"
"""Where Set1/ and Set2/ are published, each with annotations.txt and the archive of the annotated images."""

_CHUNK = 1 << 16
_TIMEOUT = 60.0
"""Seconds without an answer after which a connection counts as cut off."""
_ATTEMPTS = 3
"""Attempts in a row that bring nothing new before giving up."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing here, not of the connection."""

Progress = Callable[[int, int], None]
"""Called with what is done and its total."""


def download_swedish_signs(
    folder: Path,
    progress: Callable[[str], Progress] | None = None,
    sets: Sequence[PublishedSet] = SETS,
    address: str = ADDRESS,
    pause: float = 1.0,
) -> None:
    """Download what of Swedish Traffic Signs is not there yet: annotations, and the images they name.

    Arguments:
        folder: gets Set1/ and Set2/, each with annotations.txt and images. An archive that was fetched is removed
            once it is unpacked.
        progress: given the name of a file, what to call with the number of its bytes, or images, done and their total.
        sets: what to fetch.
        address: where from.
        pause: seconds between attempts, where a connection is cut.

    Raises:
        DataError: if a file cannot be fetched, or is not as it was published.
    """
    show = progress or (lambda _: lambda _done, _total: None)
    for part in sets:
        place, web = folder / part.name, f"{address}/{part.name}"
        listing, archive = place / "annotations.txt", place / f"{part.name}Part0.zip"
        download(f"{web}/{listing.name}", listing, part.md5, show(f"bytes of {part.name}/{listing.name}"), pause=pause)
        wanted = {line.image for line in read_annotations(listing)}
        missing = wanted - {Path(name).name for name in image_files(place)}
        if missing:
            ours = not archive.exists()
            shown = show(f"bytes of {part.name}/{archive.name}")
            download(f"{web}/{archive.name}", archive, None, shown, pause=pause)
            _unpack(archive, missing, show(f"images of {part.name}"))
            if ours:
                archive.unlink()


def download(
    url: str,
    file: Path,
    md5: str | None = None,
    progress: Progress | None = None,
    pause: float = 1.0,
) -> Path:
    """Download a file; it is there whole or not at all.

    What has arrived is kept in `<file>.partial`, from where this call and later ones go on if the server can send
    the rest of a file (HTTP Range), and begin again if not.

    Arguments:
        url: an http or https address.
        file: where to put it; nothing is fetched if it is there.
        md5: its MD5 sum, if known, to which what is there or arrives is held.
        progress: called with the number of bytes that are here and their total.
        pause: seconds between attempts.

    Returns:
        `file`.

    Raises:
        DataError: if the server refuses, cannot be reached or sends something else than was published.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no address to fetch a file from: it must begin with http:// or https://")
    if file.exists():
        _check_md5(file, md5, str(file))
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    furthest, idle = _size(partial), 0
    while fault := _attempt(url, partial, progress):
        idle = 0 if _size(partial) > furthest else idle + 1
        furthest = max(furthest, _size(partial))
        if idle == _ATTEMPTS:
            raise DataError(
                f"{url} could not be fetched ({fault}): check the connection and run this again, which goes on "
                f"after {_size(partial)} bytes; or put the file at {file} yourself"
            )
        time.sleep(pause)
    try:
        _check_md5(partial, md5, f"{url}: what arrived")
    except DataError:
        partial.unlink()
        raise
    return partial.replace(file)


def _attempt(url: str, partial: Path, progress: Progress | None) -> str:
    """Append what arrives to a partial file; why that is not the whole, or "" if it is."""
    here = _size(partial)
    headers = {"User-Agent": "foveate", "Accept-Encoding": "identity", **({"Range": f"bytes={here}-"} if here else {})}
    try:
        with urlopen(Request(url, headers=headers), timeout=_TIMEOUT) as response:
            sent = response.headers.get("Content-Range", "")
            if response.status != 206:  # the server cannot send the rest of a file: it begins again
                here, total = 0, response.length
            elif place := re.fullmatch(rf"bytes {here}-\d+/(\d+|\*)", sent):
                total = None if place[1] == "*" else int(place[1])
            else:
                partial.unlink()
                return f"asked for the bytes from {here}, got {sent or 'others'}"
            with writing(partial), partial.open("ab" if here else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    here += len(chunk)
                    if progress is not None:
                        progress(here, total or here)
    except HTTPError as error:
        with error:
            if error.code != 416:
                raise DataError(
                    f"{url} is refused by its server ({error.code} {error.reason}): look for where it is published "
                    f"now, and put it at {partial.with_suffix('')}"
                ) from error
            if error.headers.get("Content-Range") == f"bytes */{here}":
                return ""  # nothing was left to send
        partial.unlink()
        return "the file there is shorter than what had arrived"
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and (error.filename or error.errno in _DISK):
            raise  # another attempt would not help
        return " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
    return "" if total in (None, here) else f"the connection was cut after {here} of {total} bytes"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _check_md5(file: Path, md5: str | None, what: str) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 not in (None, found):
        raise DataError(
            f"{what} is not the published file (its MD5 sum is {found}, not {md5}): remove it and fetch it again"
        )


def _unpack(archive: Path, wanted: set[str], progress: Progress) -> None:
    """Put the wanted files of an archive beside it, whatever folders they are in there; each whole or not at all."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = {Path(name).name: name for name in packed.namelist() if "__MACOSX" not in name}
            if not wanted <= set(members):
                lacking = sorted(wanted - set(members))
                raise DataError(
                    f"{archive} lacks {len(lacking)} annotated images, the first is {lacking[0]}: put them beside it"
                )
            for done, name in enumerate(sorted(wanted), start=1):
                replace_file(archive.with_name(name), packed.read(members[name]))
                progress(done, len(wanted))
    except BROKEN_ZIP as error:
        raise DataError(
            f"{archive} is damaged ({one_line(error)}): remove it and run this again to fetch it anew"
        ) from error
