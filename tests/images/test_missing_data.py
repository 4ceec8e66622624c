"""The law of missing data: what is seen of an image does not change with the bytes under its mask."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from missing import BYTES, KINDS, SIZE, Made, tiff

from foveate.config.settings import GuideSettings, ViewSettings
from foveate.errors import ImageError
from foveate.images import ArraySource, Bands, Colour, Header, Source, area_average, augment, open_image, unit_range
from foveate.images.augment.image import Change
from foveate.images.augment.stain import Stain
from foveate.images.orientation import Orientation
from foveate.images.tensors import gather, make_view
from foveate.images.wrappers.guide import Guided
from foveate.images.wrappers.resample import Resampled
from foveate.images.wrappers.standardise import Neutral, Standardised
from foveate.types import Box

BOXES = [(0, 0, 40, 50), (60, 66, 40, 50), (20, 20, 40, 50), (-9, 100, 40, 50), (50, 10, 40, 50)]
VIEWS: list[tuple[tuple[int, int], tuple[float, float, float, float] | None]] = [
    ((12, 16), None),
    ((96, 128), None),
    ((5, 8), (-8.5, 20, 70.25, 140)),
]
TURNS = [(flip, False, turns) for flip in (False, True) for turns in range(4)]
"""All there are: what flips columns flips rows and turns twice."""

MECHANISMS = ("raster, float", "tiff, opacity", "tiff, left out")
"""Kinds of files, one for every way to know: a value, a mask, what is not there. These meet every wrapper."""

WRAPPED: dict[str, Callable[[Source], Source]] = {
    "plain": lambda source: source,
    "standardised": Standardised,
    "neutral": lambda source: Neutral(source, lambda: [0.25] * source.channels),
    "bands": lambda source: Bands(source, [source.channels - 1, 0]),
    "resampled": lambda source: Resampled(source, (61, 90)),
    "guided": lambda source: Guided(source, GuideSettings(tissue="prior")),
    "shifted": lambda source: augment.Augmented(source, Change(shift=(-7, 11), gain=1.25, bias=-0.1)),
    "moved standardised": lambda source: augment.Augmented(Standardised(source), Change(shift=(5, 0), bias=0.5)),
}


def needs(kind: str) -> None:
    for word, module in (("raster", "rasterio"), ("zarr", "zarr"), ("slide", "openslide"), ("vips", "pyvips")):
        if word in kind or (word == "raster" and kind.startswith("tiff, mask")):
            pytest.importorskip(module)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Made]:
    folder = tmp_path_factory.mktemp("missing")

    def make(kind: str, what: str) -> Made:
        needs(kind)
        path = folder / f"{list(KINDS).index(kind)}-{what}"
        return KINDS[kind](path.with_suffix(".zarr") if "zarr" in kind else path, what)

    return make


def seen(source: Source) -> list[np.ndarray]:
    """All that a model is given of an image: views, where to look, patches and statistics."""
    found = [source.view(size, region) for size, region in VIEWS]
    for size, region in VIEWS:
        told = (source.valid(size, region), source.guide(size, region))
        found += [np.array(0) if one is None else one for one in told]
    corners = [(top, left, 32, 32) for top in (0, 32) for left in (32, 64)]
    found += [gather([source], torch.tensor([boxes])).numpy() for boxes in (BOXES, corners)]
    return [*found, source.moments((13, 17)), source.neutral()]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("kind", "wrapped"), [(kind, name) for kind in KINDS for name in WRAPPED if name == "plain" or kind in MECHANISMS]
)
def test_what_is_seen_does_not_change_with_the_bytes_under_the_mask(
    kind: str, wrapped: str, made: Callable[[str, str], Made]
) -> None:
    first, *others = [seen(WRAPPED[wrapped](made(kind, what)[0])) for what in BYTES]
    assert all(np.isfinite(one[one > -np.inf]).all() for one in first)
    for other in others:
        for one, two in zip(first, other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_flips_and_turns_move_what_is_missing_with_the_pixels(kind: str, made: Callable[[str, str], Made]) -> None:
    sources, size, whole = [made(kind, what)[0] for what in BYTES[1:]], (7, 9), (0, 0, *SIZE)
    view, valid = sources[0].view(size), sources[0].valid(size)
    patch = gather(sources[:1], torch.tensor([[whole]]))[0, 0].permute(1, 2, 0).numpy()
    assert valid is not None
    for flips_rows, flips_columns, turns in TURNS:
        turn = Orientation.turned(turns, flips_rows, flips_columns)
        for source in sources:
            moved = augment.Augmented(source, Change(flips_rows, flips_columns, turns))
            np.testing.assert_array_equal(moved.view(turn.size(size)), turn.apply(view))
            np.testing.assert_array_equal(moved.valid(turn.size(size)), turn.apply(valid))
            found = gather([moved], torch.tensor([[(0, 0, *moved.size)]]))[0, 0]
            np.testing.assert_array_equal(found.permute(1, 2, 0), turn.apply(patch))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "overviews" not in kind])  # these are of the nearest pixels
def test_views_average_what_is_data_and_the_rest_is_the_mean(kind: str, made: Callable[[str, str], Made]) -> None:
    source, pixels, missing = made(kind, "odd")
    assert source.size == SIZE
    if source.channels != pixels.shape[2]:  # with its opacity
        source = Colour(source, "rgb")
    units, known = unit_range(pixels if pixels.dtype != np.int16 else pixels.astype(np.float32)), ~missing[:, :, None]
    sums = area_average(np.where(known, units, 0).astype(np.float64), (12, 16)).astype(np.float64)
    share = area_average(known.astype(np.float64), (12, 16))
    mean = sums.sum((0, 1)) / share.sum()
    expected = np.where(share > 1e-4, sums / np.maximum(share, 1e-9), mean)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(source.view((12, 16)) / scale, expected / scale, atol=2e-6)
    np.testing.assert_array_equal(source.valid((12, 16)), share[:, :, 0] >= 0.5)
    whole = gather([source], torch.tensor([[(0, 0, *SIZE)]]))[0, 0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(whole[~missing], units[~missing])
    assert (whole[missing] == source.neutral()).all()
    np.testing.assert_allclose(source.neutral() / scale, mean / scale, atol=1e-6)
    standard = Standardised(source)
    inside = gather([standard], torch.tensor([[(0, 0, *SIZE)]]))[0, 0].permute(1, 2, 0).numpy()
    assert (inside[missing] == 0).all()
    np.testing.assert_allclose(inside[~missing].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inside[~missing].std(0), 1, atol=1e-5)


def test_what_is_stored_can_still_be_read(made: Callable[[str, str], Made]) -> None:
    source, _, missing = made("raster, float", "extreme")
    assert (source.read(Box(0, 0, *SIZE))[missing] == np.float32(-3.4028235e38)).all()
    known, gaps = source.read_known([Box(0, 0, *SIZE)])[0]
    assert gaps is not None
    assert (known[missing] == 0).all()
    np.testing.assert_array_equal(gaps[:, :, 0], missing)
    assert source.read_known([Box(60, 40, 9, 9)])[0][1] is None


def test_a_stained_image_is_stained_where_it_is_data(made: Callable[[str, str], Made]) -> None:
    stain = Change(stain=Stain((1.2, 0.9, 1.0), (0.01, 0.0, 0.0)), gain=1.1)
    first, *others = [augment.Augmented(made("png", what)[0], stain) for what in BYTES]
    for other in others:
        for size, region in VIEWS:
            np.testing.assert_array_equal(first.view(size, region), other.view(size, region))
    known = first.view((1, 1), (60, 40, 80, 70))
    np.testing.assert_allclose(first.view((1, 1), (60, 40, 80, 110))[0, 0], known[0, 0], atol=0.02)


@pytest.mark.parametrize("wrap", [lambda source: source, Standardised, lambda source: Neutral(source, lambda: [0.5])])
def test_an_image_of_nothing_says_so(wrap: Callable[[Source], Source], tmp_path: Path) -> None:

    tiff(tmp_path / "a.tif", np.full((40, 60, 1), -9999, np.float32), -9999)
    source = wrap(open_image(tmp_path / "a.tif"))
    with pytest.raises(ImageError, match=r"a\.tif: there is nothing to look at: all of it is no data or outside its m"):
        make_view(source, ViewSettings(longest_side=12))


def test_of_floating_point_every_band_is_missing_by_itself() -> None:
    pixels = np.random.default_rng(1).random((8, 10, 2)).astype(np.float32)
    pixels[:, 5:, 0], pixels[:4, :, 1] = np.nan, np.nan

    class Declared(ArraySource):
        def _measure(self) -> Header:
            return replace(super()._measure(), nodata=float("nan"))

    source = Declared(pixels)
    view = source.view((1, 1))[0, 0]
    np.testing.assert_allclose(view, np.nanmean(pixels.astype(np.float64), (0, 1)), rtol=1e-6)
    valid = source.valid((2, 2))
    assert valid is not None
    assert valid.tolist() == [[True, False], [True, True]]


def test_an_image_without_a_mask_has_none(tmp_path: Path) -> None:
    source = ArraySource(np.zeros((8, 9, 3), np.uint8))
    assert source.valid((2, 2)) is None
    assert source.guide((2, 2)) is None
    assert source.average_of((2, 2), (0, 0, 8, 9), Box(0, 0, 8, 9))[1] is None
    assert source.read_known([Box(0, 0, 2, 2)])[0][1] is None
    assert gather([source], torch.tensor([[(0, 0, 2, 2)]])).dtype == torch.float32
