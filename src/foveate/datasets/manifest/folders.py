"""Class folders: a folder with one folder of images per class, read as a manifest."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.datasets.manifest.rows import SPLIT_NAMES, ManifestRow, ManifestTable
from foveate.errors import DataError, ImageError
from foveate.hooks import READERS
from foveate.images.formats.several import holds_slide, image_of, is_part_of, may_be_dicom, read_instance
from foveate.images.formats.zarr import ZARR_FILES

IMAGE_SUFFIXES = (
    ".bif", ".bmp", ".btf", ".czi", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".npy", ".npz", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".scn", ".svs", ".svslide", ".tf8", ".tif", ".tiff", ".vms", ".vmu", ".vsi",
    ".webp",
)  # fmt: skip
"""Ends of the names of files in a folder that are taken for images; of others, slides of DICOM alone are."""


TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".parquet")
"""Ends of the names of manifests; those of which no program makes text are refused by their content."""

COMPANION = ".companion.ome"
"""End of the name of the metadata of an OME-TIFF in several files, a part of it."""

IMAGE_FOLDERS = (".zarr",)
"""Ends of the names of folders that are images themselves."""


def read_class_folders(folder: Path, require_labels: bool = True) -> ManifestTable:
    """Class folders `folder/<class>/…` or `folder/<split>/<class>/…`; hidden files are passed over.

    Arguments:
        folder: the outer folder. It has splits if all its folders are named train, val, valid, validation or test.
        require_labels: whether an image outside a class folder is at fault; if not, it has no label.

    Returns:
        A row per image, sorted by path, which is relative to the folder.

    Raises:
        DataError: if there is no image, or an image in no class folder, or splits and classes stand side by side.
    """
    folders = [entry.name for entry in _visible(folder) if _is_folder(entry)]
    named = [name for name in folders if name.lower() in SPLIT_NAMES]
    if len(named) > 1 and len(named) < len(folders):
        other = next(name for name in folders if name not in named)
        raise DataError(
            f"{folder} mixes folders of splits ({', '.join(named)}) with others ({other}): make it "
            "<split>/<class>/images or <class>/images throughout"
        )
    if named and len(named) == len(folders):
        outer: list[tuple[Path, str, str | None]] = [
            (folder / name, name, SPLIT_NAMES[name.lower()]) for name in folders
        ]
    else:
        outer = [(folder, "", None)]
    passed: list[str] = []
    rows = [row for place, prefix, split in outer for row in _class_rows(place, prefix, split, require_labels, passed)]
    if not rows:
        raise DataError(
            f"{folder} holds no image: give a manifest.csv, or a folder with one folder of images per class"
        )
    rows.sort(key=lambda row: row.path)
    return ManifestTable(folder, folder, tuple(rows), notes=(passed_over(passed),) if passed else ())


def class_folder(path: str) -> str | None:
    """Class that the folders of an image name, `<class>/…` or `<split>/<class>/…`; None of one in no such folder.

    Arguments:
        path: relative to the outer folder, with forward slashes.

    Example:
        >>> class_folder("cat/1.png"), class_folder("val/cat/1.png"), class_folder("1.png")
        ('cat', 'cat', None)
    """
    folders = path.split("/")[:-1]
    inner = folders[1:] if folders and folders[0].lower() in SPLIT_NAMES else folders
    return inner[0] if inner else None


def _class_rows(
    place: Path, prefix: str, split: str | None, require_labels: bool, passed: list[str]
) -> list[ManifestRow]:
    rows, inside = [], contents(place)
    passed += inside.others
    for name in inside.images:
        if require_labels:
            raise DataError(f"image {place / name} is in no class folder: move it into one, or list it in a manifest")
        rows.append(ManifestRow(f"{prefix}/{name}" if prefix else name, split=split))
    for name in inside.folders:
        path = f"{prefix}/{name}" if prefix else name
        rows += [ManifestRow(f"{path}/{inner}", label=name, split=split) for inner in image_files(place / name, passed)]
    return rows


@dataclass(frozen=True)
class Contents:
    """Contents of a folder, by name.

    Attributes:
        images: images, files or folders; of a slide of several files, the one that names it.
        folders: folders that may hold others.
        others: files that are neither images nor parts of one.
    """

    images: tuple[str, ...]
    folders: tuple[str, ...]
    others: tuple[str, ...]


def contents(folder: Path | str) -> Contents:
    """Contents of a folder, hidden ones left out; found by names, and by content where a slide has several files."""
    files, folders, images = [], [], []
    for entry in _visible(folder):
        if not _is_folder(entry):
            files.append(entry.name)
            continue
        names = _names(entry.path)
        if entry.name.lower().endswith(IMAGE_FOLDERS) or not names.isdisjoint(ZARR_FILES):
            images.append(entry.name)
        elif holds_slide(Path(entry.path), names):
            images += [entry.name] if _is_alone(Path(entry.path)) else []
        else:
            folders.append(entry.name)
    named = [name for name in files if name.lower().endswith((*IMAGE_SUFFIXES, *READERS))]
    unnamed = [name for name in files if may_be_dicom(name) and _is_dicom_slide(Path(folder, name))]
    parts = is_part_of(Path(folder), [*named, *unnamed])
    known = {*named, *unnamed, *(name for name in files if name.lower().endswith(COMPANION))}
    images += [name for name in (*named, *unnamed) if name not in parts]
    others = [name for name in files if name not in known and name not in parts]
    return Contents(tuple(sorted(images)), tuple(folders), tuple(others))


def image_files(folder: Path | str, passed: list[str] | None = None) -> list[str]:
    """Image files below a folder; hidden files and folders, and links back up, are passed over.

    Arguments:
        folder: where to look, folders in it included.
        passed: gets the names of the files that are passed over, hidden ones left out.

    Returns:
        Paths relative to the folder, with forward slashes; sorted, folder by folder. A slide of several files is one,
        and a folder of Zarr.
    """
    return list(_images_below(folder, frozenset(), [] if passed is None else passed))


def _images_below(folder: Path | str, above: frozenset[str], passed: list[str]) -> Iterator[str]:
    above |= {os.path.realpath(folder)}
    inside = contents(folder)
    images = set(inside.images)
    passed += inside.others
    for name in sorted((*images, *inside.folders)):
        path = os.path.join(folder, name)  # noqa: PTH118
        if name in images:
            yield name
        elif not (os.path.islink(path) and os.path.realpath(path) in above):  # noqa: PTH114
            yield from (f"{name}/{inner}" for inner in _images_below(path, above, passed))


def passed_over(names: Sequence[str]) -> str:
    """What is said of files that a folder holds besides images; "" of none.

    Example:
        >>> passed_over(["a.xml", "notes.txt", "b.xml", "thumbs.db"])
        '4 files that are no images by their names are passed over: a.xml, notes.txt, b.xml, …'
    """
    if not names:
        return ""
    several = "1 file that is no image by its name is" if len(names) == 1 else (
        f"{len(names)} files that are no images by their names are"
    )  # fmt: skip
    return f"{several} passed over: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _visible(folder: Path | str) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208  of strings
    except OSError:  # found again, and told, when its images are looked for
        return set()


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or leads to one; a link that goes round in circles does not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112  never raises


def _is_dicom_slide(path: Path) -> bool:
    try:
        return read_instance(path) is not None
    except OSError:
        return False


def _is_alone(folder: Path) -> bool:
    """Whether a folder of a slide's pixels lacks the file that names the slide."""
    try:
        image_of(folder)
    except ImageError:
        return True
    return False
