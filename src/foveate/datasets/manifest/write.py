"""Manifest files and the images they list, written from any data set."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from foveate.atomic import leftovers, replace_file, whole_file
from foveate.datasets.manifest.objects import OBJECTS, known_objects_of, read_objects, reduced, write_objects
from foveate.datasets.manifest.rows import ManifestRow, ManifestTable
from foveate.datasets.types import ImageDataset
from foveate.errors import RunError
from foveate.types import Label

PUBLISHED = "published.json"
"""Record of a folder whose images are those of a published data set."""


def claim_folder(folder: Path, record: str, recipe: Mapping[str, object], resume: bool) -> None:
    """Output folder taken for images, with a record in it of what they are made from.

    Arguments:
        folder: where to; made if need be.
        record: name of the file in it that holds the recipe.
        recipe: what the images are made from, in words of JSON.
        resume: whether a folder of the same recipe is no obstacle.

    Raises:
        RunError: if the folder is in the way or a file, or was made from another recipe, or its record is damaged.
    """
    path = folder / record
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, images need a folder: choose another --out")
    if path.exists() and resume:
        made, wanted = _read_record(path), json.loads(json.dumps(recipe))
        name = next((name for name in {**made, **wanted} if made.get(name) != wanted.get(name)), None)
        if name is not None:
            raise RunError(
                f"{folder} was begun with {name} {made.get(name)}, not {wanted.get(name)}: give the same options to "
                "resume, or another --out"
            )
        return
    unfinished = leftovers(folder)
    if folder.exists() and any(entry not in unfinished for entry in folder.iterdir()):
        finish = ", or --resume to finish what was begun there" if path.exists() else ""
        raise RunError(f"{folder} is not empty: give another --out{finish}")
    _remove(unfinished)
    replace_file(path, (json.dumps(recipe, indent=2) + "\n").encode())


def write_images(
    data: ImageDataset,
    folder: Path,
    recipe: Mapping[str, object],
    names: Sequence[str],
    write: Callable[[int, Path], object],
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    reduce: int = 1,
    record: str = PUBLISHED,
) -> Path:
    """Image files of a data set, written one by one, each whole or not at all, and then a manifest of all.

    Arguments:
        data: classes and examples.
        folder: where to; made if need be. Gets the record, images/<name> and, last, objects.csv (if `data` knows
            what lies where) and manifest.csv.
        recipe: what the images are made from, in words of JSON; a folder is resumed with the same one only.
        names: names of the files, one per example, folders in them allowed.
        write: writes the image of an example to a file.
        resume: whether to keep what a stopped call has written, rather than refuse a folder that is not empty.
        progress: called with the number of images written and their total.
        reduce: by what whole factor `write` makes images smaller.
        record: name of the file that says what the images are made from.

    Returns:
        The manifest.

    Raises:
        RunError: as `claim_folder`.
    """
    claim_folder(folder, record, recipe, resume)
    files = [folder / "images" / name for name in names]
    for place in {folder, *(file.parent for file in files)}:
        _remove(leftovers(place))
    for index, file in enumerate(files):
        if not file.exists():
            with whole_file(file) as part:
                write(index, part)
        if progress is not None:
            progress(index + 1, len(files))
    return _list_images(data, folder, [f"images/{name}" for name in names], reduce)


def write_listing(
    data: ImageDataset, folder: Path, recipe: Mapping[str, object], files: Sequence[str], resume: bool = False
) -> Path:
    """Manifest that leads to image files where they are.

    Arguments:
        data: classes and examples.
        folder: where to; made if need be. Gets published.json, objects.csv (if `data` knows) and manifest.csv.
        recipe: what the files are, in words of JSON; a folder is resumed with the same one only.
        files: where the images are; the manifest has the paths relative to itself.
        resume: whether a folder that an earlier call made is no obstacle.

    Returns:
        The manifest.

    Raises:
        RunError: as `claim_folder`.
    """
    claim_folder(folder, PUBLISHED, recipe, resume)
    there = folder.resolve()
    return _list_images(data, folder, [Path(os.path.relpath(Path(file).resolve(), there)).as_posix() for file in files])


def _list_images(data: ImageDataset, folder: Path, paths: Sequence[str], reduce: int = 1) -> Path:
    """Manifest of images at paths in a folder, and objects.csv if the data set knows; those that are there go."""
    rows = [
        ManifestRow(path, _label_cell(example.label, data.classes), example.split, example.group)
        for path, example in zip(paths, data.examples, strict=True)
    ]
    manifest = folder / "manifest.csv"
    manifest.unlink(missing_ok=True)
    objects_of = known_objects_of(data)
    if objects_of is not None:
        write_objects(folder, ((path, reduced(objects_of(index), reduce)) for index, path in enumerate(paths)))
    return write_manifest(ManifestTable(manifest, folder, tuple(rows)), rows, manifest)


def write_manifest(
    table: ManifestTable, rows: Sequence[ManifestRow], out: Path, folds: Sequence[int | None] | None = None
) -> Path:
    """Write rows as a manifest that leads to the same files, with the columns that have something in them.

    An objects.csv goes with it, unless there is one where it goes.

    Arguments:
        table: where the rows are from; its folder is what their paths are relative to.
        rows: what to write.
        out: the new CSV file; paths become relative to it.
        folds: number of each row's fold, for a column of that name.

    Returns:
        `out`.

    Raises:
        RunError: if there is something at `out` already.
        DataError: if the objects.csv that goes with it is at fault; nothing has been written then.
    """
    if out.exists():
        raise RunError(f"{out} exists: choose another name or remove it")
    marked = None if (out.parent / OBJECTS).exists() else read_objects(table.folder)
    extra = [name for name in table.extra if folds is None or name != "fold"]
    kept = [table.extra.index(name) for name in extra]
    optional = [
        name for name in ("split", "group", "mpp", "mask") if any(getattr(row, name) is not None for row in rows)
    ]
    with whole_file(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", *optional, *extra, *([] if folds is None else ["fold"])])
        for i, row in enumerate(rows):
            cells = {name: getattr(row, name) for name in optional}
            if row.mask is not None:
                cells["mask"] = _moved(row.mask, table.folder, out.parent)
            fold = [] if folds is None else [folds[i]]
            path = _moved(row.path, table.images or table.folder, out.parent)
            writer.writerow([path, row.label, *cells.values(), *(row.extra[k] for k in kept), *fold])
    if marked is not None:
        moved = ((_moved(row.path, table.images or table.folder, out.parent), marked.get(row.path, ())) for row in rows)
        write_objects(out.parent, moved)
    return out


def _label_cell(label: Label | None, classes: Sequence[str]) -> str | None:
    """Label cell: what stands in a manifest for an example's label.

    Example:
        >>> _label_cell(1, ("cat", "dog")), _label_cell((0, 1), ("cat", "dog")), _label_cell((), ("cat", "dog"))
        ('dog', 'cat|dog', '')
    """
    if label is None or isinstance(label, float):
        return None if label is None else repr(label)
    return "|".join(classes[i] for i in label) if isinstance(label, tuple) else classes[label]


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _read_record(path: Path) -> dict[str, object]:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text at all
        made = None
    if not isinstance(made, dict):
        raise RunError(f"{path} is damaged: give another --out, or remove {path.parent} to start anew")
    return made


def _moved(path: str, old: Path, new: Path) -> str:
    """A path relative to one folder, made relative to another; absolute ones and addresses stay."""
    if "://" in path or Path(path).is_absolute() or old.resolve() == new.resolve():
        return path
    return Path(os.path.relpath(old.resolve() / path, new.resolve())).as_posix()
