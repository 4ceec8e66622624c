"""Tiles put together again are the image, at every level, whatever its size and its own levels."""

import numpy as np
import pytest
from pyramid_files import values, write_pyramid

from foveate.images import ArraySource, Source, open_image
from foveate.types import Box, Size
from foveate.view.pyramid import OVERLAP, TILE, Pyramid, make_overview, map_pixels, tile_pixels

SIZES = [(1, 1), (1, 2), (254, 255), (255, 254), (256, 509), (300, 1000), (1023, 257), (3, 1025), (510, 511)]

ONE_STEP = float(np.spacing(np.float32(1)))
"""Tiles and the whole are float64 sums of the same pixels, in another order, each rounded once to float32."""


def assembled(source: Source, level: int, finest: int | None = None) -> np.ndarray:
    """A level from its tiles, each of which must agree with its neighbours where they overlap."""
    pyramid, seen, factor = Pyramid(source.size), source, 1
    if finest is not None:
        seen, factor = ArraySource(make_overview(source, pyramid, finest)), pyramid.step(finest)
    whole = np.full((*pyramid.level_size(level), source.channels), np.nan, np.float32)
    rows, columns = pyramid.grid(level)
    for row in range(rows):
        for column in range(columns):
            box = pyramid.tile(level, row, column)
            assert box is not None
            assert box.height <= TILE + 2 * OVERLAP
            assert box.width <= TILE + 2 * OVERLAP
            place = whole[box.top : box.bottom, box.left : box.right]
            pixels = tile_pixels(seen, pyramid, level, box, factor)
            both = ~np.isnan(place)
            np.testing.assert_allclose(pixels[both], place[both], rtol=0, atol=ONE_STEP)
            place[:] = pixels
    assert not np.isnan(whole).any()
    return whole


def averaged(pixels: np.ndarray, step: int) -> np.ndarray:
    """The mean of every block of step × step pixels, cut off at the border."""
    starts = [np.arange(0, side, step) for side in pixels.shape[:2]]
    counts = [np.diff([*start, side]) for start, side in zip(starts, pixels.shape[:2], strict=True)]
    sums = np.add.reduceat(np.add.reduceat(pixels, starts[0], axis=0), starts[1], axis=1)
    return sums / (counts[0][:, None, None] * counts[1][None, :, None])  # type: ignore[no-any-return]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_are_the_means_of_what_they_cover(size: Size) -> None:
    array = values(size)
    pyramid = Pyramid(size)
    for level in range(pyramid.last + 1):
        expected = averaged(array.astype(np.float64) / 255, pyramid.step(level))
        np.testing.assert_allclose(assembled(ArraySource(array), level), expected, rtol=0, atol=ONE_STEP)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_from_an_overview_are_the_same_means(size: Size) -> None:
    array = values(size)
    source, pyramid = ArraySource(array), Pyramid(size)
    for finest in {pyramid.last, pyramid.last // 2}:
        for level in range(max(0, finest - 3), finest + 1):
            expected = averaged(array.astype(np.float64) / 255, pyramid.step(level))
            np.testing.assert_allclose(assembled(source, level, finest), expected, rtol=0, atol=2 * ONE_STEP)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_last_level_is_the_image(size: Size) -> None:
    array = values(size)
    np.testing.assert_array_equal(np.rint(assembled(ArraySource(array), Pyramid(size).last) * 255), array)


@pytest.mark.parametrize(
    "sizes", [[(571, 389), (191, 130), (64, 44)], [(600, 800), (199, 266)], [(257, 1030)]], ids=str
)
def test_tiles_are_the_librarys_own_view_of_their_level(sizes: list[Size], tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    arrays = [values(size, seed=number) for number, size in enumerate(sizes)]  # levels that are not of one another
    with_levels = open_image(write_pyramid(tmp_path / "levels.tif", arrays))
    height, width = with_levels.size
    pyramid = Pyramid(with_levels.size)
    used = set()
    for level in range(pyramid.last + 1):
        (rows, columns), step = pyramid.level_size(level), pyramid.step(level)
        region = (0, 0, rows * step, columns * step)
        used.add(with_levels.level_for((rows, columns), region))
        inside = np.minimum(1, height / step - np.arange(rows))[:, None] * np.minimum(
            1, width / step - np.arange(columns)
        )
        expected = with_levels.view((rows, columns), region) / inside[:, :, None]
        np.testing.assert_allclose(assembled(with_levels, level), expected, rtol=0, atol=2 * ONE_STEP)
    assert used == set(range(len(sizes)))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_levels_are_those_of_deep_zoom(size: Size) -> None:
    pyramid = Pyramid(size)
    assert pyramid.level_size(pyramid.last) == size
    assert pyramid.level_size(0) == (1, 1)
    for level in range(pyramid.last):
        finer = pyramid.level_size(level + 1)
        assert pyramid.level_size(level) == (-(-finer[0] // 2), -(-finer[1] // 2))
    assert pyramid.grid(pyramid.first) == (1, 1)
    assert pyramid.first == pyramid.last or pyramid.grid(pyramid.first + 1) != (1, 1)


def test_there_is_no_tile_outside() -> None:
    pyramid = Pyramid((300, 1000))
    assert pyramid.tile(10, 1, 3) == Box(253, 761, 47, 239)
    for level, row, column in [(11, 0, 0), (-1, 0, 0), (10, 2, 0), (10, 0, 4), (10, -1, 0), (9, 1, 0), (0, 0, 1)]:
        assert pyramid.tile(level, row, column) is None


@pytest.mark.parametrize("affine", [(7.0, 0, 0, 0, 5.0, 0), (9.5, 0, -4.25, 0, 8.75, 3.5)], ids=str)
def test_a_pixel_of_the_map_has_the_colour_of_its_cell(affine: tuple[float, ...]) -> None:
    a, _, c, _, e, f = affine
    colours = values((11, 13), 4)
    whole = map_pixels(colours, affine, 1, Box(0, 0, 71, 97))  # type: ignore[arg-type]
    for y in range(71):
        for x in range(97):
            row, column = np.floor((y + 0.5 - f) / e), np.floor((x + 0.5 - c) / a)
            inside = 0 <= row < 11 and 0 <= column < 13
            expected = colours[int(row), int(column)] if inside else np.zeros(4, np.uint8)
            np.testing.assert_array_equal(whole[y, x], expected)
    part = map_pixels(colours, affine, 1, Box(20, 31, 9, 17))  # type: ignore[arg-type]
    np.testing.assert_array_equal(part, whole[20:29, 31:48])
    small = map_pixels(colours, affine, 2, Box(3, 5, 8, 6))  # type: ignore[arg-type]
    middles = np.floor((2 * (np.arange(5, 11) + 0.5) - c) / a).astype(int)
    assert small.shape == (8, 6, 4)
    row = int(np.floor((2 * 4.5 - f) / e))
    np.testing.assert_array_equal(small[1], colours[row, middles])
