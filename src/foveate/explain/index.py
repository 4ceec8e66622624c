"""The page over all images: what was said of each, and the way to its own page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from foveate.explain.page import template

__all__ = ["Entry", "write_index"]


@dataclass(frozen=True)
class Entry:
    """A line of the index.

    Attributes:
        folder: name of the image's folder.
        path: what the image is called.
        predicted: the answer.
        probability: of the answer; with several labels, of the most probable class.
        warnings: what is wrong with its attention map.
    """

    folder: str
    path: str
    predicted: str
    probability: float
    warnings: tuple[str, ...]


def write_index(path: Path, entries: Sequence[Entry], failures: Sequence[tuple[str, str]] = ()) -> None:
    """Write the page over all images, in the order they were given in; those that failed below the others.

    Arguments:
        path: file to write, beside the images' folders.
        entries: one per image.
        failures: what each of the others is called, and why it failed, in a line.
    """
    from foveate._version import __version__

    warned = sum(bool(entry.warnings) for entry in entries)
    told = f"{len(entries)} image{'s' * (len(entries) != 1)}"
    failed = f", {len(failures)} failed" if failures else ""
    fields = {
        "style": template("page.css"),
        "count": told + (f", {warned} to look twice at" if warned else "") + failed,
        "rows": "\n".join(map(_row, entries)),
        "failed": _failed(failures),
        "version": escape(__version__),
    }
    path.write_text(Template(template("index.html")).substitute(fields), encoding="utf-8", errors="replace")


def _row(entry: Entry) -> str:
    where = quote(entry.folder, errors="surrogateescape")
    short = "; ".join(warning.split(":")[0] for warning in entry.warnings)
    return (
        f'<tr><td class="picture"><img loading="lazy" alt="" src="{where}/thumbnail.jpg"></td>'
        f'<th scope="row"><a href="{where}/explanation.html">{escape(entry.path)}</a></th>'
        f"<td>{escape(entry.predicted)}</td><td>{entry.probability:.3f}</td><td class=warned>{escape(short)}</td></tr>"
    )


def _failed(failures: Sequence[tuple[str, str]]) -> str:
    """A table of the images that could not be explained; nothing if there is none."""
    if not failures:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(path)}</th><td class=warned>{escape(reason)}</td></tr>'
        for path, reason in failures
    )
    return (
        '<section aria-labelledby="failed-title"><h2 id="failed-title">Failed</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Images that failed"><table class="failed">\n'
        f'<thead><tr><th scope="col">image</th><th scope="col">why</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        "</table></div></section>"
    )
