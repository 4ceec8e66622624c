"""Class folders: a folder with one folder of images per class, read as a manifest."""

import os
from collections.abc import Iterator
from pathlib import Path

from foveate.datasets.manifest.rows import SPLIT_NAMES, ManifestRow, ManifestTable
from foveate.errors import DataError

IMAGE_SUFFIXES = (
    ".bif", ".bmp", ".btf", ".czi", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".npy", ".npz", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".scn", ".svs", ".svslide", ".tf8", ".tif", ".tiff", ".vms", ".vmu", ".webp",
)  # fmt: skip
"""Ends of the names of files in a folder that are taken for images; other files are passed over."""


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
    rows = [row for place, prefix, split in outer for row in _class_rows(place, prefix, split, require_labels)]
    if not rows:
        raise DataError(
            f"{folder} holds no image: give a manifest.csv, or a folder with one folder of images per class"
        )
    return ManifestTable(folder, folder, tuple(sorted(rows, key=lambda row: row.path)))


def _class_rows(place: Path, prefix: str, split: str | None, require_labels: bool) -> list[ManifestRow]:
    rows = []
    for entry in _visible(place):
        path = f"{prefix}/{entry.name}" if prefix else entry.name
        if _is_image(entry):
            if require_labels:
                raise DataError(f"image {entry.path} is in no class folder: move it into one, or list it in a manifest")
            rows.append(ManifestRow(path, split=split))
        elif _is_folder(entry):
            rows += [ManifestRow(f"{path}/{inner}", label=entry.name, split=split) for inner in image_files(entry.path)]
    return rows


def image_files(folder: Path | str) -> list[str]:
    """Image files below a folder, known by their names; hidden files and folders, and links back up, are passed over.

    Arguments:
        folder: where to look, folders in it included.

    Returns:
        Paths relative to the folder, with forward slashes; sorted, folder by folder.
    """
    return list(_images_below(folder, frozenset()))


def _images_below(folder: Path | str, above: frozenset[str]) -> Iterator[str]:
    above |= {os.path.realpath(folder)}
    for entry in _visible(folder):
        if _is_image(entry):
            yield entry.name
        elif _is_folder(entry) and not (entry.is_symlink() and os.path.realpath(entry.path) in above):
            yield from (f"{entry.name}/{inner}" for inner in _images_below(entry.path, above))


def _visible(folder: Path | str) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _is_image(entry: "os.DirEntry[str]") -> bool:
    return entry.name.lower().endswith(IMAGE_FOLDERS if _is_folder(entry) else IMAGE_SUFFIXES)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or leads to one; a link that goes round in circles does not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112  never raises
