"""Manifest data set: images of your own, listed in a CSV file or sorted into one folder per class."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from foveate.datasets.manifest.folders import IMAGE_FOLDERS, IMAGE_SUFFIXES, read_class_folders
from foveate.datasets.manifest.numbers import comma_notes, number_faults, number_notes, read_number
from foveate.datasets.manifest.objects import Objects, read_objects
from foveate.datasets.manifest.rows import PLAIN, Layout, ManifestRow, ManifestTable, counted, label_names, read_csv
from foveate.datasets.types import Example
from foveate.errors import DataError
from foveate.images import Masked, Source, open_image
from foveate.images.header import Reading
from foveate.types import Label

ENDINGS = (*(f".ome{end}" for end in (*IMAGE_FOLDERS, ".tif", ".tiff")), *IMAGE_FOLDERS, *IMAGE_SUFFIXES)
"""Ends of the names of images, the longer ones first."""

PATIENT = re.compile(r"(patient|case|subject|donor|participant)s?([ _-]?(id|no|nr|number|name|code|barcode))?")
"""Names of columns that say which images belong together."""

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
        notes: what was read otherwise than written, or may be meant otherwise.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    files: tuple[str, ...]
    mpps: tuple[float | None, ...]
    masks: tuple[str | None, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Source:
        """The image of example `index`; no pixel is read."""
        source, mask = open_image(self.files[index], mpp=self.mpps[index]), self.masks[index] if self.masks else None
        if mask is None:
            return source
        with Reading(mask):
            return Masked(source, mask)


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
    layout: Layout = PLAIN,
    numbers: bool = False,
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
        layout: of a CSV file that has other columns, or images elsewhere.
        numbers: whether labels are numbers; there are no classes then.

    Returns:
        The data set; a split that the manifest does not name is None.

    Raises:
        DataError: if the manifest is missing, empty, or has bad rows; the message names the first of them.
    """
    table = path if isinstance(path, ManifestTable) else read_table(path, require_labels, multi_label, layout, numbers)
    fault = None if multi_label or numbers or not require_labels else several_labels_fault(table)
    if fault is not None:
        raise DataError(f"{table.source}: {fault}")
    labels = [None if row.label is None or numbers else _names(row.label, multi_label) for row in table.rows]
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
    problems += number_faults(table.rows) if numbers and require_labels else []
    if problems:
        raise DataError(
            f"{table.source} has {counted(len(problems), 'fault')}: {'; '.join(problems[:_SHOWN])}"
            + (f"; and {len(problems) - _SHOWN} more, see foveate data check" if len(problems) > _SHOWN else "")
        )
    missing = missing_files(table) if check_files else []
    if missing:
        root = "the manifest's folder" if table.images is None else table.images
        raise DataError(
            f"{table.source}: {counted(len(missing), 'file')} of {len(table.rows)} rows missing, the first is "
            f"{missing[0]}{Folders().instead(missing[0])}: paths are relative to "
            f"{root}; correct or remove these rows, or give --images DIR"
        )
    dataset = ManifestDataset(
        classes=names,
        examples=tuple(
            Example(row.path, _number(row) if numbers else _index(some, number, multi_label), row.split, row.group)
            for row, some in zip(table.rows, labels, strict=True)
        ),
        files=tuple(table.file(row.path) for row in table.rows),
        mpps=tuple(row.mpp for row in table.rows),
        masks=tuple(None if row.mask is None else table.mask_file(row.mask) for row in table.rows),
        multi_label=multi_label,
        notes=table.notes + (comma_notes(table.rows) if numbers else ()),
    )
    marked = read_objects(table.folder)
    return dataset if marked is None else MarkedManifest(**vars(dataset), marked=marked)


def read_table(
    path: str | Path,
    require_labels: bool = True,
    multi_label: bool = False,
    layout: Layout = PLAIN,
    numbers: bool = False,
) -> ManifestTable:
    """Manifest rows, or those of a folder of class folders; bad ones are listed, not raised.

    Arguments:
        path: the CSV file, a folder with a manifest.csv in it, or a folder of class folders.
        require_labels: whether an image without a label is at fault.
        multi_label: whether a label is the names of any number of classes, with | between.
        layout: of a CSV file that has other columns, or images elsewhere.
        numbers: whether labels are numbers, of which two that are written otherwise may be one.

    Returns:
        The good rows and the faults of the others. A path that names no file, and has no ending of an image, is the
        one image that has it for its stem.

    Raises:
        DataError: if there is nothing of that name, or it is neither.
    """
    path = Path(path)
    listed = path / "manifest.csv"
    if path.is_dir() and not listed.is_file():
        table = read_class_folders(path, require_labels)
    else:
        table = read_csv(listed if path.is_dir() else path, require_labels, multi_label, layout)
        table = replace(table, places=_by_stem(table))
    of_labels = () if numbers else (*_label_notes(table.rows, multi_label), *number_notes(table.rows))
    notes = (*table.notes, *of_labels, *_group_notes(table))
    return replace(table, notes=notes)


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
    files = [file for row in table.rows for file in _files(table, row) if "://" not in file]
    folders = Folders(files)
    return [file for file in files if not folders.has(file)]


def _files(table: ManifestTable, row: ManifestRow) -> list[str]:
    return [table.file(row.path)] if row.mask is None else [table.file(row.path), table.mask_file(row.mask)]


class Folders:
    """Folders listed once each: which files are there, which one an id without an ending means, what is there instead.

    Where many files of a folder are asked for, a look at its names answers for all: on a far disk each of 200,000
    questions takes as long as a whole folder.

    Arguments:
        files: that will be asked for.
    """

    MANY, CLOSE = 16, 5000
    """Files of a folder from which on it is listed, and names up to which close ones are looked for."""

    def __init__(self, files: Iterable[str] = ()) -> None:
        self._asked = Counter(os.path.split(file)[0] for file in files)
        self._names: dict[str, dict[str, bool]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def names(self, folder: str) -> dict[str, bool]:
        """Names in a folder, each with whether it is a link; none of one that cannot be listed."""
        if folder not in self._names:
            try:
                with os.scandir(folder or ".") as entries:
                    self._names[folder] = {entry.name: entry.is_symlink() for entry in entries}
            except OSError:
                self._names[folder] = {}
        return self._names[folder]

    def has(self, file: str) -> bool:
        """Whether a file exists."""
        folder, name = os.path.split(file)
        if self._asked[folder] >= self.MANY and self.names(folder).get(name) is False:
            return True
        return os.path.exists(file)  # noqa: PTH110  twice as fast

    def of_stem(self, file: str) -> list[str]:
        """Images beside a file that are called as it is, but for the ending."""
        folder, name = os.path.split(file)
        if folder not in self._stems:
            stems = self._stems[folder] = {}
            for one in self.names(folder):
                ending = next((end for end in ENDINGS if one.lower().endswith(end)), None)
                if ending is not None:
                    stems.setdefault(one[: -len(ending)], []).append(one)
        return sorted(os.path.join(folder, one) for one in self._stems[folder].get(name, ()))  # noqa: PTH118

    def instead(self, file: str) -> str:
        """What there is instead of a file that is missing, in brackets; "" where nothing is like it."""
        folder, name = os.path.split(file)
        while folder and not os.path.isdir(folder):  # noqa: PTH112
            folder, name = os.path.split(folder)
        names = self.names(folder)
        near = self.of_stem(os.path.join(folder, name))  # noqa: PTH118
        found = [os.path.split(one)[1] for one in near] or [one for one in names if one.casefold() == name.casefold()]
        if not found and len(names) <= self.CLOSE:
            like = [one for one in names if re.sub(r"\D", "", one) == re.sub(r"\D", "", name)]  # 7.png is no 9.png
            found = get_close_matches(name, like, n=2, cutoff=0.75)
        where = "" if folder == os.path.split(file)[0] else f"there is no {name} in {folder or '.'}"
        told = f"there is {' and '.join(found)}" if found else ""
        return f" ({'; '.join(part for part in (where, told) if part)})" if where or told else ""


def _by_stem(table: ManifestTable) -> dict[str, str]:
    """Path → file of those paths that have no ending of an image, and one file beside them that has their stem."""
    named = [row.path for row in table.rows if "://" not in row.path and not row.path.lower().endswith(ENDINGS)]
    folders, found = Folders(), dict[str, str]()
    for path in named:
        file = table.file(path)
        near = folders.of_stem(file)
        if len(near) == 1 and not os.path.exists(file):  # noqa: PTH110
            found[path] = near[0]
    return found


def _label_notes(rows: Sequence[ManifestRow], multi_label: bool) -> Iterator[str]:
    """Labels that may be one, written in several ways."""
    counts: Counter[str] = Counter(row.label for row in rows if row.label is not None)
    if multi_label:
        counts = Counter(name for label, count in counts.items() for name in label_names(label) * count)
    alike: dict[str, list[str]] = {}
    for label in counts:
        try:
            key = repr(float(label))
        except ValueError:
            key = " ".join(label.casefold().replace("_", " ").split())
        alike.setdefault(key, []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            told = " and ".join(f"{label!r} ({counts[label]})" for label in sorted(labels))
            yield f"labels {told} are different classes: write them alike if they are one"


def _group_notes(table: ManifestTable) -> Iterator[str]:
    """A column that says which images belong together, and is not used."""
    named = [name for name in table.extra if PATIENT.fullmatch(name)]
    if named and all(row.group is None for row in table.rows):
        yield (
            f"column {named[0]!r} is not used, and its images may come into training and test alike: to keep them "
            f"together, add --columns {named[0]}=group"
        )


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


def _number(row: ManifestRow) -> float | None:
    return None if row.label is None else read_number(row.label)


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
