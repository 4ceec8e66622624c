"""Published data sets as a manifest, and image files where they need to be written."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.datasets.manifest.write import claim_folder, list_images, write_images
from foveate.datasets.types import ImageDataset
from foveate.errors import DataError
from foveate.images import Source
from foveate.types import Box

__all__ = ["check_reducible", "reduced_png", "write_image_files", "write_listing"]

_RECIPE = "published.json"


def write_image_files(
    data: ImageDataset,
    folder: Path,
    recipe: dict[str, object],
    names: Sequence[str],
    content: Callable[[int], bytes],
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    reduce: int = 1,
) -> Path:
    """Write every image of a data set as a file, each whole or not at all, and a manifest of them.

    Arguments:
        data: classes and examples; of one label each.
        folder: where to; made if need be. Gets images/<name>, published.json and, last, what `list_images` writes.
        recipe: what the files are made from, in words of JSON; a folder is resumed with the same one only.
        names: names of the files, folders in them allowed.
        content: gives the bytes of the file of an example.
        resume: whether to keep what a stopped call has written, rather than refuse a folder that is not empty.
        progress: called with the number of images written and their total.
        reduce: by what whole factor `content` makes images smaller.

    Returns:
        The manifest.

    Raises:
        RunError: if the folder is in the way or was made from another recipe.
    """
    claim_folder(folder, _RECIPE, recipe, resume)
    return write_images(data, folder, names, lambda index, file: file.write_bytes(content(index)), progress, reduce)


def write_listing(
    data: ImageDataset, folder: Path, recipe: dict[str, object], files: Sequence[str], resume: bool = False
) -> Path:
    """Write a manifest that leads to image files where they are.

    Arguments:
        data: classes and examples; of one label each.
        folder: where to; made if need be. Gets published.json and what `list_images` writes.
        recipe: what the files are, in words of JSON; a folder is resumed with the same one only.
        files: where the images are; the manifest has the paths relative to itself.
        resume: whether a folder that an earlier call made is no obstacle.

    Returns:
        The manifest.

    Raises:
        RunError: if the folder is in the way or was made from another recipe.
    """
    claim_folder(folder, _RECIPE, recipe, resume)
    there = folder.resolve()
    return list_images(data, folder, [Path(os.path.relpath(Path(file).resolve(), there)).as_posix() for file in files])


def check_reducible(data: ImageDataset, factor: int) -> None:
    """Say before anything is written that an image cannot be made smaller; headers are read, pixels are not.

    Arguments:
        data: the images.
        factor: side of the squares of `reduced_png`, in pixels.

    Raises:
        DataError: if an image is smaller than one square, or not of 8 bits.
    """
    for index in range(len(data.examples)):
        _squares(data.open(index), factor)


def reduced_png(source: Source, factor: int) -> bytes:
    """Make an image smaller by a whole factor, every pixel the exact average of a square of pixels, as a PNG file.

    Arguments:
        source: an image of 8 bits a value.
        factor: side of the squares, in pixels; rows and columns that do not fill one are left out.

    Returns:
        The file's bytes; halves are rounded up.

    Raises:
        DataError: if the image is smaller than one square, or not of 8 bits.

    Example:
        >>> from foveate.images import open_image
        >>> png = reduced_png(open_image(np.array([[0, 1, 9], [2, 4, 9]], dtype=np.uint8)), 2)
        >>> np.asarray(Image.open(io.BytesIO(png)))
        array([[2]], dtype=uint8)
    """
    rows, columns = _squares(source, factor)
    pixels = source.read(Box(0, 0, rows * factor, columns * factor)).reshape(rows, factor, columns, factor, -1)
    means = (pixels.sum(axis=(1, 3), dtype=np.uint64) * 2 + factor**2) // (2 * factor**2)
    small = means.astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(small[:, :, 0] if small.shape[2] == 1 else small).save(file, format="PNG")
    return file.getvalue()


def _squares(source: Source, factor: int) -> tuple[int, int]:
    """How many squares there are in a column and in a row."""
    rows, columns = source.size[0] // factor, source.size[1] // factor
    if rows == 0 or columns == 0 or source.dtype != np.uint8:
        height, width = source.size
        raise DataError(
            f"{source.name}: {height}×{width} pixels of {source.dtype} cannot be averaged over squares of "
            f"{factor}×{factor}: use --reduce 1"
        )
    return rows, columns
