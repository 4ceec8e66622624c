"""Ground truth: what lies where in images, to judge models by, never to train on; objects.csv beside a manifest."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from foveate.atomic import whole_file
from foveate.datasets.types import ImageDataset
from foveate.errors import DataError
from foveate.types import Box

OBJECTS = "objects.csv"
"""Name of the file."""

COLUMNS = ("path", "class", "top", "left", "height", "width")

Objects = Sequence[tuple[str, Box]]
"""Class and place of everything that is known to be in an image, in level-0 pixels of its file."""


def known_objects_of(dataset: ImageDataset) -> Callable[[int], Objects] | None:
    """Ground truth of a data set: its method that says what lies where in an image; None if it knows nothing."""
    known: Callable[[int], Objects] | None = getattr(dataset, "objects", None)
    return known


def read_objects(folder: Path) -> dict[str, Objects] | None:
    """Ground truth of a manifest's images, read from objects.csv.

    Arguments:
        folder: of the manifest.

    Returns:
        Path of an image, as the manifest writes it → its objects; images without any are left out. None if the folder
        has no objects.csv.

    Raises:
        DataError: the file has not the columns, or a row is no box.
    """
    source = folder / OBJECTS
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(
                    f"{source} has no column {lacking[0]!r}: its first line must be {','.join(COLUMNS)}, to say what "
                    "lies where; correct it, or rename the file"
                )
            found: dict[str, list[tuple[str, Box]]] = {}
            for row in reader:
                found.setdefault(row["path"] or "", []).append((row["class"] or "", _box(row, source, reader.line_num)))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} cannot be read as CSV ({error}): correct it, or remove it") from error
    return {path: tuple(objects) for path, objects in found.items()}


def write_objects(folder: Path, objects: Iterable[tuple[str, Objects]]) -> Path:
    """Ground truth written to objects.csv beside a manifest, in place of the one there.

    Arguments:
        folder: of the manifest.
        objects: path of each image, as the manifest writes it, and what is in it.

    Returns:
        The file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> print(write_objects(folder, [("a.png", (("cat", Box(3, 5, 20, 30)),)), ("b.png", ())]).read_text(), end="")
        path,class,top,left,height,width
        a.png,cat,3,5,20,30
        >>> read_objects(folder)
        {'a.png': (('cat', Box(top=3, left=5, height=20, width=30)),)}
    """
    source = folder / OBJECTS
    with whole_file(source) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for path, some in objects:
            writer.writerows((path, name, box.top, box.left, box.height, box.width) for name, box in some)
    return source


def reduced(objects: Objects, factor: int) -> Objects:
    """Object boxes of an image made smaller by a whole factor: the least that hold all of each.

    Example:
        >>> reduced((("cat", Box(3, 4, 4, 5)),), 2)
        (('cat', Box(top=1, left=2, height=3, width=3)),)
    """
    return tuple((name, _smaller(box, factor)) for name, box in objects)


def _smaller(box: Box, factor: int) -> Box:
    top, left = box.top // factor, box.left // factor
    return Box(top, left, math.ceil(box.bottom / factor) - top, math.ceil(box.right / factor) - left)


def _box(row: Mapping[str, str | None], source: Path, line: int) -> Box:
    cells: Sequence[str] = [row[name] or "" for name in COLUMNS[2:]]
    try:
        top, left, height, width = (int(cell) for cell in cells)
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise DataError(
            f"{source}, line {line}: top, left, height and width must be whole pixels, the last two at least 1, got "
            f"{', '.join(map(repr, cells))}: correct or remove the line"
        )
    return Box(top, left, height, width)
