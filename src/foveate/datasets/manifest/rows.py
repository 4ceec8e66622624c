"""Manifest rows: a CSV file read, with every fault in it and its line."""

import codecs
import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from foveate.errors import ConfigError, DataError

COLUMNS = ("path", "label", "split", "group", "mpp", "mask")
"""The columns foveate knows; only the first two must be there."""

MISSING = frozenset({"na", "n/a", "#n/a", "nan", "null", "<na>", "n.a."})
"""What programs write where there is nothing to write, in any case of letters; a path may be called so."""

NO_TEXT = {
    b"PK\x03\x04": "an Excel or OpenDocument workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet table",
}
"""How files begin that programs keep tables in, and that are no text."""

SAVE = "save it as CSV UTF-8 (in Excel: Save As, CSV UTF-8)"
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
        folder: what the rows' paths and masks are relative to.
        rows: the good rows, in order.
        problems: what is wrong with the others, each with its line and what to do.
        extra: names of the columns that foveate does not know, in order.
        images: what the rows' paths are relative to, where that is not the folder.
        places: path → file, of those paths that name a file by its stem.
        notes: what was read otherwise than written, or may be meant otherwise.
    """

    source: Path
    folder: Path
    rows: tuple[ManifestRow, ...]
    problems: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    images: Path | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def file(self, path: str) -> str:
        """Where a row's path leads from here; an address with a scheme (s3://…) leads where it says."""
        found = self.places.get(path)
        return _below(self.folder if self.images is None else self.images, path) if found is None else found

    def mask_file(self, mask: str) -> str:
        """Where a row's mask leads from here, likewise."""
        return _below(self.folder, mask)


@dataclass(frozen=True)
class Layout:
    """Layout of a manifest that is not as foveate writes it.

    Attributes:
        columns: names of its columns, each with what it is to foveate.
        images: what its paths are relative to; its own folder if None.

    Example:
        >>> Layout.of(["slide_id=path,patient=group"], "slides").columns
        {'slide_id': 'path', 'patient': 'group'}
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None

    @classmethod
    def of(cls, columns: Iterable[str], images: str | Path | None = None) -> "Layout":
        """Layout as the command line has it: `theirs=ours`, several with commas between.

        Raises:
            ConfigError: a pair is none, or names no column of foveate's.
        """
        pairs = [pair.strip() for one in columns for pair in one.split(",") if pair.strip()]
        named: dict[str, str] = {}
        for pair in pairs:
            theirs, equals, ours = (part.strip().lower() for part in pair.rpartition("="))
            if not (theirs and equals and ours in COLUMNS):
                raise ConfigError(
                    f"columns are named THEIRS=OURS, OURS one of {', '.join(COLUMNS)}, got {pair!r}: write e.g. "
                    "slide_id=path"
                )
            named[theirs] = ours
        return cls(named, None if images is None else Path(images))


PLAIN = Layout()
"""As foveate writes manifests."""


def _below(folder: Path, path: str) -> str:
    """`folder / path` as text, which of 200,000 paths takes a second."""
    base = str(folder)
    rooted = ":" in path or path.startswith(("/", "\\"))  # an address, a drive or a root: asked first, as it is cheap
    if base == "." or (rooted and ("://" in path or os.path.isabs(path))):  # noqa: PTH117
        return path
    return f"{base.rstrip('/')}/{path}"


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


def read_csv(
    source: Path, require_labels: bool = True, multi_label: bool = False, layout: Layout = PLAIN
) -> ManifestTable:
    """CSV manifest, read: a header `path,label[,split][,group][,mpp][,mask]`, then a line per image.

    Columns may come in any order, others are kept; commas, semicolons or tabs separate them; a byte-order mark,
    quotes, blank lines and backslashes do no harm. What programs write for nothing (NA, nan, N/A) counts as nothing.
    Bad rows are collected, not raised.

    Arguments:
        source: the file.
        require_labels: whether an image without a label is at fault.
        multi_label: whether a label is the names of any number of classes, with | between; an empty one means none.
        layout: other names of columns, and where the images are.

    Returns:
        The good rows, a line for everything wrong with the others, and notes.

    Raises:
        DataError: if the file is missing, not text, empty, or its header is not one.
    """
    lines = _lines(source)
    names = [name.strip().lower() for name in next(lines, (0, []))[1]]
    header = _check_header(source, names, require_labels, layout)
    extra = tuple(name for name in header if name not in COLUMNS)
    may_be_nothing = [name for name in header if name in COLUMNS[1:]]
    rows, problems = list[ManifestRow](), list[str]()
    line_of, nothing = dict[str, int](), dict[tuple[str, str], list[int]]()
    for line, fields in lines:
        cells = dict(zip(header, map(str.strip, fields), strict=False))
        for name in may_be_nothing:
            if (text := cells.get(name)) and text.lower() in MISSING:
                nothing.setdefault((name, text), []).append(line)
                cells[name] = ""
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
                    mpp=float(cells["mpp"].replace(",", ".")) if cells.get("mpp") else None,
                    mask=_posix(cells.get("mask", "")) or None,
                    line=line,
                    extra=tuple(cells.get(name, "") for name in extra) if extra else (),
                )
            )
    if not rows and not problems:
        raise DataError(f"{source} lists no image: write one a line under the header {','.join(header)}")
    notes = tuple(_nothing_notes(nothing))
    return ManifestTable(source, source.parent, tuple(rows), tuple(problems), extra, layout.images, notes=notes)


def _nothing_notes(nothing: Mapping[tuple[str, str], Sequence[int]]) -> Iterator[str]:
    for (name, text), lines in nothing.items():
        where = f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:8]))}{', …' if len(lines) > 8 else ''}"
        yield f"{name} {text!r} on {where} is taken as none: if it is meant, call it otherwise"


def _lines(source: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank; the header first."""
    line = 0
    try:
        encoding = _encoding(source)
        with source.open(encoding=encoding, newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            for fields in reader:
                line = reader.line_num
                if any(map(str.strip, fields)):
                    yield line, fields
    except FileNotFoundError as error:
        raise DataError(f"manifest {source} does not exist: check the path") from error
    except OSError as error:
        raise DataError(
            f"manifest {source} cannot be read ({error.strerror}): check the path and the file's mode"
        ) from error
    except UnicodeDecodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20].decode("cp1252", "replace")
        raise DataError(f"{source} is not UTF-8 text, at {' '.join(near.split())!r}: {SAVE}") from error
    except csv.Error as error:
        opened = _open_quote(source, line, delimiter, encoding)
        raise DataError(
            f"{source} is not a CSV file from line {opened} on, where a quote opens that is not closed in its line "
            f"({error}): close it"
            if opened
            else f"{source} is not a CSV file from line {reader.line_num} on ({error}): close the quotes"
        ) from error


def _encoding(source: Path) -> str:
    """Encoding of a manifest: UTF-8, or UTF-16 where a byte-order mark says so; of what is no text, an error."""
    with source.open("rb") as file:
        first = file.read(4)
    kind = next((kind for magic, kind in NO_TEXT.items() if first.startswith(magic)), None)
    if kind is not None:
        raise DataError(f"{source} is {kind}, not CSV: {SAVE}")
    return "utf-16" if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _open_quote(source: Path, after: int, delimiter: str, encoding: str) -> int | None:
    """Number of the first line, after one, in which a quote opens a field and is not closed; None if there is none."""
    with source.open(encoding=encoding, newline="") as file:
        for number, text in enumerate(file, start=1):
            if number > after:
                whole = re.sub(rf'(^|{re.escape(delimiter)})\s*"(?:[^"]|"")*"', r"\1", text.rstrip("\r\n"))
                if re.search(rf'(^|{re.escape(delimiter)})\s*"', whole):
                    return number
    return None


def _check_header(source: Path, names: list[str], require_labels: bool, layout: Layout) -> list[str]:
    """The header with the names that foveate has for its columns."""
    if not names:
        raise DataError(f"{source} is empty: write a header path,label and a line per image")
    for theirs in layout.columns:
        if theirs not in names:
            near = get_close_matches(theirs, names, n=1)
            meant = f", did you mean {near[0]}?" if near else ": name one of these"
            raise DataError(f"{source} has no column {theirs!r}, its columns are {','.join(names)}{meant}")
    header = [layout.columns.get(name, name) for name in names]
    for name in ("path", "label") if require_labels else ("path",):
        if name not in header:
            likely = [one for one in header if name == "path" and re.search("slide|image|file|scan", one)]
            near = get_close_matches(name, header, n=1) or likely[:1] or header[:1]
            raise DataError(
                f"{source} has no column {name!r}: its first line must name the columns, e.g. path,label, and is "
                f"{','.join(header)}; add it, or rename {near[0]!r} if that is it (or --columns {near[0]}={name})"
            )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"{source} has {header.count(twice[0])} columns {twice[0]!r}: remove or rename all but one")
    return header


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
    if mpp and not _is_positive(mpp.replace(",", ".")):
        yield f"mpp {mpp!r} is not a positive number, write microns per pixel such as 0.25 or leave it empty"


def _label(text: str | None, multi_label: bool) -> str | None:
    if text is None or not multi_label:
        return text or None
    return "|".join(label_names(text))


def _label_faults(label: str, require_labels: bool, multi_label: bool) -> Iterator[str]:
    if not multi_label:
        if require_labels and not label:
            yield "label is empty, write the image's class (or its number) or remove the row"
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
    """A path with forward slashes, whatever system it was written on, and none too many."""
    if not text or "://" in text:
        return text
    text = text.replace("\\", "/")
    return PurePosixPath(text).as_posix() if "//" in text or "./" in text or text[-1] in "/." else text
