"""Image files with levels, and the laws that whoever reads them must obey."""

import gc
import pickle
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from foveate.errors import ImageError
from foveate.images import Reader, Source, open_image
from foveate.types import Box


def values(size: tuple[int, int], channels: int = 3, dtype: str = "uint8", seed: int = 3) -> np.ndarray:
    """Random pixels (height, width, channels)."""
    drawn = np.random.default_rng(seed).random((*size, channels))
    if np.dtype(dtype).kind == "f":
        return drawn.astype(dtype)
    limits = np.iinfo(dtype)
    return np.floor(drawn * (float(limits.max) - limits.min) + limits.min).astype(dtype)


def write_pyramid(
    path: Path, arrays: Sequence[np.ndarray], tile: tuple[int, int] | None = (64, 48), sub: bool = False, **how: Any
) -> Path:
    """Unrelated arrays as the levels of a TIFF: as pages, or as sub-images of the first."""
    with tifffile.TiffWriter(path) as stream:
        for number, array in enumerate(arrays):
            more = {"subifds": len(arrays) - 1} if sub and number == 0 else {}
            stream.write(
                array if array.shape[2] > 1 else array[:, :, 0],
                tile=tile,
                photometric="rgb" if array.shape[2] == 3 else "minisblack",
                planarconfig="contig" if array.shape[2] > 1 else None,
                subfiletype=1 if number else 0,
                metadata=None,
                **({"compression": "deflate"} | how | more),
            )
    return path


def sliced(array: np.ndarray, box: Box) -> np.ndarray:
    """The box of the array, black where it hangs over."""
    result = np.zeros((box.height, box.width, array.shape[2]), array.dtype)
    top, left, bottom, right = max(box.top, 0), max(box.left, 0), max(box.bottom, 0), max(box.right, 0)
    part = array[top:bottom, left:right]
    result[top - box.top : top - box.top + part.shape[0], left - box.left : left - box.left + part.shape[1]] = part
    return result


def border_boxes(size: tuple[int, int], tile: tuple[int, int] = (64, 48)) -> list[Box]:
    """Boxes one pixel in and out of every border of an image and of its tiles, and a few large ones."""
    height, width = size
    rows = (-7, -6, -5, 0, tile[0] - 3, height - 6, height - 5, height)
    columns = (-4, -3, -2, tile[1] - 1, width - 3, width - 2, width)
    boxes = [Box(top, left, 6, 3) for top in rows for left in columns]
    return [*boxes, Box(0, 0, height, width), Box(-5, -9, height + 8, width + 30), Box(height // 3, 1, 70, 90)]


def obeys(source: Source, arrays: Sequence[np.ndarray]) -> None:
    """A source reads like the arrays of its levels: one by one, together, in threads, and pickled."""
    assert [level.size for level in source.levels] == [array.shape[:2] for array in arrays]
    height, width = arrays[0].shape[:2]
    for number, array in enumerate(arrays):
        assert (source.channels, source.dtype) == (array.shape[2], array.dtype)
        rows, columns = array.shape[:2]
        down, along = source.levels[number].factor
        assert rows - 1 < height / down <= rows + 1e-9
        assert columns - 1 < width / along <= columns + 1e-9
        boxes = border_boxes((rows, columns))
        for box, read in zip(boxes, source.read_many(boxes, number, threads=3), strict=True):
            assert read.dtype == array.dtype
            np.testing.assert_array_equal(read, sliced(array, box), err_msg=f"level {number}, {box}")
        again: Source = pickle.loads(pickle.dumps(source))
        again.read(Box(0, 0, 1, 1), number)[:] = 0
        some = boxes[:-3:9] + boxes[-3:]
        with ThreadPoolExecutor(4) as pool:
            for box, read in zip(some, pool.map(lambda box: again.read(box, number), some), strict=True):  # noqa: B023
                np.testing.assert_array_equal(read, sliced(array, box))
    source.close()
    np.testing.assert_array_equal(source.read(Box(1, 2, 9, 8)), sliced(arrays[0], Box(1, 2, 9, 8)))
    goes_at_once([_used(source)])


def goes_at_once(held: list[Source]) -> None:
    """What nobody but this list holds is gone when it is emptied, before Python looks for cycles."""
    known = weakref.ref(held[0])
    gc.disable()
    try:
        held.clear()
        assert known() is None
    finally:
        gc.enable()


def _used(source: Source) -> Source:
    """A copy that has read and decoded something."""
    again: Source = pickle.loads(pickle.dumps(source))
    again.read_many([Box(0, 0, 90, 70), Box(3, 4, 5, 6)], threads=2)
    again.view((3, 4))
    return again


def spoil(path: Path, tile: int, page: int = 0) -> Path:
    """Overwrite the compressed bytes of one tile."""
    with tifffile.TiffFile(path) as stream:
        place, length = stream.pages[page].dataoffsets[tile], stream.pages[page].databytecounts[tile]
    data = bytearray(path.read_bytes())
    data[place : place + length] = b"\xa5" * length
    path.write_bytes(data)
    return path


def check_spoiled(source: Source, array: np.ndarray, reason: str, remedy: str) -> None:
    """A broken tile at the top left is one line each time, and other tiles read before and after."""
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            source.read(Box(3, 4, 9, 8))
        message = str(caught.value)
        assert message.startswith(f"{source.name}: level 0, 9×8 pixels at row 3, column 4 cannot be read ({reason}")
        assert message.endswith(f"): {remedy}, or leave it out")
        assert "\n" not in message
        np.testing.assert_array_equal(source.read(Box(100, 100, 30, 40)), sliced(array, Box(100, 100, 30, 40)))


def check_absent(path: Path, reader: Reader, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its library a reader says how to get it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError) as caught:
        open_image(path, reader=reader)
    assert str(caught.value) == (
        f"{path}: reading it needs {module}, which is not installed: pip install 'foveate[{extra}]'"
    )
