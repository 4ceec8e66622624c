"""TIFF pyramid layout: which pages of a file are its resolutions, and what it is altogether."""

from collections.abc import Sequence
from dataclasses import dataclass

from foveate.errors import ImageError
from foveate.images.formats.tiff.directory import MOST_PAGES, Directory
from foveate.types import Size

__all__ = ["Layout", "find_levels"]

REDUCED, MASK = 1, 4
"""Bits of NewSubfileType (254)."""

SLACK = 1.0
"""Pixels by which a side of a reduced page may differ from the exact one, however often it was halved and rounded."""


@dataclass(frozen=True)
class Layout:
    """Pyramid layout: the pages of a TIFF file that make up one image.

    Attributes:
        pages: of its levels, finest first.
        kind: what it is, e.g. "Aperio SVS".
        note: what else there is in it, or "".
    """

    pages: tuple[Directory, ...]
    kind: str
    note: str


def find_levels(pages: Sequence[Sequence[Directory]], name: str) -> Layout:
    """Pyramid levels: the image and its resolutions among the pages of a file.

    The image is the first page that is no reduced one; its resolutions are its sub-pages and the pages after it that
    are smaller and smaller, of its shape and of its kind. An Aperio slide has them tiled; its thumbnail, label and
    photograph of the glass are striped.

    Arguments:
        pages: every page and its sub-pages.
        name: of the file.

    Raises:
        ImageError: if it is a slide that only OpenSlide reads right.
    """
    _refuse_others(pages[0][0], name)
    main = [i for i, (page, *_) in enumerate(pages) if not page.number(254, 0) & (REDUCED | MASK) and size_of(page)[0]]
    base = main[0] if main else 0
    first, *subs = pages[base]
    slide = first.text(270).startswith("Aperio")
    after = [page for page, *_ in pages[base + 1 :] if not (slide and 322 not in page.tags)]
    chosen = [first]
    for page in (*subs, *after):
        if not page.number(254, 0) & MASK and _is_reduced(page, chosen[-1], first):
            chosen.append(page)
    others = [i for i in main if i != base and pages[i][0] not in chosen]
    note = ""
    if others and not slide:
        count = len(others) + 1
        note = f"page {1 + main.index(base) if main else 1} of {count if len(pages) < MOST_PAGES else f'over {count}'}"
    return Layout(tuple(chosen), _kind(first, slide), note)


def size_of(page: Directory) -> Size:
    """(height, width) of a page, in pixels."""
    return page.number(257, 0), page.number(256, 0)


def _is_reduced(page: Directory, last: Directory, first: Directory) -> bool:
    """Whether a page shows the whole image at a lower resolution than the last one that does."""
    (height, width), (above, wide), (rows, columns) = size_of(first), size_of(last), size_of(page)
    smaller = 0 < rows <= above and 0 < columns <= wide and (rows, columns) != (above, wide)
    alike = abs(rows * width - columns * height) <= SLACK * (height + width)
    same = all(page.number(tag, 1) == first.number(tag, 1) for tag in (258, 277, 339))
    return smaller and alike and same and _colour(page) == _colour(first)


def _colour(page: Directory) -> int:
    kind = page.number(262, 1)
    return 2 if kind == 6 else kind  # YCbCr is a way to store RGB


def _kind(page: Directory, slide: bool) -> str:
    if slide:
        return "Aperio SVS"
    return "OME-TIFF" if "<OME" in page.text(270) or ":OME" in page.text(270) else "TIFF"


def _refuse_others(page: Directory, name: str) -> None:
    """Slides of these makers are TIFF files, but their pages are not what they seem: tiles overlap or are padded."""
    text, software = page.text(270), page.text(305)
    found = [
        maker
        for maker, is_theirs in (
            ("Hamamatsu NDPI", 65420 in page.tags),
            ("Ventana", 700 in page.tags and ("Ventana" in software or software.startswith("ScanOutputManager"))),
            ("Leica SCN", "<scn" in text[:400]),
            ("Philips", software.startswith("Philips DP")),
            ("Trestle", software.startswith("MedScan")),
        )
        if is_theirs
    ]
    if found:
        raise ImageError(
            f"{name}: a slide of the kind {found[0]}, which OpenSlide reads: pip install 'foveate[openslide]'"
        )
