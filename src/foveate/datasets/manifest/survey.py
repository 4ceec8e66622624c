"""Survey of images and labels, by their headers and a few thumbnails: what a configuration for them is chosen by."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from foveate.datasets.manifest.check import look_at, reason_of
from foveate.datasets.manifest.dataset import (
    missing_files,
    read_manifest,
    read_table,
    several_labels_fault,
    sorted_classes,
)
from foveate.datasets.manifest.rows import PLAIN, Layout, ManifestTable, label_names
from foveate.errors import DataError
from foveate.images import Source
from foveate.images.describe import is_lazy
from foveate.images.view import shrunk_size
from foveate.images.wrappers.guide import find_tissue
from foveate.types import Size

Kind = Literal["pathology", "remote-sensing", "photographs"]
"""What images may be of; each a preset."""

HEADERS = 2000
"""Images whose headers are read, at the most, evenly spaced."""

THUMBNAILS = 12
"""Of these, images of which a thumbnail is made."""

SIDE = 256
"""Longest side of a thumbnail, in pixels."""

MICROSCOPE = 2.0
"""Microns per pixel below which an image without levels is one of a microscope, and not a scan of paper or film."""


@dataclass(frozen=True)
class Survey:
    """Survey of a manifest's images.

    Attributes:
        table: its rows.
        multi_label: whether an image has several labels, or none.
        labels: class → images.
        splits: split that is named, or "" → images.
        groups: number of groups; 0 where there are none.
        looked: images whose headers were read.
        sizes: (height, width) of each of them.
        kinds: (channels, type of a value) → images.
        mpps: microns per pixel of each; None where it is not known.
        slides: how many of them are slides or regions: of a scanner's format, with microns per pixel and levels, or
            as fine as only a microscope sees.
        placed: how many have a place on earth.
        missing: how many may have missing data.
        whole: how many can only be decoded whole, and are not small.
        tissue: share of tissue on each thumbnail where glass could be told from it.
        faults: what cannot be read, a line each, with the name of the file.
        bands: names of the bands as files give them, in their order; () of those without → images.
    """

    table: ManifestTable
    multi_label: bool
    labels: Counter[str]
    splits: Counter[str]
    groups: int
    looked: int
    sizes: tuple[Size, ...]
    kinds: Counter[tuple[int, str]]
    mpps: tuple[float | None, ...]
    slides: int
    placed: int
    missing: int
    whole: int
    tissue: tuple[float, ...]
    faults: tuple[str, ...]
    bands: Counter[tuple[str, ...]] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """Number of rows."""
        return len(self.table.rows)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted as the data set does."""
        return sorted_classes(list(self.labels))

    @property
    def typical(self) -> Size:
        """Median (height, width), by the longest side."""
        return sorted(self.sizes, key=lambda size: (max(size), size))[len(self.sizes) // 2]

    @property
    def kind(self) -> tuple[Kind, str]:
        """What images are of, by how they are stored, and by what that was told."""
        n, bands = self.looked, max(channels for channels, _ in self.kinds)
        if 2 * self.placed > n or bands > 4:
            placed = f"{self.placed} of {n} have a place on earth"
            return "remote-sensing", placed if self.placed else f"they have {bands} bands"
        if 2 * self.slides > n:
            return (
                "pathology",
                f"{self.slides} of {n} are slides, or regions of them: of a scanner, or with their scale",
            )
        return "photographs", "they have no place on earth, no further bands, and are no slides"

    @property
    def facts(self) -> tuple[str, ...]:
        """What was found, a line each."""
        height, width = self.typical
        sides = sorted(max(size) for size in self.sizes)
        kinds = ", ".join(f"{n:,} × {c} × {t}" for (c, t), n in sorted(self.kinds.items()))
        seen = "" if self.looked >= self.images else f" ({self.looked:,} looked at)"
        more = f", {len(self.labels) - 8} more" if len(self.labels) > 8 else ""
        splits = ", ".join(f"{name} {n:,}" for name, n in self.splits.items() if name)
        return (
            f"{self.images:,} images{seen}, median {height:,}×{width:,} (height × width), longest sides {sides[0]:,} "
            f"to {sides[-1]:,} pixels",
            f"pixels (images × bands × type): {kinds}",
            *(f"bands of {n:,}: {', '.join(names)}" for names, n in self.bands.most_common(4) if names),
            f"classes: {', '.join(f'{name} {n:,}' for name, n in self.labels.most_common(8))}{more}",
            *([f"splits: {splits}"] if splits else []),
            *([f"groups: {self.groups:,}"] if self.groups else []),
            *(f"note: {note}" for note in self.table.notes),
            *(f"cannot be read: {fault}" for fault in self.faults[:20]),
            *([f"cannot be read: {len(self.faults) - 20} more"] if len(self.faults) > 20 else []),
        )

    @property
    def shared_bands(self) -> tuple[str, ...]:
        """Names of the bands that all images have, where they have different ones, or in a different order."""
        first, *others = (names for names, _ in self.bands.most_common()) if self.bands else ((),)
        return tuple(name for name in first if all(name in names for names in others)) if others else ()

    @property
    def masks(self) -> int:
        """Number of images with a mask of the manifest's."""
        return sum(row.mask is not None for row in self.table.rows)


def survey(
    path: str | Path, layout: Layout = PLAIN, progress: Callable[[int, int], None] | None = None
) -> tuple[Survey, bool]:
    """Survey images and labels: no image is read whole that can be read in parts, and no fault of one ends it.

    Arguments:
        path: a manifest, a folder of class folders, or one of images without labels.
        layout: of a CSV file that has other columns, or images elsewhere.
        progress: called with the number of images looked at and their total.

    Returns:
        What was found, and whether the images have labels.

    Raises:
        DataError: the manifest cannot be read as one, a row is at fault, some images have a label and others none, or
            no image can be read.
    """
    table = read_table(path, require_labels=False, layout=layout)
    multi_label = several_labels_fault(table) is not None
    if multi_label:
        table = read_table(path, require_labels=False, multi_label=True, layout=layout)
    unlabelled = [row.path for row in table.rows if row.label is None]
    if 0 < len(unlabelled) < len(table.rows) and not multi_label:
        listed, in_folder = "label them, or take their rows out", "move each into the folder of its class, or elsewhere"
        raise DataError(
            f"{len(unlabelled)} of {len(table.rows)} images of {table.source} have no label, the first is "
            f"{unlabelled[0]}: {in_folder if table.source.is_dir() else listed}"
        )
    if table.problems:
        read_manifest(table, check_files=False, multi_label=multi_label, require_labels=False)  # says which
    absent = set(missing_files(table))
    faults = [f"{file}: there is no such file" for file in sorted(absent)]
    rows = [row for row in table.rows if table.file(row.path) not in absent]
    rows = [rows[i] for i in sorted({len(rows) * number // HEADERS for number in range(HEADERS)})] if rows else []
    sources: list[Source] = []
    for done, row in enumerate(rows, start=1):
        try:
            sources.append(look_at(table.file(row.path), row.mpp, pixels=False))
        except Exception as error:  # decoders stumble in ways of their own; here it is always the file's fault
            faults.append(reason_of(table.file(row.path), error))
        if progress is not None:
            progress(done, len(rows))
    tissue = _thumbnails(sources, faults)
    if not sources:
        raise DataError(f"none of the {len(table.rows)} images of {table.source} can be read; the first: {faults[0]}")
    names = [
        name for row in table.rows for name in (label_names(row.label or "") if multi_label else [row.label or ""])
    ]
    found = Survey(
        table=table,
        multi_label=multi_label,
        labels=Counter(name for name in names if name),
        splits=Counter(row.split or "" for row in table.rows),
        groups=len({row.group for row in table.rows} - {None}),
        looked=len(rows),
        sizes=tuple(source.size for source in sources),
        kinds=Counter((source.channels, str(source.dtype)) for source in sources),
        mpps=tuple(source.mpp for source in sources),
        slides=sum(_is_slide(source) for source in sources),
        placed=sum(source.header.georeference is not None for source in sources),
        missing=sum(source.header.nodata is not None or bool(source.header.masked) for source in sources),
        whole=sum(not is_lazy(source) and max(source.size) > 4 * SIDE for source in sources),
        tissue=tissue,
        faults=tuple(faults),
        bands=Counter(source.header.bands for source in sources),
    )
    return found, len(unlabelled) < len(table.rows)


def _is_slide(source: Source) -> bool:
    scanner = any(word in source.header.format for word in ("OpenSlide", "Aperio", "slide"))
    coarsest = 10 if len(source.levels) > 1 else MICROSCOPE
    return scanner or (source.mpp is not None and source.mpp < coarsest)


def _thumbnails(sources: list[Source], faults: list[str]) -> tuple[float, ...]:
    """Share of tissue on thumbnails of a few; those that cannot be read are taken out, and said to be at fault."""
    shares: list[float] = []
    places = sorted({len(sources) * number // THUMBNAILS for number in range(THUMBNAILS)}) if sources else []
    few: Sequence[Source] = [sources[place] for place in places]
    for source in few:
        try:
            size = shrunk_size(source.size, SIDE)
            view, valid = source.view(size), source.valid(size)
        except Exception as error:
            sources.remove(source)
            faults.append(reason_of(source.name, error))
            continue
        if source.channels == 3 and source.dtype == np.uint8:
            found = find_tissue(view, valid)
            shares += [] if found is None else [float(found.mean())]
    return tuple(shares)
