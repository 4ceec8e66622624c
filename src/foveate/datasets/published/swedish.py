"""Swedish road scenes (Swedish Traffic Signs): is there a speed limit, and which."""

import hashlib
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.atomic import replace_file
from foveate.datasets.manifest.folders import image_files
from foveate.datasets.published.download import download
from foveate.datasets.published.scenes import SignScenes
from foveate.datasets.types import Example
from foveate.errors import DataError, one_line
from foveate.images import BROKEN_ZIP
from foveate.types import Box

__all__ = [
    "ADDRESS",
    "CLASSES",
    "SETS",
    "Annotated",
    "Sign",
    "download_swedish_signs",
    "read_annotations",
    "swedish_traffic_signs",
]

CLASSES = ("EMPTY", "50", "70", "80")
LIMITS = {"50_SIGN": "50", "70_SIGN": "70", "80_SIGN": "80"}
"""The signs that make a class; other limits count as other signs."""


@dataclass(frozen=True)
class PublishedSet:
    """One half of the data as published.

    Attributes:
        name: its folder.
        split: what it is for.
        md5: the MD5 sum of its annotations.txt.
    """

    name: str
    split: str
    md5: str


SETS = (
    PublishedSet("Set1", "train", "9106a905a86209c95dc9b51d12f520d6"),
    PublishedSet("Set2", "test", "09debbc67f6cd89c1e2a2688ad1d03ca"),
)

_VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")
"""From best to worst."""

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Sign:
    """A sign in an image.

    Attributes:
        name: what it is, such as "70_SIGN".
        visibility: "VISIBLE", "BLURRED", "SIDE_ROAD" or "OCCLUDED".
        edges: (top, left, bottom, right), in pixels.
    """

    name: str
    visibility: str
    edges: tuple[float, float, float, float]

    @property
    def order(self) -> tuple[int, float]:
        """Sorts signs: the best visible first, and of those the largest."""
        top, left, bottom, right = self.edges
        seen = _VISIBILITIES.index(self.visibility) if self.visibility in _VISIBILITIES else len(_VISIBILITIES)
        return seen, -(bottom - top) * (right - left)

    @property
    def box(self) -> Box:
        """The smallest box of whole pixels that covers it."""
        rows, columns = sorted(self.edges[::2]), sorted(self.edges[1::2])
        top, left = math.floor(rows[0]), math.floor(columns[0])
        return Box(top, left, max(math.ceil(rows[1]) - top, 1), max(math.ceil(columns[1]) - left, 1))


@dataclass(frozen=True)
class Annotated:
    """A line of annotations.txt.

    Attributes:
        image: name of the image file.
        signs: the signs marked; signs that were not told apart (MISC_SIGNS) are not among them.
    """

    image: str
    signs: tuple[Sign, ...]

    @property
    def label(self) -> str | None:
        """Its class: EMPTY without signs, else its best visible, then largest, limit if VISIBLE; else None."""
        if not self.signs:
            return "EMPTY"
        limits = sorted((sign for sign in self.signs if sign.name in LIMITS), key=lambda sign: sign.order)
        return LIMITS[limits[0].name] if limits and limits[0].visibility == "VISIBLE" else None


def swedish_traffic_signs(folder: str | Path) -> SignScenes:
    """Read the speed limit task of Swedish Traffic Signs as published: Set1 trains, Set2 tests.

    Images without any sign are EMPTY. An image whose best visible, and of those largest, limit of 50, 70 or 80 km/h is
    VISIBLE has that class. All others are left out.

    Larsson and Felsberg, "Using Fourier Descriptors and Spatial Models for Traffic Sign Recognition", SCIA 2011. The
    choice of images is that of Katharopoulos and Fleuret, "Processing Megapixel Images with Deep Attention-Sampling
    Models", ICML 2019, and its code. That code swaps the two sets for odd seeds; this does not.

    Arguments:
        folder: Set1/ and Set2/, each with its annotations.txt and its images, in folders of their own or not.

    Returns:
        The images of Set1, then those of Set2, with ids such as "Set1/1277381680Image000009.jpg" and the splits "train"
        and "test"; the classes are EMPTY, 50, 70 and 80.

    Raises:
        DataError: if a set or images are missing, or annotations.txt is not as published.

    Warns:
        UserWarning: if an annotations.txt can be read but is not the published one, by its MD5 sum. A line end that
            was converted is enough for that, so it is no error.
    """
    folder = Path(folder).expanduser()
    examples, files, limits, left_out = [], [], [], 0
    for part in SETS:
        place = folder / part.name
        listed = read_annotations(place / "annotations.txt", part.md5)
        kept = [line for line in listed if line.label is not None]
        left_out += len(listed) - len(kept)
        found = {Path(name).name: name for name in image_files(place)}
        missing = [line.image for line in kept if line.image not in found]
        if missing:
            raise DataError(
                f"{place} lacks {len(missing)} of {len(kept)} images, the first is {missing[0]}: unpack "
                f"{part.name}Part0.zip there, or fetch it with foveate data speed-limits swedish {folder} --download"
            )
        for line in sorted(kept, key=lambda line: line.image):
            examples.append(Example(f"{part.name}/{line.image}", CLASSES.index(line.label or "EMPTY"), part.split))
            files.append(str(place / found[line.image]))
            limits.append(tuple((LIMITS[sign.name], sign.box) for sign in line.signs if sign.name in LIMITS))
    return SignScenes(CLASSES, tuple(examples), tuple(files), tuple(limits), left_out)


def read_annotations(file: Path, md5: str | None = None) -> list[Annotated]:
    """Read lines `image:VISIBILITY, right, bottom, left, top, TYPE, NAME;…`.

    Arguments:
        file: an annotations.txt.
        md5: what its MD5 sum should be.

    Returns:
        The images, in the order in which they first occur, each once, with all its signs.

    Raises:
        DataError: if the file is missing or a line is not as published.
    """
    try:
        content = file.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{file} does not exist: give the folder with Set1/ and Set2/ of Swedish Traffic Signs in it"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text: get it again") from error
    if md5 is not None and (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
        warnings.warn(
            f"{file} is not the published file (its MD5 sum is {found}, not {md5}): results may not compare",
            stacklevel=3,
        )
    signs: dict[str, tuple[Sign, ...]] = {}
    for number, text in enumerate(lines, start=1):
        if text.strip():
            image, colon, rest = text.strip().partition(":")
            if not colon or not image or Path(image).name != image:
                raise DataError(f"{file}, line {number}: not image.jpg:signs but {text[:80]!r}: get the file again")
            found_signs = (_sign(file, number, part) for part in rest.split(";") if part.strip())
            signs[image] = signs.get(image, ()) + tuple(sign for sign in found_signs if sign is not None)
    if not signs:
        raise DataError(f"{file} lists no image: get it again")
    return [Annotated(image, marked) for image, marked in signs.items()]


def _sign(file: Path, line: int, text: str) -> Sign | None:
    """A sign from its fields; None for signs that nobody told apart."""
    fields = [field.strip() for field in text.split(",")]
    if fields[0] == "MISC_SIGNS":
        return None
    numbers = [_NUMBER.match(field) for field in fields[1:5]]  # a few in the published file have a letter after them
    if len(fields) < 7 or None in numbers:
        raise DataError(
            f"{file}, line {line}: not VISIBILITY, right, bottom, left, top, TYPE, NAME but {text.strip()[:80]!r}: "
            "get the file again"
        )
    right, bottom, left, top = (float(number[0]) for number in numbers if number is not None)
    return Sign(fields[6], fields[0], (top, left, bottom, right))


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
                replace_file(archive.with_name(name), packed.read(members[name]))
                progress(done, len(wanted))
    except BROKEN_ZIP as error:
        raise DataError(
            f"{archive} is damaged ({one_line(error)}): remove it and run this again to fetch it anew"
        ) from error
