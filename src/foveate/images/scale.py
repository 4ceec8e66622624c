"""Microns per pixel, as the many dialects of TIFF tell it."""

import html
import math
import re

from foveate.images.formats.tiff.directory import Directory

__all__ = ["microns_per_pixel"]

MICRONS = {
    "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6,
    "inch": 25400.0, "in": 25400.0, "å": 1e-4, "pm": 1e-6,
}  # fmt: skip
"""Of the units of length that images are measured in; U+00B5 and U+03BC are both written for micro."""

DOCUMENT_DPI = (72, 96, 100, 120, 144, 150, 180, 200, 240, 250, 300, 350, 360, 400, 500, 600, 720, 1000, 1200, 1440,
                2400, 4800)  # fmt: skip
"""Dots per inch of screens, printers and flatbed scanners, which say nothing of what is on the image."""

PLAUSIBLE = (0.01, 100.0)
"""Microns per pixel that a resolution tag is believed; a centimetre of 10 pixels is libvips' way to know nothing."""

MOST_OBLONG = 10.0
"""Sides of a pixel that differ by more are a mistake."""


def microns_per_pixel(page: Directory) -> float | None:
    """Microns per pixel that a page tells: Aperio's, OME's or ImageJ's description, or else the resolution tags.

    Resolution tags are believed if they are no usual resolution of screens, printers or scanners.

    Arguments:
        page: the page of the highest resolution.

    Returns:
        The geometric mean of a pixel's sides; None if nothing is known.
    """
    text = page.text(270)
    sides = _aperio(text) or _ome(text)
    if sides is None:
        sides = _imagej(text, page) if text.startswith("ImageJ=") else _resolution(page)
    if sides is None or not all(0 < side < math.inf for side in sides) or max(sides) > MOST_OBLONG * min(sides):
        return None
    # equal sides stay what they are: the root of a square may differ in the last digit
    return sides[0] if sides[0] == sides[1] else math.sqrt(sides[0] * sides[1])


def _aperio(text: str) -> tuple[float, float] | None:
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", text) if text.startswith("Aperio") else None
    return (_float(found[1]),) * 2 if found else None


def _ome(text: str) -> tuple[float, float] | None:
    found = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text) if "<OME" in text or ":OME" in text else None
    if found is None:
        return None
    said = {key: html.unescape(value) for key, _, value in re.findall(r"(\w+)\s*=\s*(['\"])(.*?)\2", found[0])}
    sides = [
        _float(said.get(f"PhysicalSize{axis}", ""))
        * MICRONS.get(said.get(f"PhysicalSize{axis}Unit", "µm").lower(), 0.0)
        for axis in "YX"
    ]
    return (sides[0], sides[1]) if all(sides) else None


def _imagej(text: str, page: Directory) -> tuple[float, float] | None:
    found = re.search(r"^unit=(.+)$", text, re.MULTILINE)
    unit = found[1].strip().lower().replace("\\u00b5", "µ") if found else ""
    across, down = (page.numbers(tag) for tag in (282, 283))
    if unit not in MICRONS or not (across and down and across[0] > 0 and down[0] > 0):
        return None
    return MICRONS[unit] / down[0], MICRONS[unit] / across[0]


def _resolution(page: Directory) -> tuple[float, float] | None:
    unit = {2: 25400.0, 3: 10000.0}.get(page.number(296, 2))
    across, down = (page.numbers(tag) for tag in (282, 283))
    if unit is None or 34735 in page.tags or not (across and down and across[0] > 0 and down[0] > 0):
        return None  # where there are geographical keys, they tell the scale
    sides = (unit / down[0], unit / across[0])
    for side in sides:
        dpi = 25400 / side
        if not PLAUSIBLE[0] <= side <= PLAUSIBLE[1] or any(abs(dpi / usual - 1) < 2e-3 for usual in DOCUMENT_DPI):
            return None
    return sides


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
