"""Rasters through GDAL: overviews, bands, nodata and place on earth."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyramid_files import check_absent, check_spoiled, obeys, spoil, values, write_pyramid

from foveate.errors import ImageError
from foveate.images import open_image
from foveate.images.area import area_average
from foveate.images.formats.raster import RasterSource
from foveate.types import Box

rasterio = pytest.importorskip("rasterio")

SLIDES = Path(__file__).parents[4] / "shared/data/slides"
PLACE = (0.5, 0.0, 400000.0, 0.0, -0.5, 5000000.0)


def write(path: Path, array: np.ndarray, overviews: tuple[int, ...] = (), **more: Any) -> Path:
    """A tiled GeoTIFF in UTM zone 33N, of half a metre."""
    how: dict[str, Any] = {"crs": "EPSG:32633", "transform": rasterio.Affine(*PLACE), "compress": "deflate"}
    names = more.pop("names", ())
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=array.shape[0],
        width=array.shape[1],
        count=array.shape[2],
        dtype=array.dtype,
        **({"tiled": True, "blockxsize": 48, "blockysize": 64} | how | more),
    ) as stream:
        stream.write(np.moveaxis(array, 2, 0))
        for number, name in enumerate(names, 1):
            stream.set_band_description(number, name)
    if overviews:
        with rasterio.open(path, "r+") as stream:
            stream.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    return path


@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint16", 5), ("float32", 2), ("float64", 1)]
)
def test_bands_read_like_slices(dtype: str, channels: int, tmp_path: Path) -> None:
    array = values((131, 203), channels, dtype)
    source = RasterSource(write(tmp_path / "image", array))
    obeys(source, [array])
    assert source.header.format == "GDAL, GTiff"
    assert source.header.tile == (64, 48)
    np.testing.assert_allclose(source.view((7, 9)), area_average(array, (7, 9)), atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32"])
def test_integers_of_no_known_range_become_floats_openly(dtype: str, tmp_path: Path) -> None:
    array = values((60, 70), 2, dtype)
    source = RasterSource(write(tmp_path / "image", array))
    wide = np.float32 if array.itemsize < 4 else np.float64
    assert source.header.format == f"GDAL, GTiff, {dtype} as {np.dtype(wide)}"
    obeys(source, [array.astype(wide)])


def test_overviews_are_levels_of_their_own_pixels(tmp_path: Path) -> None:
    array = values((201, 303))
    path = write(tmp_path / "image", array, (2, 4))
    overviews = []
    for number in range(2):
        with rasterio.open(path, overview_level=number) as stream:
            overviews.append(np.moveaxis(stream.read(), 0, 2))
    assert [overview.shape for overview in overviews] == [(101, 152, 3), (51, 76, 3)]
    source = RasterSource(path)
    obeys(source, [array, *overviews])
    assert source.levels[1].factor == (201 / 101, 303 / 152)


def test_the_header_tells_place_scale_names_and_nodata(tmp_path: Path) -> None:
    source = RasterSource(write(tmp_path / "image", values((60, 70), 2, "uint16"), nodata=7, names=("red", "infrared")))
    header = source.header
    assert (header.bands, header.nodata) == (("red", "infrared"), 7.0)
    assert source.mpp == pytest.approx(500000)
    assert header.georeference is not None
    assert header.georeference.transform == PLACE
    assert rasterio.crs.CRS.from_wkt(header.georeference.crs).to_epsg() == 32633
    assert RasterSource(source.name, mpp=3.0).mpp == 3.0
    degrees = write(tmp_path / "degrees", values((60, 70), 2), crs="EPSG:4326", transform=rasterio.Affine(*PLACE))
    assert RasterSource(degrees).mpp is None
    with rasterio.open(tmp_path / "named", "w", **_profile(3)) as stream:
        stream.set_band_description(2, "green")
        stream.write(np.ones((3, 20, 30), np.uint8))
    assert RasterSource(tmp_path / "named").header.bands == ("band 1", "green", "band 3")


def _profile(count: int) -> dict[str, Any]:
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(*PLACE)}
    return {"driver": "GTiff", "height": 20, "width": 30, "count": count, "dtype": "uint8"} | place


def test_nodata_is_read_as_stored_and_told_by_valid(tmp_path: Path) -> None:
    array = np.maximum(values((80, 120), 2), 1)
    array[:40, :30] = 0
    array[70, 100, 0] = 0  # of one band only: the pixel means something
    source = RasterSource(write(tmp_path / "image", array, nodata=0))
    obeys(source, [array])
    share = source.average_of((4, 5), (0, 0, 80, 120), Box(0, 0, 80, 120))[1]
    assert share is not None
    means = area_average((array > 0).any(axis=2)[:, :, None], (4, 5))
    np.testing.assert_allclose(share, means, atol=1e-6)
    valid = source.valid((4, 4))
    assert valid is not None
    assert valid.tolist() == [[False, True, True, True]] * 2 + [[True] * 4] * 2
    outside = source.valid((2, 2), (40, 60, 120, 180))
    assert outside is not None
    assert outside.tolist() == [[True, False], [False, False]]
    assert source.valid((1, 3), (0, 0, 40, 60)).tolist() == [[False, True, True]]  # type: ignore[union-attr]
    assert RasterSource(write(tmp_path / "whole", array)).valid((4, 4)) is None


def test_valid_is_read_from_overviews(tmp_path: Path) -> None:
    array = np.full((256, 384, 1), 9, np.uint8)
    array[:128] = 0
    source = RasterSource(write(tmp_path / "image", array, (2, 4), nodata=0))
    valid = source.valid((4, 6))
    assert valid is not None
    assert valid.tolist() == [[False] * 6] * 2 + [[True] * 6] * 2
    assert source.bytes_read == 64 * 96


def test_files_without_a_place_are_read_in_silence(tmp_path: Path) -> None:
    array = values((60, 70))
    path = write_pyramid(tmp_path / "image", [array])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = RasterSource(path)
        obeys(source, [array])
    assert (source.header.georeference, source.mpp, source.header.bands) == (None, None, ())


def test_bytes_are_those_of_the_pixels_decoded(tmp_path: Path) -> None:
    source = RasterSource(write(tmp_path / "image", values((60, 70), 2, "uint16")))
    source.read(Box(-3, 5, 10, 20))
    assert source.bytes_read == 7 * 20 * 2 * 2


def test_broken_files_say_so(tmp_path: Path) -> None:
    array = values((200, 300))
    source = RasterSource(spoil(write(tmp_path / "image", array), tile=0))
    check_spoiled(source, array, "", "write it again, e.g. by gdal_translate")
    (tmp_path / "text").write_text("no raster")
    with pytest.raises(ImageError, match=r"broken image, or of a kind not supported here \(.*not recognized"):
        open_image(tmp_path / "text", reader="raster")
    with rasterio.open(tmp_path / "complex", "w", **(_profile(1) | {"dtype": "complex64"})) as stream:
        stream.write(np.ones((1, 20, 30), np.complex64))
    with pytest.raises(ImageError, match="pixels must be bool, integers or floating point, got complex64: convert it"):
        open_image(tmp_path / "complex", reader="raster")


def test_without_the_library_the_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "image", values((40, 50)))
    check_absent(path, "raster", "rasterio", "geo", monkeypatch)


@pytest.mark.skipif(not SLIDES.exists(), reason=f"{SLIDES} is not there")
def test_a_slides_label_is_no_overview() -> None:
    source = RasterSource(SLIDES / "cmu-1-small-region.svs")
    height, width = source.size
    for level in source.levels[1:]:
        assert math.isclose(level.size[0] / height, level.size[1] / width, rel_tol=0.01)
