"""The area average against its definition, in exact fractions."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.images import ArraySource, area_average
from foveate.images import area as average_module
from foveate.images.area import Bins


def overlaps(count: int, start: Fraction, end: Fraction, pixels: int) -> list[list[Fraction]]:
    """Share of every bin that every pixel covers, by the definition."""
    width = (end - start) / count
    edges = [(start + j * width, start + (j + 1) * width) for j in range(count)]
    return [[max(Fraction(0), min(high, p + 1) - max(low, p)) / width for p in range(pixels)] for low, high in edges]


def defined(array: np.ndarray, size: tuple[int, int], region: tuple[Fraction, ...]) -> np.ndarray:
    """The area average as float64 sums of exact weights."""
    rows = np.array(overlaps(size[0], region[0], region[2], array.shape[0]), dtype=np.float64)
    columns = np.array(overlaps(size[1], region[1], region[3], array.shape[1]), dtype=np.float64)
    return np.einsum("ip,jq,pqc->ijc", rows, columns, array.astype(np.float64))


thirds = st.integers(-60, 90).map(lambda n: Fraction(n, 3))


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 17), st.integers(1, 3)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(thirds, thirds),
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
)
def test_is_what_it_says(
    shape: tuple[int, int, int], size: tuple[int, int], corner: tuple[Fraction, Fraction], sides: tuple[int, int]
) -> None:
    array = np.random.default_rng(1).random(shape)
    region = (corner[0], corner[1], corner[0] + Fraction(sides[0], 3), corner[1] + Fraction(sides[1], 3))
    top, left, bottom, right = (float(edge) for edge in region)
    result = area_average(array, size, (top, left, bottom, right))
    np.testing.assert_allclose(result, defined(array, size, region), atol=2e-7)


def test_by_hand() -> None:
    array = np.array([[0, 51, 102, 255, 0]], dtype=np.uint8).reshape(1, 5, 1)
    # five pixels on two cells of 2.5: (0 + 51 + 102/2) / 2.5 and (102/2 + 255 + 0) / 2.5
    np.testing.assert_allclose(area_average(array, (1, 2))[0, :, 0], [102 / 2.5 / 255, 306 / 2.5 / 255], atol=1e-7)
    # half a pixel above the image and half of its row
    np.testing.assert_allclose(area_average(array, (1, 1), (-0.5, 3, 0.5, 4))[0, 0, 0], 0.5, atol=1e-7)


def test_the_megapixel_mnist_scale() -> None:
    array = np.random.default_rng(3).integers(0, 256, (300, 50, 1), dtype=np.uint8)  # 1500 → 180
    expected = defined(array, (36, 6), (Fraction(0), Fraction(0), Fraction(300), Fraction(50))) / 255
    np.testing.assert_allclose(area_average(array, (36, 6)), expected, atol=1e-7)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("block", [1, 37, 200, 5000])
def test_strips_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(4).integers(0, 65536, (61, 23, 3), dtype=np.uint16)
    regions = [((7, 5), None), ((90, 30), None), ((4, 4), (-3.5, 2.25, 70.1, 19.0))]
    expected = [area_average(array, size, region) for size, region in regions]
    monkeypatch.setattr(average_module, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(average_module, "GROUP_ELEMENTS", block // 3)
    for (size, region), whole in zip(regions, expected, strict=True):
        np.testing.assert_allclose(area_average(array, size, region), whole, atol=1e-7)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("long", [0, 40, 10**9])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.float16, np.float32, np.float64, np.longdouble])
def test_every_way_to_sum_is_the_average(dtype: type, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole pixels, cut pixels, bins one after the other or all at once, over the border, across strips: one result."""
    monkeypatch.setattr(average_module, "LONG_SUM", long)
    monkeypatch.setattr(average_module, "BLOCK_ELEMENTS", 17 * 20 * 3)
    scale = {np.bool_: 1, np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    values = np.random.default_rng(6).random((45, 20, 3))
    array = np.rint(values * scale).astype(dtype) if dtype in (np.bool_, np.uint8, np.uint16) else values.astype(dtype)
    whole, cut = (0, 0, 45, 20), (Fraction(-7, 2), Fraction(1, 3), Fraction(41), Fraction(22))
    for size, region in [((9, 4), whole), ((2, 3), whole), ((9, 4), (-4, 2, 50, 18)), ((7, 3), cut), ((60, 50), whole)]:
        expected = defined(array, size, tuple(map(Fraction, region))) / scale
        result = area_average(array, size, tuple(float(edge) for edge in region))
        np.testing.assert_allclose(result, expected, atol=1e-7)


def test_sums_of_bright_pixels_do_not_run_over() -> None:
    # 300 · 255 needs more than 16 bits, 70000 · 65535 more than 32
    assert area_average(np.full((300, 300, 1), 255, np.uint8), (1, 1)).item() == 1
    assert area_average(np.full((70000, 2, 1), 65535, np.uint16), (1, 1)).item() == 1
    assert area_average(np.full((2, 70000, 1), 65535, np.uint16), (2, 1)).tolist() == [[[1]], [[1]]]


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, -1)])
def test_turned_arrays_are_averaged_alike(rows: slice) -> None:
    array = np.random.default_rng(7).integers(0, 256, (30, 42, 3), dtype=np.uint8)
    turned = array[rows].swapaxes(0, 1)
    for size in ((14, 10), (9, 11)):
        np.testing.assert_array_equal(area_average(turned, size), area_average(np.ascontiguousarray(turned), size))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("size", "region"), [((39, 77), None), ((50, 31), (-7.3, 3.25, 160.1, 301)), ((60, 290), None)]
)
def test_bins_of_a_few_pixels_are_averaged_as_finely_as_a_view_is_stored(
    size: tuple[int, int], region: tuple[float, ...] | None, dtype: type, channels: int
) -> None:
    whole, largest = (0, 0, 151, 300), np.iinfo(dtype).max
    array = np.random.default_rng(9).integers(0, largest + 1, (151, 300, channels)).astype(dtype)
    array[40:] = largest - array[40:] // 50  # bright, where float32 is coarsest
    top, left, bottom, right = map(Fraction, region or whole)
    down, along = (
        np.array(overlaps(*axis), np.float64) for axis in ((size[0], top, bottom, 151), (size[1], left, right, 300))
    )
    expected = along @ (down @ array.transpose(2, 0, 1) / largest).swapaxes(1, 2)  # (channels, columns, rows)
    np.testing.assert_allclose(area_average(array, size, region), expected.T, rtol=0, atol=2e-7)


@pytest.mark.parametrize("value", [1, 85, 254, 255])
def test_what_is_flat_stays_flat(value: int) -> None:
    array = np.full((151, 300, 3), value, np.uint8) // np.array([1, 2, 3], np.uint8)
    view = area_average(array, (39, 77))
    np.testing.assert_array_equal(view, np.broadcast_to(view[0, 0], view.shape))
    np.testing.assert_array_equal(view[0, 0], (array[0, 0] / 255).astype(np.float32))


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(average_module, "BLOCK_ELEMENTS", 1000)
    strips: list[int] = []

    class Watched(ArraySource):
        def _read(self, box, level):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            strips.append(box.height * box.width)
            return super()._read(box, level)

    Watched(np.zeros((500, 90), np.uint8)).view((9, 11))
    assert sum(strips) == 500 * 90
    assert max(strips) <= 1000


def test_a_broken_value_stays_in_its_own_cells() -> None:
    array = np.ones((60, 60, 1), np.float32)
    array[25, 35] = np.nan
    view = area_average(array, (6, 12))
    assert np.argwhere(np.isnan(view[:, :, 0])).tolist() == [[2, 7]]
    assert np.nanmin(view) == np.nanmax(view) == 1


def test_coverage_is_the_share_inside() -> None:
    assert Bins.over(4, -2, 6, (0, 5)).coverage.tolist() == [0, 1, 1, 0.5]
    assert Bins.over(2, 8, 9, (0, 5)).coverage.tolist() == [0, 0]
    assert Bins.over(2, 8, 9, (0, 5)).extent() == (0, 0)


def test_a_scaled_array_ends_where_the_image_does() -> None:
    # 10 pixels decoded at 1/8: pixel 0 stands for [0, 8), pixel 1 for [8, 10) only
    bins = Bins.over(1, 0, 10, (0, 10), 8)
    np.testing.assert_allclose([bins.head[0], bins.tail[0]], [0.8, 0.2])


def weights(bins: Bins, pixels: int) -> np.ndarray:
    """(bins, pixels) the weight of every pixel in every bin."""
    table = np.zeros((len(bins.first), pixels))
    for row, first, stop, head, tail in zip(table, bins.first, bins.stop, bins.head, bins.tail, strict=True):
        row[first:stop] = bins.inner
        if stop - first > 1:
            row[stop - 1] = tail
        if stop > first:
            row[first] = head
    return table


@given(st.integers(1, 9), st.floats(-8, 12), st.floats(0.5, 40), st.lists(st.integers(0, 20), max_size=3))
@settings(max_examples=60, deadline=None)
def test_parts_of_bins_add_up_to_them(count: int, start: float, extent: float, cuts: list[int]) -> None:
    bins = Bins.over(count, start, start + extent, (0, 20))
    edges = [0, *sorted(cuts), 20]
    parts = [bins.within(low, high) for low, high in pairwise(edges)]
    whole = weights(bins, 20)
    np.testing.assert_array_equal(sum(weights(part, 20) for part in parts), whole)
    np.testing.assert_allclose(sum(part.coverage for part in parts), bins.coverage, atol=1e-12)
    for part, low, high in zip(parts, edges[:-1], edges[1:], strict=True):
        assert not weights(part, 20)[:, [i for i in range(20) if not low <= i < high]].any()


def test_strips_end_where_rows_are_decoded_together() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (41, 30, 2), dtype=np.uint8)
    rows, columns = Bins.over(7, 5, 39.5, (0, 41)), Bins.over(4, 0, 30, (0, 30))
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return pixels[start:stop]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(average_module, "BLOCK_ELEMENTS", 21 * 60)
        found = average_module.average(read, rows, columns, 2, together=8)
    assert asked == [(5, 16), (16, 32), (32, 40)]
    np.testing.assert_allclose(found, area_average(pixels, (7, 4), (5, 0, 39.5, 30)) * 255.0, rtol=1e-5)


def test_a_window_ends_where_the_level_does_however_its_factor_rounds() -> None:
    for rows in range(1, 400):
        assert Bins.over(3, 0, 1001, (0, 1001), 1001 / rows).extent() == (0, rows)
        assert Bins.over(3, -500, 5000, (0, 1001), 1001 / rows).extent() == (0, rows)
