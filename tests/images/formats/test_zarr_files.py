"""OME-Zarr and plain Zarr arrays: axes in any order, scales, shards and holes, in folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from pyramid_files import check_absent, obeys, sliced, values
from zarr_files import write_zarr

from foveate.errors import ImageError
from foveate.images import area_average, open_image
from foveate.images.formats.zarr import ZarrSource
from foveate.types import Box

zarr = pytest.importorskip("zarr")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("version", "axes"),
    [("0.4", "tczyx"), ("0.4", "yx"), *(("0.5", axes) for axes in ("tczyx", "yx", "cyx", "yxc", "zcxy", "xyczt"))],
)
def test_axes_in_any_order_read_like_slices(version: str, axes: str, tmp_path: Path) -> None:
    channels = 3 if "c" in axes else 1
    arrays = [values(size, channels, "uint16", seed=size[0]) for size in ((51, 67), (26, 34))]
    source = open_image(write_zarr(tmp_path / "image", arrays, axes, version))
    assert isinstance(source, ZarrSource)
    obeys(source, arrays)
    told = [f", {axis} = 0 of 2" for axis in axes if axis in "tz"]
    assert source.header.format == f"OME-Zarr {version}" + "".join(told)
    assert source.header.tile == (32, 24)
    assert source.mpp == 0.25
    assert [level.factor for level in source.levels] == [(1.0, 1.0), (2.0, 2.0)]


def test_shards_read_like_slices(tmp_path: Path) -> None:
    arrays = [values((131, 203), seed=1), values((66, 102), seed=2)]
    source = open_image(write_zarr(tmp_path / "image", arrays, "cyx", shards=True))
    obeys(source, arrays)
    assert source.header.tile == (32, 24)
    source.close()
    before = source.bytes_read
    source.read(Box(0, 0, 1, 1))
    assert 0 < source.bytes_read - before < 30 * 1024 < 131 * 203 * 3  # of a shard, the index and the chunk


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float32", "float64"])
def test_types_are_kept(dtype: str, tmp_path: Path) -> None:
    array = values((60, 70), 2) > 99 if dtype == "bool" else values((60, 70), 2, dtype)
    obeys(open_image(write_zarr(tmp_path / "image", [array], "cyx")), [array])


@pytest.mark.parametrize("dtype", ["int8", ">i2", "uint32", "int64"])
def test_integers_of_no_known_range_become_floats_openly(dtype: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 100, (60, 70, 2)).astype(dtype)
    source = open_image(write_zarr(tmp_path / "image", [array], "cyx", "0.4"))
    native = np.dtype(dtype).newbyteorder("=")
    wide = np.float32 if native.itemsize < 4 else np.float64
    obeys(source, [array.astype(wide)])
    assert source.header.format == f"OME-Zarr 0.4, {native} as {np.dtype(wide)}"


def test_factors_are_those_of_the_scales_where_they_fit_the_sizes(tmp_path: Path) -> None:
    arrays = [values(size) for size in ((100, 130), (50, 65), (33, 43))]
    fits = open_image(write_zarr(tmp_path / "fits", arrays, "cyx", scales=[0.5, 1.0, 1.5]))
    # 33 · 3 is 99: the last row would be of no level, so the size decides, and likewise along the columns
    assert [level.factor for level in fits.levels] == [(1.0, 1.0), (2.0, 2.0), (100 / 33, 130 / 43)]
    wrong = open_image(write_zarr(tmp_path / "wrong", arrays, "cyx", scales=[1.0, 1.0, 1.0]))
    assert [level.factor for level in wrong.levels][1] == (2.0, 2.0)
    odd = [values((101, 131)), values((51, 66))]
    assert open_image(write_zarr(tmp_path / "odd", odd, "cyx")).levels[1].factor == (2.0, 2.0)
    np.testing.assert_allclose(fits.view((50, 65)), area_average(arrays[1], (50, 65)), atol=1e-6)


@pytest.mark.parametrize(
    ("units", "mpp"),
    [
        ({"y": "millimeter", "x": "millimeter"}, 250.0),
        ({"y": "nanometer", "x": "micrometer"}, 0.25 * 1e-3**0.5),
        ({"y": "micrometer"}, None),
        ({"y": "parsec", "x": "parsec"}, None),
    ],
)
def test_physical_units_become_microns(units: dict[str, str], mpp: float | None, tmp_path: Path) -> None:
    source = open_image(write_zarr(tmp_path / "image", [values((40, 50))], "cyx", units=units))
    assert source.mpp == (None if mpp is None else pytest.approx(mpp))
    assert open_image(source.name, mpp=3.0).mpp == 3.0


def test_scales_of_the_whole_image_count_and_channels_have_names(tmp_path: Path) -> None:
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    path = write_zarr(tmp_path / "image", [values((40, 50), 2)], "cyx", "0.4", omero=omero)
    attributes = json.loads((path / ".zattrs").read_text())
    whole = {"type": "scale", "scale": [1.0, 2.0, 2.0]}
    attributes["multiscales"][0]["coordinateTransformations"] = [whole]
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert open_image(path).mpp == 0.5
    assert open_image(path).header.bands == ("DAPI", "GFP")


def test_old_axes_and_groups_of_series(tmp_path: Path) -> None:
    array = values((40, 50))
    path = write_zarr(tmp_path / "old", [array], "cyx", "0.4")
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["axes"] = ["c", "y", "x"]
    (path / ".zattrs").write_text(json.dumps(attributes))
    obeys(open_image(path), [array])
    group = zarr.open_group(tmp_path / "series", mode="w", zarr_format=3)
    group.attrs.update({"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    write_zarr(tmp_path / "series" / "0", [array], "cyx")
    source = open_image(tmp_path / "series")
    obeys(source, [array])
    assert source.header.format == "OME-Zarr 0.5, series 0"


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays(version: int, tmp_path: Path) -> None:
    for number, array in enumerate((values((60, 70), 1), values((60, 70), 4, "float32"))):
        path = tmp_path / f"{number}"
        saved = array[:, :, 0] if array.shape[2] == 1 else array
        target = zarr.create_array(
            path, shape=saved.shape, chunks=(32,) * saved.ndim, dtype=saved.dtype, zarr_format=version
        )
        target[:] = saved
        source = open_image(path)
        obeys(source, [array])
        assert source.header.format == "Zarr array"
    target = zarr.create_array(
        tmp_path / "named",
        data=values((5, 60), 70),
        chunks=(1, 16, 16),
        zarr_format=3,
        dimension_names=("band", "y", "x"),
    )
    obeys(open_image(tmp_path / "named"), [np.moveaxis(values((5, 60), 70), 0, 2)])


def test_missing_chunks_hold_the_fill_value(tmp_path: Path) -> None:
    array = np.full((60, 70), 7, np.uint8)
    target = zarr.create_array(
        tmp_path / "image", shape=(60, 70), chunks=(16, 16), dtype="u1", fill_value=7, zarr_format=2
    )
    array[:10, :10] = target[:10, :10] = 200
    obeys(open_image(tmp_path / "image"), [array[:, :, None]])


def test_bytes_are_those_of_the_chunks(tmp_path: Path) -> None:
    target = zarr.create_array(
        tmp_path / "image", shape=(64, 96), chunks=(32, 32), dtype="u1", compressors=None, fill_value=9
    )
    target[:] = values((64, 96), 1)[:, :, 0]
    source = open_image(tmp_path / "image")
    before = source.bytes_read
    assert 0 < before <= 2 * (tmp_path / "image" / "zarr.json").stat().st_size
    source.read(Box(30, 30, 1, 5))
    assert source.bytes_read - before == 2 * 32 * 32


def test_broken_folders_say_so(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(ImageError) as caught:
            open_image(path).read(Box(0, 0, 5, 5))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    array = [values((60, 70))]
    plain = write_zarr(tmp_path / "plain", array, "cyx")
    (plain / "0" / "zarr.json").unlink()
    assert "broken Zarr, or of a kind not supported here (KeyError" in message(plain)
    cut = write_zarr(tmp_path / "cut", array, "cyx")
    (cut / "zarr.json").write_text((cut / "zarr.json").read_text()[:50])
    assert message(cut).startswith(f"{cut}: broken Zarr, or of a kind not supported here (JSONDecodeError ")
    chunk = write_zarr(tmp_path / "chunk", array, "cyx")
    (chunk / "0" / "c" / "0" / "0" / "0").write_bytes(b"\xa5" * 99)
    assert message(chunk).startswith(f"{chunk}: broken tile at row 0, column 0 of level 0 (")
    np.testing.assert_array_equal(open_image(chunk).read(Box(40, 40, 9, 8)), sliced(array[0], Box(40, 40, 9, 8)))
    zarr.open_group(tmp_path / "empty", mode="w")
    no_image = "a Zarr group with no multiscale image: name an image or an array inside it"
    assert message(tmp_path / "empty") == f"{tmp_path / 'empty'}: {no_image}"
    zarr.create_array(tmp_path / "first", data=np.zeros((3, 60, 70), np.uint8))
    assert "got shape (3, 60, 70): name its dimensions (dimension_names, e.g. c, y, x)" in message(tmp_path / "first")
    zarr.create_array(tmp_path / "complex", data=np.zeros((60, 70), np.complex64))
    assert "pixels must be bool, integers or floating point, got complex64" in message(tmp_path / "complex")
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder") == f"{tmp_path / 'folder'}: a folder, not an image: name a file in it"
    with pytest.raises(ImageError, match="gone: no Zarr array or group there: check the path"):
        open_image(tmp_path / "gone", reader="zarr")


def test_without_the_library_the_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zarr(tmp_path / "image", [values((40, 50))], "cyx")
    check_absent(path, "auto", "zarr", "zarr", monkeypatch)
