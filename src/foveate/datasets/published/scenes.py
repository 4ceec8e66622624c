"""Road scenes classified by the speed limit that a sign in them shows, and images made smaller by exact averages."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from foveate.datasets.types import Example, ImageDataset
from foveate.errors import DataError
from foveate.images import Source, open_image
from foveate.types import Box


@dataclass(frozen=True)
class SignScenes:
    """Road scenes, and the speed limits in them.

    Attributes:
        classes: names of the classes, the one without a limit first.
        examples: one per image, in the order of their names.
        files: where the images are.
        limits: for every image, the limit that each of its signs shows, in km/h, and the pixels it covers.
        left_out: number of images that the rule of the task leaves out.
        multi_label: False.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    files: tuple[str, ...]
    limits: tuple[tuple[tuple[str, Box], ...], ...]
    left_out: int = 0
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Source:
        """The image of example `index`; no pixel is read."""
        return open_image(self.files[index])

    def signs(self, index: int) -> tuple[tuple[str, Box], ...]:
        """Ground truth of example `index`, to judge attention maps by: the limit each sign shows, and where it is."""
        return self.limits[index]

    objects = signs
    """The name by which every data set is asked for what lies where (see `ImageDataset`)."""


def check_reducible(data: ImageDataset, factor: int) -> None:
    """Check, before anything is written, that every image can be made smaller; headers are read, pixels are not.

    Arguments:
        data: the images.
        factor: side of the squares of `reduced_png`, in pixels.

    Raises:
        DataError: if an image is smaller than one square, or not of 8 bits.
    """
    for index in range(len(data.examples)):
        _squares(data.open(index), factor)


def reduced_png(source: Source, factor: int) -> bytes:
    """PNG file of an image made smaller by a whole factor, every pixel the exact average of a square of pixels.

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
