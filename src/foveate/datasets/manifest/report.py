"""Report of a manifest check, as lines of text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from foveate.datasets.manifest.dataset import sorted_classes
from foveate.datasets.manifest.rows import counted
from foveate.types import Size

_COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Finding:
    """Finding: one thing that is wrong, or worth knowing.

    Attributes:
        kind: "row", "label", "missing", "unreadable", "empty", "copy", "mask", "group", "class", "split",
            "manifest", "pixels" or "unused".
        message: one line that says it.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Report:
    """Report of what a check found.

    Attributes:
        images: number of good rows.
        counts: (split or "", class or "") → images; with several labels an image counts for each of its classes.
        problems: what is wrong; empty if all is well.
        hints: what may be meant otherwise, and which setting to change then.
        sizes: (height, width) of every image that can be read, in pixels.
        kinds: (channels, type of a value) → images.
        multi_label: whether images may have several labels.
    """

    images: int
    counts: Mapping[tuple[str, str], int]
    problems: tuple[Finding, ...] = ()
    hints: tuple[Finding, ...] = ()
    sizes: tuple[Size, ...] = ()
    kinds: Mapping[tuple[int, str], int] | None = None
    multi_label: bool = False

    def table(self) -> str:
        """Counts of images per class and split, as lines of text.

        Example:
            >>> print(Report(3, {("train", "cat"): 2, ("test", "cat"): 1}).table())
            label  test  train
            cat       1      2
        """
        splits = sorted({split for split, _ in self.counts})
        labels = sorted_classes([label for _, label in self.counts])
        unnamed = "no class" if self.multi_label else "no label"
        rows = [["label", *(split or "no split" for split in splits)]]
        rows += [[label or unnamed, *(str(self.counts.get((s, label), 0)) for s in splits)] for label in labels]
        return _columns(rows)

    def text(self) -> str:
        """Report as lines of text: tables, then problems, hints, and how many.

        Example:
            >>> print(Report(1, {("", "cat"): 1}, sizes=((600, 800),), kinds={(3, "uint8"): 1}).text())
            label  no split
            cat           1
            <BLANKLINE>
            pixels  min  median  max
            height  600     600  600
            width   800     800  800
            <BLANKLINE>
            kind       images
            RGB uint8       1
            <BLANKLINE>
            1 image, no problems
        """
        parts = [self.table()]
        if self.sizes:
            rows = [[name, *map(str, _spread(self.sizes, axis))] for axis, name in enumerate(("height", "width"))]
            parts.append(_columns([["pixels", "min", "median", "max"], *rows]))
        if self.kinds:
            ordered = sorted(self.kinds.items(), key=lambda item: (-item[1], item[0]))
            parts.append(_columns([["kind", "images"], *([kind_name(*kind), str(n)] for kind, n in ordered)]))
        findings = [problem.message for problem in self.problems]
        findings += [f"hint: {hint.message}" for hint in self.hints]
        if findings:
            parts.append("\n".join(findings))
        counts = [counted(len(self.problems), "problem"), *([counted(len(self.hints), "hint")] if self.hints else [])]
        return "\n\n".join([*parts, ", ".join([counted(self.images, "image"), *counts])])

    def plain(self) -> dict[str, object]:
        """Report in words of JSON: numbers, text, lists and objects.

        Example:
            >>> Report(1, {("", "cat"): 1}).plain()["counts"]
            [{'split': None, 'label': 'cat', 'images': 1}]
        """
        return {
            "images": self.images,
            "counts": [
                {"split": split or None, "label": label or None, "images": count}
                for (split, label), count in sorted(self.counts.items())
            ],
            "sizes": {
                name: dict(zip(("min", "median", "max"), _spread(self.sizes, axis), strict=True))
                for axis, name in enumerate(("height", "width") if self.sizes else ())
            },
            "kinds": [
                {"channels": channels, "type": dtype, "images": count}
                for (channels, dtype), count in sorted((self.kinds or {}).items())
            ],
            "problems": [{"kind": problem.kind, "message": problem.message} for problem in self.problems],
            "hints": [{"kind": hint.kind, "message": hint.message} for hint in self.hints],
        }


def kind_name(channels: int, dtype: str) -> str:
    """Pixel kind in words, from the channels and the type of their values.

    Example:
        >>> kind_name(1, "uint16"), kind_name(12, "float32")
        ('grey uint16', '12 bands float32')
    """
    return f"{_COLOURS.get(channels, f'{channels} bands')} {dtype}"


def _spread(sizes: Sequence[Size], axis: int) -> tuple[int, int, int]:
    lengths = [size[axis] for size in sizes]
    return min(lengths), median_low(lengths), max(lengths)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Cells in line: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
