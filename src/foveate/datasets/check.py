"""What may be wrong with a manifest, found before a run of hours finds it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foveate.datasets.manifest import mask_fault, missing_files, read_table, sorted_classes
from foveate.datasets.splits import crossing_groups
from foveate.datasets.table import Row, Table
from foveate.errors import ImageError
from foveate.images import open_image
from foveate.types import Box, Example

__all__ = ["Report", "check_manifest"]


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        images: number of good rows.
        counts: (split or "", label or "") → images.
        problems: what is wrong, one line each; empty if all is well.
    """

    images: int
    counts: dict[tuple[str, str], int]
    problems: tuple[str, ...]

    def table(self) -> str:
        """The images per class and split, as lines of text.

        Example:
            >>> print(Report(3, {("train", "cat"): 2, ("test", "cat"): 1}, ()).table())
            label  test  train
            cat       1      2
        """
        splits = sorted({split for split, _ in self.counts})
        labels = sorted_classes([label for _, label in self.counts])
        rows = [["label", *(split or "no split" for split in splits)]]
        rows += [[label or "no label", *(str(self.counts.get((s, label), 0)) for s in splits)] for label in labels]
        widths = [max(len(row[i]) for row in rows) for i in range(len(splits) + 1)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        )


def check_manifest(path: str | Path, pixels: bool = True, progress: Callable[[int, int], None] | None = None) -> Report:
    """Look for bad rows, missing and unreadable files, images that are there twice, and groups that cross splits.

    Arguments:
        path: a manifest, or a folder of class folders; labels may be missing.
        pixels: whether to read the last pixel of every image, which finds files that were cut short, and every file
            of a size that occurs twice, which finds copies; else headers only.
        progress: called with the number of images looked at and their total.

    Returns:
        The counts and the problems.

    Raises:
        DataError: if the manifest cannot be read as one at all.
    """
    table = read_table(path, require_labels=False)
    missing = missing_files(table)
    absent, unreadable = set(missing), dict[str, str]()
    rows = [row for row in table.rows if table.file(row.path) not in absent]
    problems = [*table.problems, *(f"missing: {file}" for file in missing)]
    for done, row in enumerate(rows):
        if progress is not None:
            progress(done + 1, len(rows))
        try:
            source = open_image(table.file(row.path), mpp=row.mpp)
            height, width = source.size
            if pixels:
                source.read(Box(height - 1, width - 1, 1, 1))
        except ImageError as error:
            unreadable[table.file(row.path)] = str(error)
    copies = _copies(table, rows, unreadable) if pixels else []
    problems += [*(f"unreadable: {reason}" for reason in unreadable.values()), *copies]
    problems += [fault for fault in [mask_fault(table)] if fault is not None]
    crossing = crossing_groups(Example(row.path, None, row.split, row.group) for row in table.rows)
    problems += [f"group {group} crosses splits: {', '.join(splits)}" for group, splits in sorted(crossing.items())]
    if 0 < sum(row.label is None for row in table.rows) < len(table.rows):
        problems += [f"no label: {row.path}" for row in table.rows if row.label is None]
    counts = Counter((row.split or "", row.label or "") for row in table.rows)
    return Report(len(table.rows), dict(counts), tuple(problems))


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
    except OSError as error:
        reason = error.strerror or type(error).__name__
        unreadable.setdefault(file, f"{file}: cannot be read ({reason}): check the path and the file's mode")


def _copy(same: list[Row]) -> str:
    labels, splits = ({getattr(row, name) for row in same} for name in ("label", "split"))
    worse = [f"different {name}s" for name, values in (("label", labels), ("split", splits)) if len(values) > 1]
    return f"same content{', ' + ' and '.join(worse) if worse else ''}: {', '.join(row.path for row in same)}"
