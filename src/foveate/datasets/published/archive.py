"""Archives of published data sets: files of a folder, or of the zip file that it was published as."""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from foveate.errors import DataError, one_line
from foveate.images import BROKEN_ZIP

_JUNK = re.compile(r"(^|/)(\.|__MACOSX(/|$)|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
"""What macOS and Windows leave in folders and archives."""

_BROKEN = (*BROKEN_ZIP, OSError)
"""What goes wrong with an archive or a folder."""


def file_names(place: Path, published: str) -> list[str]:
    """Names of the files in a folder or in a zip archive, those in folders within included; junk is left out.

    Arguments:
        place: the folder or the archive.
        published: name of the file that is published, for errors.

    Returns:
        Names relative to it, with slashes.

    Raises:
        DataError: if there is nothing, or no archive, or one that is damaged.
    """
    if not place.exists():
        raise DataError(f"{place} does not exist: give {published}, or the folder it unpacks to")
    if place.is_dir():
        names = [
            Path(folder, name).relative_to(place).as_posix() for folder, _, names in os.walk(place) for name in names
        ]
    else:
        try:
            with zipfile.ZipFile(place) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
        except _BROKEN as error:
            raise DataError(
                f"{place} is not a zip file, or is damaged ({one_line(error)}): get {published} again"
            ) from error
    return [name for name in names if not _JUNK.search(name)]


def contents(place: Path, names: Iterable[str]) -> Iterator[bytes]:
    """Contents of files of a folder, or of an archive, which is opened once.

    Arguments:
        place: the folder or the archive.
        names: of the files, as `file_names` gives them.

    Raises:
        DataError: if one is missing or cannot be read.
    """
    name = ""  # until a file is asked for, what cannot be read is the place itself
    try:
        with nullcontext() if place.is_dir() else zipfile.ZipFile(place) as archive:
            for name in names:
                yield (place / name).read_bytes() if archive is None else archive.read(name)
    except (*_BROKEN, KeyError) as error:
        raise DataError(f"{place / name} cannot be read ({one_line(error)}): get the data again") from error
