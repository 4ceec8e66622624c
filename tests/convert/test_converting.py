"""Any image as a tiled pyramid, read again by us and by others."""

import asyncio
import errno
import json
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import missing
import numpy as np
import pytest
import tifffile
from PIL import Image

from foveate.convert import Conversion, convert, pyramid
from foveate.convert.pyramid import halved, level_sizes, strips
from foveate.errors import ConfigError, ImageError, WriteError
from foveate.images import ArraySource, Georeference, Header, Source, open_image
from foveate.types import Box, Size

SIZES = [(75, 101), (33, 150), (64, 64), (16, 16), (1, 37), (37, 1), (97, 16)]


def pixels(dtype: str, channels: int, size: Size = (75, 101)) -> np.ndarray:
    values = np.random.default_rng(5).random((*size, channels))
    scale = {"bool": 2, "uint8": 256, "uint16": 65536}.get(dtype)
    return values.astype(dtype) if scale is None else np.floor(values * scale).astype(dtype)


def averaged(array: np.ndarray) -> np.ndarray:
    """The 2×2 average the slow way: one cell after the other, in exact arithmetic."""
    height, width, channels = array.shape
    result = np.zeros((-(-height // 2), -(-width // 2), channels), array.dtype)
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            cell = array[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            count = cell.shape[0] * cell.shape[1]
            if array.dtype.kind == "f":
                result[row, column] = cell.astype(np.float64).sum(0).sum(0) / count
            else:
                result[row, column] = (2 * cell.astype(int).sum((0, 1)) + count) // (2 * count)
    return result


def pyramid_of(array: np.ndarray, tile: int) -> list[np.ndarray]:
    levels = [array]
    while max(levels[-1].shape[:2]) > tile:
        levels.append(averaged(levels[-1]))
    return levels


class Described(ArraySource):
    """An array with everything a header can tell."""

    def __init__(self, array: np.ndarray, **told: Any) -> None:
        super().__init__(array, told.pop("mpp", None), "described")
        self._told = told
        self.boxes: list[Box] = []

    def _measure(self) -> Header:
        known = super()._measure()
        return Header(known.levels, known.channels, known.dtype, **self._told)

    def _read(self, box: Box, level: int) -> np.ndarray:
        self.boxes.append(box)
        return super()._read(box, level)


def check_equal(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.reshape(other.shape), other)


def tiff_levels(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert all(page.is_tiled for page in tiff.pages)
        return [page.asarray() for page in tiff.pages]


def source_levels(source: Source) -> list[np.ndarray]:
    return [source.read(Box(0, 0, *level.size), number) for number, level in enumerate(source.levels)]


@pytest.mark.parametrize("size", SIZES)
def test_levels_are_halves_of_one_another(size: Size) -> None:
    array = pixels("uint8", 2, size)
    wanted = pyramid_of(array, 16)
    assert level_sizes(size, 16) == [level.shape[:2] for level in wanted]
    made: dict[int, list[np.ndarray]] = {}
    for level, top, strip, data in strips(ArraySource(array), 16):
        assert data is None
        assert top == sum(map(len, made.get(level, [])))
        assert len(strip) <= 16
        made.setdefault(level, []).append(strip)
    check_equal([np.concatenate(made[level]) for level in sorted(made)], wanted)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_halving_is_the_exact_average(dtype: str) -> None:
    array = pixels(dtype, 3, (21, 15))
    made = halved(array)
    assert made.dtype == array.dtype
    np.testing.assert_array_equal(made, averaged(array))


def test_halving_at_the_ends_of_a_type() -> None:
    assert halved(np.full((3, 3, 1), 65535, np.uint16)).tolist() == [[[65535], [65535]], [[65535], [65535]]]
    assert halved(np.array([[0, 1]], np.uint8)[:, :, None]).item() == 1  # halves round up


def test_nodata_is_left_out_of_averages_and_stays_where_there_is_nothing_else() -> None:
    array = np.array([[0, 8, 0, 0], [4, 0, 0, 0]], np.uint8)[:, :, None]
    assert halved(array, 0.0)[:, :, 0].tolist() == [[6, 0]]
    floats = np.array([[np.nan, 8.0, np.nan], [4.0, np.nan, np.nan]], np.float32)[:, :, None]
    np.testing.assert_array_equal(halved(floats, np.nan)[:, :, 0], [[6.0, np.nan]])


def test_the_source_is_read_once_in_strips_of_tile_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    array = pixels("uint8", 3, (100, 40))
    plain = Described(array)
    list(strips(plain, 16))
    assert plain.boxes == [Box(top, 0, min(16, 100 - top), 40) for top in range(0, 100, 16)]
    tiled = Described(array, tile=(40, 40))  # three rows of ours hold one of its tiles
    list(strips(tiled, 16))
    assert [box.height for box in tiled.boxes] == [48, 48, 4]
    monkeypatch.setattr(pyramid, "STRIP_BYTES", 2 * 16 * 40 * 3)
    limited = Described(array, tile=(100, 40))
    list(strips(limited, 16))
    assert max(box.height for box in limited.boxes) == 32


def test_what_waits_is_a_row_of_tiles_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array is ever made that is larger than a strip of level 0, however high the image is."""
    largest = 0
    whole = np.concatenate

    def concatenate(parts: Any, *more: Any) -> np.ndarray:
        nonlocal largest
        made = whole(parts, *more)
        largest = max(largest, made.size)
        return made

    monkeypatch.setattr(np, "concatenate", concatenate)
    for _ in strips(ArraySource(np.zeros((3000, 20), np.uint8)), 16):
        pass
    assert 0 < largest <= 16 * 10


LOSSLESS = [
    *((dtype, channels, None) for dtype in ("uint16", "float16", "float32", "float64") for channels in (1, 3, 5)),
    ("uint8", 4, None),
    *(("uint8", channels, compression) for channels in (1, 3) for compression in ("deflate", "zstd", "lzw", "none")),
    *(("uint16", 2, compression) for compression in ("zstd", "lzw", "none")),
    ("float32", 2, "zstd"),
    ("bool", 1, "deflate"),
]


@pytest.mark.parametrize(("dtype", "channels", "compression"), LOSSLESS)
def test_a_tiff_without_loss_holds_the_source_and_its_averages(
    dtype: str, channels: int, compression: str | None, tmp_path: Path
) -> None:
    array = pixels(dtype, channels)
    convert(ArraySource(array), tmp_path / "a.tif", Conversion(tile=32, compression=compression))
    wanted = pyramid_of(array.astype(np.uint8) * np.uint8(255) if dtype == "bool" else array, 32)
    check_equal(tiff_levels(tmp_path / "a.tif"), wanted)


@pytest.mark.parametrize("size", SIZES)
def test_a_tiff_of_any_size(size: Size, tmp_path: Path) -> None:
    array = pixels("uint16", 3, size)
    convert(ArraySource(array), tmp_path / "a.tif", Conversion(tile=16))
    check_equal(tiff_levels(tmp_path / "a.tif"), pyramid_of(array, 16))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [50, 95])
def test_jpeg_is_close_and_every_level_is_made_of_the_original(channels: int, quality: int, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:130, :203]
    array = np.stack([rows + 40, columns, 200 - rows][:channels], 2).astype(np.uint8)
    convert(ArraySource(array), tmp_path / "a.tif", Conversion(tile=32, quality=quality))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.JPEG
        if channels == 3:
            assert tiff.pages[0].tags["YCbCrSubSampling"].value == ((1, 1) if quality == 95 else (2, 2))
    for found, wanted in zip(tiff_levels(tmp_path / "a.tif"), pyramid_of(array, 32), strict=True):
        assert np.abs(found.reshape(wanted.shape).astype(int) - wanted).mean() < (1 if quality == 95 else 4)


@pytest.mark.parametrize(
    ("dtype", "channels", "name", "settings"),
    [
        ("uint8", 3, "a.zarr", Conversion(tile=32)),
        ("uint16", 5, "a.zarr", Conversion(tile=16, compression="deflate")),
        ("float32", 1, "plain", Conversion(tile=32, compression="none", format="ome-zarr")),
        ("uint8", 3, "new.zarr", Conversion(tile=32, format="ome-zarr-0.5")),
        ("float32", 2, "new", Conversion(tile=16, format="ome-zarr-0.5", compression="deflate")),
        ("bool", 1, "a.zarr", Conversion(tile=32)),
    ],
)
def test_an_ome_zarr_holds_the_source_and_its_averages(
    dtype: str, channels: int, name: str, settings: Conversion, tmp_path: Path
) -> None:
    zarr = pytest.importorskip("zarr")
    array = pixels(dtype, channels)
    convert(ArraySource(array, mpp=0.5), tmp_path / name, settings)
    group = zarr.open_group(str(tmp_path / name), mode="r")
    told = dict(group.attrs)
    (multiscale,) = told["ome"]["multiscales"] if settings.format == "ome-zarr-0.5" else told["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert {axis.get("unit") for axis in multiscale["axes"][1:]} == {"micrometer"}
    scales = [one["coordinateTransformations"][0]["scale"] for one in multiscale["datasets"]]
    assert scales == [[1, 0.5 * 2**level, 0.5 * 2**level] for level in range(len(scales))]
    arrays = [group[one["path"]] for one in multiscale["datasets"]]
    assert {one.chunks for one in arrays} == {(channels, settings.tile, settings.tile)}
    wanted = pyramid_of(array.astype(np.uint8) * np.uint8(255) if dtype == "bool" else array, settings.tile)
    check_equal([np.moveaxis(one[:], 0, 2) for one in arrays], wanted)


def test_we_read_what_we_wrote_with_exact_factors(tmp_path: Path) -> None:
    array = pixels("uint8", 3, (301, 203))
    for name in ("a.tif", "a.zarr") if find_spec("zarr") else ("a.tif",):
        convert(ArraySource(array, mpp=0.25), tmp_path / name, Conversion(tile=32, compression="deflate"))
        source = open_image(tmp_path / name)
        assert [level.factor for level in source.levels] == [(2**level, 2**level) for level in range(5)]
        assert source.mpp == pytest.approx(0.25, rel=1e-8)
        assert source.header.tile == (32, 32)
        check_equal(source_levels(source), pyramid_of(array, 32))


def test_tifffile_sees_one_pyramid(tmp_path: Path) -> None:
    array = pixels("uint8", 3, (300, 203))
    convert(ArraySource(array, mpp=0.5), tmp_path / "a.tif", Conversion(tile=32))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        (series,) = tiff.series
        assert [level.shape[:2] for level in series.levels] == level_sizes((300, 203), 32)
        assert [page.is_reduced for page in tiff.pages] == [False, True, True, True, True]
        assert tiff.pages[1].get_resolution("MICROMETER") == pytest.approx((1.0, 1.0))


def test_openslide_reads_it_as_a_pyramid(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    array = np.repeat(np.repeat(pixels("uint8", 3, (30, 40)), 10, 0), 10, 1)
    for compression in ("jpeg", "deflate"):
        path = tmp_path / f"{compression}.tif"
        convert(ArraySource(array, mpp=0.5), path, Conversion(tile=64, compression=compression, quality=100))
        with openslide.OpenSlide(path) as slide:
            assert slide.level_dimensions == ((400, 300), (200, 150), (100, 75), (50, 38))
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
            read = np.asarray(slide.read_region((0, 0), 0, (400, 300)).convert("RGB")).astype(int)
            assert np.abs(read - array).mean() < (0.1 if compression == "deflate" else 4)


def test_libvips_reads_it_as_a_pyramid(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    for dtype, channels in (("uint8", 3), ("uint16", 1), ("float32", 5)):
        array = pixels(dtype, channels, (75, 101))
        path = tmp_path / f"{dtype}.tif"
        convert(ArraySource(array), path, Conversion(tile=32, compression="deflate"))
        for page, wanted in enumerate(pyramid_of(array, 32)):
            read = pyvips.Image.tiffload(str(path), page=page).numpy()
            np.testing.assert_array_equal(read.reshape(wanted.shape), wanted)


def test_rasterio_finds_bands_nodata_and_the_place(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    crs = rasterio.CRS.from_epsg(32633).to_wkt()
    transform = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
    array = pixels("uint16", 4, (75, 101))
    array[:40, :50] = 7
    source = Described(
        array, bands=("blue", "green", "red", "near <infrared>"), nodata=7.0, georeference=Georeference(crs, transform)
    )
    convert(source, tmp_path / "a.tif", Conversion(tile=32))
    with rasterio.open(tmp_path / "a.tif") as scene:
        assert scene.crs.to_epsg() == 32633
        assert tuple(scene.transform)[:6] == transform
        assert scene.nodata == 7
        assert scene.descriptions == ("blue", "green", "red", "near <infrared>")
        assert scene.overviews(1) == [2, 4]
        np.testing.assert_array_equal(np.moveaxis(scene.read(), 0, 2), array)


def test_zarr_keeps_what_it_has_no_word_for(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    place = Georeference("LOCAL_CS[]", (1.0, 0.0, 2.0, 0.0, -1.0, 3.0))
    source = Described(pixels("float32", 2), bands=("a", "b"), nodata=float("nan"), georeference=place)
    convert(source, tmp_path / "a.zarr", Conversion(tile=64))
    told = dict(zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs)
    assert told["foveate"] == {
        "nodata": "nan",
        "georeference": {"crs": "LOCAL_CS[]", "transform": [1.0, 0.0, 2.0, 0.0, -1.0, 3.0]},
    }
    assert [channel["label"] for channel in told["omero"]["channels"]] == ["a", "b"]
    json.loads((tmp_path / "a.zarr" / ".zattrs").read_text(), parse_constant=lambda word: pytest.fail(word))


@pytest.mark.parametrize(
    ("source", "name", "compression"),
    [
        (ArraySource(pixels("uint8", 3)), "a.tif", "jpeg"),
        (ArraySource(pixels("uint8", 1)), "a.tif", "jpeg"),
        (ArraySource(pixels("uint8", 4)), "a.tif", "deflate"),
        (ArraySource(pixels("uint16", 3)), "a.tif", "deflate"),
        (ArraySource(pixels("bool", 1)), "a.tif", "deflate"),
        (Described(pixels("uint8", 3), nodata=0.0), "a.tif", "deflate"),
        (Described(pixels("uint8", 3), bands=("near", "far", "swir")), "a.tif", "deflate"),
        (Described(pixels("uint8", 3), bands=("Red", "green", "b")), "a.tif", "jpeg"),
        (ArraySource(pixels("uint8", 3)), "a.ZARR", "zstd"),
    ],
)
def test_what_is_chosen_loses_nothing_but_of_photographs(source: Source, name: str, compression: str) -> None:
    assert Conversion().resolved(source.header, Path(name)).compression == compression


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        (Conversion(tile=100), "a.tif", "tile must be a multiple of 16 from 16 to 4096, got 100: take 256"),
        (Conversion(quality=0), "a.tif", "quality must be from 1 to 100, got 0: 90 is hardly told from the original"),
        (Conversion(format="png"), "a", "format must be one of tiff, ome-zarr, ome-zarr-0.5, got png: leave it out to"),
        (Conversion(compression="rar"), "a", "compression in tiff must be one of jpeg, deflate, zstd, lzw, none, got"),
        (Conversion(compression="jpeg"), "a.zarr", "compression in ome-zarr must be one of deflate, zstd, none, got"),
        (Conversion(compression="jpeg"), "a", "compression jpeg needs 8-bit grey or RGB, got 2 channel(s) of uint16:"),
    ],
)
def test_impossible_settings_are_one_line(settings: Conversion, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.resolved(ArraySource(pixels("uint16", 2)).header, Path(name))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def broken_after(rows: int, error: BaseException) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        assert 0 < done <= total
        if done > rows:
            raise error

    return progress


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_an_interruption_leaves_nothing_and_what_was_there_stays(name: str, tmp_path: Path) -> None:
    if name == "a.zarr":
        pytest.importorskip("zarr")
    array, settings = pixels("uint16", 2), Conversion(tile=16)
    convert(ArraySource(array), tmp_path / name, settings)
    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            convert(
                ArraySource(array + 1),
                tmp_path / (name if number == 1 else f"other-{name}"),
                settings,
                overwrite=True,
                progress=broken_after(60, KeyboardInterrupt()),
            )
        assert [path.name for path in tmp_path.iterdir()] == [name]
    check_equal(source_levels(open_image(tmp_path / name))[:1], [array])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "cannot be written (No space left on device): free some space or write elsewhere"),
        (errno.EROFS, "cannot be written (Read-only file system): write elsewhere"),
        (errno.EIO, "cannot be written (Input/output error): check the path"),
    ],
)
def test_what_the_file_system_refuses_is_one_line(number: int, said: str, tmp_path: Path) -> None:
    failure = OSError(number, os.strerror(number))
    with pytest.raises((ImageError, WriteError)) as caught:
        convert(
            ArraySource(pixels("uint8", 3)), tmp_path / "a.tif", Conversion(tile=16), progress=broken_after(20, failure)
        )
    assert str(caught.value) == f"{tmp_path / 'a.tif'}: {said}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["ome-zarr", "ome-zarr-0.5"])
@pytest.mark.parametrize("nth", [0, 1, 9])
def test_nothing_is_written_after_a_full_disk_was_told(
    version: str, nth: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("zarr")
    from zarr.storage import LocalStore

    write, begun = LocalStore.set, count()

    async def slowly(self: Any, key: str, value: Any) -> None:
        if next(begun) == nth:
            raise OSError(errno.EFBIG, "File too large")
        await asyncio.sleep(0.1)  # what was begun beside it is written later
        await write(self, key, value)

    monkeypatch.setattr(LocalStore, "set", slowly)
    with pytest.raises(WriteError, match="File too large"):
        convert(ArraySource(pixels("uint8", 3)), tmp_path / "a.zarr", Conversion(format=version, tile=32))
    time.sleep(0.2)
    assert not list(tmp_path.rglob("*"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImageError, match=r"a.tif: cannot be written \((File exists|Not a directory)\): check the path"):
        convert(ArraySource(pixels("uint8", 3)), tmp_path / "file" / "a.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_what_is_there_is_replaced_only_when_told(name: str, tmp_path: Path) -> None:
    if name == "a.zarr":
        pytest.importorskip("zarr")
    settings, first, second = Conversion(tile=32), pixels("uint16", 1), pixels("uint16", 1, (40, 50))
    convert(ArraySource(first), tmp_path / "new" / name, settings)
    with pytest.raises(ConfigError) as caught:
        convert(ArraySource(second), tmp_path / "new" / name, settings)
    assert str(caught.value) == (
        f"{tmp_path / 'new' / name} is there already: give another name, or --overwrite to replace it"
    )
    assert open_image(tmp_path / "new" / name).size == (75, 101)
    convert(ArraySource(second), tmp_path / "new" / name, settings, overwrite=True)
    check_equal(source_levels(open_image(tmp_path / "new" / name)), pyramid_of(second, 32))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_folders_and_the_source_itself_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConfigError, match="is a folder, and no OME-Zarr that could be replaced: give another name"):
        convert(ArraySource(pixels("uint8", 3)), tmp_path / "precious", overwrite=True)
    Image.fromarray(pixels("uint8", 3)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"a\.png is the image that is to be converted: give another name"):
        convert(open_image(tmp_path / "a.png"), tmp_path / "a.png", overwrite=True)


def test_a_source_that_breaks_off_is_told_as_it_is(tmp_path: Path) -> None:
    class Broken(ArraySource):
        def _read(self, box: Box, level: int) -> np.ndarray:
            if box.top > 20:
                raise ImageError("a.svs: tile (3, 4) of level 0 is broken: copy the file again")
            return super()._read(box, level)

    with pytest.raises(ImageError, match=r"a\.svs: tile \(3, 4\) of level 0 is broken"):
        convert(Broken(pixels("uint8", 3)), tmp_path / "a.tif", Conversion(tile=16))
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    convert(
        ArraySource(pixels("uint8", 3)),
        tmp_path / "a.tif",
        Conversion(tile=16),
        progress=lambda *two: told.append(two),
    )
    assert told[-1] == (told[-1][1], told[-1][1])
    assert told == sorted(told)
    assert told[-1][1] == sum(height for height, _ in level_sizes((75, 101), 16))


def test_png_becomes_lazy(tmp_path: Path) -> None:
    array = pixels("uint8", 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    convert(open_image(tmp_path / "a.png"), tmp_path / "a.tif", Conversion(tile=32, compression="deflate"))
    source = open_image(tmp_path / "a.tif")
    assert source.header.tile == (32, 32)
    assert [level.size for level in source.levels] == [(75, 101), (38, 51), (19, 26)]
    np.testing.assert_array_equal(source.read(Box(5, 6, 20, 30)), array[5:25, 6:36])


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("what", missing.BYTES[1:])
@pytest.mark.parametrize("kind", ["raster, mask", "raster, opacity", "tiff, opacity", "png", "tiff, left out"])
def test_a_mask_is_kept_at_every_level_of_a_tiff_and_refused_elsewhere(kind: str, what: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    source, pixels, gone = missing.KINDS[kind](tmp_path / "image", what)
    told = convert(source, tmp_path / "a.tif", Conversion(tile=32, compression="deflate"))
    result = open_image(told)
    if source.header.nodata is None:
        with rasterio.open(told) as file:
            assert np.array_equal(file.dataset_mask() == 0, gone)
        with rasterio.open(told, overview_level=0) as file:
            half = gone.reshape(48, 2, 64, 2).all((1, 3))
            assert np.array_equal(file.dataset_mask() == 0, half)
        with pytest.raises(ImageError, match="OME-Zarr has no place for its mask"):
            convert(source, tmp_path / "a.zarr", Conversion(tile=32))
        assert not (tmp_path / "a.zarr").exists()
    (known, marked), (seen, _) = (one.read_known([Box(0, 0, *missing.SIZE)])[0] for one in (result, source))
    assert marked is not None
    assert np.array_equal(marked[:, :, 0], gone)
    assert np.array_equal(known, seen)
    for number, level in enumerate(result.levels[1:], 1):  # means of data, never of data and nothing
        values, marked = result.read_known([Box(0, 0, *level.size)], number)[0]
        inside = values[:, :, : pixels.shape[2]] if marked is None else values[~marked[:, :, 0], : pixels.shape[2]]
        assert inside.min() >= pixels[~gone].min()
