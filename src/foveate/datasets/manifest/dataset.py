"""Manifest data set: images of your own, listed in a CSV file or sorted into one folder per class."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foveate.datasets.manifest.folders import read_class_folders
from foveate.datasets.manifest.objects import Objects, read_objects
from foveate.datasets.manifest.rows import ManifestRow, ManifestTable, counted, label_names, read_csv
from foveate.datasets.types import Example
from foveate.errors import DataError
from foveate.images import Masked, Source, open_image
from foveate.types import Label

_SHOWN = 3
"""Faults spelt out in an error; `foveate data check` lists all."""


@dataclass(frozen=True)
class ManifestDataset:
    """Data set of a manifest's images.

    Attributes:
        classes: names of the classes, numbers in numeric order; empty if no image has a label.
        examples: one per row, in the manifest's order; their ids are the paths as written.
        files: where the images are.
        mpps: microns per pixel, or None to believe the file.
        masks: where to look, files as `foveate.images.Masked` takes them, or None; empty if no row names one.
        multi_label: whether a label is a tuple of classes, any number of them, instead of one.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    files: tuple[str, ...]
    mpps: tuple[float | None, ...]
    masks: tuple[str | None, ...] = ()
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Source:
        """The image of example `index`; no pixel is read."""
        source, mask = open_image(self.files[index], mpp=self.mpps[index]), self.masks[index] if self.masks else None
        return source if mask is None else Masked(source, mask)


@dataclass(frozen=True)
class MarkedManifest(ManifestDataset):
    """Data set of a manifest beside which an objects.csv says what lies where in its images.

    Attributes:
        marked: id of an image → its objects.
    """

    marked: Mapping[str, Objects] = field(default_factory=dict)

    def objects(self, index: int) -> Objects:
        """What lies in example `index`: classes and boxes, in level-0 pixels; to judge models by, never to train on."""
        return self.marked.get(self.examples[index].id, ())


def read_manifest(
    path: str | Path | ManifestTable,
    classes: Sequence[str] | None = None,
    require_labels: bool = True,
    check_files: bool = True,
    multi_label: bool = False,
) -> ManifestDataset:
    """Manifest, or folder with one folder per class, read as a data set.

    Arguments:
        path: a CSV file `path,label[,split][,group][,mpp][,mask]`, its paths relative to it; or a folder
            `<class>/images` or `<split>/<class>/images`, or one with such a manifest.csv in it. An objects.csv beside
            it, `path,class,top,left,height,width`, says what lies where. Or the rows that `read_table` gave for the
            same `require_labels` and `multi_label`.
        classes: names of the classes in a model's order; what occurs, sorted, if None.
        require_labels: whether every image must have a label (of `classes`, where given). For prediction, labels
            may be absent, and one that is not of `classes` counts as absent.
        check_files: whether missing image files are an error now rather than when opened.
        multi_label: whether an image has any number of classes, written `cat|dog`, and none where the label is empty.

    Returns:
        The data set; a split that the manifest does not name is None.

    Raises:
        DataError: if the manifest is missing, empty, or has bad rows; the message names the first of them.
    """
    table = path if isinstance(path, ManifestTable) else read_table(path, require_labels, multi_label)
    fault = None if multi_label or not require_labels else several_labels_fault(table)
    if fault is not None:
        raise DataError(f"{table.source}: {fault}")
    labels = [None if row.label is None else _names(row.label, multi_label) for row in table.rows]
    names = sorted_classes([name for some in labels for name in some or ()]) if classes is None else tuple(classes)
    number = {name: i for i, name in enumerate(names)}
    problems = list(table.problems)
    if require_labels:
        problems += [
            f"line {row.line} ({row.path}): label {name!r} is none of the model's classes {_some(names)}"
            for row, some in zip(table.rows, labels, strict=True)
            for name in some or ()
            if name not in number
        ]
    if problems:
        raise DataError(
            f"{table.source} has {counted(len(problems), 'fault')}: {'; '.join(problems[:_SHOWN])}"
            + (f"; and {len(problems) - _SHOWN} more, see foveate data check" if len(problems) > _SHOWN else "")
        )
    missing = missing_files(table) if check_files else []
    if missing:
        raise DataError(
            f"{table.source}: {counted(len(missing), 'file')} of {len(table.rows)} rows missing, the first is "
            f"{missing[0]}: paths are relative to the manifest's folder; correct or remove these rows"
        )
    dataset = ManifestDataset(
        classes=names,
        examples=tuple(
            Example(row.path, _index(some, number, multi_label), row.split, row.group)
            for row, some in zip(table.rows, labels, strict=True)
        ),
        files=tuple(table.file(row.path) for row in table.rows),
        mpps=tuple(row.mpp for row in table.rows),
        masks=tuple(None if row.mask is None else table.file(row.mask) for row in table.rows),
        multi_label=multi_label,
    )
    marked = read_objects(table.folder)
    return dataset if marked is None else MarkedManifest(**vars(dataset), marked=marked)


def read_table(path: str | Path, require_labels: bool = True, multi_label: bool = False) -> ManifestTable:
    """Manifest rows, or those of a folder of class folders; bad ones are listed, not raised.

    Arguments:
        path: the CSV file, a folder with a manifest.csv in it, or a folder of class folders.
        require_labels: whether an image without a label is at fault.
        multi_label: whether a label is the names of any number of classes, with | between.

    Returns:
        The good rows and the faults of the others.

    Raises:
        DataError: if there is nothing of that name, or it is neither.
    """
    path = Path(path)
    listed = path / "manifest.csv"
    if path.is_dir() and not listed.is_file():
        return read_class_folders(path, require_labels)
    return read_csv(listed if path.is_dir() else path, require_labels, multi_label)


def several_labels_fault(table: ManifestTable) -> str | None:
    """Fault of a manifest with several labels an image that is read as if there were one; None if it has one."""
    row = next((row for row in table.rows if row.label is not None and "|" in row.label), None)
    if row is None:
        return None
    return (
        f"{_place(row)} has several labels ({row.label}): say so with --data.multi_label true (foveate data check and "
        "split: --multi-label), or write one name without |"
    )


def missing_files(table: ManifestTable) -> list[str]:
    """Image and mask files that a manifest names and that do not exist, in its order; remote ones are not asked for."""
    named = [name for row in table.rows for name in (row.path, row.mask) if name is not None and "://" not in name]
    return [file for file in map(table.file, named) if not os.path.exists(file)]  # noqa: PTH110  twice as fast


def sorted_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """Class names that occur, sorted, numbers in them by value.

    Example:
        >>> sorted_classes(["10", "9", "EMPTY", "9"])
        ('9', '10', 'EMPTY')
    """

    def key(label: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", label.casefold())  # text at even places, digits at odd ones
        return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts) if part], label

    return tuple(sorted(set(labels), key=key))


def _names(label: str, multi_label: bool) -> list[str]:
    return label_names(label) if multi_label else [label]


def _index(names: Sequence[str] | None, number: Mapping[str, int], multi_label: bool) -> Label | None:
    """The number of each name; None if there is no label, or one that has no number."""
    if names is None or any(name not in number for name in names):
        return None
    numbers = tuple(sorted(number[name] for name in names))
    return numbers if multi_label else numbers[0]


def _place(row: ManifestRow) -> str:
    return f"line {row.line}" if row.line else row.path


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
