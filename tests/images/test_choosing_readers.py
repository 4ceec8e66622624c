"""Who reads what: chosen by content, all agreeing, told in one line where a library is missing or a file is broken."""

import multiprocessing
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pyramid_files import border_boxes, sliced, values, write_pyramid
from servers import FileServer

from foveate.errors import ImageError, Unsupported
from foveate.images import ArraySource, NpySource, PillowSource, open_image
from foveate.images.formats.openslide import OpenSlideSource
from foveate.images.formats.raster import RasterSource
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.formats.vips import VipsSource
from foveate.images.formats.zarr import ZarrSource
from foveate.images.io.open import open_bytes
from foveate.images.open import signature
from foveate.types import Box

SLIDES = Path(__file__).parents[3] / "shared/data/slides"
MODULES = {"openslide": "openslide", "vips": "pyvips", "raster": "rasterio", "zarr": "zarr"}
READERS = ("tiff", "openslide", "vips", "raster")


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    arrays = [values(size, seed=size[0]) for size in ((401, 503), (200, 251), (100, 125))]
    return write_pyramid(tmp_path_factory.mktemp("pyramid") / "scene", arrays), arrays


def needs(reader: str) -> None:
    if reader in MODULES:
        pytest.importorskip(MODULES[reader])


@pytest.mark.parametrize("reader", READERS)
def test_readers_of_a_pyramid_agree(reader: str, pyramid: tuple[Path, list[np.ndarray]]) -> None:
    needs(reader)
    path, arrays = pyramid
    source = open_image(path, reader=reader)  # type: ignore[arg-type]
    factors = [(401 / a.shape[0], 503 / a.shape[1]) for a in arrays]
    assert [level.factor for level in source.levels] == factors
    for level, array in enumerate(arrays):
        for box in border_boxes(array.shape[:2])[::5]:
            np.testing.assert_array_equal(source.read(box, level), sliced(array, box))
    for size, region in (((20, 30), None), ((7, 9), (-5.5, 20.25, 300.0, 600.0))):
        expected = open_image(path, reader="tiff").view(size, region)
        np.testing.assert_allclose(source.view(size, region), expected, atol=1e-6)


def geotiff(path: Path) -> Path:
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 400000, 0, -2, 5000000)}
    with rasterio.open(path, "w", driver="GTiff", height=60, width=70, count=3, dtype="uint8", **place) as stream:
        stream.write(np.moveaxis(values((60, 70), 3), 2, 0))
    return path


def test_content_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values((60, 70))
    for format_ in ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP"):
        path = tmp_path / "image.tif"
        Image.fromarray(array).save(path, format_)
        assert type(open_image(path)) is PillowSource, format_
    np.save(tmp_path / "a.npy", array)
    shutil.copy(tmp_path / "a.npy", tmp_path / "npy.jpg")
    assert type(open_image(tmp_path / "npy.jpg")) is NpySource
    for big in (False, True):
        for order in "<>":
            tifffile.imwrite(tmp_path / "tiff.png", array, tile=(32, 32), bigtiff=big, byteorder=order)  # type: ignore[arg-type]
            source = open_image(tmp_path / "tiff.png")
            assert type(source) is TiffSource
            np.testing.assert_array_equal(source.read(Box(0, 0, 60, 70)), array)
    path = geotiff(tmp_path / "place.jpg")
    assert type(open_image(path)) is RasterSource
    assert open_image(path).mpp == pytest.approx(2e6)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert type(open_image(path)) is TiffSource
    assert type(open_image(path, reader="pillow")) is PillowSource


def test_jpeg_2000_is_read_with_and_without_libvips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values((60, 70))
    Image.fromarray(array).save(tmp_path / "image", "JPEG2000")
    np.testing.assert_array_equal(open_image(tmp_path / "image").read(Box(0, 0, 60, 70)), array)
    monkeypatch.setitem(sys.modules, "pyvips", None)
    assert type(open_image(tmp_path / "image")) is PillowSource


def test_what_only_libvips_reads_is_read_by_it_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvips")
    path = tmp_path / "image"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="70" height="60"><rect width="9" height="9"/></svg>')
    assert open_image(path).size == (60, 70)
    assert type(open_image(path)) is VipsSource
    path = path.rename(tmp_path / "another")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value) == f"{path}: reading it needs pyvips, which is not installed: pip install 'foveate[vips]'"


def test_slides_of_vendors_go_to_openslide_or_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendors = {
        "ventana": {"extratags": [(700, 7, 30, b"<iScan ScannerModel='x'></iScan>"[:30], True)]},
        "trestle": {"software": "MedScan 1"},
        "leica": {"description": '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'},
        "": {"description": "a scene", "software": "a program"},
    }
    for vendor, how in vendors.items():
        path = write_pyramid(tmp_path / f"{vendor} slide", [values((60, 70))], **how)  # type: ignore[arg-type]
        assert signature(open_bytes(path)).vendor == vendor
    monkeypatch.setitem(sys.modules, "openslide", None)
    others = {"zeiss.tif": b"ZISRAWFILE" + bytes(90), "sakura.tif": b"SQLite format 3\0" + bytes(90)}
    others["dicom.jpg"] = bytes(128) + b"DICM" + bytes(90)
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "mirax").mkdir()
    (tmp_path / "mirax" / "Slidedat.ini").write_text("[GENERAL]")
    Image.fromarray(values((60, 70))).save(tmp_path / "mirax.mrxs", "JPEG")
    for name in ("ventana slide", "trestle slide", "leica slide", "mirax.mrxs", *others):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / name)
        line = "reading it needs openslide, which is not installed: pip install 'foveate[openslide]'"
        assert str(caught.value) == f"{tmp_path / name}: {line}"


def test_a_thumbnail_is_not_taken_for_a_slide(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    (tmp_path / "mirax").mkdir()
    (tmp_path / "mirax" / "Slidedat.ini").write_text("[GENERAL]")
    Image.fromarray(values((60, 70))).save(tmp_path / "mirax.mrxs", "JPEG")
    with pytest.raises(ImageError, match="broken image, or of a kind not supported here \\(OpenSlide"):
        open_image(tmp_path / "mirax.mrxs")


def test_a_tiff_nobody_can_read_says_what_our_reader_says(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    for content in (b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0+" + bytes(12), b"II*\0\x08\0\0\0\x03\0" + b"\xa5" * 60):
        path.write_bytes(content)
        with pytest.raises(ImageError) as ours:
            open_image(path, reader="tiff")
        with pytest.raises(ImageError) as caught:
            open_image(path)
        assert str(caught.value) == str(ours.value)
        assert "\n" not in str(caught.value)


def test_a_tiff_that_was_cut_is_handed_to_nobody_else(tmp_path: Path) -> None:
    """Other readers look at the first page alone, and give its pixels, decoded whole, as if nothing were missing."""
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    slide = "Aperio Image Library v12.0.15\r\n160x120 [0,0 160x120] (64x64) JPEG/RGB Q=70|AppMag = 40|MPP = 0.25"
    whole = tmp_path / "whole.svs"
    with tifffile.TiffWriter(whole) as writer:
        for size in ((240, 320, 3), (120, 160, 3)):
            writer.write(values(size[:2]), description=slide, **options)
    with tifffile.TiffFile(whole) as file:
        second = file.pages[1].offset
    place = geotiff(tmp_path / "place.tif")
    with pytest.importorskip("rasterio").open(place, "r+") as stream:
        stream.build_overviews([2])
    with tifffile.TiffFile(place) as file:
        overview = file.pages[1].offset
    for path, content, reader, others in (
        (tmp_path / "cut.svs", whole.read_bytes()[: second + 40], "tiff", ("pillow", "vips")),
        (tmp_path / "cut.tif", place.read_bytes()[: overview + 40], "raster", ("pillow",)),
    ):
        path.write_bytes(content)
        for other in others:
            needs(other)
            assert min(open_image(path, reader=other).size) > 50  # type: ignore[arg-type]  which is why nobody asks
        messages = set()
        for name in (reader, "auto"):
            with pytest.raises(ImageError) as caught:
                open_image(path, reader=name)  # type: ignore[arg-type]
            messages.add(str(caught.value))
        assert len(messages) == 1


def test_a_slide_that_openslide_cannot_read_is_not_read_as_plain_tiff(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    hamamatsu = {"extratags": [(65420, 4, 1, 1, True)]}
    path = write_pyramid(tmp_path / "slide.ndpi", [values((60, 70))], **hamamatsu)  # type: ignore[arg-type]
    assert open_image(path, reader="pillow").size == (60, 70)
    with pytest.raises(ImageError, match=r"slide\.ndpi: .*OpenSlide"):
        open_image(path)


def test_a_whole_tiff_of_a_kind_that_ours_does_not_know_is_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values((60, 70), 1)[:, :, 0], photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["BitsPerSample"].overwrite(4)
    with pytest.raises(Unsupported, match=r"a TIFF of a kind not supported here \(values of 4 bits\)"):
        open_image(path, reader="tiff")
    assert open_image(path).size == (60, 70)


def test_jpeg_2000_that_libvips_refuses_is_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvips")
    monkeypatch.setattr("foveate.images.open.knows_format", lambda loader: loader == "jp2k")  # not every build does
    Image.fromarray(values((60, 70))).save(tmp_path / "image", "JPEG2000")
    content = (tmp_path / "image").read_bytes()
    (tmp_path / "cut").write_bytes(content[:150])
    assert open_image(tmp_path / "cut", reader="pillow").size == (60, 70)
    with pytest.raises(ImageError, match="cut: broken image, or of a kind not supported here"):
        open_image(tmp_path / "cut")


@pytest.mark.parametrize("reader", [*READERS, "pillow", "zarr"])
@pytest.mark.parametrize(
    "content", [b"", b"no image at all", b"II*\0\x08\0\0\0\xff\xff" + b"\xa5" * 90, b"\xff\xd8\xff\xe0"]
)
def test_every_reader_refuses_broken_files_in_one_line(reader: str, content: bytes, tmp_path: Path) -> None:
    needs(reader)
    path = tmp_path / "broken"
    path.write_bytes(content)
    for name in (reader, "auto"):
        with pytest.raises(ImageError) as caught:
            open_image(path, reader=name)  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_readers_are_forced_by_name(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    kinds = {"tiff": TiffSource, "openslide": OpenSlideSource, "vips": VipsSource, "raster": RasterSource}
    for reader, kind in kinds.items():
        needs(reader)
        assert type(open_image(pyramid[0], 0.5, reader)) is kind  # type: ignore[arg-type]
        assert open_image(pyramid[0], 0.5, reader).mpp == 0.5  # type: ignore[arg-type]
    array = np.zeros((4, 5), np.uint8)
    assert type(open_image(array, reader="tiff")) is ArraySource


def test_folders_that_are_no_images_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a folder, not an image: name a file in it"


def test_pictures_at_addresses_are_downloaded_once(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    array = values((60, 70))
    Image.fromarray(array).save(tmp_path / "picture", "PNG")
    content = (tmp_path / "picture").read_bytes()
    with FileServer({"picture": content, "text": b"no image"}) as server:
        address = server.address("picture")
        source = open_image(address, mpp=0.5)
        assert type(source) is PillowSource
        np.testing.assert_array_equal(source.read(Box(-3, 5, 20, 30)), sliced(array, Box(-3, 5, 20, 30)))
        source.view((5, 6))
        assert source.bytes_read == len(content)
        assert (source.mpp, source.name) == (0.5, address)
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again.read(Box(0, 0, 60, 70)), array)
        with pytest.raises(ImageError, match="are read from an address: download it first"):
            open_image(server.address("text"))
        with pytest.raises(ImageError, match="vips reads files of this machine only: download it, or take the reader"):
            open_image(address, reader="vips")


def test_a_pyramid_at_an_address_is_read_in_parts(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    pytest.importorskip("aiohttp")
    path, arrays = pyramid
    with FileServer({"scene": path.read_bytes()}) as server:
        source = open_image(server.address("scene"))
        assert type(source) is TiffSource
        np.testing.assert_array_equal(source.read(Box(9, -3, 20, 30), 1), sliced(arrays[1], Box(9, -3, 20, 30)))


@pytest.mark.slow
def test_readers_read_in_a_spawned_process(pyramid: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    path, arrays = pyramid
    zarr = pytest.importorskip("zarr")
    zarr.create_array(tmp_path / "image.zarr", data=arrays[0], chunks=(64, 48, 3))
    sources = [*(open_image(path, reader=reader) for reader in READERS), ZarrSource(tmp_path / "image.zarr")]  # type: ignore[arg-type]
    box = Box(-3, 390, 50, 70)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for source in sources:
            source.read(box)
            np.testing.assert_array_equal(pool.apply(source.read, (box,)), sliced(arrays[0], box))


@pytest.mark.skipif(not SLIDES.exists(), reason=f"{SLIDES} is not there")
def test_real_slides_open_and_read() -> None:
    for name in ("boxes.tiff", "cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"):
        source = open_image(SLIDES / name)
        assert source.channels == 3
        pixels = source.read(Box(source.size[0] // 2, source.size[1] // 2, 40, 50))
        assert pixels.std() > 0
    for name in ("broken.svs", "unreadable.svs"):
        with pytest.raises(ImageError) as caught:
            open_image(SLIDES / name).read(Box(0, 0, 16, 16))
        assert "\n" not in str(caught.value)
