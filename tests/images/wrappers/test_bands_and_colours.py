"""Chosen bands and converted colours, by hand and by definition; that they read like arrays is in test_sources."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.errors import ImageError
from foveate.images import ArraySource, Bands, Colour, Header, Source, area_average, open_image
from foveate.images.augment.image import Augmented, Change
from foveate.images.formats.library import over_black
from foveate.images.tensors import gather
from foveate.types import Box, Level

SIZE = (13, 22)


def pixels(dtype: type, channels: int) -> np.ndarray:
    values = np.random.default_rng(11).random((*SIZE, channels))
    scale = {np.bool_: 1, np.uint8: 255, np.uint16: 65535}.get(dtype)
    return values.astype(dtype) if scale is None else np.rint(values * scale).astype(dtype)


class TwoLevels(Source):
    """The second level is told apart by its values."""

    def __init__(self, fine: np.ndarray, coarse: np.ndarray) -> None:
        super().__init__("pyramid", 0.25)
        self._arrays = (fine, coarse)

    def _measure(self) -> Header:
        fine, coarse = self._arrays
        factor = (fine.shape[0] / coarse.shape[0], fine.shape[1] / coarse.shape[1])
        return Header((Level(SIZE, (1.0, 1.0)), Level(coarse.shape[:2], factor)), fine.shape[2], fine.dtype)

    def _read(self, box: Box, level: int) -> np.ndarray:
        return self._arrays[level][box.top : box.bottom, box.left : box.right]


def whole(source: Source, level: int = 0) -> np.ndarray:
    return source.read(Box(0, 0, *source.levels[level].size), level)


def test_levels_names_and_bytes_are_the_originals() -> None:
    fine, coarse = pixels(np.uint8, 4), np.full((6, 11, 4), (10, 20, 30, 255), np.uint8)
    original = TwoLevels(fine, coarse)
    bands, rgb, grey = Bands(original, (3, 1)), Colour(original, "rgb"), Colour(original, "grey")
    for source in (bands, rgb, grey):
        assert (source.levels, source.mpp, source.name) == (original.levels, 0.25, "pyramid")
        assert source.dtype == np.uint8
    assert whole(bands, 1)[0, 0].tolist() == [255, 20]
    assert whole(rgb, 1)[0, 0].tolist() == [10, 20, 30]
    assert whole(grey, 1)[0, 0].tolist() == [18]
    # views of half the size come from the second level
    np.testing.assert_allclose(bands.view((6, 11))[2, 2], [1, 20 / 255], atol=1e-7)
    np.testing.assert_allclose(rgb.view((6, 11))[2, 2], np.array([10, 20, 30]) / 255, atol=1e-7)
    # rounded like the pixels: opacity must be applied before the average
    np.testing.assert_allclose(grey.view((6, 11))[2, 2], [18 / 255], atol=1e-7)
    before = original.bytes_read
    bands.read(Box(-1, -1, 4, 6))
    assert bands.bytes_read == original.bytes_read == before + 3 * 5 * 4


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.float32])
def test_grey_is_the_luma(dtype: type) -> None:
    array = pixels(dtype, 3)
    source = Colour(ArraySource(array), "grey")
    exact = array.astype(np.float64) @ [0.299, 0.587, 0.114]
    read = whole(source)
    assert (read.dtype, read.shape) == (dtype, (*SIZE, 1))
    if dtype == np.float32:
        np.testing.assert_allclose(read[:, :, 0], exact, atol=1e-7)
    else:
        np.testing.assert_array_equal(read[:, :, 0], np.floor(exact + 0.5 + 1e-9).astype(dtype))
    # a view is linear in the pixels: that of the luma before it is rounded
    scale = {np.bool_: 1, np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    np.testing.assert_allclose(source.view((5, 7)), area_average(exact[:, :, None] / scale, (5, 7)), atol=1e-7)


def test_grey_is_pillows_grey_within_one_level() -> None:
    array = pixels(np.uint8, 3)
    theirs = np.asarray(Image.fromarray(array).convert("L")).astype(int)
    assert np.abs(whole(Colour(ArraySource(array), "grey"))[:, :, 0] - theirs).max() <= 1


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kind", ["rgb", "grey"])
def test_transparency_is_laid_over_black_before_anything_else(dtype: type, kind: str) -> None:
    array = pixels(dtype, 4)
    scale = {np.bool_: 1, np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    exact = array[:, :, :3].astype(np.float64) * array[:, :, 3:].astype(np.float64) / scale
    laid = exact if dtype == np.float32 else np.floor(exact + 0.5).astype(dtype)
    np.testing.assert_allclose(over_black(array).astype(float), laid.astype(float), atol=1e-7)
    source = Colour(ArraySource(array), kind)
    expected = whole(Colour(ArraySource(laid.astype(dtype)), kind))
    np.testing.assert_allclose(whole(source).astype(float), expected.astype(float), atol=1e-7)
    np.testing.assert_allclose(source.view((5, 7)), area_average(expected, (5, 7)), atol=1e-6)


def test_what_is_of_the_kind_already_is_left_as_it_is() -> None:
    for channels, kind in ((1, "grey"), (3, "rgb")):
        array = pixels(np.uint16, channels)
        source = Colour(ArraySource(array), kind)
        np.testing.assert_array_equal(whole(source), array)
        np.testing.assert_array_equal(source.view((4, 9)), ArraySource(array).view((4, 9)))


def test_mixed_images_come_to_one_kind_in_the_unit_range(tmp_path: Path) -> None:
    """One grey level, 0.2 of full scale, as every kind of pixel there is."""
    values = {np.uint8: 51, np.uint16: 13107, np.float32: 0.2, np.float16: 0.2}
    sources = []
    for dtype, value in values.items():
        for channels in (1, 3):
            array = np.full((9, 14, channels), value, dtype)
            path = tmp_path / f"{np.dtype(dtype)} {channels}.npy"
            np.save(path, array)
            copied = open_image(path)
            sources += [Colour(Bands(s, range(channels)), "rgb") for s in (ArraySource(array), copied)]

    patches = gather(sources, torch.tensor([[[0, 0, 4, 6], [5, 3, 4, 6]]] * len(sources)))
    assert patches.dtype == torch.float32
    np.testing.assert_allclose(patches.numpy(), 0.2, atol=5e-5)  # half precision
    for source in sources:
        np.testing.assert_allclose(source.view((2, 3)), 0.2, atol=5e-5)
        brighter = Augmented(source, Change(flip_rows=True, bias=0.1))
        np.testing.assert_allclose(brighter.read(Box(1, 2, 5, 4)), 0.3, atol=5e-5)
        np.testing.assert_allclose(brighter.view((2, 3)), 0.3, atol=5e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s: Bands(s, (0, 5)),
            "image in memory: bands must be among 0 … 4, the image's own, got 0, 5: "
            "set model.input.bands to those it has, counted from 0",
        ),
        (
            lambda s: Bands(s, ()),
            "image in memory: bands must be among 0 … 4, the image's own, got none: "
            "set model.input.bands to those it has, counted from 0",
        ),
        (lambda s: Bands(s, (-1,)), None),
        (
            lambda s: Colour(s, "rgb"),
            "image in memory: only images of 1 (grey), 3 (RGB) or 4 channels (RGB and opacity) can be made rgb, "
            "got 5 channels: choose bands with model.input.bands instead",
        ),
    ],
)
def test_impossible_bands_and_colours_are_refused(make, message: str | None) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with pytest.raises(ImageError) as caught:
        make(ArraySource(pixels(np.uint8, 5)))
    assert message is None or str(caught.value) == message


def named(channels: int, *bands: str, dtype: type = np.uint16) -> Source:
    class Named(ArraySource):
        def _measure(self) -> Header:
            return replace(super()._measure(), bands=bands)

    return Named(pixels(dtype, channels))


@pytest.mark.parametrize(
    ("source", "wanted", "indices"),
    [
        (named(4, "red", "green", "blue", "nir"), ("nir", "red"), (3, 0)),
        (named(4, "nir", "blue", "red", "green"), ("nir", "red", 1, "nir"), (0, 2, 1, 0)),  # whatever the file's order
        (named(3, "B04 (Red)", "B05 (Red edge)", "B08 (NIR)"), ("b08", "B04 (red)"), (2, 0)),
        (named(2, "Near-Infrared", "SWIR 1.6"), ("NIR", "swir16"), (0, 1)),
        (named(2, "red", "red edge"), ("Red", "red-edge"), (0, 1)),  # a whole name goes before a word of another's
        (named(3, "DAPI", "GFP", "DAPI 2"), ("gfp", "dapi"), (1, 0)),
        (named(3), ("b", "Green"), (2, 1)),
        (named(4), ("opacity", "red"), (3, 0)),
        (named(1, dtype=np.float32), ("gray",), (0,)),
    ],
)
def test_bands_by_name(source: Source, wanted: tuple[int | str, ...], indices: tuple[int, ...]) -> None:
    chosen = Bands(source, wanted)
    assert chosen.indices == indices
    np.testing.assert_array_equal(whole(chosen), whole(source)[:, :, list(indices)])
    assert chosen.header.bands == tuple(source.header.bands[index] for index in indices if source.header.bands)


@pytest.mark.parametrize(
    ("source", "wanted", "message"),
    [
        (
            named(2, "red", "nir"),
            "swir",
            "no band is called 'swir', its bands are red, nir: set model.input.bands to those it has, or to numbers "
            "counted from 0",
        ),
        (named(5), "red", "no band is called 'red', its 5 bands have no names: set model.input.bands to those it has"),
        (named(3, dtype=np.float32), "red", "no band is called 'red', its 3 bands have no names"),
        (
            named(2, "red 1", "red 2"),
            "red",
            "'red' may be any of the bands red 1, red 2: set model.input.bands to one's whole name or number",
        ),
        (named(1, "red"), "", "no band is called ''"),
    ],
)
def test_names_that_no_band_has_are_refused(source: Source, wanted: str, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        Bands(source, (wanted,))
    assert str(caught.value).startswith(f"image in memory: {message}")
