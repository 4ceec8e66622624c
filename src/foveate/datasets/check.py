"""What may be wrong with a manifest, found before a run of hours finds it."""

import hashlib
import os
import stat
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foveate.datasets.hints import count_findings, pixel_hints
from foveate.datasets.manifest import missing_files, read_table, several_labels_fault
from foveate.datasets.report import Finding, Report
from foveate.datasets.splits import crossing_groups
from foveate.datasets.table import Row, Table, label_names
from foveate.errors import FoveateError, ImageError
from foveate.images import Masked, Source, open_image
from foveate.types import Box, Example, Size

__all__ = ["check_manifest"]

MASK_LOOK = (64, 64)
"""Cells in which a mask is looked for something to look at."""


def check_manifest(
    path: str | Path,
    pixels: bool = True,
    progress: Callable[[int, int], None] | None = None,
    multi_label: bool = False,
) -> Report:
    """Look for bad rows, missing and unreadable files, images that are there twice, and groups that cross splits.

    Arguments:
        path: a manifest, or a folder of class folders; labels may be missing.
        pixels: whether to read the last pixel of every image, which finds files that were cut short, and every file
            of a size that occurs twice, which finds copies; else headers only.
        progress: called with the number of images looked at and their total.
        multi_label: whether a label is the names of any number of classes, with | between.

    Returns:
        The counts, the problems, and hints about what may be meant otherwise.

    Raises:
        DataError: if the manifest cannot be read as one at all.
    """
    table = read_table(path, require_labels=False, multi_label=multi_label)
    missing = missing_files(table)
    absent, unreadable = set(missing), dict[str, str]()
    rows = [row for row in table.rows if table.file(row.path) not in absent]
    sizes: list[Size] = []
    kinds: Counter[tuple[int, str]] = Counter()
    masks: list[Finding] = []
    for done, row in enumerate(rows):
        if progress is not None:
            progress(done + 1, len(rows))
        file = table.file(row.path)
        try:
            source = _look_at(file, row.mpp, pixels)
        except Exception as error:  # decoders stumble in ways of their own; here it is always the file's fault
            unreadable[file] = _reason(file, error)
        else:
            sizes.append(source.size)
            kinds[source.channels, str(source.dtype)] += 1
            mask = None if row.mask is None else table.file(row.mask)
            if pixels and mask is not None and mask not in absent:
                masks += _mask_findings(source, mask)
    readable = [row for row in rows if table.file(row.path) not in unreadable]
    copies = _copies(table, readable, unreadable) if pixels else []
    counts = Counter((row.split or "", label) for row in table.rows for label in _labels(row, multi_label))
    about_counts = list(count_findings(counts, Counter(row.split or "" for row in table.rows)))
    return Report(
        images=len(table.rows),
        counts=counts,
        problems=(
            *(Finding("row", fault) for fault in table.problems),
            *(Finding("missing", f"missing: {file}{_dangling(file)}") for file in missing),
            *(Finding("unreadable", f"unreadable: {reason}") for reason in unreadable.values()),
            *masks,
            *(Finding("copy", copy) for copy in copies),
            *_row_problems(table, multi_label),
            *(finding for is_problem, finding in about_counts if is_problem),
        ),
        hints=(*(finding for is_problem, finding in about_counts if not is_problem), *pixel_hints(kinds)),
        sizes=tuple(sizes),
        kinds=kinds,
        multi_label=multi_label,
    )


def _labels(row: Row, multi_label: bool) -> list[str]:
    """The classes a row counts for; "" for a row without any, nothing for several where one is wanted."""
    if not multi_label:
        return [] if "|" in (row.label or "") else [row.label or ""]
    return label_names(row.label or "") or [""]


def _row_problems(table: Table, multi_label: bool) -> Iterator[Finding]:
    """What is wrong with the rows among themselves; no file is looked at."""
    fault = None if multi_label else several_labels_fault(table)
    if fault is not None:
        yield Finding("label", fault)
    crossing = crossing_groups(Example(row.path, None, row.split, row.group) for row in table.rows)
    for group, splits in sorted(crossing.items()):
        yield Finding("group", f"group {group} crosses splits: {', '.join(splits)}")
    if 0 < sum(row.label is None for row in table.rows) < len(table.rows):
        yield from (Finding("label", f"no label: {row.path}") for row in table.rows if row.label is None)


def _look_at(file: str, mpp: float | None, pixels: bool) -> Source:
    """The image, its header read, and its last pixel if wanted; pipes and devices might never end and are refused."""
    mode = stat.S_IFREG if "://" in file else Path(file).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ImageError(f"{file}: a pipe or a device, not an image: name a file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder's doubts, of no use without the file's name
        source = open_image(file, mpp=mpp)
        height, width = source.size
        if pixels:
            source.read(Box(height - 1, width - 1, 1, 1))
    return source


def _mask_findings(source: Source, mask: str) -> list[Finding]:
    try:
        share = Masked(source, mask).valid(MASK_LOOK)
    except Exception as error:  # as with images
        return [Finding("mask", f"mask: {_reason(mask, error)}")]
    return [] if share.any() else [Finding("mask", f"mask: {mask} leaves nothing of {source.name} to look at")]


def _reason(file: str, error: Exception) -> str:
    """Why a file cannot be read, in a line."""
    if isinstance(error, FoveateError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{file}: cannot be read ({error.strerror}): check the path and the file's mode"
    what = " ".join(str(error).split()) or type(error).__name__
    return f"{file}: cannot be read ({what}): replace the file or remove its row"


def _dangling(file: str) -> str:
    return " (a link that leads nowhere)" if os.path.islink(file) else ""  # noqa: PTH114  no error, whatever the name


def _copies(table: Table, rows: Iterable[Row], unreadable: dict[str, str]) -> list[str]:
    """Rows whose files have the same content; only files of the same length are read.

    Files that cannot be read are added to `unreadable`, unless they are there.
    """
    by_length: dict[int, list[Row]] = defaultdict(list)
    by_content: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        with _noted(table.file(row.path), unreadable) as file:
            if file.is_file():
                by_length[file.stat().st_size].append(row)
    for some in by_length.values():
        for row in some if len(some) > 1 else ():
            with _noted(table.file(row.path), unreadable) as file, file.open("rb") as content:
                by_content[hashlib.file_digest(content, "sha256").hexdigest()].append(row)
    return [_copy(same) for same in by_content.values() if len(same) > 1]


@contextmanager
def _noted(file: str, unreadable: dict[str, str]) -> Iterator[Path]:
    try:
        yield Path(file)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        unreadable.setdefault(file, _reason(file, error))


def _copy(same: list[Row]) -> str:
    labels = {tuple(sorted(label_names(row.label or ""))) for row in same}
    splits = {row.split for row in same}
    worse = [f"different {name}" for name, values in (("labels", labels), ("splits", splits)) if len(values) > 1]
    return f"same content{', ' + ' and '.join(worse) if worse else ''}: {', '.join(row.path for row in same)}"
