"""An augmented image is the change of the whole array, whichever way it is looked at."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.config.augment import AugmentSettings
from foveate.images import ArraySource, area_average
from foveate.images.area import Region
from foveate.images.augment.image import Augmented, Change, draw_change
from foveate.types import Box

ARRAY = np.random.default_rng(8).integers(0, 256, (19, 31, 3), dtype=np.uint8)

changes = st.builds(
    Change,
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
    st.tuples(st.integers(-12, 12), st.integers(-40, 40)),
    st.sampled_from([1.0, 0.8, 1.25]),
    st.sampled_from([0.0, 0.1, -0.3]),
)


def changed(array: np.ndarray, change: Change) -> np.ndarray:
    """The change done to the whole array, in the order it is documented in."""
    array = array[::-1] if change.flip_rows else array
    array = array[:, ::-1] if change.flip_columns else array
    array = np.rot90(array, change.quarter_turns) / 255 * change.gain + change.bias
    result = np.zeros_like(array)
    for row, column in np.ndindex(array.shape[:2]):
        down, right = row + change.shift[0], column + change.shift[1]
        if 0 <= down < array.shape[0] and 0 <= right < array.shape[1]:
            result[down, right] = array[row, column]
    return result


@settings(max_examples=60, deadline=None)
@given(changes, st.tuples(st.integers(-10, 30), st.integers(-10, 30), st.integers(1, 40), st.integers(1, 40)))
def test_boxes_and_views_are_those_of_the_changed_array(change: Change, corners: tuple[int, int, int, int]) -> None:
    source, whole = Augmented(ArraySource(ARRAY), change), changed(ARRAY, change)
    assert source.size == whole.shape[:2]
    shaded = (change.gain, change.bias) != (1.0, 0.0)
    assert source.dtype == (np.float32 if shaded else np.uint8)
    box = Box(*corners)
    padded = np.pad(whole, ((80, 80), (80, 80), (0, 0)))
    expected = padded[80 + box.top : 80 + box.bottom, 80 + box.left : 80 + box.right]
    read = source.read(box)
    np.testing.assert_allclose(read if shaded else read / 255, expected, atol=1e-6)
    np.testing.assert_allclose(source.view((7, 5)), area_average(whole, (7, 5)), atol=1e-6)
    region = (box.top - 0.3, box.left + 0.2, box.bottom + 0.1, box.right + 1.7)
    np.testing.assert_allclose(source.view((4, 9), region), area_average(whole, (4, 9), region), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(changes, st.integers(0, 10), st.integers(0, 10), st.integers(1, 8), st.integers(1, 8))
def test_boxes_map_back_to_the_pixels_they_show(change: Change, top: int, left: int, height: int, width: int) -> None:
    unshaded = Change(change.flip_rows, change.flip_columns, change.quarter_turns, change.shift)
    original = ArraySource(ARRAY)
    source = Augmented(original, unshaded)
    back = source.to_original(Box(top, left, height, width))
    seen, there = source.read(Box(top, left, height, width)), original.read(back)
    assert sorted(back.size) == sorted((height, width))
    if source._covered(Box(top, left, height, width)) == Box(top, left, height, width):
        there = there[:: -1 if unshaded.flip_rows else 1, :: -1 if unshaded.flip_columns else 1]
        np.testing.assert_array_equal(seen, np.rot90(there, unshaded.quarter_turns))


def test_back_by_hand() -> None:
    # 19 × 31, turned once counter-clockwise: 31 × 19; row 0 is the last column, moved down by 2
    source = Augmented(ArraySource(ARRAY), Change(quarter_turns=1, shift=(2, 0)))
    assert source.size == (31, 19)
    assert source.to_original(Box(2, 4, 1, 3)) == Box(4, 30, 3, 1)
    np.testing.assert_array_equal(source.read(Box(2, 4, 1, 3))[0], ARRAY[4:7, 30])


def test_bytes_are_those_of_the_original() -> None:
    original = ArraySource(ARRAY)
    source = Augmented(original, Change(shift=(5, 0), gain=2.0))
    source.read(Box(0, 0, 10, 10))
    assert source.bytes_read == original.bytes_read == 5 * 10 * 3


def test_changes_on_top_of_changes() -> None:
    first, second = Change(flip_rows=True, shift=(2, -3), gain=0.5), Change(quarter_turns=3, bias=0.25)
    source = Augmented(Augmented(ArraySource(ARRAY), first), second)
    whole = changed(changed(ARRAY, first) * 255, second)
    np.testing.assert_allclose(source.read(Box(0, 0, *source.size)), whole, atol=1e-6)
    np.testing.assert_allclose(source.view((6, 4)), area_average(whole, (6, 4)), atol=1e-6)


def test_no_settings_change_nothing() -> None:
    assert {draw_change(AugmentSettings(), (60, 80), seed) for seed in range(50)} == {Change()}


def test_draws_depend_on_the_seed_and_every_part_on_its_own_setting_only() -> None:
    everything = AugmentSettings(True, True, (10, 20), (0.8, 1.2), (-0.1, 0.1), 0.8)
    drawn = [draw_change(everything, (600, 800), seed) for seed in range(50)]
    assert drawn == [draw_change(everything, (600, 800), seed) for seed in range(50)]
    assert len(set(drawn)) == 50
    for seed, change in enumerate(drawn):
        assert draw_change(AugmentSettings(flip=True), (600, 800), seed).flip_rows == change.flip_rows
        assert draw_change(AugmentSettings(turn=True), (600, 800), seed).quarter_turns == change.quarter_turns
        moved = AugmentSettings(translate=(10, 20), probability=0.8)
        assert draw_change(moved, (600, 800), seed).shift == change.shift


def test_draws_are_spread_as_they_should() -> None:
    """Fixed seeds 0 … 3999; every bound is 5 standard errors, so about 1 seed in a million would fail a count."""
    n = 4000
    wanted = AugmentSettings(True, True, (2, 0), (0.8, 1.2), (-0.1, 0.1), 0.8)
    drawn = [draw_change(wanted, (30, 50), seed) for seed in range(n)]

    def near(count: int, share: float) -> bool:
        return abs(count - n * share) < 5 * np.sqrt(n * share * (1 - share))

    assert near(sum(c.flip_rows for c in drawn), 0.5)
    assert near(sum(c.flip_columns for c in drawn), 0.5)
    assert near(sum(c.flip_rows and c.flip_columns for c in drawn), 0.25)
    for turns in range(4):
        assert near(sum(c.quarter_turns == turns for c in drawn), 0.25)
    for shift in (-2, -1, 1, 2):
        assert near(sum(c.shift == (shift, 0) for c in drawn), 0.8 / 5)
    assert near(sum(c.shift == (0, 0) for c in drawn), 0.2 + 0.8 / 5)
    assert near(sum(c.gain == 1 and c.bias == 0 for c in drawn), 0.2)
    gains, biases = (np.array([getattr(c, name) for c in drawn if c.gain != 1]) for name in ("gain", "bias"))
    for values, low, high in ((gains, 0.8, 1.2), (biases, -0.1, 0.1)):
        assert low <= values.min() < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * len(values))


def test_a_shift_never_moves_the_image_out_of_sight() -> None:
    wanted = AugmentSettings(translate=(100, 100), turn=True)
    for seed in range(200):
        change = draw_change(wanted, (5, 9), seed)
        source = Augmented(ArraySource(np.full((5, 9), 255, np.uint8)), change)
        assert source.read(Box(0, 0, *source.size)).any()


class Marked(ArraySource):
    """An image of which the cells of a view tell where they are looked for."""

    def valid(self, size: tuple[int, int], region: Region | None = None) -> np.ndarray:
        return area_average(self.read(Box(0, 0, *self.size)), size, region)[:, :, 0] > 0.5


@given(st.booleans(), st.booleans(), st.integers(0, 3), st.tuples(st.integers(-4, 4), st.integers(-4, 4)))
@settings(max_examples=40, deadline=None)
def test_what_is_valid_moves_with_the_image(rows: bool, columns: bool, turns: int, shift: tuple[int, int]) -> None:
    source = Marked(np.random.default_rng(1).random((12, 18, 1)) > 0.5)
    augmented = Augmented(source, Change(rows, columns, turns, shift, gain=0.5))
    height, width = augmented.size
    moved = Augmented(source, Change(rows, columns, turns, shift)).read(Box(0, 0, height, width))[:, :, 0]
    found, guide = augmented.valid((height, width)), augmented.guide((height, width))
    assert found is not None
    assert guide is not None
    np.testing.assert_array_equal(found, moved)
    np.testing.assert_array_equal(np.isinf(guide), ~moved)
    np.testing.assert_array_equal(augmented.valid((2, 3), (0, 0, 2, 3)), moved[:2, :3])
    assert augmented.to_file(Box(1, 2, 3, 4)) == augmented.to_original(Box(1, 2, 3, 4))
    assert Augmented(ArraySource(source.read(Box(0, 0, 12, 18))), Change(True)).valid((3, 4)) is None
