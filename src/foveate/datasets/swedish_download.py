"""Swedish Traffic Signs, fetched from where they are published."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from foveate.datasets.class_folders import image_files
from foveate.datasets.download import download
from foveate.datasets.swedish_signs import SETS, PublishedSet, read_annotations
from foveate.errors import DataError, one_line
from foveate.images import BROKEN_ZIP

__all__ = ["ADDRESS", "download_swedish_signs"]

ADDRESS = "http://www.isy.liu.se/cvl/research/trafficSigns/swedishSignsSummer"
"""Where Set1/ and Set2/ are published, each with annotations.txt and the archive of the annotated images."""


def download_swedish_signs(
    folder: Path,
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
    sets: Sequence[PublishedSet] = SETS,
    address: str = ADDRESS,
    pause: float = 1.0,
) -> None:
    """Fetch what of Swedish Traffic Signs is not there yet: annotations, and the images they name.

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
    for part in sets:
        place = folder / part.name
        archive = place / f"{part.name}Part0.zip"
        show = progress or (lambda _: lambda _done, _total: None)
        listing = download(
            f"{address}/{part.name}/annotations.txt",
            place / "annotations.txt",
            part.md5,
            show(f"bytes of {part.name}/annotations.txt"),
            pause=pause,
        )
        wanted = {line.image for line in read_annotations(listing)}
        missing = wanted - {Path(name).name for name in image_files(place)}
        if missing:
            show_bytes = show(f"bytes of {part.name}/{archive.name}")
            ours = not archive.exists()
            download(f"{address}/{part.name}/{archive.name}", archive, None, show_bytes, pause=pause)
            _unpack(archive, missing, show(f"images of {part.name}"))
            if ours:
                archive.unlink()


def _unpack(archive: Path, wanted: set[str], progress: Callable[[int, int], None]) -> None:
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
                part = archive.with_name(f"{name}.part")
                part.write_bytes(packed.read(members[name]))
                part.replace(archive.with_name(name))
                progress(done, len(wanted))
    except BROKEN_ZIP as error:
        raise DataError(
            f"{archive} is damaged ({one_line(error)}): remove it and run this again to fetch it anew"
        ) from error
