"""Tissue, scale, and how what is known of an image becomes a guide of the attention."""

import numpy as np
import pytest

from foveate.config.settings import GuideSettings
from foveate.errors import ImageError
from foveate.images import ArraySource, Source, area_average
from foveate.images.wrappers.base import Unchanged
from foveate.images.wrappers.guide import Guided, find_tissue
from foveate.images.wrappers.resample import Resampled, at_mpp
from foveate.types import Box, Size

GLASS, STAIN = (0.94, 0.93, 0.94), (0.75, 0.45, 0.65)


def slide(rows: slice, columns: slice, size: Size = (60, 90)) -> np.ndarray:
    generator = np.random.default_rng(3)
    pixels = np.tile(np.array(GLASS), (*size, 1))
    pixels[rows, columns] = STAIN
    return np.clip(pixels + generator.normal(0, 0.01, pixels.shape), 0, 1)


def test_tissue_is_what_is_coloured() -> None:
    view = slide(slice(10, 40), slice(30, 80))
    view[20, 50] = GLASS  # a hole of one pixel
    view[50, 10] = STAIN  # a speck
    expected = np.zeros((60, 90), bool)
    expected[10:40, 30:80] = True
    found = find_tissue(view)
    assert found is not None
    assert (found != expected).sum() == 0


@pytest.mark.parametrize(
    "view", [slide(slice(0), slice(0)), np.ones((20, 30, 3)), np.random.default_rng(1).random((20, 30, 1))]
)
def test_where_there_is_no_colour_there_is_no_telling(view: np.ndarray) -> None:
    assert find_tissue(view) is None


class Holed(Unchanged):
    """An image whose left half means nothing."""

    def valid(self, size: Size, region: object = None) -> np.ndarray:  # noqa: ARG002
        result = np.ones(size, bool)
        result[:, : size[1] // 2] = False
        return result

    guide = Source.guide


@pytest.mark.parametrize(("given", "outside"), [("mask", -np.inf), ("prior", -2.5), ("ignore", 0.0)])
def test_masks_and_priors_add_up(given: str, outside: float) -> None:
    source = Holed(ArraySource(slide(slice(30, 60), slice(0, 90)).astype(np.float32)))
    alone = Guided(source, GuideSettings(given=given, strength=2.5)).guide((6, 9))  # type: ignore[arg-type]
    if given == "ignore":
        assert alone is None
    else:
        assert alone is not None
        assert (alone[:, :4] == outside).all()
        assert (alone[:, 4:] == 0).all()
    both = Guided(source, GuideSettings(given=given, tissue="prior", strength=2.5)).guide((6, 9))  # type: ignore[arg-type]
    assert both is not None
    assert (both[:3, :4] == outside - 2.5).all()
    assert (both[3:, :4] == outside).all()
    assert (both[:3, 4:] == -2.5).all()
    assert (both[3:, 4:] == 0).all()


def test_a_source_masks_where_it_is_not_valid() -> None:
    guide = Holed(ArraySource(np.zeros((8, 8), np.uint8))).guide((2, 4))
    assert guide is not None
    assert np.isneginf(guide).tolist() == [[True, True, False, False]] * 2
    assert ArraySource(np.zeros((8, 8), np.uint8)).guide((2, 4)) is None


@pytest.mark.parametrize(
    ("own", "wanted", "size"), [(0.25, 0.5, (30, 45)), (0.5, 0.25, (120, 180)), (0.25, 0.3, (50, 75))]
)
def test_an_image_at_another_scale_is_its_area_average(own: float, wanted: float, size: Size) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    image = at_mpp(ArraySource(pixels, mpp=own), wanted)
    assert image.size == size
    assert image.mpp == pytest.approx(own * 60 / size[0])
    whole = area_average(pixels, size)
    np.testing.assert_allclose(image.read(Box(0, 0, *size)), whole, atol=1e-6)
    np.testing.assert_allclose(image.read(Box(7, 11, 9, 13)), whole[7:16, 11:24], atol=1e-6)
    np.testing.assert_allclose(image.view((5, 6)), area_average(pixels, (5, 6)), atol=1e-6)
    assert (image.read(Box(-3, 0, 2, 4)) == 0).all()
    factor = 60 / size[0]
    assert image.to_file(Box(0, 0, *size)) == Box(0, 0, 60, 90)
    assert image.to_file(Box(10, 20, 10, 10)) == Box(
        round(10 * factor),
        round(20 * factor),
        round(20 * factor) - round(10 * factor),
        round(30 * factor) - round(20 * factor),
    )


def test_images_of_the_scale_wanted_are_left_alone() -> None:
    source = ArraySource(np.zeros((6, 8), np.uint8), mpp=0.2505)
    assert at_mpp(source, 0.25) is source
    assert isinstance(at_mpp(source, 0.26), Resampled)


def test_a_scale_needs_to_be_known() -> None:
    with pytest.raises(ImageError, match=r"^image in memory: to bring it to 0\.5 microns per pixel its own are needed"):
        at_mpp(ArraySource(np.zeros((6, 8), np.uint8)), 0.5)
