"""Manifest check: bad rows, missing, broken and doubled files, crossing groups, and hints, before a run of hours."""

import hashlib
import os
import stat
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from foveate.datasets.manifest.dataset import Folders, missing_files, read_table, several_labels_fault
from foveate.datasets.manifest.report import Finding, Report, kind_name
from foveate.datasets.manifest.rows import PLAIN, SPLIT_NAMES, Layout, ManifestRow, ManifestTable, counted, label_names
from foveate.datasets.splits import crossing_groups
from foveate.datasets.types import Example
from foveate.errors import FoveateError, ImageError
from foveate.images import Masked, Source, open_image
from foveate.images.header import not_finite
from foveate.types import Box, Size

FEW_IMAGES = 5
"""A class or a split of fewer images deserves a word."""

_NO_LABEL = "no image has a label: to train, write classes in a column label, or sort images into one folder per class"

_FEW_IN = {
    "train": "too few to learn from",
    "validation": "what is chosen by so few is chosen by chance",
    "test": "an error measured on so few says little",
}

MASK_LOOK = (64, 64)
"""Cells in which an image and its mask are looked through for something to look at."""

BLOCK_BYTES = 2**26
"""Bytes of an image that are read at a time where all of it is."""


def check_manifest(
    path: str | Path,
    pixels: bool = True,
    progress: Callable[[int, int], None] | None = None,
    multi_label: bool = False,
    deep: bool = False,
    layout: Layout = PLAIN,
) -> Report:
    """Manifest check: bad rows, missing and unreadable files, images there twice, and groups that cross splits.

    Arguments:
        path: a manifest, or a folder of class folders; labels may be missing.
        pixels: whether to read the last pixel of every image, which finds files that were cut short, and every file
            of a size that occurs twice, which finds copies; else headers only.
        progress: called with the number of images looked at and their total.
        multi_label: whether a label is the names of any number of classes, with | between.
        deep: whether to read every pixel of every level, which finds broken tiles anywhere.
        layout: of a CSV file that has other columns, or images elsewhere.

    Returns:
        The counts, the problems, and hints about what may be meant otherwise.

    Raises:
        DataError: if the manifest cannot be read as one at all.
    """
    table = read_table(path, require_labels=False, multi_label=multi_label, layout=layout)
    missing, folders = missing_files(table), Folders()
    absent, unreadable = set(missing), dict[str, str]()
    rows = [row for row in table.rows if table.file(row.path) not in absent]
    sizes: list[Size] = []
    kinds: Counter[tuple[int, str]] = Counter()
    masks: list[Finding] = []
    unused: list[str] = []
    by_length: dict[int, list[ManifestRow]] = defaultdict(list)
    for done, row in enumerate(rows):
        if progress is not None:
            progress(done + 1, len(rows))
        file = table.file(row.path)
        try:
            source = look_at(file, row.mpp, pixels or deep)
            if deep:
                _read_all(source)
            if pixels and Path(file).is_file():
                by_length[Path(file).stat().st_size].append(row)
        except Exception as error:  # decoders stumble in ways of their own; here it is always the file's fault
            unreadable[file] = reason_of(file, error)
        else:
            sizes.append(source.size)
            unused += [f"{row.path}: {', '.join(source.header.unused)}"] if source.header.unused else []
            kinds[source.channels, str(source.dtype)] += 1
            mask = None if row.mask is None else table.mask_file(row.mask)
            if pixels and mask not in absent:
                masks += _empty_findings(source, mask)
    copies = _copies(table, by_length.values(), unreadable)
    counts = Counter((row.split or "", label) for row in table.rows for label in _labels(row, multi_label))
    about_counts = list(count_findings(counts, Counter(row.split or "" for row in table.rows)))
    return Report(
        images=len(table.rows),
        counts=counts,
        problems=(
            *(Finding("row", fault) for fault in table.problems),
            *(Finding("missing", f"missing: {file}{_dangling(file) or folders.instead(file)}") for file in missing),
            *(Finding("unreadable", f"unreadable: {reason}") for reason in unreadable.values()),
            *masks,
            *(Finding("copy", copy) for copy in copies),
            *_row_problems(table, multi_label),
            *(finding for is_problem, finding in about_counts if is_problem),
        ),
        hints=(
            *(Finding("manifest", note) for note in table.notes),
            *(finding for is_problem, finding in about_counts if not is_problem),
            *pixel_hints(kinds),
            *(
                Finding("unused", f"not all is used of what {len(unused)} of the files say, e.g. {first}")
                for first in unused[:1]
            ),
        ),
        sizes=tuple(sizes),
        kinds=kinds,
        multi_label=multi_label,
    )


def _labels(row: ManifestRow, multi_label: bool) -> list[str]:
    """The classes a row counts for; "" for a row without any, nothing for several where one is wanted."""
    if not multi_label:
        return [] if "|" in (row.label or "") else [row.label or ""]
    return label_names(row.label or "") or [""]


def _row_problems(table: ManifestTable, multi_label: bool) -> Iterator[Finding]:
    """What is wrong with the rows among themselves; no file is looked at."""
    fault = None if multi_label else several_labels_fault(table)
    if fault is not None:
        yield Finding("label", fault)
    crossing = crossing_groups(Example(row.path, None, row.split, row.group) for row in table.rows)
    for group, splits in sorted(crossing.items()):
        yield Finding("group", f"group {group} crosses splits: {', '.join(splits)}")
    if 0 < sum(row.label is None for row in table.rows) < len(table.rows):
        yield from (Finding("label", f"no label: {row.path}") for row in table.rows if row.label is None)


def look_at(file: str, mpp: float | None, pixels: bool) -> Source:
    """Image, its header read, and its last pixel if wanted; pipes and devices might never end and are refused."""
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


def _read_all(source: Source) -> None:
    """Read every tile of every level, in blocks that end where tiles do.

    Raises:
        ImageError: one of them cannot be read.
    """
    rows, columns = source.header.tile or (1, source.size[1])
    each = source.channels * source.dtype.itemsize
    for number, level in enumerate(source.levels):
        height, width = level.size
        wide = min(width, max(1, BLOCK_BYTES // (rows * columns * each)) * columns)
        tall = min(height, max(1, BLOCK_BYTES // (rows * wide * each)) * rows)
        for top, left in product(range(0, height, tall), range(0, width, wide)):
            box = Box(top, left, min(tall, height - top), min(wide, width - left))
            pixels, _ = source.read_known([box], number)[0]
            if source.dtype.kind == "f" and not np.isfinite(pixels).all():
                raise not_finite(source.name, f"level {number}, rows {box.top} … {box.bottom - 1}")


def _empty_findings(source: Source, mask: str | None) -> list[Finding]:
    """An image of which nothing means anything, or whose mask leaves nothing of it, or that is not finite."""
    try:
        valid = source.valid(MASK_LOOK)
        if valid is not None and not valid.any():
            return [Finding("empty", f"nothing to look at: all of {source.name} is no data")]
        if source.dtype.kind == "f" and not np.isfinite(source.view(MASK_LOOK)).all():
            return [Finding("unreadable", f"unreadable: {not_finite(source.name, 'its view')}")]
        if mask is None:
            return []
        share = Masked(source, mask).valid(MASK_LOOK)
    except Exception as error:  # as with images
        kind = "unreadable" if mask is None else "mask"
        return [Finding(kind, f"{kind}: {reason_of(mask or source.name, error)}")]
    return [] if share.any() else [Finding("mask", f"mask: {mask} leaves nothing of {source.name} to look at")]


def reason_of(file: str, error: Exception) -> str:
    """Reason why a file cannot be read, in a line."""
    if isinstance(error, FoveateError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{file}: cannot be read ({error.strerror}): check the path and the file's mode"
    what = " ".join(str(error).split()) or type(error).__name__
    return f"{file}: cannot be read ({what}): replace the file or remove its row"


def _dangling(file: str) -> str:
    return " (a link that leads nowhere)" if os.path.islink(file) else ""  # noqa: PTH114  no error, whatever the name


def _copies(table: ManifestTable, of_a_length: Iterable[list[ManifestRow]], unreadable: dict[str, str]) -> list[str]:
    """Rows whose files, of the same length, have the same content; those that cannot be read become `unreadable`."""
    by_content: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in (row for some in of_a_length if len(some) > 1 for row in some):
        file = table.file(row.path)
        try:
            with Path(file).open("rb") as content:
                by_content[hashlib.file_digest(content, "sha256").hexdigest()].append(row)
        except OSError as error:
            unreadable[file] = reason_of(file, error)
    return [_copy(same) for same in by_content.values() if len(same) > 1]


def _copy(same: list[ManifestRow]) -> str:
    labels = {tuple(sorted(label_names(row.label or ""))) for row in same}
    splits = {row.split for row in same}
    worse = [f"different {name}" for name, values in (("labels", labels), ("splits", splits)) if len(values) > 1]
    return f"same content{', ' + ' and '.join(worse) if worse else ''}: {', '.join(row.path for row in same)}"


def count_findings(counts: Mapping[tuple[str, str], int], images: Mapping[str, int]) -> Iterator[tuple[bool, Finding]]:
    """Classes and splits that have too few images, or labels that are missing altogether.

    Arguments:
        counts: (split or "", class or "") → images.
        images: split or "" → images.

    Yields:
        Whether it is a problem (else a hint), and what it is.

    Example:
        >>> [finding.message for _, finding in count_findings({("train", "a"): 70, ("test", "b"): 30}, {})]
        ["class 'b' has no image to train on, write some into the split train"]
    """
    if counts and not any(label for _, label in counts):
        yield False, Finding("label", _NO_LABEL)
    trains = any(split in ("", "train") for split, _ in counts)
    few = dict[str, int]()
    for label in dict.fromkeys(label for _, label in counts if label):
        if trains and not counts.get(("", label), 0) + counts.get(("train", label), 0):
            message = f"class {label!r} has no image to train on, write some into the split train"
            yield True, Finding("class", message)
        else:
            few[label] = sum(count for (_, name), count in counts.items() if name == label)
    few = {label: count for label, count in few.items() if count < FEW_IMAGES}
    if trains and few:
        named = ", ".join([f"{label} {count}" for label, count in few.items()][:8]) + (", …" if len(few) > 8 else "")
        message = f"classes with fewer than {FEW_IMAGES} images are hard to learn and to test ({named}): add images"
        yield False, Finding("class", message)
    for split in dict.fromkeys(SPLIT_NAMES.values()):
        if 0 < images.get(split, 0) < FEW_IMAGES:
            yield False, Finding("split", f"split {split} has {counted(images[split], 'image')}: {_FEW_IN[split]}")


def pixel_hints(kinds: Mapping[tuple[int, str], int]) -> Iterator[Finding]:
    """Hints on mixed and unusual pixels: what is made of them, and which setting changes it.

    Arguments:
        kinds: (channels, type of a value) → images.

    Yields:
        The hints.

    Example:
        >>> [hint.message for hint in pixel_hints({(3, "uint8"): 9})]
        []
    """
    hint = partial(Finding, "pixels")
    channels = {channels for channels, _ in kinds}
    types = {dtype for _, dtype in kinds}
    named = ", ".join(f"{kind_name(*kind)}: {count}" for kind, count in sorted(kinds.items()))
    if channels == {1, 3}:
        yield hint(
            f"grey and RGB images are mixed ({named}), and grey ones are taken as RGB: set model.input.colour grey to "
            "take all as grey",
        )
    elif len(channels) > 1 and channels <= {1, 3, 4}:
        yield hint(
            f"images with and without an alpha channel are mixed ({named}): set model.input.colour rgb to take all as "
            "RGB",
        )
    elif len(channels) > 1:
        bands = " ".join(str(band) for band in range(min(*channels, 3)))
        yield hint(
            f"images of {_list(channels)} bands are mixed ({named}): set model.input.bands to those all have, e.g. "
            f"{bands}",
        )
    if types - {"bool", "uint8"}:
        yield hint(
            f"pixels are not all of 8 bits ({named}): each band is normalised by its mean and deviation over the "
            "training images; set model.input.normalise none where values lie between 0 and 1, or fill 16 bits",
        )
    elif max(channels, default=0) > 4:
        yield hint(
            f"bands may differ in range ({named}): each is normalised by its mean and deviation over the training "
            "images; set model.input.normalise none if they do not",
        )


def _list(numbers: set[int]) -> str:
    *others, last = sorted(numbers)
    return f"{', '.join(map(str, others))} and {last}"
