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


def write_index(path: Path, entries: Sequence[Entry]) -> None:
    """Write the page over all images, in the order they were given in.

    Arguments:
        path: file to write, beside the images' folders.
        entries: one per image.
    """
    from foveate import __version__

    warned = sum(bool(entry.warnings) for entry in entries)
    told = f"{len(entries)} image{'s' * (len(entries) != 1)}"
    fields = {
        "style": template("page.css"),
        "count": told + (f", {warned} to look twice at" if warned else ""),
        "rows": "\n".join(map(_row, entries)),
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
