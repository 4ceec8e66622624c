"""Images less their own mean, over their own deviation."""

import pickle

import numpy as np
import pytest

from foveate.images import ArraySource, area_average
from foveate.images.wrappers.standardise import Standardised
from foveate.types import Box

SIZE = (40, 57)


def picture(dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(5).random((*SIZE, channels)) * [0.2, 0.9, 0.5][:channels] + 0.05
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def standardised(array: np.ndarray) -> np.ndarray:
    """The oracle: images of up to 128 pixels are their own view."""
    full = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    values = array.astype(np.float64) / full
    return (values - values.mean((0, 1))) / values.std((0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_reads_are_slices_of_the_standardised_image(dtype: type, channels: int) -> None:
    array = picture(dtype, channels)
    source = Standardised(ArraySource(array))
    expected = np.pad(standardised(array), ((5, 5), (5, 5), (0, 0)))  # 0 outside
    for top, left in ((-5, -5), (3, 50), (36, -2), (10, 20)):
        found = source.read(Box(top, left, 6, 9))
        assert found.dtype == source.dtype == np.float32
        np.testing.assert_allclose(found, expected[top + 5 : top + 11, left + 5 : left + 14], atol=2e-6)


@pytest.mark.parametrize("region", [None, (-3.5, 2, 31.25, 60.5), (5, -7, 25, 13)])
def test_views_average_the_standardised_pixels(region: tuple[float, float, float, float] | None) -> None:
    array = picture()
    found = Standardised(ArraySource(array)).view((7, 11), region)
    np.testing.assert_allclose(found, area_average(standardised(array), (7, 11), region), atol=2e-6)


def test_gain_and_offset_of_a_band_leave_no_trace() -> None:
    array = picture(np.float32)
    changed = array * np.float32([3.0, 0.25, 1.0]) + np.float32([0.0, 7.0, -2.0])
    box = Box(2, 3, 11, 13)
    plain, other = (Standardised(ArraySource(one)).read(box) for one in (array, changed))
    np.testing.assert_allclose(other, plain, atol=2e-5)


def test_flat_bands_are_centred_and_broken_pixels_do_not_count() -> None:
    array = picture(np.float32)
    array[:, :, 1] = 0.7
    expected = standardised(array[:, :, [0]])
    array[0, 0, 2] = np.nan
    found = Standardised(ArraySource(array)).read(Box(0, 0, *SIZE))
    np.testing.assert_allclose(found[:, :, 1], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, :, [0]], expected, atol=2e-6)
    assert np.isnan(found[0, 0, 2])
    assert np.isfinite(found).sum() == found.size - 1
    assert abs(np.nanmean(found[:, :, 2])) < 1e-6


def test_large_images_are_measured_on_a_view_of_128_pixels() -> None:
    array = np.random.default_rng(0).integers(0, 256, (300, 512, 1), dtype=np.uint8)
    mean, deviation = Standardised(ArraySource(array)).statistics()
    seen = area_average(array, (75, 128)).astype(np.float64)
    np.testing.assert_allclose(mean, seen.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(deviation, seen.std((0, 1)), rtol=1e-6)


def test_it_survives_pickling_and_reads_nothing_before_it_must() -> None:
    source = Standardised(ArraySource(picture(), name="slide"))
    assert (source.size, source.channels, source.name, source.bytes_read) == (SIZE, 3, "slide", 0)
    copied = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copied.read(Box(1, 2, 3, 4)), source.read(Box(1, 2, 3, 4)))
