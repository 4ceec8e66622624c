"""What a file says is kept by every reader, near and far: its pixels, mask and place, its scale and its channels."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from servers import FileServer

from foveate.convert.run import convert
from foveate.convert.settings import Conversion
from foveate.datasets.manifest.check import check_manifest
from foveate.errors import ImageError
from foveate.images import PillowSource, RasterSource, Source, TiffSource, VipsSource, describe, open_image
from foveate.images.wrappers.resample import at_mpp
from foveate.types import Box

INTEGERS = ("int8", "int16", "int32", "uint32", "int64", "uint64")


def whole(source: Source) -> np.ndarray:
    return source.read(Box(0, 0, *source.size))


def extremes(dtype: str, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    """Pixels of a type, its least and greatest among them; of 64 bits only those that float64 can tell apart."""
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**53)), min(limits.max, 2**53)
    drawn = np.random.default_rng(0).integers(low, high, size, dtype, endpoint=True)
    drawn[0, :2] = low, high
    return drawn


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_read_by_one_rule(dtype: str, tmp_path: Path) -> None:
    rasterio, zarr = pytest.importorskip("rasterio"), pytest.importorskip("zarr")
    array = extremes(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    np.save(tmp_path / "a.npy", array)
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(16, 16))
    how: dict[str, Any] = {"driver": "GTiff", "height": 20, "width": 30, "count": 1, "dtype": dtype}
    with rasterio.open(
        tmp_path / "g.tif", "w", **how, crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5, 0, -1, 9)
    ) as to:
        to.write(array, 1)
    wide = np.float32 if array.itemsize < 4 else np.float64
    with FileServer({name: (tmp_path / name).read_bytes() for name in ("a.tif", "g.tif")}) as server:
        near = [tmp_path / name for name in ("a.tif", "a.npy", "a.zarr", "g.tif")]
        for source in map(open_image, [*near, server.address("a.tif"), server.address("g.tif")]):
            assert source.dtype == wide, source
            np.testing.assert_array_equal(whole(source)[:, :, 0], array.astype(wide))
            assert source.header.format.endswith(f"{dtype} as {np.dtype(wide)}")


def test_what_is_no_number_is_refused_by_name(tmp_path: Path) -> None:
    array = np.ones((20, 30), np.complex64)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    np.save(tmp_path / "a.npy", array)
    for name in ("a.tif", "a.npy"):
        with pytest.raises(ImageError, match=f"{name}: pixels must be bool, integers or floating point, got complex64"):
            open_image(tmp_path / name)


SAID = ("channels", "dtype", "bands", "nodata", "mpp", "pixel", "values", "masked", "georeference", "unused")
"""Of a header, what must be the same whoever reads the file."""

PLACE = (10.0, 0.0, 500000.0, 0.0, -20.0, 5000000.0)

UTM = {"crs": "EPSG:32633", "transform": PLACE}


def write(path: Path, array: np.ndarray, mask: np.ndarray | None = None, overviews: int = 0, **how: Any) -> Path:
    """A GeoTIFF of (height, width, band) pixels, as rasterio writes it."""
    rasterio = pytest.importorskip("rasterio")
    told = {key: how.pop(key, None) for key in ("gcps", "scales", "offsets", "descriptions", "colorinterp", "colormap")}
    size = {"height": array.shape[0], "width": array.shape[1], "count": array.shape[2], "dtype": array.dtype}
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    if "transform" in how:
        how["transform"] = rasterio.Affine(*how["transform"])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        to = rasterio.open(path, "w", driver="GTiff", **size, **(tiled | how))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), to:
        if told["gcps"]:
            points = [rasterio.control.GroundControlPoint(*one) for one in told["gcps"]]
            to.gcps = (points, rasterio.CRS.from_epsg(4326))
        for key in ("scales", "offsets", "descriptions"):
            if told[key]:
                setattr(to, key, told[key])
        if told["colormap"]:
            to.write_colormap(1, told["colormap"])
        if told["colorinterp"]:
            to.colorinterp = [rasterio.enums.ColorInterp[name] for name in told["colorinterp"]]
        to.write(np.moveaxis(array, 2, 0))
        if mask is not None:
            to.write_mask(mask)
    if overviews:
        with rasterio.open(path, "r+") as to:
            to.build_overviews([2**level for level in range(1, overviews + 1)], rasterio.enums.Resampling.average)
    return path


def check_alike(one: Source, other: Source) -> None:
    """Two readers of a file say the same of it, and read the same."""
    for name in SAID:
        assert repr(getattr(one.header, name)) == repr(getattr(other.header, name)), name
    assert one.levels == other.levels
    for level in range(len(one.levels)):
        box = Box(0, 0, *one.levels[level].size)
        for part in (box, Box(5, 9, 20, 31)):
            (pixels, missing), (theirs, absent) = (source.read_known([part], level)[0] for source in (one, other))
            np.testing.assert_array_equal(pixels, theirs)
            gone = [_spread(some, pixels) for some in (missing, absent)]
            np.testing.assert_array_equal(*gone)
        np.testing.assert_array_equal(one.read(box, level), other.read(box, level))
    np.testing.assert_allclose(one.view((7, 11)), other.view((7, 11)), atol=1e-6)


def _spread(missing: np.ndarray | None, pixels: np.ndarray) -> np.ndarray:
    return np.zeros(pixels.shape, bool) if missing is None else np.broadcast_to(missing, pixels.shape)


def noise(channels: int, dtype: str, size: tuple[int, int] = (60, 75)) -> np.ndarray:
    drawn = np.random.default_rng(len(dtype) + channels).random((*size, channels))
    return (drawn * (1 if dtype.startswith("float") else 250)).astype(dtype)


HALF = np.zeros((60, 75), np.uint8)
HALF[:, 30:] = 255
POINTS = [(0, 0, 10.0, 45.0, 0.0), (0, 75, 11.0, 45.2, 0.0), (60, 0, 9.8, 44.0, 5.0), (60, 75, 10.8, 44.2, 0.0)]
COLOURS = {number: (number, 255 - number, 7, 255) for number in range(256)}
RASTERS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "int16 with nodata": (1, "int16", UTM | {"nodata": -9999}),
    "float32 with nan": (2, "float32", UTM | {"nodata": float("nan")}),
    "scale, offset and names": (
        2, "uint16", UTM | {"scales": (1e-4, 0.5), "offsets": (-0.1, 3), "descriptions": ("red", None)}
    ),
    "a mask and overviews": (3, "uint8", UTM | {"mask": HALF, "overviews": 2}),
    "opacity": (4, "uint8", UTM | {"photometric": "rgb", "alpha": "unspecified", "overviews": 1}),
    "an opacity that is told": (4, "uint16", UTM | {"photometric": "rgb", "alpha": "yes"}),
    "a palette": (1, "uint8", UTM | {"photometric": "palette", "colormap": COLOURS}),
    "black is 255": (1, "uint8", UTM | {"photometric": "miniswhite"}),
    "a bit": (1, "uint8", UTM | {"nbits": 1}),
    "no reference system": (1, "uint8", {"transform": PLACE}),
    "degrees": (1, "uint8", {"crs": "EPSG:4326", "transform": (1e-3, 0, 10, 0, -1e-3, 45)}),
    "turned": (1, "uint8", {"crs": "EPSG:32633", "transform": (8.0, 6.0, 5e5, 6.0, -8.0, 5e6)}),
    "ground control points": (1, "uint8", {"gcps": POINTS}),
    "blocks left out": (1, "uint16", UTM | {"sparse_ok": True}),
    "many bands, one after the other": (17, "uint16", UTM | {"interleave": "band", "compress": "deflate"}),
}  # fmt: skip


@pytest.fixture(params=RASTERS)
def raster(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    channels, dtype, how = RASTERS[request.param]
    array = noise(channels, dtype)
    if how.get("nbits") == 1:
        array %= 2
    if "alpha" in how:
        array[:, 60:, 3] = 0
    if "nodata" in how:
        array[:20, 7:40] = how["nodata"]
    if "sparse_ok" in how:
        array[16:48, 32:] = 0
    return write(tmp_path / "raster.tif", array, **how)


@pytest.mark.one_in(3)
def test_a_raster_is_the_same_from_the_disk_and_from_a_server(raster: Path) -> None:
    with FileServer({"raster.tif": raster.read_bytes()}) as server:
        near, far = open_image(raster), open_image(server.address("raster.tif"))
        assert (type(near), type(far)) == (RasterSource, TiffSource)
        check_alike(near, far)
        assert near.header.georeference is not None


def test_a_raster_is_as_rasterio_reads_it(raster: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    source = open_image(raster)
    header = source.header
    with rasterio.open(raster) as dataset:
        np.testing.assert_array_equal(whole(source), np.moveaxis(dataset.read(), 0, 2).astype(source.dtype))
        where = header.georeference
        assert where is not None
        assert where.transform == tuple(dataset.transform)[:6]
        assert [(p.row, p.col, p.x, p.y, p.z) for p in dataset.gcps[0]] == list(where.points)
        crs = dataset.crs or dataset.gcps[1]
        assert (rasterio.CRS.from_wkt(where.crs) if where.crs else None) == crs
        assert header.values in ((), tuple(zip(dataset.scales, dataset.offsets, strict=True)))
        assert header.values or set(dataset.scales) == {1.0}


def test_without_rasterio_pixels_are_the_same_and_a_line_says_what_is_not_used(
    raster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = open_image(raster)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    source = open_image(raster, reader="tiff")
    assert (source.channels, source.dtype) == (known.channels, known.dtype)
    np.testing.assert_array_equal(whole(source), whole(known))
    assert source.header.unused[-1:] == ("its place on earth (pip install 'foveate[geo]')",)


@pytest.mark.one_in(3)
def test_convert_keeps_place_points_and_meaning(raster: Path, tmp_path: Path) -> None:
    near = open_image(raster)
    for name in ("a.tif", "a.zarr"):
        if name == "a.zarr" and near.may_miss and near.header.nodata is None:
            continue  # OME-Zarr has no place for a mask
        again = open_image(convert(near, tmp_path / name, Conversion(tile=32))).header
        assert (again.values, again.georeference) == (near.header.values, near.header.georeference)


def test_a_line_says_that_a_nodata_value_fits_no_pixel(tmp_path: Path) -> None:
    tags = [(42113, 2, 0, "-9999", True)]
    tifffile.imwrite(tmp_path / "a.tif", noise(1, "uint8")[:, :, 0], metadata=None, extratags=tags)
    header = open_image(tmp_path / "a.tif").header
    assert (header.nodata, header.unused) == (None, ("no-data value -9999, which no uint8 has",))


WORLD = "10\n0\n0\n-20\n500005\n4999990\n"
XML = (
    "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>500000, 10, 0, 5000000, 0, -20</GeoTransform>"
    '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
)


@pytest.mark.parametrize("ending", ["tif", "png", "jpg"])
@pytest.mark.parametrize("beside", ["world", "short world", "xml"])
def test_a_place_beside_a_raster_is_read_as_rasterio_reads_it(ending: str, beside: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / f"scene.{ending}"
    array = noise(3, "uint8")
    array[:9] = 7
    Image.fromarray(array).save(path, quality=95)
    plain = whole(open_image(path))
    short = {"tif": "tfw", "png": "pgw", "jpg": "jgw"}[ending]
    name = {"world": "scene.wld", "short world": f"scene.{short}", "xml": f"scene.{ending}.aux.xml"}[beside]
    (tmp_path / name).write_text(XML if beside == "xml" else WORLD)
    source = open_image(path)
    where = source.header.georeference
    assert where is not None
    with rasterio.open(path) as dataset:
        assert where.transform == tuple(dataset.transform)[:6] == PLACE
        assert bool(where.crs) == (beside == "xml")
    np.testing.assert_array_equal(whole(source), plain)
    assert describe(source)["georeference"]["transform"] == list(PLACE)
    if beside == "xml":
        assert (source.header.nodata == 7) == (ending == "tif")
        assert ("value of no data in scene" in "".join(source.header.unused)) == (ending != "tif")
    assert open_image(path).cache_key() == source.cache_key()


def test_a_place_in_jpeg_2000_is_read(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    array = noise(1, "uint16")
    how: dict[str, Any] = {"driver": "JP2OpenJPEG", "height": 60, "width": 75, "count": 1, "dtype": "uint16"}
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(
        tmp_path / "a.jp2", "w", crs="EPSG:32633", transform=rasterio.Affine(*PLACE), **how, **lossless
    ) as to:
        to.write(array[:, :, 0], 1)
    source = open_image(tmp_path / "a.jp2")
    np.testing.assert_array_equal(whole(source), array)
    where = source.header.georeference
    assert where is not None
    assert where.transform == PLACE
    assert rasterio.CRS.from_wkt(where.crs).to_epsg() == 32633
    Image.fromarray(noise(3, "uint8")).save(tmp_path / "b.jp2")
    assert (open_image(tmp_path / "b.jp2").header.georeference, source.header.unused) == (None, ())


def test_what_beside_a_raster_is_not_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene.png"
    exif = Image.Exif()
    Image.fromarray(noise(3, "uint8")).save(path)
    (tmp_path / "scene.png.aux.xml").write_text("<PAMDataset><Metadata>statistics</Metadata></PAMDataset>")
    (tmp_path / "scene.prj").write_text("PROJCS[]")
    assert open_image(path).header.unused == ()
    (tmp_path / "scene.pgw").write_text(WORLD)
    pytest.importorskip("rasterio")
    assert open_image(path).header.unused == ("scene.prj beside it",)
    exif[0x0112] = 6
    Image.fromarray(noise(3, "uint8")).save(path, exif=exif)
    source = open_image(path)
    assert (type(source), source.header.georeference) == (PillowSource, None)
    assert source.header.unused[0] == "scene.pgw beside it, for the image is turned by its EXIF orientation"
    monkeypatch.setitem(sys.modules, "rasterio", None)
    Image.fromarray(noise(3, "uint8")).save(path)
    assert open_image(path).header.unused[0] == "scene.pgw beside it (pip install 'foveate[geo]')"


def oblong(folder: Path) -> Iterator[Path]:
    """Files of pixels 0.5 microns high and 0.25 wide, each in a dialect of its own."""
    pixels = noise(3, "uint8", (120, 160))
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"}
    how: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb"}
    tags = {"resolution": (40000, 20000), "resolutionunit": 3, "metadata": None}
    tifffile.imwrite(folder / "tags.tif", pixels, **how, **tags)
    tifffile.imwrite(folder / "ome.tif", pixels, **how, ome=True, metadata={"axes": "YXS", **sizes})
    comma = (folder / "ome.tif").read_bytes().replace(b'SizeX="0.25"', b'SizeX="0,25"')
    (folder / "comma.tif").write_bytes(comma)
    yield from (folder / name for name in ("tags.tif", "ome.tif", "comma.tif"))


def test_microns_of_both_directions_are_kept_by_every_reader(tmp_path: Path) -> None:
    for path in oblong(tmp_path):
        readers: list[Source] = [TiffSource(path)]
        if "vips" in path.name or pytest.importorskip("pyvips"):
            readers.append(VipsSource(path))
        for source in readers:
            assert source.pixel == pytest.approx((0.5, 0.25)), source
            assert source.mpp == pytest.approx(0.125**0.5)
            assert describe(source)["pixel"] == pytest.approx([0.5, 0.25])
        for name in ("a.tif", "a.zarr"):
            again = open_image(convert(readers[0], tmp_path / name, Conversion(tile=32), overwrite=True))
            assert again.pixel == pytest.approx((0.5, 0.25))
        square = at_mpp(readers[0], 0.5)
        assert square.size == (120, 80)
        assert square.pixel == pytest.approx((0.5, 0.5))
    given = open_image(tmp_path / "tags.tif", mpp=0.3)
    assert (given.pixel, given.mpp) == ((0.3, 0.3), 0.3)


CHOICES: dict[str, tuple[Any, ...]] = {
    "dtype": ("uint8", "int16", "uint16", "int32", "float32", "float64"),
    "bands": (1, 2, 3, 4, 7),
    "interleave": ("band", "pixel"),
    "compress": (None, "deflate", "lzw", "zstd", "packbits"),
    "predictor": (1, 2),
    "blocks": (
        {"tiled": True, "blockxsize": 32, "blockysize": 48},
        {"tiled": False},
        {"tiled": False, "blockysize": 7},
    ),
    "nodata": (None, 0, 7),
    "place": (
        UTM,
        {"transform": PLACE},
        {"crs": "EPSG:3857"},
        {"crs": "EPSG:4326", "transform": (1, 0.1, 9, 0.2, -1, 40)},
    ),
    "overviews": (0, 2),
    "mask": (None, HALF),
    "order": ("LITTLE", "BIG"),
    "big": ("YES", "NO"),
    "size": ((60, 75), (1, 90), (131, 40)),
}
"""Of generated rasters; each choice is made by itself."""


def drawn_raster(path: Path, seed: int) -> None:
    """A raster of choices that a seed makes."""
    generator = np.random.default_rng(seed)
    chosen = {name: some[generator.integers(len(some))] for name, some in CHOICES.items()}
    array = noise(chosen["bands"], chosen["dtype"], chosen["size"])
    array[3:20, 5:33] = 0 if chosen["nodata"] is None else chosen["nodata"]
    how = chosen["place"] | chosen["blocks"] | {"ENDIANNESS": chosen["order"], "BIGTIFF": chosen["big"]}
    how |= {key: chosen[key] for key in ("interleave", "compress", "nodata") if chosen[key] is not None}
    if chosen["compress"] in ("deflate", "lzw", "zstd"):
        how["predictor"] = chosen["predictor"]
    if chosen["mask"] is not None and chosen["size"] == HALF.shape and chosen["nodata"] is None:
        how["mask"] = chosen["mask"]
    write(path, array, overviews=chosen["overviews"] if min(chosen["size"]) > 8 else 0, **how)


def check_drawn(folder: Path, seed: int) -> None:
    """A drawn raster is the same as rasterio and tifffile read it, from the disk and from a server."""
    rasterio = pytest.importorskip("rasterio")
    path = folder / f"{seed}.tif"
    drawn_raster(path, seed)
    with FileServer({path.name: path.read_bytes()}) as server:
        near, far = open_image(path), open_image(server.address(path.name))
        check_alike(near, far)
        with rasterio.open(path) as dataset:
            pixels = np.moveaxis(dataset.read(), 0, 2)
            masks = np.moveaxis(dataset.read_masks(), 0, 2) == 0
            assert near.header.georeference is not None
            assert near.header.georeference.transform == tuple(dataset.transform)[:6]
            assert bool(near.header.georeference.crs) == (dataset.crs is not None)
            told, colours = dataset.nodata, dataset.colorinterp
        np.testing.assert_array_equal(whole(far), pixels.astype(far.dtype))
        stored = tifffile.imread(path, key=0)
        stored = stored[:, :, None] if stored.ndim == 2 else stored
        if stored.shape != pixels.shape:
            stored = np.moveaxis(stored, 0, 2)
        np.testing.assert_array_equal(whole(far), stored.astype(far.dtype))
        missing = _spread(near.read_known([Box(0, 0, *near.size)])[0][1], pixels)
        if told is not None and near.dtype.kind != "f":
            masks = masks.all(2, keepdims=True)  # in one band of whole numbers it may be a value like any other
        if rasterio.enums.ColorInterp.alpha in colours:  # rasterio goes by the nodata or by the opacity
            masks = masks | (pixels[:, :, colours.index(rasterio.enums.ColorInterp.alpha), None] == 0)
        np.testing.assert_array_equal(missing, np.broadcast_to(masks, pixels.shape))


UNPLACED = pytest.mark.filterwarnings(
    "ignore:Dataset has no geotransform",
    "ignore:The dataset's nodata attribute is shadowing the alpha",  # which `check_drawn` makes up for
)


@pytest.mark.one_in(3)
@UNPLACED
@pytest.mark.parametrize("seed", range(12))
def test_drawn_rasters_are_as_rasterio_and_tifffile_read_them_near_and_far(seed: int, tmp_path: Path) -> None:
    check_drawn(tmp_path, seed)


@UNPLACED
@pytest.mark.slow
def test_many_drawn_rasters_are_as_rasterio_and_tifffile_read_them_near_and_far(tmp_path: Path) -> None:
    for seed in range(100, 500):
        check_drawn(tmp_path, seed)


def test_pages_of_several_depths_are_said_not_to_be_used(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9000, (3, 2, 60, 75), np.uint16)
    names = {"axes": "CZYX", "Channel": {"Name": ["DAPI", "CD8", "Pan & CK"]}}
    tifffile.imwrite(tmp_path / "panel.ome.tif", array, photometric="minisblack", metadata=names)
    tifffile.imwrite(tmp_path / "pages.tif", array[:, 0], photometric="minisblack", metadata=None)
    told = (
        "channels CD8, Pan & CK, on other pages or in other files (as OME-Zarr, e.g. by bioformats2raw, they are bands)"
    )
    assert open_image(tmp_path / "panel.ome.tif").header.unused == (told,)
    assert open_image(tmp_path / "pages.tif").header.unused == ("the other pages: the first is read",)
    (tmp_path / "images.csv").write_text("path,label\npanel.ome.tif,a\npages.tif,b\n")
    hints = [hint.message for hint in check_manifest(tmp_path / "images.csv").hints if hint.kind == "unused"]
    assert hints == [f"not all is used of what 2 of the files say, e.g. panel.ome.tif: {told}"]
    tifffile.imwrite(tmp_path / "whole.tif", array[0, 0], photometric="minisblack", metadata=None)
    assert open_image(tmp_path / "whole.tif").header.unused == ()
