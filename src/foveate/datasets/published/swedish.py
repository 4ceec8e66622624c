"""Swedish Traffic Signs: is there a speed limit in a road scene, and which."""

import hashlib
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from foveate.datasets.manifest.folders import image_files
from foveate.datasets.published.scenes import SignScenes
from foveate.datasets.types import Example
from foveate.errors import DataError
from foveate.types import Box

CLASSES = ("EMPTY", "50", "70", "80")
LIMITS = {"50_SIGN": "50", "70_SIGN": "70", "80_SIGN": "80"}
"""The signs that make a class; other limits count as other signs."""


@dataclass(frozen=True)
class PublishedSet:
    """Published set: one half of the data.

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
    """Traffic sign in an image.

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
    """Annotated image: a line of annotations.txt.

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
    """Swedish Traffic Signs, read as published, for the speed limit task: Set1 trains, Set2 tests.

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
    """Annotations, read from lines `image:VISIBILITY, right, bottom, left, top, TYPE, NAME;…`.

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
