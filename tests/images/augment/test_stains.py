"""Changes of stain against the published deconvolution, and how far a view is from the average of changed pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.config.augment import AugmentSettings
from foveate.errors import ImageError
from foveate.images import ArraySource, area_average, open_zip_member, unit_range
from foveate.images.augment.image import Augmented, Change, draw_change
from foveate.images.augment.stain import DARKEST, Stain
from foveate.types import Box

COLON = Path(__file__).parents[4] / "shared/data/CRCHistoPhenotypes_2016_04_28.zip"

ARRAY = np.random.default_rng(12).integers(1, 256, (17, 29, 3), dtype=np.uint8)
STAIN = Stain((1.05, 0.9, 1.02), (0.02, -0.03, 0.04))


def restained(pixels: np.ndarray, stain: Stain) -> np.ndarray:
    """Pixel by pixel: solve for the amounts of stain whose mixture has the pixel's optical density, and mix again."""
    haematoxylin, eosin, dab = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
    vectors = np.array([haematoxylin, eosin, dab]).T
    result = np.empty(pixels.shape)
    for place in np.ndindex(pixels.shape[:-1]):
        amounts = np.linalg.solve(vectors, -np.log10(np.maximum(pixels[place], DARKEST)))
        amounts = [a * x + b for a, x, b in zip(stain.scale, amounts, stain.shift, strict=True)]
        result[place] = np.minimum(10 ** -(vectors @ amounts), 1)
    return result


parts = st.floats(-0.3, 0.3)


@settings(max_examples=40, deadline=None)
@given(st.tuples(parts, parts, parts), st.tuples(parts, parts, parts), st.integers(0, 10**6))
def test_is_the_published_deconvolution(
    scale: tuple[float, float, float], shift: tuple[float, float, float], seed: int
) -> None:
    stain = Stain((1 + scale[0], 1 + scale[1], 1 + scale[2]), shift)
    pixels = np.random.default_rng(seed).random((3, 5, 3)).astype(np.float32)
    pixels[0, 0] = 0
    changed = stain.apply(pixels)
    assert changed.dtype == np.float32
    np.testing.assert_allclose(changed, restained(pixels, stain), atol=1e-5)


def test_one_stain_alone() -> None:
    # twice the haematoxylin in a pixel of nothing but haematoxylin squares its colours
    pure = 10 ** -np.array([[0.65, 0.70, 0.29]])
    np.testing.assert_allclose(Stain(scale=(2.0, 1.0, 1.0)).apply(pure), pure**2, atol=1e-6)
    np.testing.assert_allclose(Stain(scale=(1.0, 2.0, 2.0)).apply(pure), pure, atol=1e-6)
    # eosin on glass
    np.testing.assert_allclose(
        Stain(shift=(0.0, 0.1, 0.0)).apply(np.ones((1, 3))), 10 ** -np.array([[0.007, 0.099, 0.011]]), atol=1e-6
    )


def test_patches_and_views_change() -> None:
    source = Augmented(ArraySource(ARRAY), Change(flip_rows=True, shift=(3, -2), gain=0.9, bias=0.05, stain=STAIN))
    expected = np.zeros(ARRAY.shape)
    expected[3:, :-2] = restained(unit_range(ARRAY), STAIN)[::-1][:-3, 2:] * 0.9 + 0.05
    assert source.dtype == np.float32
    for box in (Box(0, 0, 17, 29), Box(-2, 5, 9, 30), Box(14, 20, 8, 20)):
        padded = np.pad(expected, ((20, 20), (40, 40), (0, 0)))
        inside = padded[20 + box.top : 20 + box.bottom, 40 + box.left : 40 + box.right]
        np.testing.assert_allclose(source.read(box), inside, atol=1e-5)
    # a view at full resolution averages nothing, so it is the changed image; what is outside stays black
    np.testing.assert_allclose(source.view((17, 29)), expected, atol=1e-5)


def test_a_cell_at_the_border_is_stained_where_the_image_is() -> None:
    flat = np.full((8, 8, 3), (200, 120, 180), np.uint8)
    source = Augmented(ArraySource(flat), Change(shift=(1, 0), stain=STAIN))
    changed = restained(unit_range(flat[0, 0]), STAIN)
    view = source.view((4, 4))
    np.testing.assert_allclose(view[1:], np.broadcast_to(changed, (3, 4, 3)), atol=1e-5)
    np.testing.assert_allclose(view[0], np.broadcast_to(changed / 2, (4, 3)), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_images_have_no_stain(channels: int) -> None:
    source = Augmented(ArraySource(np.zeros((4, 5, channels), np.uint8)), Change(stain=STAIN))
    for act in (lambda: source.read(Box(0, 0, 1, 1)), lambda: source.view((2, 2)), lambda: source.dtype):
        with pytest.raises(ImageError) as caught:
            act()
        assert str(caught.value) == (
            f"image in memory: stain can be changed in images of 3 channels (RGB), got {channels}: "
            "set augment.stain to 0"
        )


def test_stains_are_drawn_in_their_range_and_disturb_no_other_draw() -> None:
    everything = AugmentSettings(True, True, (10, 20), (0.8, 1.2), (-0.1, 0.1), 0.8)
    stained = AugmentSettings(True, True, (10, 20), (0.8, 1.2), (-0.1, 0.1), 0.8, stain=0.05)
    drawn = []
    for seed in range(400):
        one, other = draw_change(everything, (60, 80), seed), draw_change(stained, (60, 80), seed)
        assert one.stain is None
        assert other.stain is not None
        assert {**vars(one), "stain": None} == {**vars(other), "stain": None}
        assert draw_change(AugmentSettings(stain=0.05), (9, 9), seed).stain == other.stain
        drawn.append([*(x - 1 for x in other.stain.scale), *other.stain.shift])
    values = np.array(drawn)
    assert np.abs(values).max() <= 0.05
    # uniform in ± 0.05: mean and variance within 5 standard errors, each of the six by itself, none like another
    assert np.abs(values.mean(0)).max() < 5 * 0.05 / np.sqrt(3 * 400)
    assert np.abs(values.var(0) * 3 / 0.05**2 - 1).max() < 5 * np.sqrt(0.8 / 400)
    assert np.abs(np.corrcoef(values.T) - np.eye(6)).max() < 5 / np.sqrt(400)


@pytest.mark.skipif(not COLON.exists(), reason="the colon images are not beside the checkout")
@pytest.mark.parametrize("number", [1, 42])
def test_a_view_is_near_the_average_of_changed_pixels(number: int) -> None:
    """The mean difference, as `Augmented` states it; the change itself is an order of magnitude larger."""
    original = open_zip_member(COLON, f"CRCHistoPhenotypes_2016_04_28/Classification/img{number}/img{number}.bmp")
    for seed in range(3):
        change = draw_change(AugmentSettings(stain=0.05), original.size, seed)
        source = Augmented(original, change)
        exact = area_average(source.read(Box(0, 0, *source.size)), (100, 100))
        view = source.view((100, 100))
        difference, size = np.abs(view - exact).mean(), np.abs(exact - original.view((100, 100))).mean()
        assert difference < 0.5 / 255
        assert difference < size / 10
