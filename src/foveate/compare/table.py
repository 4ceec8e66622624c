"""The table of a comparison, for a terminal and for a document."""

from collections.abc import Sequence

from foveate.compare.results import MethodResult

__all__ = ["COLUMNS", "markdown_table", "table_rows"]

COLUMNS = (
    "method",
    "test error (95 %)",
    "train ms/image",
    "predict ms/image",
    "activations MB/image",
    "pixels read",
    "training s",
)
"""Headings of the table, in order."""


def table_rows(results: Sequence[MethodResult]) -> list[tuple[str, ...]]:
    """The cells of the table as text, a tuple per method in the order of `COLUMNS`."""
    return [
        (
            result.name,
            f"{result.error:.3f} ({result.interval[0]:.3f}–{result.interval[1]:.3f})",
            f"{result.train_ms_per_image:.1f}",
            f"{result.predict_ms_per_image:.1f}",
            f"{result.activation_mb_per_image:.2f}",
            f"{100 * result.pixels_read_share:.1f} %",
            f"{result.train_seconds:.0f}",
        )
        for result in results
    ]


def markdown_table(results: Sequence[MethodResult]) -> str:
    """The table as Markdown, numbers aligned right."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(results)]
    return "\n".join(lines) + "\n"
