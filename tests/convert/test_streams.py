"""Streams: JPEG and PNG read once, from their top row down, to the same pixels in the memory of some rows."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pyramid_files import values

from foveate.__main__ import main
from foveate.convert import Conversion, convert, open_stream
from foveate.errors import ImageError
from foveate.images import ArraySource, PillowSource, Source, open_image
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.formats.vips import VipsStream
from foveate.types import Box

pyvips = pytest.importorskip("pyvips")

SIZE = (203, 131)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.convert.run.STREAM_FROM", 0)


def soft(channels: int) -> np.ndarray:
    """Pixels smooth enough for JPEG, some wholly transparent where there is an opacity."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    parts = [(rows * (k + 1) + columns * (3 - k)) % 256 for k in range(channels)]
    return np.stack(parts, axis=2).astype(np.uint8)


def save(how: str, path: Path) -> None:
    kind, mode, *more = how.split()
    options: dict[str, object] = {"progressive": True} if "progressive" in more else {}
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}.get(mode, 1)
    image = Image.fromarray(soft(channels)[:, :, 0] if channels == 1 else soft(channels), mode if channels > 1 else "L")
    if mode == "P":
        image = Image.fromarray(soft(3)).quantize(17)
    if mode == "1":
        image = image.convert("1")
    if mode == "I;16":
        image = Image.fromarray(values(SIZE, 1, "uint16")[:, :, 0])
    if "seen-through" in more:
        options["transparency"] = 7 if mode in ("L", "P") else tuple(soft(3)[20, 30].tolist())
    if "turned" in more or "mirrored" in more:
        exif = Image.Exif()
        exif[274] = 6 if "turned" in more else 2
        options["exif"] = exif
    image.save(path, kind, **options)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "how",
    [
        *("JPEG L", "JPEG RGB", "JPEG CMYK", "JPEG RGB progressive", "JPEG RGB turned", "JPEG RGB mirrored"),
        *("PNG L", "PNG RGB", "PNG RGBA", "PNG LA", "PNG P", "PNG 1", "PNG I;16", "PNG RGB turned"),
        *("PNG L seen-through", "PNG RGB seen-through", "PNG P seen-through"),
    ],
)
def test_a_stream_has_the_pixels_and_the_holes_of_the_whole_image(how: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(how, path)
    whole, stream = PillowSource(path), open_stream(path, 0.5)
    assert type(stream) is VipsStream
    assert (stream.size, stream.channels, stream.dtype, stream.mpp) == (whole.size, whole.channels, whole.dtype, 0.5)
    assert open_stream(path).mpp is None
    assert stream.may_miss == whole.may_miss
    height, width = whole.size
    for _ in range(2):  # and again from the top
        for top in range(0, height, 48):
            box = Box(top, 0, min(48, height - top), width)
            wanted, missing = whole.read_known([box])[0]
            pixels, lost = stream.read_known([box])[0]
            np.testing.assert_array_equal(pixels, wanted)
            assert (lost is None) == (missing is None)
            if lost is not None:
                np.testing.assert_array_equal(lost, missing)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd"])
@pytest.mark.parametrize("kind", ["grey", "rgb", "uint16", "white is zero", "five bands"])
def test_a_tiff_of_one_strip_is_streamed(kind: str, compression: str, tmp_path: Path) -> None:
    array = {"grey": soft(1), "five bands": soft(5), "uint16": values(SIZE, 1, "uint16")}.get(kind, soft(3))
    photometric: Any = "rgb" if array.shape[2] == 3 else "minisblack"
    if kind == "white is zero":
        array, photometric = soft(1), "miniswhite"
    path, resolution = tmp_path / "a.tif", (20_000, 20_000)
    data = array[:, :, 0] if array.shape[2] == 1 else array
    how: dict[str, Any] = {"photometric": photometric, "compression": compression, "rowsperstrip": SIZE[0]}
    planar = "contig" if data.ndim == 3 else None
    tifffile.imwrite(path, data, planarconfig=planar, metadata=None, resolution=resolution, resolutionunit=3, **how)
    whole, stream = open_image(path), open_stream(path)
    assert type(whole) is TiffSource
    assert type(stream) is VipsStream or compression == "zstd"  # which the wheels of libvips do not know
    assert (stream.mpp, stream.dtype) == (pytest.approx(0.5), whole.dtype)
    assert type(open_stream(whole)) is type(stream)
    for top in range(0, SIZE[0], 48):
        box = Box(top, 0, min(48, SIZE[0] - top), SIZE[1])
        np.testing.assert_array_equal(stream.read(box), whole.read(box))


def test_a_strip_that_is_too_large_says_how_to_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, soft(3), photometric="rgb", compression="zlib", rowsperstrip=SIZE[0], metadata=None)
    monkeypatch.setattr("foveate.images.formats.tiff.source.MAX_PIXELS", 26_000)
    assert open_image(path).size == SIZE
    with pytest.raises(ImageError) as caught:
        open_image(path).read(Box(0, 0, 1, 1))
    command = f"foveate convert {path} {tmp_path}/a.lazy.tif"
    assert str(caught.value) == (
        f"{path}: a strip or tile of 203×131 pixels is more than the 26000 that can be decoded whole: make it lazy by "
        f"{command}"
    )
    assert main(["data", "check", str(tmp_path)]) == 2
    assert f"unreadable: {caught.value}" in capsys.readouterr().out
    assert main(shlex.split(command)[1:]) == 0
    assert open_image(tmp_path / "a.lazy.tif").size == SIZE


def test_an_interlaced_png_is_decoded_whole_and_larger_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(soft(3)).write_to_file(str(path), interlace=True)
    np.testing.assert_array_equal(open_stream(path).read(Box(0, 0, *SIZE)), soft(3))
    monkeypatch.setattr("foveate.images.formats.vips.WHOLE_PIXELS", SIZE[0] * SIZE[1] - 1)
    save("JPEG RGB progressive", tmp_path / "a.jpg")
    for one in (path, tmp_path / "a.jpg"):
        with pytest.raises(ImageError) as caught:
            open_stream(one)
        assert str(caught.value) == (
            f"{one}: 203×131 pixels, interlaced or progressive, have to be decoded whole, and more than 26592 are not: "
            "export it again without interlacing (PNG) or as baseline JPEG, or as a tiled TIFF"
        )


@pytest.mark.parametrize("how", ["JPEG RGB", "PNG RGB"])
def test_a_file_that_was_cut_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    save(how, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"image: level 0, .* cannot be read"):
        convert(open_stream(path), tmp_path / "a.tif", Conversion(tile=16))
    assert not (tmp_path / "a.tif").exists()


def test_what_is_no_picture_of_this_machine_is_opened_as_ever(tmp_path: Path) -> None:
    array = ArraySource(soft(3))
    assert open_stream(array) is array
    np.save(tmp_path / "a.npy", soft(3))
    assert open_stream(tmp_path / "a.npy", 2.0).mpp == 2.0
    with pytest.raises(ImageError, match="no such file"):
        open_stream(tmp_path / "b.png")


def test_without_libvips_large_pictures_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save("PNG RGB", path)
    monkeypatch.setitem(sys.modules, "pyvips", None)
    assert type(open_stream(path)) is PillowSource
    monkeypatch.setattr("foveate.convert.run.WHOLE_PIXELS", 9)
    with pytest.raises(ImageError, match=r"203×131 pixels are streamed by libvips, .* pip install 'foveate\[vips\]'$"):
        open_stream(path)


@pytest.mark.parametrize("given", [open_image, open_stream])
def test_a_conversion_streams(given: Callable[[Path], Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save("PNG RGB", path)
    source = given(path)
    monkeypatch.setattr(PillowSource, "_decode", None)
    convert(source, tmp_path / "a.tif", Conversion(tile=16, compression="none"))
    made = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(made.read(Box(0, 0, *SIZE)), soft(3))
    assert len(made.levels) == 5


def test_what_is_too_large_for_other_verbs_says_how_to_convert_it_and_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my scan.png"
    save("PNG RGB", path)
    monkeypatch.setattr("foveate.images.formats.pillow.MAX_PIXELS", 26_000)
    command = f"foveate convert '{path}' '{tmp_path}/my scan.tif'"
    line = f"{path}: 203×131 pixels are more than the 26000 that can be decoded whole: make it lazy by {command}"
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value) == line
    assert main(["info", str(path)]) == 2
    assert capsys.readouterr().err == f"foveate: error: {line}\n"
    assert main(["data", "check", str(tmp_path)]) == 2
    assert f"unreadable: {line}" in capsys.readouterr().out
    assert main(shlex.split(command)[1:]) == 0
    assert open_image(tmp_path / "my scan.tif").size == SIZE
    Image.fromarray(soft(3)).save(tmp_path / "a.bmp")
    with pytest.raises(ImageError, match="whole: make it smaller, or cut it into several images"):
        open_image(tmp_path / "a.bmp")


TALL = (16_000, 1500)
"""Rows and columns of an image of 72 MB."""

MEASURED = """
import sys
from pathlib import Path
from foveate.__main__ import main
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000
for small, large in (sys.argv[1:3], sys.argv[3:5]):
    assert main(["convert", small, small + ".tif"]) == 0
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
    before = peak()
    assert main(["convert", large, large + ".tif"]) == 0
    print("MB:", peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="of this system's processes no peak is known")
def test_the_memory_of_a_conversion_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    words = []
    for kind in ("jpg", "png"):
        for name, rows in (("small", TALL[0] // 8), ("large", TALL[0])):
            column, row = pyvips.Image.xyz(TALL[1], rows).bandsplit()
            image = (column / 3 % 256).bandjoin([row / 5 % 256, (row + column) / 7 % 256]).cast("uchar")
            words.append(str(tmp_path / f"{name}.{kind}"))
            image.copy(interpretation="srgb").write_to_file(words[-1])
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("MB:")]
    assert len(grown) == 2
    assert max(grown) < 36, grown  # half of the pixels; decoded whole by Pillow they take three times as much
