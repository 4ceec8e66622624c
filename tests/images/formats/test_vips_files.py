"""Images through libvips: values and layouts kept, colours made sRGB, laid down as the Pillow reader does."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pyramid_files import check_absent, check_spoiled, obeys, spoil, values, write_pyramid

from foveate.errors import ImageError
from foveate.images import PillowSource, open_image
from foveate.images.formats.library import LIBRARY_HANDLES
from foveate.images.formats.vips import VipsSource
from foveate.types import Box

pytest.importorskip("pyvips")

SLIDES = Path(__file__).parents[4] / "shared/data/slides"


def whole(source: VipsSource | PillowSource) -> np.ndarray:
    return source.read(Box(0, 0, *source.size))


@pytest.mark.parametrize("tile", [(64, 48), None])
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint8", 5), ("uint16", 3), ("float32", 2)])
def test_values_and_bands_read_like_slices(
    dtype: str, channels: int, tile: tuple[int, int] | None, tmp_path: Path
) -> None:
    array = values((101, 143), channels, dtype)
    source = VipsSource(write_pyramid(tmp_path / "image", [array], tile))
    obeys(source, [array])
    assert source.header.format == "libvips, tiff"
    assert source.header.tile == tile


@pytest.mark.parametrize("sub", [False, True])
def test_smaller_pages_and_sub_images_are_levels(sub: bool, tmp_path: Path) -> None:
    arrays = [values(size, seed=size[0]) for size in ((201, 303), (100, 151), (50, 75))]
    path = write_pyramid(tmp_path / "image", arrays, sub=sub, resolution=(40000, 40000), resolutionunit=3)
    source = VipsSource(path)
    obeys(source, arrays)
    assert source.mpp == pytest.approx(0.25)
    printed = write_pyramid(tmp_path / "printed", arrays, resolution=(300 / 2.54, 300 / 2.54), resolutionunit=3)
    assert VipsSource(printed).mpp is None


def test_pages_that_show_something_else_are_no_levels(tmp_path: Path) -> None:
    arrays = [values(size) for size in ((200, 300), (200, 300), (90, 90), (100, 150))]
    obeys(VipsSource(write_pyramid(tmp_path / "image", arrays)), [arrays[0], arrays[3]])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32"])
def test_integers_of_no_known_range_become_floats_openly(dtype: str, tmp_path: Path) -> None:
    array = values((60, 70), 1, dtype)
    source = VipsSource(write_pyramid(tmp_path / "image", [array]))
    wide = np.float32 if array.itemsize < 4 else np.float64
    assert source.header.format == f"libvips, tiff, {dtype} as {np.dtype(wide)}"
    obeys(source, [array.astype(wide)])


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
def test_images_are_laid_down_as_the_pillow_reader_does(tag: int, format_: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(values((45, 70))).save(tmp_path / "image", format_, exif=exif)
    source, pillow = VipsSource(tmp_path / "image"), PillowSource(tmp_path / "image")
    assert source.size == pillow.size
    box = Box(-2, 3, 30, 41)
    np.testing.assert_array_equal(source.read(box), pillow.read(box))


def test_transparency_is_laid_over_black_but_bands_are_kept(tmp_path: Path) -> None:
    for mode, channels in (("RGBA", 4), ("LA", 2)):
        path = tmp_path / mode
        Image.fromarray(values((45, 70), channels), mode).save(path, "PNG")
        np.testing.assert_array_equal(whole(VipsSource(path)), whole(PillowSource(path)))
    array = values((45, 70), 4)
    tifffile.imwrite(tmp_path / "bands", array, photometric="rgb", extrasamples=[0])
    np.testing.assert_array_equal(whole(VipsSource(tmp_path / "bands")), array)


def test_cmyk_becomes_srgb(tmp_path: Path) -> None:
    Image.fromarray(values((45, 70), 4), "CMYK").save(tmp_path / "image", "TIFF")
    source = VipsSource(tmp_path / "image")
    assert (source.channels, source.dtype, source.size) == (3, np.uint8, (45, 70))
    assert len(np.unique(whole(source))) > 50


def test_broken_files_say_so(tmp_path: Path) -> None:
    array = values((200, 300))
    spoiled = VipsSource(spoil(write_pyramid(tmp_path / "spoiled", [array]), tile=0))
    check_spoiled(spoiled, array, "Error ", "export it again, e.g. as a tiled TIFF")
    Image.fromarray(array).save(tmp_path / "cut", "JPEG")
    data = (tmp_path / "cut").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cannot be read|broken image"):
        VipsSource(tmp_path / "cut").read(Box(150, 0, 50, 300))
    tifffile.imwrite(tmp_path / "complex", np.zeros((9, 8), np.complex64))
    with pytest.raises(ImageError, match=r"broken image, or of a kind not supported here \(Error "):
        open_image(tmp_path / "complex", reader="vips")


def test_a_file_that_was_replaced_is_refused_not_mixed(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "image", [values((60, 70))])
    old = VipsSource(path)
    old.read(Box(0, 0, 5, 5))
    array = values((90, 120), seed=9)
    write_pyramid(path, [array])
    np.testing.assert_array_equal(whole(VipsSource(path)), array)
    again = pickle.loads(pickle.dumps(VipsSource(path)))
    np.testing.assert_array_equal(again.read(Box(0, 0, 90, 120)), array)
    LIBRARY_HANDLES.drop(old._key())
    with pytest.raises(ImageError, match=r"image: the file has changed since it was opened: open the image again"):
        old.read(Box(0, 0, 5, 5))


def test_without_the_library_the_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pyramid(tmp_path / "image", [values((40, 50))])
    check_absent(path, "vips", "pyvips", "vips", monkeypatch)


@pytest.mark.skipif(not SLIDES.exists(), reason=f"{SLIDES} is not there")
def test_real_slides_open_with_their_levels() -> None:
    source = VipsSource(SLIDES / "boxes.tiff")
    assert [level.size for level in source.levels] == [(250, 300), (125, 150), (62, 75), (31, 37)]
    assert VipsSource(SLIDES / "cmu-1-small-region.svs").read(Box(1000, 1000, 50, 60)).std() > 1
