"""DeepPCB: aligned pairs of a defect-free and a defective circuit board, six kinds of defects with their boxes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from foveate.cache import TILES, Owner
from foveate.datasets.published.archive import contents, file_names
from foveate.errors import DataError, ImageError
from foveate.images import Colour, Source, open_image, open_zip_member
from foveate.images.io.local import file_stamp
from foveate.types import Box, Size

KINDS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""Kinds of defects, in the order of their published numbers, 1 to 6; copper is spurious copper."""

PUBLISHED = "DeepPCB.zip"
LISTS = {"trainval.txt": "train", "test.txt": "test"}
"""Published lists of pairs, and the split that each stands for."""

_BOXES = re.compile(r"(.*/|)([^/]+/([^/]+))_not/([^/]+)\.txt")
_PICTURE = re.compile(r"(.*)_(temp|test)\.(jpe?g|png)", re.IGNORECASE)


@dataclass(frozen=True)
class Defect:
    """Defect of a circuit board.

    Attributes:
        kind: its kind, one of `KINDS`.
        box: where it is in its picture, in pixels.
        alone: whether no other defect's box shares a pixel with its own.
    """

    kind: str
    box: Box
    alone: bool


@dataclass(frozen=True)
class Pair:
    """Pair of aligned pictures of circuit boards.

    Attributes:
        name: as the published lists have it, without an ending: "group20085/20085/20085000".
        template: file of the defect-free picture.
        tested: file of the defective one.
        defects: what is marked in it.
        split: "train" or "test" if there are lists, else None.
    """

    name: str
    template: str
    tested: str
    defects: tuple[Defect, ...]
    split: str | None

    @property
    def group(self) -> str:
        """Circuit board that the pair is a part of, as its folder says."""
        return self.name.partition("/")[0]


class Pictures:
    """Pictures of circuit boards as grey pixels, decoded when they are needed and shared by all who need them.

    They are held among the decoded tiles of the process (`foveate.cache.TILES`), a bit a pixel where they are black
    and white. Several threads may read; what is held stays behind when this is pickled.

    Arguments:
        place: the folder or the zip archive that they are in.
        size: (height, width) that each must have.

    Attributes:
        stamp: of the archive as it is now; None of a folder.
    """

    def __init__(self, place: Path, size: Size) -> None:
        self.place, self.size, self.stamp = place, size, file_stamp(place)
        self._held = Owner(TILES)

    def read(self, name: str, box: Box) -> UInt8[np.ndarray, "height width"]:
        """Pixels of a box within a picture, 0 to 255.

        Arguments:
            name: of the file.
            box: within the picture.

        Raises:
            ImageError: if the picture cannot be read or has another size.
        """
        held = self._held.get(name, lambda: self._decode(name))
        if held.ndim == 3:
            return held[box.top : box.bottom, box.left : box.right, 0]
        first = box.left // 8
        bits = np.unpackbits(held[box.top : box.bottom, first : -(-box.right // 8)], axis=1)
        return bits[:, box.left - 8 * first : box.right - 8 * first] * np.uint8(255)

    def _decode(self, name: str) -> UInt8[np.ndarray, "..."]:
        """(height, width, 1) pixels, or (height, ⌈width / 8⌉) bytes of bits where they are 0 and 255."""
        source = open_picture(self.place, name)
        if source.size != self.size or source.dtype != np.uint8:
            raise ImageError(
                f"{source.name}: {source.size[0]}×{source.size[1]} pixels of {source.dtype}, where those of a pair and "
                f"of its data set are {self.size[0]}×{self.size[1]} of uint8: get the data again"
            )
        pixels = Colour(source, "grey").read(Box(0, 0, *self.size))
        return np.packbits(pixels[:, :, 0], axis=1) if ((pixels == 0) | (pixels == 255)).all() else pixels


@dataclass(frozen=True)
class DeepPCB:
    """DeepPCB: pairs of pictures, and their pixels.

    Attributes:
        pairs: in the order of their names.
        pictures: of all of them.
    """

    pairs: tuple[Pair, ...]
    pictures: Pictures


def read_deep_pcb(path: str | Path) -> DeepPCB:
    """DeepPCB, read as published: no picture is decoded, and the header of one is read.

    Tang et al., "Online PCB Defect Detector On A New PCB Defect Dataset", 2019, arXiv:1902.06197.

    Arguments:
        path: the folder PCBData or one above it, or a zip archive of it, with pictures
            group*/*/*_temp.jpg (defect-free) and *_test.jpg beside it, or .png, of any one size; boxes in
            group*/*_not/*.txt, a line "x1 y1 x2 y2 kind" each; and, as they may, trainval.txt and test.txt.

    Returns:
        The pairs; where only one of the lists is there, the others are what it does not name.

    Raises:
        DataError: if there are no pairs, a file of a pair is missing, or a list or a file of boxes is at fault.
    """
    place = Path(path).expanduser()
    names = sorted(file_names(place, PUBLISHED))
    boxes = {found[0]: found for name in names if (found := _BOXES.fullmatch(name))}
    roots = {found[1] for found in boxes.values()}
    if len(roots) != 1:
        raise DataError(
            f"{place} holds {len(roots) or 'no'} folders of pairs of circuit boards, group*/*/ with pictures and "
            f"group*/*_not/ with boxes: give the folder PCBData of {PUBLISHED}, or the archive"
        )
    root = roots.pop()
    pictures = {f"{found[1]}_{found[2].lower()}": found[0] for name in names if (found := _PICTURE.fullmatch(name))}
    stems = {f"{root}{found[2]}/{found[4]}": file for file, found in boxes.items()}
    folders = {stem.rpartition("/")[0] for stem in stems}
    unmarked = [stem[:-5] for stem in pictures if stem.rpartition("/")[0] in folders and stem[:-5] not in stems]
    lacking = [f"{stem}_{what}.jpg" for stem in stems for what in ("temp", "test") if f"{stem}_{what}" not in pictures]
    lacking += [f"{stem.rpartition('/')[0]}_not/{stem.rpartition('/')[2]}.txt" for stem in unmarked]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise DataError(f"{place} lacks {min(lacking)}{more}, of {len(stems)} pairs: get it again, in whole")
    size = open_picture(place, pictures[f"{min(stems)}_temp"]).size
    splits = _splits(place, root, [stem.removeprefix(root) for stem in stems], names)
    pairs = [
        Pair(name, pictures[f"{stem}_temp"], pictures[f"{stem}_test"], _defects(content, place / file, size), split)
        for (stem, file), content in zip(stems.items(), contents(place, stems.values()), strict=True)
        for name in [stem.removeprefix(root)]
        for split in [splits.get(name)]
    ]
    return DeepPCB(tuple(sorted(pairs, key=lambda pair: pair.name)), Pictures(place, size))


def open_picture(place: Path, name: str) -> Source:
    """Picture in a folder or in a zip archive; its header is read."""
    source = open_image(place / name) if place.is_dir() else open_zip_member(place, name)
    _ = source.header
    return source


def _splits(place: Path, root: str, pairs: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Pair → split, of the published lists; empty if there is none."""
    found = [name for name in LISTS if f"{root}{name}" in set(names)]
    splits: dict[str, str] = {}
    for name, content in zip(found, contents(place, [f"{root}{name}" for name in found]), strict=True):
        lines = _text(content, place / root / name).splitlines()
        listed = [PurePosixPath(line.split()[0]).with_suffix("").as_posix() for line in lines if line.strip()]
        strange = sorted(set(listed) - set(pairs)) or sorted(set(listed) & set(splits))
        if strange:
            why = "as another list does" if strange[0] in splits else "which is not there"
            raise DataError(f"{place / root / name} names {strange[0]}, {why}: get the data again, in whole")
        splits |= dict.fromkeys(listed, LISTS[name])
    unlisted = sorted(set(pairs) - set(splits))
    if len(found) == 2 and unlisted:
        raise DataError(f"{place / root} has {unlisted[0]}, which neither list names: get the data again, in whole")
    other = "train" if found == ["test.txt"] else "test"
    return splits | dict.fromkeys(unlisted, other) if found else {}


def _defects(content: bytes, file: Path, size: Size) -> tuple[Defect, ...]:
    found: list[tuple[str, Box]] = []
    for line, text in enumerate(_text(content, file).splitlines(), start=1):
        if not text.strip():
            continue
        fields = re.fullmatch(r"\s*[0-9]{1,9}([\s,]+[0-9]{1,9}){4}\s*", text)
        left, top, right, bottom, kind = map(int, re.findall("[0-9]+", text)) if fields else [0] * 5
        if not (left < right <= size[1] and top < bottom <= size[0] and 1 <= kind <= len(KINDS)):
            raise DataError(
                f"{file}, line {line}: not x1 y1 x2 y2 kind of a box in {size[0]}×{size[1]} pixels with a kind from 1 "
                f"to {len(KINDS)}, but {text.strip()[:80]!r}: get the data again"
            )
        found.append((KINDS[kind - 1], Box(top, left, bottom - top, right - left)))
    return tuple(
        Defect(kind, box, not any(_meet(box, other) for j, (_, other) in enumerate(found) if i != j))
        for i, (kind, box) in enumerate(found)
    )


def _meet(one: Box, other: Box) -> bool:
    return one.top < other.bottom and other.top < one.bottom and one.left < other.right and other.left < one.right


def _text(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text: get the data again") from error
