"""Slides of several files: which of them is the image, which are parts of it, and which are missing."""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from foveate.errors import ImageError
from foveate.images.formats.tiff.ome import companion_of, description, ome_image
from foveate.images.io.open import open_bytes

MIRAX_INDEX = "Slidedat.ini"
"""What a folder of MIRAX holds, beside which the slide's own file lies, NAME.mrxs beside NAME/."""

VIRTUAL_SLIDES = (".vms", ".vmu")
"""Ends of the names of Hamamatsu's lists of files."""

OME_FILES = (".ome.tif", ".ome.tiff", ".ome.tf2", ".ome.tf8", ".ome.btf")
"""Ends of the names of OME-TIFF files; other files are not looked at for what they belong to."""

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class: VL Whole Slide Microscopy Image Storage."""

COPY = "copy all of its files"


@dataclass(frozen=True)
class Instance:
    """Instance of a DICOM series: one file.

    Attributes:
        name: of the file.
        series: its SeriesInstanceUID.
        kind: its ImageType, e.g. ("ORIGINAL", "PRIMARY", "VOLUME", "NONE").
        pixels: of the level that it is a part of, or of its own frame.
    """

    name: str
    series: str
    kind: tuple[str, ...]
    pixels: int

    @property
    def is_level(self) -> bool:
        """Whether it shows the slide itself, and not its label, its overview or a thumbnail."""
        return "VOLUME" in self.kind


def is_part_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Parts of slides among the files of a folder.

    Arguments:
        folder: that holds them.
        names: of files in it that may be images.

    Returns:
        Part → the file that names the whole, both names; what is whole by itself is not among them.
    """
    parts: dict[str, str] = {}
    dicom: dict[str, list[Instance]] = {}
    names = list(names)
    ome = [name for name in names if name.lower().endswith(OME_FILES)]
    for name in names:
        path = folder / name
        try:
            if name.lower().endswith(VIRTUAL_SLIDES):
                parts |= dict.fromkeys(_listed(path), name)
            elif name in ome and len(ome) > 1:
                first = next(iter(_ome_files(path)), name)
                parts |= {name: first} if first != name and first in names else {}
            elif may_be_dicom(name):
                found = read_instance(path)
                if found is not None:
                    dicom.setdefault(found.series, []).append(found)
        except (ImageError, OSError):  # whoever opens it says so
            continue
    for series in dicom.values():
        first = _finest(series).name
        parts |= {one.name: first for one in series if one.name != first}
    return parts


def check_whole(path: Path, kind: str) -> None:
    """Refuse a file without the others that its slide consists of; it has a preview at most.

    Arguments:
        path: the file.
        kind: "ome" (OME-TIFF), "vms" (a list of a Hamamatsu slide's files), "mirax" or "olympus"; the pixels of the
            last nobody here reads.

    Raises:
        ImageError: it is alone; the line names what is missing.
    """
    if kind == "ome":
        _refuse_missing(path, "an OME-TIFF of several files", (name for name in _ome_files(path) if name != path.name))
    elif kind == "vms":
        _refuse_missing(path, "a list of a Hamamatsu slide's files", _listed(path))
    elif kind == "mirax" and not (path.with_suffix("") / MIRAX_INDEX).is_file():
        raise ImageError(
            f"{path}: a MIRAX slide without its folder {path.stem}/ ({MIRAX_INDEX} and .dat files): {COPY}; this one "
            "has a preview alone"
        )
    elif kind == "olympus":
        folder = f"_{path.stem}_"
        here = path.with_name(folder).is_dir()
        fault = f", whose pixels lie in {folder}/ (.ets) and" if here else f" without its folder {folder}/: its pixels"
        remedy = "export it as OME-TIFF" if here else f"{COPY}, or export it as OME-TIFF; this one has a preview alone"
        raise ImageError(f"{path}: an Olympus slide{fault} are not read here: {remedy}")


def whole_dicom(path: Path) -> Path:
    """File of the finest level of the DICOM slide that a file belongs to; itself, if it is no whole slide image.

    Raises:
        ImageError: the folder holds no level of the slide, or not the finest.
    """
    here = read_instance(path)
    if here is None:
        return path
    series = [one for one in instances(path.parent) if one.series == here.series]
    finest = _finest(series or [here])
    if not finest.is_level:
        raise ImageError(
            f"{path}: the {here.kind[2].lower() if len(here.kind) > 2 else 'picture'} of a DICOM slide without its "
            f"levels (ImageType VOLUME), of which {path.parent} holds none: {COPY}"
        )
    if "RESAMPLED" in finest.kind:
        raise ImageError(
            f"{path}: a DICOM slide without its finest level, of which {finest.name} is a reduced one (ImageType "
            f"RESAMPLED): {COPY}"
        )
    return path.with_name(finest.name)


def image_of(folder: Path) -> Path | None:
    """Image that a folder is, or belongs to; None if it does to none, or to several.

    Raises:
        ImageError: the image's own file is missing.
    """
    if holds_slide(folder, (path.name for path in folder.iterdir())):
        mirax = (folder / MIRAX_INDEX).is_file()
        slide = folder.with_name(f"{folder.name}.mrxs" if mirax else f"{folder.name[1:-1]}.vsi")
        if not slide.is_file():
            raise ImageError(f"{folder}: the folder of a slide without its file {slide.name}, beside it: {COPY}")
        return slide
    found = instances(folder)
    return folder / _finest(found).name if len({one.series for one in found}) == 1 else None


def holds_slide(folder: Path, names: Iterable[str]) -> bool:
    """Whether a folder holds the pixels of a slide whose own file lies, or lay, beside it (MIRAX, Olympus).

    Arguments:
        folder: the folder.
        names: of what is in it.
    """
    inside, olympus = set(names), re.fullmatch("_.+_", folder.name)
    return MIRAX_INDEX in inside or (olympus is not None and any(name.startswith("stack") for name in inside))


def may_be_dicom(name: str) -> bool:
    """Whether a name is one that files of DICOM have: ….dcm, none of an ending, or an identifier of numbers."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return ending in ("", "dcm", "dicom") or ending.isdigit()


def instances(folder: Path) -> list[Instance]:
    """Whole slide instances among the files of a folder."""
    found = []
    for path in sorted(folder.iterdir()):
        if may_be_dicom(path.name) and path.is_file():
            try:
                found.append(read_instance(path))
            except OSError:
                continue
    return [one for one in found if one is not None]


def _finest(series: Iterable[Instance]) -> Instance:
    return max(sorted(series, key=lambda one: one.name), key=lambda one: (one.is_level, one.pixels))


def _refuse_missing(path: Path, what: str, names: Iterable[str]) -> None:
    missing = sorted({name for name in names if not path.with_name(name).is_file()})
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ImageError(f"{path}: {what}, of which {', '.join(missing[:3])}{more} missing: {COPY}")


def _listed(path: Path) -> list[str]:
    """Names of the files that a Hamamatsu slide consists of; https://openslide.org/formats/hamamatsu/."""
    words = path.read_bytes()[: 2**20].decode("latin-1")
    found = re.findall(r"(?m)^[ \t]*(?:ImageFile(?:\([0-9,]*\))?|MapFile|MacroImage)[ \t]*=[ \t]*(.+?)[ \t\r]*$", words)
    return [name for name in found if Path(name).name == name]


def _ome_files(path: Path) -> list[str]:
    """Names of the files that an OME-TIFF's image consists of, that of its first plane first; none if it is alone."""
    text = description(open_bytes(path))
    companion = companion_of(text)
    if companion and not path.with_name(companion).is_file():
        return [path.name, companion]
    image = ome_image(text, path.name, lambda name: open_bytes(path.with_name(name)))
    return list(image.files) if image is not None and len(image.files) > 1 else []


WANTED = {0x00080008: "kind", 0x00080016: "class", 0x0020000E: "series", 0x00280010: "rows", 0x00280011: "columns",
          0x00480006: "all columns", 0x00480007: "all rows"}  # fmt: skip
"""Tags of DICOM that are looked at."""

LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations whose length has four bytes (PS3.5, 7.1.2)."""

LAST, UNDEFINED = 0x00480007, 0xFFFFFFFF

MOST = 2**16
"""Elements of a sequence that are stepped over."""


def read_instance(path: Path) -> Instance | None:
    """Whole slide instance that a file is; None of any other file. No pixel is read.

    Source: DICOM PS3.10 (files), PS3.5 section 7 (data elements), PS3.3 A.32.8 (whole slide microscopy).

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
        try:
            told = dict(_elements(file))
        except (struct.error, ValueError, OverflowError):  # broken: OpenSlide says so
            return None
    if _words(told, "class") != (WHOLE_SLIDE,):
        return None
    rows, columns = (_number(told, f"all {name}") or _number(told, name) for name in ("rows", "columns"))
    return Instance(path.name, "".join(_words(told, "series")), _words(told, "kind"), rows * columns)


def _elements(file: BufferedIOBase) -> Iterator[tuple[str, bytes]]:
    """The wanted elements of a data set, in the order of the file."""
    explicit, before = True, -1
    while head := file.read(8):
        group, element, kind, length = struct.unpack("<HH2sH", head)
        tag = group << 16 | element
        if tag > LAST:
            return
        if tag <= before:
            raise ValueError("elements out of order")
        before = tag
        if explicit or group == 2:
            if kind in LONG:
                (length,) = struct.unpack("<I", file.read(4))
        else:
            (length,) = struct.unpack("<I", head[4:])
        if length == UNDEFINED:
            _skip(file, explicit or group == 2)
        elif tag in WANTED or tag == 0x00020010:
            value = file.read(min(length, 2**12))
            if tag in WANTED:
                yield WANTED[tag], value
            elif value.strip(b"\0 ") in (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2"):
                raise ValueError("compressed, or of the other byte order")
            else:
                explicit = value.strip(b"\0 ") != b"1.2.840.10008.1.2"
        else:
            file.seek(length, 1)


def _skip(file: BufferedIOBase, explicit: bool) -> None:
    """Skip a sequence of undefined length: up to the end mark of its depth."""
    depth = 1
    for _ in range(MOST):
        head = file.read(8)
        group, element, kind, length = struct.unpack("<HH2sH", head)
        if group == 0xFFFE or not explicit:
            (length,) = struct.unpack("<I", head[4:])
        elif kind in LONG:
            (length,) = struct.unpack("<I", file.read(4))
        if (group, element) in ((0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)):
            depth -= 1
            if depth == 0:
                return
        elif length == UNDEFINED:
            depth += 1
        elif group != 0xFFFE:  # of an item of known length the elements are stepped over one by one
            file.seek(length, 1)
    raise ValueError("a sequence without an end")


def _words(told: Mapping[str, bytes], name: str) -> tuple[str, ...]:
    return tuple(told.get(name, b"").decode("latin-1").strip("\0 ").split("\\"))


def _number(told: Mapping[str, bytes], name: str) -> int:
    return int.from_bytes(told.get(name, b""), "little")
