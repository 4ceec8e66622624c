"""German Traffic Sign Detection Benchmark (GTSDB): is there a speed limit, and which."""

import re
from collections import defaultdict
from pathlib import Path

from foveate.datasets.published.scenes import SignScenes
from foveate.datasets.types import Example
from foveate.errors import DataError
from foveate.types import Box

LIMITS = {0: "20", 1: "30", 2: "50", 3: "60", 4: "70", 5: "80", 7: "100", 8: "120"}
"""Number of a sign → the limit it sets, km/h. Number 6 ends one (80), which is no limit."""

CLASSES = {
    "none": (),
    "20-30": ("20", "30"),
    "50": ("50",),
    "60-80": ("60", "70", "80"),
    "100-120": ("100", "120"),
}
"""Class → the limits it stands for; apart, some would have too few images."""

_SIGNS = 43
_FORMATS = (".ppm", ".png", ".jpg", ".jpeg")


def german_speed_limits(folder: str | Path) -> SignScenes:
    """German road scenes (GTSDB), read as published: is there a sign that sets a speed limit, and which one?

    An image shows a limit if gt.txt marks a sign of it there, at whatever size, and "none" if it marks none, or no
    sign at all. Images that show several different limits have no one answer and are left out.

    Houben et al., "Detection of Traffic Signs in Real-World Images: The German Traffic Sign Detection Benchmark",
    IJCNN 2013, https://benchmark.ini.rub.de/gtsdb_news.html.

    Arguments:
        folder: gt.txt with lines `00001.ppm;left;top;right;bottom;number`, and the images beside it or in images/, as
            .ppm, .png or .jpg, whatever gt.txt says.

    Returns:
        The images in the order of their names, ids such as "00001", without split; five classes: none, 20-30, 50,
        60-80 and 100-120.

    Raises:
        DataError: if gt.txt is missing or not as published, or images it names are missing.
    """
    folder = Path(folder).expanduser()
    listing = folder / "gt.txt"
    if not listing.is_file():
        raise DataError(f"{folder} has no gt.txt: give the folder of the German scenes, with gt.txt and images/ in it")
    files = _images(folder / "images" if (folder / "images").is_dir() else folder)
    signs = _read_signs(listing)
    missing = sorted(set(signs) - set(files))
    if missing:
        raise DataError(
            f"{listing} names {len(missing)} image{'s' * (len(missing) > 1)} that {folder} does not hold, the first "
            f"is {missing[0]}: put the images in {folder / 'images'}"
        )
    number = {limit: i for i, limits in enumerate(CLASSES.values()) for limit in limits}
    shown = {name: {limit for limit, _ in signs[name]} for name in sorted(files)}
    kept = [name for name, limits in shown.items() if len(limits) <= 1]
    return SignScenes(
        classes=tuple(CLASSES),
        examples=tuple(Example(name, number[min(shown[name])] if shown[name] else 0) for name in kept),
        files=tuple(str(files[name]) for name in kept),
        limits=tuple(tuple(signs[name]) for name in kept),
        left_out=len(shown) - len(kept),
    )


def _images(folder: Path) -> dict[str, Path]:
    """Name without its end → image file."""
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _FORMATS and not file.name.startswith("."):
            if file.stem in files:
                raise DataError(f"{folder} holds {files[file.stem].name} and {file.name}: keep one of the two")
            files[file.stem] = file
    if not files:
        raise DataError(f"{folder} holds no image ({', '.join(_FORMATS)}): put the published images there")
    return files


def _read_signs(listing: Path) -> defaultdict[str, list[tuple[str, Box]]]:
    """Image without the end of its name → limits and their boxes; none for an image with other signs only."""
    signs: defaultdict[str, list[tuple[str, Box]]] = defaultdict(list)
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{listing} is not text: get it again") from error
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        fields = re.fullmatch(r"\s*([^;/\\]+)\.\w+((?:\s*;\s*-?[0-9]+){5})\s*", text)
        left, top, right, bottom, number = map(int, fields[2].split(";")[1:]) if fields else (0, 0, -1, -1, -1)
        if fields is None or right < left or bottom < top or not 0 <= number < _SIGNS:
            raise DataError(
                f"{listing}, line {line}: not image;left;top;right;bottom;number with a number below {_SIGNS}, but "
                f"{text.strip()[:80]!r}: get the file again as published"
            )
        found = signs[fields[1]]  # an image with a line is one that must be there
        if number in LIMITS:  # both corners belong to the sign
            found.append((LIMITS[number], Box(top, left, bottom - top + 1, right - left + 1)))
    return signs
