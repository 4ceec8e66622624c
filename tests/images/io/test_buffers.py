"""Memory of tiles is used again, never while anybody looks at it, and does not pile up."""

import gc
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tiffs import noise, sliced, write_tiff

from foveate import cache
from foveate.cache import OVERHEAD, Cache, Owner
from foveate.images import buffers
from foveate.images.buffers import BUFFERS, Buffers
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Buffers:
    """Buffers beside an empty store."""
    monkeypatch.setattr(cache, "TILES", Cache("", 2**28))
    return Buffers()


def test_memory_comes_back_and_is_used_for_the_same_number_of_bytes(room: Buffers) -> None:
    first = room.take((4, 6, 3))
    where = address(first)
    assert first.flags.writeable
    assert first.dtype == np.uint8
    del first
    assert room.spare == 72
    other, again = room.take((4, 6)), room.take((6, 4, 3))
    assert address(again) == where
    assert address(other) != where
    assert room.spare == 0


def test_a_view_keeps_what_it_looks_at(room: Buffers) -> None:
    array = room.take((5, 7, 3))
    array[:] = 9
    views: list[Any] = [array[1:3], array.reshape(-1)[::2], array[:, ::2, 1].T, memoryview(array)]
    del array
    while views:
        assert room.spare == 0
        other = room.take((5, 7, 3))
        other[:] = 1
        assert all((np.asarray(view) == 9).all() for view in views)
        del other
        assert room.spare == 105  # of the other one
        room._idle.clear()
        room._bytes = 0
        views.pop()
    assert room.spare == 105


def test_what_lies_idle_is_bounded(room: Buffers, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.TILES.set_limit(1000)
    monkeypatch.setattr(buffers, "LEAST_SPARE", 300)
    many = [room.take((100,)) for _ in range(20)]
    many.clear()
    assert room.spare == 1000
    many = [room.take((100,)) for _ in range(20)]
    assert room.spare == 0
    owner = Owner(cache.TILES)
    owner.get(0, lambda: np.zeros((5, 20, 5), np.uint8))
    assert cache.TILES.memory == 500 + OVERHEAD
    many.clear()
    assert room.spare == 300


def test_what_lies_idle_makes_room_for_what_the_store_holds(room: Buffers, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.TILES.set_limit(2000)
    monkeypatch.setattr(buffers, "LEAST_SPARE", 300)
    many = [room.take((100,)) for _ in range(20)]
    many.clear()
    assert room.spare == 2000
    owner = Owner(cache.TILES)
    owner.get(0, lambda: np.zeros((5, 20, 10), np.uint8))
    held = [room.take((7,))]
    assert room.spare == 600 == 2000 - cache.TILES.memory
    held.clear()
    assert room.spare <= 600


def test_nobody_waits_to_give_back(room: Buffers) -> None:
    array = room.take((30,))
    with room._lock:  # as this thread may hold it when Python collects, or another that waits for this one
        del array
        assert room.spare == 0
    other = room.take((40,))
    assert room.spare == 30
    del other
    assert room.spare == 70


def test_threads_never_share_memory(room: Buffers) -> None:
    wrong: list[int] = []

    def work(value: int) -> None:
        for _ in range(2000):
            array = room.take((64,))
            array[:] = value
            wrong.extend(array[array != value].tolist())

    threads = [threading.Thread(target=work, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert room.spare <= 2 * 8 * 64  # each thread takes one before it lets go of the other


def written(folder: Path, channels: int = 3, **options: Any) -> tuple[Path, np.ndarray]:
    """A file of JPEG tiles that this library did not write, and its pixels as another library reads them."""
    array = noise(150, 210, channels)
    write_tiff(folder / "a.tif", array, tile=(64, 48), compression="jpeg", **options)
    return folder / "a.tif", tifffile.imread(folder / "a.tif").reshape(array.shape)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {}),
        (3, {}),
        (3, {"photometric": "ycbcr", "subsampling": (2, 2)}),
        (3, {"photometric": "ycbcr", "subsampling": (2, 1)}),
        (4, {"photometric": "minisblack"}),
    ],
)
def test_tiles_of_jpeg_are_decoded_into_them(channels: int, options: dict[str, Any], tmp_path: Path) -> None:
    path, array = written(tmp_path, channels, **options)
    source = TiffSource(path)
    source.read(Box(0, 0, 64, 48))
    before = BUFFERS.spare
    source.close()
    assert BUFFERS.spare == before + 64 * 48 * channels
    for top in (0, 70, 86):  # each time in memory that held something else
        box = Box(top, 3, 64, 200)
        np.testing.assert_array_equal(source.read(box), sliced(array, box))
        source.close()
    spare = BUFFERS.spare
    source.read(Box(0, 0, 64, 48))
    assert BUFFERS.spare == spare - 64 * 48 * channels
    del source
    gc.collect()
    assert BUFFERS.spare == spare


def read_again(source: TiffSource, box: Box, queue: Any) -> None:
    source.close()
    queue.put((source.read(box), BUFFERS.spare))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_begins_with_none(tmp_path: Path) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    path, array = written(tmp_path)
    source, box = TiffSource(path), Box(20, 30, 100, 90)
    held = source.read(box)
    source.close()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_again, args=(source, box, queue))
    child.start()
    read, spare = queue.get(timeout=60)
    child.join()
    np.testing.assert_array_equal(read, sliced(array, box))
    assert spare == 0
    np.testing.assert_array_equal(held, sliced(array, box))
