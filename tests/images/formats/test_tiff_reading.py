"""TIFF files are read from many threads and processes, in parts, and cost no more than what is touched."""

import gc
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from giants import write_giant
from tiffs import SIZE, check_tiff, noise, sliced, write_tiff

from foveate.cache import TILES
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box


def sparse(path: Path, **options: Any) -> None:
    """Three by four tiles of sevens, of which some are not stored."""
    write_tiff(path, np.full((48, 64, 1), 7, np.uint8), tile=(16, 16), **options)
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages.first.tags
        offsets, lengths = list(tags[324].value), list(tags[325].value)
        offsets[1] = lengths[1] = lengths[6] = 0
        tags[324].overwrite(offsets)
        tags[325].overwrite(lengths)


def test_tiles_that_are_not_stored_are_no_data(tmp_path: Path) -> None:
    expected = np.full((48, 64, 1), 7, np.uint8)
    for options, fill in (({}, 0), ({"extratags": [(42113, 2, 0, "9", True)]}, 9)):
        sparse(tmp_path / "a", compression="deflate", **options)
        expected[:16, 16:32] = expected[16:32, 32:48] = fill
        source = TiffSource(tmp_path / "a")
        assert source.header.nodata == (fill or None)
        check_tiff(source, expected)


def test_a_source_is_pickled_before_and_after_reading(tmp_path: Path) -> None:
    array = noise(*SIZE, 3)
    source = write_tiff(tmp_path / "a", array, tile=(16, 32))
    box = Box(3, -4, 20, 60)
    for _ in range(2):
        again = pickle.loads(pickle.dumps(source))
        assert (again.bytes_read, again.tiles_decoded) == (source.bytes_read, source.tiles_decoded)
        np.testing.assert_array_equal(again.read(box), sliced(array, box))
        source.read(box)
    source.close()
    np.testing.assert_array_equal(source.read(box), sliced(array, box))
    assert len(pickle.dumps(source)) < 3000


def read_in_child(source: TiffSource, box: Box, queue: Any) -> None:
    queue.put(source.read(box))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_other_processes_read_the_same(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    array = noise(*SIZE, 3)
    source = write_tiff(tmp_path / "a", array, tile=(16, 32), compression="deflate")
    box = Box(10, -4, 20, 60)
    source.read(Box(0, 0, 20, 20))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=read_in_child, args=(source, box, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        np.testing.assert_array_equal(queue.get(timeout=60), sliced(array, box))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    np.testing.assert_array_equal(source.read(box), sliced(array, box))


def test_threads_read_while_another_closes(tmp_path: Path) -> None:
    array = noise(*SIZE, 3)
    source = write_tiff(tmp_path / "a", array, tile=(16, 16), compression="deflate")
    some = [Box(top, left, 8, 11) for top in range(0, 40, 4) for left in range(0, 70, 6)]

    def read(i: int) -> np.ndarray:
        if i % 9 == 8:
            source.close()
        return source.read(some[i])

    with ThreadPoolExecutor(4) as pool:
        for box, found in zip(some, pool.map(read, range(len(some))), strict=True):
            np.testing.assert_array_equal(found, sliced(array, box))


def test_a_source_that_nobody_holds_leaves_no_tile_and_no_open_file(tmp_path: Path) -> None:
    """At once: until Python looks for cycles, hundreds of images may have come and gone."""
    path = tmp_path / "a"
    write_tiff(path, noise(*SIZE, 3), tile=(16, 32), compression="jpeg").close()
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list open files")

    def files_open() -> int:
        return sum(1 for _ in descriptors.iterdir())

    before, held = files_open(), TILES.memory
    gc.disable()
    try:
        for _ in range(3):
            source, other = TiffSource(path), TiffSource(path)
            source.read(Box(0, 0, 20, 40))
            expected = other.read(Box(0, 0, 20, 40))
            assert TILES.memory > held
            del source
            assert files_open() == before
            np.testing.assert_array_equal(other.read(Box(30, 50, 1, 1)), other.read(Box(30, 50, 1, 1)))
            np.testing.assert_array_equal(other.read(Box(0, 0, 20, 40)), expected)
            del other
            assert (files_open(), TILES.memory) == (before, held)
    finally:
        gc.enable()


def test_a_giant_opens_in_little_memory_and_reads_a_box(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "giant"
    tiles = write_giant(path, 625, 640, tile=256, different=3, levels=3, compression="deflate")
    assert path.stat().st_size < 8e6
    _ = write_tiff(tmp_path / "warm", noise(*SIZE, 3), tile=(16, 16)).header  # what is imported at first use
    tracemalloc.start()
    source = TiffSource(path)
    assert source.size == (160_000, 163_840)
    assert source.size[0] * source.size[1] > 26e9
    read = source.read(Box(100 * 256 + 200, 200 * 256 + 250, 70, 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6
    expected = np.concatenate(
        [np.concatenate([tiles[(31 * row + column) % 3] for column in (200, 201)], 1) for row in (100, 101)]
    )
    np.testing.assert_array_equal(read, expected[200:270, 250:270])
    assert source.tiles_decoded == 4
    assert source.table_bytes < 100_000
    last = source.read(Box(160_000 - 30, 163_840 - 40, 30, 40))
    np.testing.assert_array_equal(last, tiles[(31 * 624 + 639) % 3][-30:, -40:])
