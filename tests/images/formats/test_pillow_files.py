"""Files Pillow reads: what their pixels become, how large ones are seen small, and what broken ones say."""

import gc
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from servers import FileServer

from foveate.cache import OVERHEAD, Cache
from foveate.errors import ImageError
from foveate.images import PillowSource, area_average, open_image, open_zip_member
from foveate.images.formats import pillow
from foveate.types import Box

ORIENT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def scene(height: int, width: int) -> np.ndarray:
    """A smooth colour picture with a few edges, of the kind JPEG is made for."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(y / 17 + x / 29), np.cos(y / 41 - x / 13), np.sin(x / 23) * np.cos(y / 31)]
    picture = np.stack([127 + 90 * wave for wave in waves], -1)
    picture[height // 3 : height // 2, width // 4 : width // 3] = (220, 30, 60)
    return picture.astype(np.uint8)


def whole(source: PillowSource) -> np.ndarray:
    return source.read(Box(0, 0, *source.size))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_holds_for_size_reads_and_views(tag: int, format_: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / "turned"
    lossless = {"lossless": True} if format_ == "WEBP" else {}
    Image.fromarray(scene(96, 160)).save(path, format_, exif=exif, **lossless)
    with Image.open(path) as image:
        stored = scene(96, 160) if format_ == "TIFF" else np.asarray(image)  # Pillow turns a TIFF itself
    upright = ORIENT[tag](stored)
    source = PillowSource(path)
    assert source.size == upright.shape[:2]
    np.testing.assert_array_equal(source.read(Box(3, -2, 50, 40)), np.pad(upright, ((0, 0), (2, 0), (0, 0)))[3:53, :40])
    region = (5.5, -3.0, 80.25, 90.0)
    for size in ((9, 7), (50, 40)):
        np.testing.assert_allclose(source.view(size, region), area_average(upright, size, region), atol=1e-6)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_turned_by_its_xmp_only_has_one_size(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "turned"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(scene(30, 50)).save(path, "TIFF", tiffinfo={700: xmp}, compression=compression)
    source = PillowSource(path)
    assert source.size == (50, 30)
    np.testing.assert_array_equal(whole(source), np.rot90(scene(30, 50), -1))


@pytest.mark.parametrize("factor", [1.5, 3.9, 4.0, 8.3, 40.0])
@pytest.mark.parametrize(("height", "width"), [(401, 683), (300, 452)])
def test_jpeg_views_are_the_area_average_of_the_pixels(factor: float, height: int, width: int, tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene(height, width)).save(path, quality=92)
    source, size = PillowSource(path), (int(height / factor), int(width / factor))
    np.testing.assert_allclose(source.view(size), area_average(whole(source), size), rtol=0, atol=1e-7)


def test_a_view_and_its_patches_take_one_decode(tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene(200, 328)).save(path)
    source = PillowSource(path)
    source.view((50, 82))
    source.view((12, 20), (3, 5, 190, 300))
    source.read_many([Box(3, 7, 50, 60), Box(-5, 300, 50, 60)])
    assert source.bytes_read == path.stat().st_size


def test_a_view_does_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene(333, 500)).save(path)
    fresh, used = PillowSource(path), PillowSource(path)
    whole(used)
    np.testing.assert_array_equal(fresh.view((60, 90)), used.view((60, 90)))


def test_every_mode_becomes_grey_or_rgb(tmp_path: Path) -> None:
    rgb = scene(20, 30)
    image = Image.fromarray(rgb)
    alpha = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
    grey = np.asarray(image.convert("L"))
    over_black = np.rint(rgb * (alpha[:, :, None] / 255.0)).astype(np.uint8)
    cases = {
        "L": (image.convert("L"), "PNG", grey[:, :, None]),
        "1": (image.convert("1"), "PNG", np.asarray(image.convert("1").convert("L"))[:, :, None]),
        "P": (image.quantize(8), "PNG", np.asarray(image.quantize(8).convert("RGB"))),
        "CMYK": (image.convert("CMYK"), "TIFF", np.asarray(image.convert("CMYK").convert("RGB"))),
        "RGBA": (Image.fromarray(np.dstack([rgb, alpha])), "PNG", over_black),
        "LA": (
            Image.merge("LA", [image.convert("L"), Image.fromarray(alpha)]),
            "PNG",
            np.rint(grey * (alpha / 255.0)).astype(np.uint8)[:, :, None],
        ),
    }
    for mode, (picture, format_, expected) in cases.items():
        picture.save(tmp_path / mode, format_)
        source = open_image(tmp_path / mode)
        assert (source.channels, source.dtype) == (expected.shape[2], np.uint8), mode
        np.testing.assert_array_equal(source.read(Box(0, 0, 20, 30)), expected, err_msg=mode)


def test_transparent_palette_entries_are_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "p", "PNG", transparency=bytes([255, 0]))
    assert whole(PillowSource(tmp_path / "p"))[:, :, :2].tolist() == [[[255, 0], [0, 0]], [[0, 0], [255, 0]]]


def test_sixteen_bits_stay(tmp_path: Path) -> None:
    array = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(5, 12)
    Image.fromarray(array).save(tmp_path / "deep", "PNG")
    source = open_image(tmp_path / "deep")
    assert (source.dtype, source.channels) == (np.uint16, 1)
    np.testing.assert_array_equal(source.read(Box(0, 0, 5, 12))[:, :, 0], array)
    np.testing.assert_allclose(source.view((1, 1)).item(), array.mean() / 65535, rtol=1e-6)


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene(200, 300)).save(path)
    source, length = PillowSource(path), path.stat().st_size
    assert (source.size, source.bytes_read) == ((200, 300), 0)
    source.view((20, 30))
    assert source.bytes_read == length
    for top in range(0, 100, 10):
        source.read(Box(top, 0, 9, 9))
    assert source.bytes_read == length
    source.close()
    source.read(Box(0, 0, 9, 9))
    assert source.bytes_read == 2 * length


def test_decoded_pixels_are_bounded_and_go_with_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Cache("", 2 * (40 * 50 * 3 + OVERHEAD))
    monkeypatch.setattr(pillow, "DECODED", store)
    sources = []
    for i in range(3):
        Image.fromarray(scene(40, 50)).save(tmp_path / f"{i}.png")
        sources.append(PillowSource(tmp_path / f"{i}.png"))
        whole(sources[-1])
    assert list(store._held) == [(sources[i]._owner._number, pillow.PIXELS) for i in (1, 2)]
    whole(sources[1])
    whole(sources[0])
    assert list(store._held) == [(sources[i]._owner._number, pillow.PIXELS) for i in (1, 0)]
    assert store.memory == store.limit
    sources[0].close()
    del sources[1:]
    gc.collect()
    assert not store._held
    assert store.memory == 0


def test_views_of_a_kept_source_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Cache("", 2**30)
    monkeypatch.setattr(pillow, "DECODED", store)
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene(200, 328)).save(path)
    source, length = PillowSource(path), path.stat().st_size
    first = {size: source.view(size) for size in ((50, 82), (25, 41), (12, 20))}
    number = source._owner._number
    assert (number, pillow.PIXELS) in store._held
    assert all(one == number for one, _ in store._held)
    assert source.bytes_read == length
    for size, view in first.items():
        np.testing.assert_array_equal(source.view(size), view)
    assert source.bytes_read == length
    store.set_limit(1)  # what is in use stays, all else goes
    whole(source)
    assert list(store._held) == [(number, pillow.PIXELS)]
    source.close()
    assert not store._held
    np.testing.assert_array_equal(source.view((50, 82)), first[50, 82])


def png_header(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_large_legal_sizes_pass_without_warning_and_larger_ones_do_not(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    path = tmp_path / "large.png"
    path.write_bytes(png_header(20000, 50000) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(path).size == (20000, 50000)
    path.write_bytes(png_header(30000, 50000) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: 30000×50000 pixels are more than the 1073741824 that can be decoded whole: "
        f"make it lazy by foveate convert {path} {tmp_path}/large.tif"
    )
    assert limit == Image.MAX_IMAGE_PIXELS


SIZED = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")


@pytest.mark.parametrize("format_", SIZED)
@pytest.mark.parametrize("theirs", [1500, 500])
def test_pillows_own_limit_does_not_hold_and_stays(
    theirs: int, format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    Image.fromarray(scene(40, 50)[:, :, 0]).save(path, format_)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", theirs)  # 2000 pixels: a warning above 1500, an error above 500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_image(path)
        assert whole(source).shape[:2] == source.size == (40, 50)
        source.view((4, 5))
    assert theirs == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("format_", SIZED)
@pytest.mark.parametrize("ours", [1500, 500])
def test_more_than_our_own_limit_is_one_line(
    ours: int, format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    Image.fromarray(scene(40, 50)[:, :, 0]).save(path, format_)
    theirs = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(pillow, "MAX_PIXELS", ours)
    with pytest.raises(ImageError) as caught:
        open_image(path, reader="pillow")  # left to choose, it would read TIFF in parts
    command = f"make it lazy by foveate convert {path} {path}.tif"
    remedy = command if format_ in ("JPEG", "PNG") else "make it smaller, or cut it into several images"
    assert str(caught.value).replace("40×50", "2000") == (
        f"{path}: 2000 pixels are more than the {ours} that can be decoded whole: {remedy}"
    )
    assert theirs == Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_comes_back_after_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(scene(40, 50)).save(tmp_path / "large", "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: whole(PillowSource(tmp_path / "large")).shape, range(100)))
    assert set(sizes) == {(40, 50, 3)}
    assert Image.MAX_IMAGE_PIXELS == 1500


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_truncated_files_open_but_do_not_read(format_: str, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    Image.fromarray(scene(300, 400)).save(path, format_)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_image(path)
    assert source.size == (300, 400)
    for act in (lambda: source.read(Box(0, 0, 5, 5)), lambda: source.view((3, 4))):
        with pytest.raises(ImageError) as caught:
            act()
        message = str(caught.value)
        assert message.startswith(f"{path}: broken image, or of a kind not supported here (")
        assert message.endswith("): export it again, e.g. as PNG, or leave it out")
        assert "\n" not in message


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"progressive": True},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2", "optimize": True},
        {"quality": 31, "restart_marker_blocks": 3},
        {"keep_rgb": True},
    ],
)
def test_jpegs_of_all_kinds_are_what_pillow_makes_of_them(mode: str, how: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(scene(67, 133)).convert(mode).save(path, **({"quality": 88} | how))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB" if mode == "CMYK" else mode)).reshape(67, 133, -1)
    np.testing.assert_array_equal(open_image(path).read(Box(0, 0, 67, 133)), expected)
    path.write_bytes(path.read_bytes() + b"after the end")
    np.testing.assert_array_equal(open_image(path).read(Box(0, 0, 67, 133)), expected)


@pytest.mark.parametrize("left", [0.3, 0.7, 0.99])
def test_a_jpeg_that_ends_early_is_refused_wherever_it_ends(left: float, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(scene(67, 133)).save(path, quality=95)
    path.write_bytes(path.read_bytes()[: round(left * path.stat().st_size)])
    with pytest.raises(ImageError, match="broken image"):
        open_image(path).read(Box(0, 0, 9, 9))


def test_files_that_are_not_images_say_so(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not an image\n")
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    cases = {
        text: "not an image that can be read here: give one of JPEG, PNG, TIFF, WEBP, BMP, GIF, PPM, JPEG2000, "
        "or a canvas file (.npz)",
        tmp_path / "empty.png": "not an image that can be read here",
        tmp_path / "broken.png": "broken image, or of a kind not supported here (",
        tmp_path / "missing.png": "no such file: check the path",
        tmp_path: "a folder, not an image: name a file in it",
    }
    for path, message in cases.items():
        for door in (open_image, lambda path: PillowSource(path).size):
            with pytest.raises(ImageError) as caught:
                door(path)
            assert str(caught.value).startswith(f"{path}: {message}")
            assert "\n" not in str(caught.value)


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    Image.fromarray(scene(30, 40)).save(path)
    source = open_image(path)
    Image.fromarray(scene(20, 40)).save(path)
    with pytest.raises(ImageError, match="the file has changed since it was opened: open the image again"):
        source.read(Box(0, 0, 1, 1))


def deep_png(array: np.ndarray, kind: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """PNG of 16 bits, written by hand: Pillow writes none in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, along in passes if interlaced else [(0, 0, 1, 1)]:
        part = array[top::down, left::along]
        rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in part if part.size)
    height, width = array.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced)
    parts = (chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png_has_all_its_bits(kind: int, samples: int, interlaced: bool, tmp_path: Path) -> None:
    stored = np.random.default_rng(kind).integers(0, 65536, (37, 53, samples), np.uint16)
    stored[:20, :30] = 65535
    stored[5:9, 7:20] //= 300  # what a sensor of 8 bits leaves of 16: nothing of it is in the high byte
    expected = stored
    if samples in (2, 4):
        stored[30:, 40:, -1] = 0
        opacity = stored[:, :, -1:].astype(np.uint64)
        expected = ((stored[:, :, :-1] * opacity + 32767) // 65535).astype(np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(stored, kind, interlaced=interlaced))
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.write(path, "deep.png")
    with FileServer({"deep.png": path.read_bytes()}) as server:
        ways = [open_image(path), PillowSource(path), open_zip_member(tmp_path / "some.zip", "deep.png")]
        for source in (*ways, open_image(server.address("deep.png")), open_image(path, reader="pillow")):
            assert (source.channels, source.dtype) == (expected.shape[2], np.uint16)
            pixels, missing = source.read_known([Box(0, 0, 37, 53)])[0]
            np.testing.assert_array_equal(pixels, expected)
            np.testing.assert_array_equal(source.read(Box(4, 6, 9, 15)), expected[4:13, 6:21])
            assert (missing is not None) == (samples in (2, 4))
            if missing is not None:
                np.testing.assert_array_equal(missing[:, :, 0], stored[:, :, -1] == 0)
            if missing is None:
                np.testing.assert_allclose(source.view((5, 7)), area_average(expected, (5, 7)), atol=1e-6)


def test_sixteen_bit_colour_may_have_a_transparent_one_and_may_be_broken(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 65536, (20, 30, 3), np.uint16)
    clear = struct.pack(">HHH", *stored[3, 4].tolist())
    body = b"tRNS" + clear
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(stored, 2, struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))))
    pixels, missing = PillowSource(path).read_known([Box(0, 0, 20, 30)])[0]
    assert missing is not None
    assert np.argwhere(missing).tolist() == [[3, 4, 0]]
    stored[3, 4] = 0
    np.testing.assert_array_equal(pixels, stored)
    path.write_bytes(deep_png(stored, 2)[:-60])
    with pytest.raises(
        ImageError, match=r"deep.png: broken image, or of a kind not supported here \(.*export it again"
    ):
        PillowSource(path).read(Box(0, 0, 1, 1))


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_sixteen_bit_jpeg_2000_has_all_its_bits(samples: int, tmp_path: Path) -> None:
    stored = np.random.default_rng(samples).integers(0, 65536, (37, 53, samples), np.uint16)
    stored[:, :, samples - 1] |= 1  # nothing is wholly transparent
    encoded = imagecodecs.jpeg2k_encode(stored, level=0, reversible=True, codecformat="jp2")
    (tmp_path / "deep.jp2").write_bytes(encoded)
    expected = stored
    if samples in (2, 4):
        opacity = stored[:, :, -1:].astype(np.uint64)
        expected = ((stored[:, :, :-1] * opacity + 32767) // 65535).astype(np.uint16)
    source = PillowSource(tmp_path / "deep.jp2")
    assert (source.channels, source.dtype) == (expected.shape[2], np.uint16)
    np.testing.assert_array_equal(whole(source), expected)


@pytest.mark.parametrize("most", [255, 1023, 65535])
def test_deep_ppm_is_scaled_to_the_whole_range(most: int, tmp_path: Path) -> None:
    stored = np.random.default_rng(most).integers(0, most + 1, (20, 30, 3))
    kind, expected = (np.uint8, stored) if most == 255 else (">u2", np.floor(stored * 65535 / most + 0.5))
    (tmp_path / "deep.ppm").write_bytes(b"P6\n30 20\n%d\n" % most + stored.astype(kind).tobytes())
    source = PillowSource(tmp_path / "deep.ppm")
    assert source.dtype == (np.uint8 if most == 255 else np.uint16)
    np.testing.assert_array_equal(whole(source), expected)
