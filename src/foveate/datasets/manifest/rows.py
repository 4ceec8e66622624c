"""Manifest rows: a CSV file read, with every fault in it and its line."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from foveate.errors import DataError

COLUMNS = ("path", "label", "split", "group", "mpp", "mask")
"""The columns foveate knows; only the first two must be there."""

SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
"""What may stand in the split column, and what it means."""


@dataclass(frozen=True)
class ManifestRow:
    """Row of a manifest: one image.

    Attributes:
        path: where it is, relative to the manifest, with forward slashes; names the image everywhere.
        label: its class, or None; where there may be several, their names with | between, "" if it has none.
        split: "train", "validation", "test" or None.
        group: what must not be split, or None.
        mpp: microns per pixel, or None to believe the file.
        mask: where its tissue mask is, or None.
        line: line of the manifest, from 1; 0 in a folder of class folders.
        extra: what stands in the other columns.
    """

    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    mpp: float | None = None
    mask: str | None = None
    line: int = 0
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class ManifestTable:
    """Rows of a manifest as read, faults included.

    Attributes:
        source: the CSV file, or the folder of class folders.
        folder: what the rows' paths are relative to.
        rows: the good rows, in order.
        problems: what is wrong with the others, each with its line and what to do.
        extra: names of the columns that foveate does not know, in order.
    """

    source: Path
    folder: Path
    rows: tuple[ManifestRow, ...]
    problems: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def file(self, path: str) -> str:
        """Where a row's path or mask leads from here; an address with a scheme (s3://…) leads where it says."""
        return path if "://" in path else str(self.folder / path)


def label_names(label: str) -> list[str]:
    """Class names of an image that may have several, from the text that says so.

    Arguments:
        label: names with | between; spaces around a name do not count.

    Returns:
        The names as written; [] for a text without any.

    Example:
        >>> label_names("cat | dog"), label_names(" ")
        (['cat', 'dog'], [])
    """
    return [name.strip() for name in label.split("|")] if label.strip() else []


def counted(count: int, noun: str) -> str:
    """Count in words: "no row", "1 row", "2 rows"."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def read_csv(source: Path, require_labels: bool = True, multi_label: bool = False) -> ManifestTable:
    """CSV manifest, read: a header `path,label[,split][,group][,mpp][,mask]`, then a line per image.

    Columns may come in any order, others are kept; commas, semicolons or tabs separate them; a byte-order mark,
    quotes and blank lines do no harm. Bad rows are collected, not raised.

    Arguments:
        source: the file.
        require_labels: whether an image without a label is at fault.
        multi_label: whether a label is the names of any number of classes, with | between; an empty one means none.

    Returns:
        The good rows, and a line for everything wrong with the others.

    Raises:
        DataError: if the file is missing, not text, empty, or its header is not one.
    """
    lines = _lines(source)
    header = [name.strip().lower() for name in next(lines, (0, []))[1]]
    _check_header(source, header, require_labels)
    extra = tuple(name for name in header if name not in COLUMNS)
    rows: list[ManifestRow] = []
    problems: list[str] = []
    line_of: dict[str, int] = {}
    for line, fields in lines:
        cells = dict(zip(header, (field.strip() for field in fields), strict=False))
        faults = list(_faults(cells, len(fields) - len(header), require_labels, multi_label))
        path = _posix(cells.get("path", ""))
        if path and line_of.setdefault(path, line) != line:
            faults.append(f"path {path!r} is already on line {line_of[path]}, remove one of the two")
        problems += [f"line {line}: {fault}" for fault in faults]
        if not faults:
            rows.append(
                ManifestRow(
                    path=path,
                    label=_label(cells.get("label", "") if "label" in header else None, multi_label),
                    split=SPLIT_NAMES.get(cells.get("split", "").lower()),
                    group=cells.get("group") or None,
                    mpp=float(cells["mpp"]) if cells.get("mpp") else None,
                    mask=_posix(cells.get("mask", "")) or None,
                    line=line,
                    extra=tuple(cells.get(name, "") for name in extra),
                )
            )
    if not rows and not problems:
        raise DataError(f"{source} lists no image: write one a line under the header {','.join(header)}")
    return ManifestTable(source, source.parent, tuple(rows), tuple(problems), extra)


def _lines(source: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank; the header first."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield reader.line_num, fields
    except FileNotFoundError as error:
        raise DataError(f"manifest {source} does not exist: check the path") from error
    except OSError as error:
        raise DataError(
            f"manifest {source} cannot be read ({error.strerror}): check the path and the file's mode"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text: save it as CSV (UTF-8)") from error
    except csv.Error as error:
        raise DataError(
            f"{source} is not a CSV file from line {reader.line_num} on ({error}): close the quotes"
        ) from error


def _check_header(source: Path, header: list[str], require_labels: bool) -> None:
    if not header:
        raise DataError(f"{source} is empty: write a header path,label and a line per image")
    for name in ("path", "label") if require_labels else ("path",):
        if name not in header:
            near = get_close_matches(name, header, n=1) or header[:1]
            raise DataError(
                f"{source} has no column {name!r}: its first line must name the columns, e.g. path,label, and is "
                f"{','.join(header)}; add it, or rename {near[0]!r} if that is it"
            )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"{source} has {header.count(twice[0])} columns {twice[0]!r}: remove or rename all but one")


def _faults(cells: dict[str, str], surplus: int, require_labels: bool, multi_label: bool) -> Iterator[str]:
    """What is wrong with a row, each with its remedy."""
    if surplus > 0:
        yield f"{surplus} more fields than the header has columns, quote what contains the separator"
    if not cells.get("path"):
        yield "path is empty, name the image file"
    yield from _label_faults(cells.get("label", ""), require_labels, multi_label)
    split = cells.get("split", "")
    if split and split.lower() not in SPLIT_NAMES:
        yield f"unknown split {split!r}, use train, validation or test"
    mpp = cells.get("mpp", "")
    if mpp and not _is_positive(mpp):
        yield f"mpp {mpp!r} is not a positive number, write microns per pixel such as 0.25 or leave it empty"


def _label(text: str | None, multi_label: bool) -> str | None:
    if text is None or not multi_label:
        return text or None
    return "|".join(label_names(text))


def _label_faults(label: str, require_labels: bool, multi_label: bool) -> Iterator[str]:
    if not multi_label:
        if require_labels and not label:
            yield "label is empty, write the image's class or remove the row"
        return
    names = label_names(label)
    if "" in names:
        yield f"label {label!r} has a | without a name beside it, write names with one | between"
    twice = [name for i, name in enumerate(names) if name and name in names[:i]]
    if twice:
        yield f"label {label!r} names {twice[0]!r} twice, write it once"


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _posix(text: str) -> str:
    return text if not text or "://" in text else Path(text).as_posix()
