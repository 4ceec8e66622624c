"""Microns per pixel: every dialect in which a file tells its scale, and which of them are believed."""

import html
import math
import re
from collections.abc import Mapping, Sequence

from foveate.images.formats.tiff.directory import Directory
from foveate.images.header import Sides
from foveate.types import Affine

MICRONS = {
    "pm": 1e-6, "å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3,
    "cm": 1e4, "m": 1e6, "in": 25400.0, "inch": 25400.0,
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "decimeter": 1e5,
    "meter": 1e6, "foot": 304800.0,
}  # fmt: skip
"""Of the units of length that images are measured in; U+00B5 and U+03BC are both written for micro."""

DOCUMENT_DPI = (72, 96, 100, 120, 144, 150, 180, 200, 240, 250, 300, 350, 360, 400, 500, 600, 720, 1000, 1200, 1440,
                2400, 4800)  # fmt: skip
"""Dots per inch of screens, printers and flatbed scanners, which say nothing of what is on the image."""

DPI_TOLERANCE = 2e-3
"""Share by which a resolution may differ from a usual one and still be it: files round it to whole dots per metre."""

PLAUSIBLE = (0.01, 100.0)
"""Microns per pixel that a resolution tag is believed; a centimetre of 10 pixels is libvips' way to know nothing."""

MOST_OBLONG = 10.0
"""Sides of a pixel that differ by more are a mistake, in TIFF files and slides: nobody scans so."""


def tiff_mpp(page: Directory) -> Sides | None:
    """Microns per pixel that a TIFF page tells: Aperio's, OME's or ImageJ's description, or else the resolution tags.

    Resolution tags are believed if they are no usual resolution of screens, printers or scanners.

    Arguments:
        page: the page of the highest resolution.

    Returns:
        Height and width of a pixel; None if nothing is known.
    """
    text = page.text(270)
    sides = described_mpp(text)
    if sides is None and text.startswith("ImageJ="):
        return _likely(_imagej(text, page))
    return sides or _tiff_resolution(page)


def described_mpp(text: str) -> Sides | None:
    """Microns per pixel, height and width, that the description of a TIFF page tells: Aperio's or OME's.

    Example:
        >>> described_mpp("Aperio Image Library|AppMag = 20|MPP = 0,5000")
        (0.5, 0.5)
    """
    sides = _aperio(text) or _ome_xml(text)
    return _likely(sides)


def mean_side(sides: Sides | None) -> float | None:
    """Geometric mean of a pixel's sides, the microns per pixel where one number must do; None of None."""
    if sides is None:
        return None
    # equal sides stay what they are: the root of a square may differ in the last digit
    return sides[0] if sides[0] == sides[1] else math.sqrt(sides[0] * sides[1])


def openslide_mpp(properties: Mapping[str, str]) -> Sides | None:
    """Microns per pixel among the properties of a slide; of a plain TIFF they are no more than its resolution tags.

    Example:
        >>> openslide_mpp({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"})
        (0.5, 0.25)
    """
    plain = properties.get("aperio.MPP", "")  # what OpenSlide makes nothing of, such as a decimal comma
    sides = tuple(_float(properties.get(f"openslide.mpp-{axis}", plain)) for axis in "yx")
    if properties.get("openslide.vendor") == "generic-tiff":
        return resolution_mpp(sides[0], sides[1])
    return _likely((sides[0], sides[1]))


def resolution_mpp(down: float, along: float) -> Sides | None:
    """Microns per pixel of resolution tags, which may be those of a screen, a printer or a scanner: then None.

    Arguments:
        down: height of a pixel in microns.
        along: its width.

    Example:
        >>> resolution_mpp(0.25, 0.25), resolution_mpp(25400 / 300, 25400 / 300)
        ((0.25, 0.25), None)
    """
    for side in (down, along):
        if not PLAUSIBLE[0] <= side <= PLAUSIBLE[1]:
            return None
        if any(abs(25400 / side / usual - 1) < DPI_TOLERANCE for usual in DOCUMENT_DPI):
            return None
    return _likely((down, along))


def projected_mpp(transform: Affine, metres: float) -> Sides | None:
    """Microns per pixel on the ground, of a raster in a projected coordinate system.

    Arguments:
        transform: (a, b, c, d, e, f) of `foveate.images.header.Georeference`.
        metres: length of the unit of the coordinate system.
    """
    a, b, _, d, e, _ = transform
    return _likely((math.hypot(b, e) * metres * 1e6, math.hypot(a, d) * metres * 1e6), math.inf)


def ome_zarr_mpp(scale: Sequence[float], units: Sequence[str | None]) -> Sides | None:
    """Microns per pixel of an OME-Zarr image.

    Arguments:
        scale: height and width of a pixel.
        units: in which they are told.

    Example:
        >>> ome_zarr_mpp((0.5, 0.5), ("micrometer", "micrometer")), ome_zarr_mpp((0.5, 0.5), ("micrometer", None))
        ((0.5, 0.5), None)
    """
    down, along = (side * MICRONS.get(str(unit).lower(), 0.0) for side, unit in zip(scale, units, strict=True))
    return _likely((down, along), math.inf)


def _likely(sides: Sides | None, most_oblong: float = MOST_OBLONG) -> Sides | None:
    """The sides of a pixel; None if they cannot be right."""
    if sides is None or not all(0 < side < math.inf for side in sides) or max(sides) > most_oblong * min(sides):
        return None
    return sides


def _aperio(text: str) -> Sides | None:
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.,]+)", text) if text.startswith("Aperio") else None
    return (_float(found[1]),) * 2 if found else None


def _ome_xml(text: str) -> Sides | None:
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


def _imagej(text: str, page: Directory) -> Sides | None:
    found = re.search(r"^unit=(.+)$", text, re.MULTILINE)
    unit = found[1].strip().lower().replace("\\u00b5", "µ") if found else ""
    return _sides(page, MICRONS.get(unit))


def _tiff_resolution(page: Directory) -> Sides | None:
    unit = {2: 25400.0, 3: 10000.0}.get(page.number(296, 2))
    # where there are geographical keys, they tell the scale
    sides = None if 34735 in page.tags else _sides(page, unit)
    return resolution_mpp(*sides) if sides else None


def _sides(page: Directory, unit: float | None) -> Sides | None:
    """A pixel's sides by XResolution and YResolution: pixels per so many microns."""
    across, down = (page.numbers(tag) for tag in (282, 283))
    if unit is None or not (across and down and across[0] > 0 and down[0] > 0):
        return None
    return unit / down[0], unit / across[0]


def _float(text: str) -> float:
    """A number, with a decimal point or comma; 0 if it is none."""
    try:
        return float(text.replace(",", "."))  # ImageScope writes as its Windows does
    except ValueError:
        return 0.0
