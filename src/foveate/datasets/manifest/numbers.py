"""Numbers as labels of a manifest: read from its text, decimal commas included; faults of others, with their lines."""

import math
from collections.abc import Iterable, Sequence

from foveate.datasets.manifest.rows import ManifestRow

MANY = 10
"""Different numbers from which on they are hardly classes."""


def read_number(text: str) -> float | None:
    """The finite number that a text says, with a decimal point or a decimal comma; None if it says none.

    Example:
        >>> read_number("12,5"), read_number("1e-3"), read_number("inf"), read_number("1,000.5"), read_number("4_0")
        (12.5, 0.001, None, None, None)
    """
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def number_faults(rows: Iterable[ManifestRow]) -> list[str]:
    """Faults of labels that are no numbers, a line each; an empty one is the table's own fault."""
    return [
        f"line {row.line} ({row.path}): label {row.label!r} is no finite number, write one such as 12.5, remove the "
        "row, or set model.head.kind to classes"
        for row in rows
        if row.label is not None and read_number(row.label) is None
    ]


def number_notes(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    """Note of labels that are read as classes and look like measurements: many different numbers."""
    labels = {row.label for row in rows if row.label is not None}
    if len(labels) < MANY or any(read_number(label) is None for label in labels):
        return ()
    if 2 * len(labels) < len(rows) and all(label.isdecimal() for label in labels):
        return ()
    return (
        f"labels are {len(labels)} different numbers, each a class: to foretell the number, --model.head.kind number",
    )


def comma_notes(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    """Note of numbers with a comma, which may be meant to stand between thousands; none where there is no comma."""
    found = [row for row in rows if row.label is not None and "," in row.label and read_number(row.label) is not None]
    if not found:
        return ()
    first, count = found[0], len(found)
    number = f"{read_number(first.label or ''):.9g}"
    have = f"{count} label{'s have' if count > 1 else ' has'} one): write {number} if that is right"
    return (f"label {first.label!r} on line {first.line} is read as {number}, with a decimal comma ({have}",)
