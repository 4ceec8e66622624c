"""Tiled images read like arrays, and decode every tile once, whoever asks for it."""

import gc
import multiprocessing
import pickle
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache import OVERHEAD, TILES
from foveate.errors import ImageError
from foveate.images import ArraySource, Bands, Colour, Header, Source, area_average, augment
from foveate.images import area as average
from foveate.images.formats.tiled import TiledSource
from foveate.images.tensors import gather
from foveate.images.wrappers.standardise import Standardised
from foveate.threads import in_threads
from foveate.types import Box, Level

TILE = (7, 10)


def pixels(height: int = 45, width: int = 64, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(height).integers(0, 250, (height, width, channels))
    return values.astype(dtype)


class Tiled(TiledSource):
    """An array cut into tiles; those at the border end there, or go on."""

    threaded = True

    def __init__(self, *arrays: np.ndarray, padded: bool = False) -> None:
        super().__init__("tiled", 0.5)
        self.arrays, self.padded = arrays, padded
        self.decoded: Counter[tuple[int, int, int]] = Counter()
        self.calls: list[int] = []
        self.broken: tuple[int, int] | None = None
        self.wait: threading.Event | None = None

    def _measure(self) -> Header:
        sizes = [array.shape[:2] for array in self.arrays]
        levels = [Level(size, (sizes[0][0] / size[0], sizes[0][1] / size[1])) for size in sizes]
        first = self.arrays[0]
        return Header(tuple(levels), first.shape[2], first.dtype, "tiles", 0.5, TILE, ("a", "b", "c"))

    def _tile(self, level: int) -> tuple[int, int]:  # noqa: ARG002
        return TILE

    def _decode(self, level: int, wanted: Sequence[tuple[int, int]], threads: int) -> list[np.ndarray]:
        self.calls.append(len(wanted))
        return in_threads(lambda name: self.one(level, *name), wanted, threads)

    def one(self, level: int, row: int, column: int) -> np.ndarray:
        if self.wait is not None:
            self.wait.wait(20)
        if (row, column) == self.broken:
            raise self._broken_tile(level, (row, column), "so it is")
        self.decoded[level, row, column] += 1
        array = self.arrays[level]
        tile = array[row * 7 : row * 7 + 7, column * 10 : column * 10 + 10].copy()
        if self.padded:
            down, along = 7 - tile.shape[0], 10 - tile.shape[1]
            tile = np.pad(tile, ((0, down), (0, along), (0, 0)), constant_values=99)
        return tile


def held(source: TiledSource) -> list[tuple[int, ...]]:
    owner = source._owner
    return [] if owner is None else [key for number, key in TILES._held if number == owner._number]


def sliced(array: np.ndarray, box: Box) -> np.ndarray:
    wide = np.pad(array, ((99, 99), (99, 99), (0, 0)))
    return wide[99 + box.top : 99 + box.bottom, 99 + box.left : 99 + box.right]


boxes = st.builds(Box, st.integers(-9, 50), st.integers(-9, 70), st.integers(1, 30), st.integers(1, 40))


@pytest.mark.parametrize("padded", [False, True])
def test_boxes_read_like_the_array_alone_and_together(padded: bool) -> None:
    arrays = pixels(), pixels(22, 32)
    source = Tiled(*arrays, padded=padded)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(boxes, max_size=4), st.integers(0, 1), st.integers(1, 3))
    def law(some: list[Box], level: int, threads: int) -> None:
        for box, read in zip(some, source.read_many(some, level, threads), strict=True):
            np.testing.assert_array_equal(read, sliced(arrays[level], box))
            np.testing.assert_array_equal(source.read(box, level), read)

    law()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("elements", [1 << 24, 600, 1])
def test_views_are_the_exact_average_however_little_is_held(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(average, "BLOCK_ELEMENTS", elements)
    array = pixels()

    @settings(max_examples=25, deadline=None)
    @given(
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        st.tuples(st.floats(-20, 40), st.floats(-20, 60)),
        st.tuples(st.floats(0.5, 60), st.floats(0.5, 80)),
    )
    def law(size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]) -> None:
        source = Tiled(array)
        region = (corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1])
        np.testing.assert_allclose(source.view(size, region), area_average(array, size, region), atol=1e-6)
        assert not source.decoded or max(source.decoded.values()) == 1

    law()


def test_a_view_decodes_every_tile_once_though_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TILES, "limit", 1)
    monkeypatch.setattr(average, "BLOCK_ELEMENTS", 500)
    source = Tiled(pixels(45, 60))
    source.view((5, 9))
    assert set(source.decoded.values()) == {1}
    assert len(source.decoded) == 7 * 6 == source.tiles_decoded
    assert max(source.calls) <= 2  # a strip of 500 values is two tiles of 210
    assert held(source) == []


def test_what_boxes_share_is_decoded_once_through_every_wrapper() -> None:
    array = pixels()
    some = [Box(top, left, 8, 9) for top in range(0, 30, 3) for left in range(0, 50, 4)]
    where = torch.tensor([[[box.top, box.left, 8, 9] for box in some]])
    for wrap in (
        lambda source: source,
        lambda source: Bands(source, (2, 0)),
        lambda source: Colour(source, "grey"),
        lambda source: augment.Augmented(source, augment.Change(True, quarter_turns=1, shift=(2, -3), gain=0.5)),
        lambda source: augment.Augmented(Bands(source, (1,)), augment.Change(flip_columns=True)),
    ):
        source = Tiled(array)
        found = gather([wrap(source)], where, threads=3)
        assert set(source.decoded.values()) == {1}
        assert len(source.calls) == 1
        np.testing.assert_array_equal(found, gather([wrap(ArraySource(array))], where))


def test_reads_of_one_thing_after_another_decode_it_once() -> None:
    source = Tiled(pixels())
    for _ in range(3):
        source.read(Box(3, 4, 6, 9))
    assert source.decoded == {(0, 0, 0): 1, (0, 0, 1): 1, (0, 1, 0): 1, (0, 1, 1): 1}
    source.close()
    assert held(source) == []
    source.read(Box(0, 0, 1, 1))
    assert source.decoded[0, 0, 0] == 2


def test_threads_that_want_the_same_tile_wait_for_it() -> None:
    source = Tiled(pixels())
    _ = source.header
    source.wait = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(source.read, Box(2, 3, 12, 9 + i)) for i in range(8)]
        source.wait.set()
        for i, read in enumerate(reads):
            np.testing.assert_array_equal(read.result(timeout=20), sliced(source.arrays[0], Box(2, 3, 12, 9 + i)))
    assert set(source.decoded.values()) == {1}


def test_a_tile_that_fails_fails_for_everyone_and_is_tried_again() -> None:
    source = Tiled(pixels())
    source.broken = (1, 1)
    with ThreadPoolExecutor(4) as pool:
        for read in [pool.submit(source.read, Box(0, 0, 20, 20)) for _ in range(4)]:
            with pytest.raises(
                ImageError, match=r"tiled: broken tile at row 1, column 1 of level 0 \(so it is\): copy"
            ):
                read.result(timeout=20)
    source.broken = None
    np.testing.assert_array_equal(source.read(Box(0, 0, 20, 20)), source.arrays[0][:20, :20])


def test_memory_is_bounded_and_the_names_of_what_was_dropped_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tile_bytes = 7 * 10 * 3
    monkeypatch.setattr(TILES, "limit", 16 * (tile_bytes + OVERHEAD))
    source = Tiled(pixels(7 * 12, 10 * 30))
    for row in range(12):
        for column in range(30):
            source.read(Box(row * 7, column * 10, 7, 10))
    assert TILES.memory <= TILES.limit
    assert held(source) == [(0, 11, column) for column in range(14, 30)]
    assert source._owner is not None
    assert len(TILES._owned[source._owner._number]) == 16
    source.read(Box(11 * 7, 140, 1, 1))  # still there, and now the last to go
    source.read(Box(0, 0, 1, 1))
    assert held(source)[-2:] == [(0, 11, 14), (0, 0, 0)]
    assert source.tiles_decoded == 12 * 30 + 1


def test_large_boxes_pass_by_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TILES, "limit", 40 * 210)
    source = Tiled(pixels())
    source.read(Box(0, 0, 5, 5))
    before = held(source)
    np.testing.assert_array_equal(source.read(Box(0, 0, 45, 64)), source.arrays[0])
    assert held(source) == before == [(0, 0, 0)]


def test_nothing_is_kept_of_sources_that_are_gone() -> None:
    source = Tiled(pixels())
    source.read(Box(0, 0, 40, 40))
    number = source._owner._number if source._owner else -1
    assert any(key[0] == number for key in TILES._held)
    del source
    gc.collect()
    assert not any(key[0] == number for key in TILES._held)
    assert number not in TILES._owned


def test_what_is_decoded_after_closing_is_not_kept() -> None:
    source = Tiled(pixels())
    _ = source.header
    source.wait = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(source.read, Box(0, 0, 5, 5))
        while source._owner is None:
            pass
        number = source._owner._number
        source.close()
        source.wait.set()
        np.testing.assert_array_equal(read.result(timeout=20), source.arrays[0][:5, :5])
    assert not any(key[0] == number for key in TILES._held)


def test_pickles_are_sources_of_their_own() -> None:
    source = Tiled(pixels())
    source.read(Box(0, 0, 40, 60))
    again = pickle.loads(pickle.dumps(source))
    again.arrays = (again.arrays[0] + 1,)
    np.testing.assert_array_equal(again.read(Box(1, 2, 30, 40)), source.arrays[0][1:31, 2:42] + 1)
    assert again.tiles_decoded > source.tiles_decoded


def read_into(source: Source, queue: Any) -> None:
    queue.put((source.read(Box(0, 0, 20, 30)), len(TILES._held)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_threads_decode_reads_all_the_same() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    source = Tiled(pixels())
    source.read(Box(0, 0, 5, 5))
    source.wait = threading.Event()
    child = pickle.loads(pickle.dumps(Tiled(pixels())))
    child._owner = source._owner  # the very tiles that are being decoded here
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(source.read, Box(0, 0, 20, 30))
        while not TILES._flights:
            pass
        process = context.Process(target=read_into, args=(child, queue))
        process.start()
        read, count = queue.get(timeout=60)
        source.wait.set()
        np.testing.assert_array_equal(reading.result(timeout=20), read)
    process.join()
    np.testing.assert_array_equal(read, source.arrays[0][:20, :30])
    assert count == 3 * 3


def test_decoders_that_give_something_else_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for made, message in (
        (np.zeros((7, 9, 3), np.uint8), r"\(it is \(7, 9, 3\), not \(7, 10, 3\)\)"),
        (np.zeros((7, 10, 1), np.uint8), r"\(it is \(7, 10, 1\), not \(7, 10, 3\)\)"),
        (np.zeros((7, 10, 3), np.uint16), r"\(its values are uint16, not uint8\)"),
    ):
        source = Tiled(pixels())
        monkeypatch.setattr(source, "one", lambda *_, made=made: made)
        with pytest.raises(ImageError, match=rf"tiled: broken tile at row 0, column 0 of level 0 {message}: copy the "):
            source.read(Box(0, 0, 2, 2))


def test_threads_go_to_images_first_and_then_to_their_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = Tiled.read_known
    monkeypatch.setattr(
        Tiled,
        "read_known",
        lambda self, some, level=0, threads=1: asked.append(threads) or read(self, some, level, threads),
    )
    for images, threads, each in ((1, 6, 6), (2, 6, 3), (4, 6, 1), (3, 1, 1)):
        asked.clear()
        gather([Tiled(pixels()) for _ in range(images)], torch.zeros(images, 2, 4).int() + 5, threads=threads)
        assert asked == [each] * images


def test_wrappers_keep_what_is_still_true_of_the_file() -> None:
    source = Tiled(pixels())
    bands = Bands(source, (2, 0)).header
    assert (bands.format, bands.mpp, bands.tile, bands.bands, bands.channels) == ("tiles", 0.5, TILE, ("c", "a"), 2)
    grey = Colour(source, "grey").header
    assert (grey.format, grey.tile, grey.bands, grey.channels) == ("tiles", TILE, (), 1)
    assert Colour(source, "rgb").header == source.header
    even = Standardised(source).header
    assert (even.tile, even.dtype, even.bands) == (TILE, np.float32, ("a", "b", "c"))
    turned = augment.Augmented(source, augment.Change(quarter_turns=1)).header
    assert (turned.format, turned.tile, turned.bands, turned.mpp) == ("tiles", (10, 7), ("a", "b", "c"), 0.5)


def test_the_grid_counts_tiles() -> None:
    source = Tiled(pixels(), pixels(22, 32))
    assert (source.grid(), source.grid(1)) == ((7, 7), (4, 4))
