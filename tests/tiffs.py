"""TIFF files for tests: of one level and of several."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from pyramid_files import sliced

from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box

SIZE = (45, 77)
"""Of small images: odd, not square, and no multiple of any tile."""


def noise(height: int, width: int, channels: int = 3, dtype: str = "uint8", seed: int = 3) -> np.ndarray:
    """(height, width, channels) random pixels, smooth enough for JPEG."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((height // 8 + 2, width // 8 + 2, channels))
    fine = coarse.repeat(8, 0).repeat(8, 1)[3 : 3 + height, 5 : 5 + width]
    values = 0.8 * fine + 0.2 * generator.random((height, width, channels))
    scale = {"bool": 2, "uint8": 256, "uint16": 65536}.get(dtype)
    return values.astype(dtype) if scale is None else np.floor(values * scale).astype(dtype)


def write_tiff(path: Path, array: np.ndarray, **options: Any) -> TiffSource:
    """Write an array (height, width, channels) by tifffile, with its options, and open it."""
    planar = options.get("planarconfig") == "separate"
    big, order = options.pop("bigtiff", False), options.pop("byteorder", "<")
    data = np.moveaxis(array, 2, 0) if planar and array.shape[2] > 1 else array
    if array.shape[2] == 1:
        data = array[:, :, 0]
        options.pop("planarconfig", None)
    options.setdefault("planarconfig", "contig" if data.ndim == 3 else None)
    kind = {"photometric": "rgb" if array.shape[2] == 3 else "minisblack", "metadata": None} | options
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as writer:
        writer.write(data, **kind)
    return TiffSource(path)


def check_tiff(source: TiffSource, array: np.ndarray, level: int = 0) -> None:
    """Some boxes at every border, one pixel in and out, and the whole."""
    height, width = array.shape[:2]
    assert source.levels[level].size == (height, width)
    assert (source.channels, source.dtype) == (array.shape[2], array.dtype)
    some = [Box(0, 0, height, width), Box(-3, -4, height + 9, width + 5)]
    for top in (-6, -5, 0, 13, height - 6, height - 1, height):
        some += [Box(top, left, 6, 3) for left in (-3, -2, 0, 31, width - 3, width - 2, width)]
    for box, read in zip(some, source.read_many(some, level, threads=2), strict=True):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, sliced(array, box))
        assert read.flags.writeable
    for box in some[1::17]:
        np.testing.assert_array_equal(source.read(box, level), sliced(array, box))


def write_pyramid(
    path: Path | str,
    array: np.ndarray,
    tile: tuple[int, int] = (256, 256),
    levels: int = 3,
    compression: str | None = "jpeg",
    subifds: bool = False,
    **options: Any,
) -> list[np.ndarray]:
    """A tiled pyramid: every level has every other row and column of the one before.

    Returns:
        The levels, as written; JPEG changes them.
    """
    made = [np.ascontiguousarray(array[:: 2**level, :: 2**level]) for level in range(levels)]
    common: dict[str, Any] = {"tile": tile, "compression": compression, "metadata": None}
    common["photometric"] = "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as writer:
        writer.write(made[0], subifds=levels - 1 if subifds else 0, **(common | options))
        for level in made[1:]:
            writer.write(level, subfiletype=1, **common)
    return made
