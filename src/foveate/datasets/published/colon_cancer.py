"""Colon cancer: 100 images of stained tissue, told apart by whether an epithelial nucleus is among them."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foveate.datasets.published.archive import contents, file_names
from foveate.datasets.types import Example
from foveate.errors import DataError, one_line
from foveate.images import Source, open_image, open_zip_member

Nucleus = Literal["epithelial", "fibroblast", "inflammatory", "others"]

NUCLEI: tuple[Nucleus, ...] = ("epithelial", "fibroblast", "inflammatory", "others")
"""The types of nuclei that are marked."""

_IMAGES = tuple(f"img{number}" for number in range(1, 101))
_FILES = tuple(
    f"{image}/{name}" for image in _IMAGES for name in (f"{image}.bmp", *(f"{image}_{kind}.mat" for kind in NUCLEI))
)
_PUBLISHED = "CRCHistoPhenotypes_2016_04_28"


@dataclass(frozen=True)
class ColonCancer:
    """Colon cancer images, and the nuclei marked in them.

    Attributes:
        classes: "none" and "epithelial".
        examples: img1 to img100, without split.
        place: the published zip file, or the folder that img1 to img100 are in.
        prefix: what stands before img1/… in the zip file.
        multi_label: False.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    place: Path
    prefix: str = ""
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Source:
        """The image of example `index`, 500×500 RGB; no pixel is read."""
        name = self.examples[index].id
        if self.place.is_dir():
            return open_image(self.place / name / f"{name}.bmp")
        return open_zip_member(self.place, f"{self.prefix}{name}/{name}.bmp")

    def image_bytes(self, index: int) -> bytes:
        """The image file of example `index`, as published."""
        name = self.examples[index].id
        [content] = contents(self.place, [f"{self.prefix}{name}/{name}.bmp"])
        return content

    def nuclei(self, index: int, kind: Nucleus = "epithelial") -> npt.NDArray[np.float64]:
        """Ground truth: where the nuclei of one type are, to judge attention maps by; no model is told.

        Arguments:
            index: number of the example.
            kind: "epithelial", "fibroblast", "inflammatory" or "others".

        Returns:
            (n, 2) centres (row, column), in level-0 pixels, as marked by hand.

        Raises:
            DataError: if the type is unknown, or the file is damaged.
        """
        if kind not in NUCLEI:
            raise DataError(f"{kind!r} is no type of nucleus that is marked here: use one of {', '.join(NUCLEI)}")
        name = self.examples[index].id
        file = f"{self.prefix}{name}/{name}_{kind}.mat"
        [content] = contents(self.place, [file])
        return _centres(content, self.place / file)


def colon_cancer(path: str | Path) -> ColonCancer:
    """Colon cancer images, read as published; the label is whether an epithelial nucleus is marked.

    Sirinukunwattana et al., "Locality Sensitive Deep Learning for Detection and Classification of Nuclei in Routine
    Colon Cancer Histology Images", IEEE Transactions on Medical Imaging 35(5), 2016. The label is that of Ilse et
    al., "Attention-based Deep Multiple Instance Learning", ICML 2018.

    Arguments:
        path: CRCHistoPhenotypes_2016_04_28.zip, which is not unpacked, or the folder it unpacks to, or the folder
            Classification in there.

    Returns:
        100 images, img1 to img100 wherever they lie: 51 "epithelial", 49 "none". No patients are known, so they have
        no group.

    Raises:
        DataError: if the path is something else, files are missing or there are others, or one is damaged.
    """
    path = Path(path).expanduser()
    place, prefix, found = _in_folder(path) if path.is_dir() else _in_zip(path)
    for files, fault, remedy in (
        (sorted(set(_FILES) - found, key=_numbers), "lacks", "get it again, in whole"),
        (sorted(found - set(_FILES), key=_numbers), "holds more than what was published:", "remove what is not of it"),
    ):
        if files:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            raise DataError(f"{path} {fault} {prefix}{files[0]}{more}, of {len(_FILES)} files: {remedy}")
    marked = [f"{prefix}{name}/{name}_epithelial.mat" for name in _IMAGES]
    examples = tuple(
        Example(name, int(len(_centres(content, place / file)) > 0))
        for name, file, content in zip(_IMAGES, marked, contents(place, marked), strict=True)
    )
    return ColonCancer(("none", "epithelial"), examples, place, prefix)


def _in_zip(path: Path) -> tuple[Path, str, set[str]]:
    """The archive, what stands before img1/… in it, and the files there."""
    names = file_names(path, f"{_PUBLISHED}.zip")
    prefixes = {name[: found.end()] for name in names if (found := re.match(r"(.*/)?Classification/", name))}
    if len(prefixes) != 1:
        raise DataError(
            f"{path} holds {len(prefixes) or 'no'} folders named Classification, where the nuclei have their types: "
            f"give {_PUBLISHED}.zip as published"
        )
    prefix = prefixes.pop()
    return path, prefix, {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def _in_folder(path: Path) -> tuple[Path, str, set[str]]:
    place = path / "Classification" if (path / "Classification").is_dir() else path
    if not any((place / name).is_dir() for name in _IMAGES):
        inner = next((entry for entry in sorted(path.iterdir()) if (entry / "Classification").is_dir()), None)
        archive = path / f"{_PUBLISHED}.zip"
        instead = inner or (archive if archive.is_file() else None)
        raise DataError(
            f"{path} is not the folder of the colon cancer images, which holds Classification/img1 to img100: "
            + (f"give {instead}" if instead else f"give the folder that {_PUBLISHED}.zip unpacks to, or that file")
        )
    if any((place / name / f"{name}_detection.mat").exists() for name in _IMAGES):
        raise DataError(
            f"{place} holds the images as annotated for detection, whose nuclei have no type: give the folder "
            "Classification beside it, or the one above"
        )
    return place, "", set(file_names(place, f"{_PUBLISHED}.zip"))


def _centres(content: bytes, name: Path) -> npt.NDArray[np.float64]:
    """(n, 2) points (row, column) from a .mat file, which has them as (x, y)."""
    from scipy.io import loadmat

    file: Any = io.BytesIO(content)
    try:
        points = np.asarray(loadmat(file)["detection"], dtype=np.float64)
        if points.size and (points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all()):
            raise ValueError(f"detection is an array of {points.shape}, not of points (x, y)")
    except Exception as error:  # scipy raises a dozen kinds on a damaged file
        raise DataError(f"{name} is not a file of nuclei, or is damaged ({one_line(error)}): get it again") from error
    return points.reshape(-1, 2)[:, ::-1].copy()


def _numbers(name: str) -> tuple[int, str]:
    digits = re.match(r"img([0-9]+)/", name)
    return (int(digits.group(1)) if digits else 0), name
