"""Laws every image obeys: it reads like a padded array, is seen like an averaged one, and can be pickled."""

import multiprocessing
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyramid_files import goes_at_once

from foveate.errors import ImageError
from foveate.images import (
    ArraySource,
    Bands,
    Canvas,
    Colour,
    Header,
    Source,
    area_average,
    augment,
    open_image,
    open_zip_member,
    unit_range,
)
from foveate.types import Box, Level

SIZE = (23, 37)


def pixels(dtype: str, channels: int) -> np.ndarray:
    values = np.random.default_rng(5).random((*SIZE, channels))
    scale = {"bool": 2, "uint8": 256, "uint16": 65536}.get(dtype)
    return values.astype(dtype) if scale is None else np.floor(values * scale).astype(dtype)


def canvas(channels: int = 1) -> tuple[Canvas, np.ndarray]:
    """Five stamps, some of them over another or over the border, and the array they make."""
    generator = np.random.default_rng(2)
    stamps = generator.integers(0, 256, (5, 6, 9), dtype=np.uint8)
    positions = np.array([[-2, -3], [0, 1], [18, 30], [10, 12], [8, 15]])
    whole = np.zeros((40, 60), np.uint8)
    for stamp, (top, left) in zip(stamps, positions, strict=True):
        whole[top + 8 : top + 14, left + 8 : left + 17] = stamp
    pixels = whole[8 : 8 + SIZE[0], 8 : 8 + SIZE[1], None].repeat(channels, axis=2)
    return Canvas(stamps, positions, SIZE, channels=channels), pixels


class Pyramid(Source):
    """A stand-in for formats with several levels and a handle that cannot be pickled."""

    def __init__(self, array: np.ndarray, coarse: np.ndarray) -> None:
        super().__init__("pyramid", 0.5)
        self._arrays = (array, coarse)

    def _open(self) -> Callable[[], tuple[np.ndarray, ...]]:
        arrays = self._arrays
        return lambda: arrays

    def _measure(self) -> Header:
        sizes = [array.shape[:2] for array in self._arrays]
        factors = [(sizes[0][0] / rows, sizes[0][1] / columns) for rows, columns in sizes]
        return Header(tuple(Level(s, f) for s, f in zip(sizes, factors, strict=True)), 1, self._arrays[0].dtype)

    def _read(self, box: Box, level: int) -> np.ndarray:
        arrays: tuple[np.ndarray, ...] = self._ready()()
        return arrays[level][box.top : box.bottom, box.left : box.right]


class CanvasStamps:
    """Makes the canvas's stamps when asked; picklable, as providers must be."""

    def __call__(self) -> np.ndarray:
        return np.random.default_rng(2).integers(0, 256, (5, 6, 9), dtype=np.uint8)


KINDS = [
    *(f"array {dtype} {channels}" for dtype in ("bool", "uint8", "uint16", "float32") for channels in (1, 3, 4)),
    "flat array",
    "canvas",
    "provided canvas",
    "canvas file",
    "RGB canvas",
    "RGB canvas file",
    "png grey",
    "png rgb",
    "png 16 bit",
    "png palette",
    "bmp",
    "tiff float",
    "turned png",
    "pyramid",
    "augmented array",
    "augmented canvas",
    *(f"npy {dtype} {channels}" for dtype in ("bool", "uint8", "uint16", "float16", "float32") for channels in (1, 5)),
    "npy flat",
    "npy swapped",
    "npy columns",
    "zipped png",
    "bands of array",
    "bands of canvas",
    "bands of npy",
    "grey as rgb",
    "canvas as rgb",
    "rgb as rgb",
    "transparent as rgb",
    "augmented bands",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


def make(kind: str, folder: Path) -> tuple[Source, np.ndarray]:
    """A source of a kind, and the array that it must equal."""
    words = kind.split()
    path = folder / kind.replace(" ", "-")  # no suffix: files are known by their content
    grey, rgb = pixels("uint8", 1), pixels("uint8", 3)
    if words[0] == "array":
        array = pixels(words[1], int(words[2]))
        return ArraySource(array), array
    if kind == "flat array":
        return ArraySource(grey[:, :, 0]), grey
    if kind == "canvas":
        return canvas()
    if kind == "RGB canvas":
        return canvas(channels=3)
    if kind == "RGB canvas file":
        canvas(channels=3)[0].save(path)
        return open_image(path), canvas(channels=3)[1]
    if kind == "provided canvas":
        positions = np.array([[-2, -3], [0, 1], [18, 30], [10, 12], [8, 15]])
        return Canvas(CanvasStamps(), positions, SIZE), canvas()[1]
    if kind == "canvas file":
        canvas()[0].save(path)
        return open_image(path), canvas()[1]
    if kind == "pyramid":
        return Pyramid(grey, grey[::2, ::2]), grey
    if words[0] == "npy":
        array = pixels(words[1], int(words[2])) if len(words) == 3 else pixels("uint16", 3)
        saved = {"flat": array[:, :, 0], "swapped": array.astype(">u2"), "columns": np.asfortranarray(array)}
        with path.open("wb") as stream:
            np.save(stream, saved.get(words[1], array))
        return open_image(path), array[:, :, :1] if words[1] == "flat" else array
    if kind == "zipped png":
        save("png rgb", folder / "member", grey[:, :, 0], rgb)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "member", "images/of a scene.png")
        return open_zip_member(path, "images/of a scene.png"), rgb
    if words[0] == "bands" or kind.endswith(("as rgb", "bands")):
        return wrapped(kind, folder)
    if words[0] == "augmented":
        source, array = canvas() if words[1] == "canvas" else (ArraySource(rgb), rgb)
        change = augment.Change(flip_columns=True, quarter_turns=1, shift=(3, -5))
        turned = np.rot90(array[:, ::-1])
        moved = np.zeros_like(turned)
        moved[3:, :-5] = turned[:-3, 5:]
        return augment.Augmented(source, change), moved
    return save(kind, path, grey[:, :, 0], rgb)


def wrapped(kind: str, folder: Path) -> tuple[Source, np.ndarray]:
    """Bands and colours of a source, and the array that they must equal."""
    if kind.startswith("bands of"):
        inner = {"array": "array uint16 4", "canvas": "RGB canvas", "npy": "npy uint8 5"}[kind.split()[2]]
        source, array = make(inner, folder)
        return Bands(source, (2, 0, 2, 1)), array[:, :, [2, 0, 2, 1]]
    if kind == "augmented bands":
        array = pixels("uint8", 4)[:, :, [3, 1]]
        return augment.Augmented(Bands(ArraySource(pixels("uint8", 4)), (3, 1)), augment.Change(True)), array[::-1]
    if kind == "transparent as rgb":
        array = pixels("uint16", 4).astype(np.float64)
        over_black = np.floor(array[:, :, :3] * array[:, :, 3:] / 65535 + 0.5).astype(np.uint16)
        return Colour(ArraySource(pixels("uint16", 4)), "rgb"), over_black
    inner = {"grey as rgb": "array uint16 1", "canvas as rgb": "canvas", "rgb as rgb": "array uint8 3"}[kind]
    source, array = make(inner, folder)
    return Colour(source, "rgb"), array.repeat(3 // array.shape[2], axis=2)


def save(kind: str, path: Path, grey: np.ndarray, rgb: np.ndarray) -> tuple[Source, np.ndarray]:
    """A file of a kind, opened, and the array that it must equal."""
    if kind == "png 16 bit":
        array = pixels("uint16", 1)
        Image.fromarray(array[:, :, 0]).save(path, "PNG")
        return open_image(path), array
    if kind == "png palette":
        image = Image.fromarray(rgb).quantize(16)
        image.save(path, "PNG")
        return open_image(path), np.asarray(image.convert("RGB"))
    if kind == "tiff float":
        array = pixels("float32", 1)
        Image.fromarray(array[:, :, 0]).save(path, "TIFF")
        return open_image(path), array
    if kind == "turned png":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rgb).save(path, "PNG", exif=exif)
        return open_image(path), np.rot90(rgb, -1)
    array = grey if kind == "png grey" else rgb
    Image.fromarray(array).save(path, "BMP" if kind == "bmp" else "PNG")
    return open_image(path), array.reshape(*SIZE, -1)


def sliced(array: np.ndarray, box: Box) -> np.ndarray:
    """The box of the array laid into a wide black margin."""
    margin = 110
    wide = np.pad(array, ((margin, margin), (margin, margin), (0, 0)))
    return wide[margin + box.top : margin + box.bottom, margin + box.left : margin + box.right]


boxes = st.builds(Box, st.integers(-45, 45), st.integers(-45, 45), st.integers(1, 60), st.integers(1, 60))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_reads_like_a_padded_array(kind: str, folder: Path) -> None:
    source, array = make(kind, folder)
    assert source.size == array.shape[:2]
    assert source.channels == array.shape[2]
    assert source.dtype == array.dtype

    @settings(max_examples=15, deadline=None)
    @given(boxes)
    def law(box: Box) -> None:
        read = source.read(box)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, sliced(array, box))

    law()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_borders_one_pixel_in_and_out(kind: str, folder: Path) -> None:
    source, array = make(kind, folder)
    height, width = source.size
    for top in (-7, -6, -5, -1, 0, height - 7, height - 6, height - 5, height - 1, height):
        for left in (-4, -3, -2, 0, width - 4, width - 3, width - 2, width):
            box = Box(top, left, 6, 3)
            np.testing.assert_array_equal(source.read(box), sliced(array, box))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pyramid"])
def test_is_seen_like_an_averaged_array(kind: str, folder: Path) -> None:
    source, array = make(kind, folder)
    sides = st.floats(0.5, 50).map(lambda x: round(x, 3))

    @settings(max_examples=8, deadline=None)
    @given(
        st.tuples(st.integers(1, 30), st.integers(1, 30)),
        st.tuples(st.floats(-20, 40), st.floats(-20, 40)),
        st.tuples(sides, sides),
    )
    def law(size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]) -> None:
        region = (corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1])
        view = source.view(size, region)
        assert view.dtype == np.float32
        np.testing.assert_allclose(view, area_average(array, size, region), atol=1e-6)

    law()
    np.testing.assert_allclose(source.view((5, 7)), area_average(array, (5, 7)), atol=1e-6)
    np.testing.assert_allclose(source.view(source.size), unit_range(array), atol=1e-6)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_can_be_pickled_before_and_after_reading(kind: str, folder: Path) -> None:
    source, array = make(kind, folder)
    box = Box(-2, 5, 9, 40)
    for _ in range(2):
        again = pickle.loads(pickle.dumps(source))
        assert (again.name, again.mpp, again.bytes_read) == (source.name, source.mpp, source.bytes_read)
        np.testing.assert_array_equal(again.read(box), sliced(array, box))
        source.read(box)
        source.view((3, 4))
    source.close()
    np.testing.assert_array_equal(source.read(box), sliced(array, box))


def test_what_is_decoded_is_not_pickled(folder: Path) -> None:
    for kind in ("png rgb", "provided canvas"):
        source, _ = make(kind, folder)
        _ = source.size
        before = len(pickle.dumps(source))
        source.read(Box(0, 0, 5, 5))
        assert len(pickle.dumps(source)) <= before + 8, kind


@pytest.mark.slow
def test_reads_in_a_spawned_process(folder: Path) -> None:
    kinds = ["png rgb", "canvas file", "augmented array", "npy uint8 5", "zipped png", "bands of npy", "grey as rgb"]
    made = [make(kind, folder) for kind in kinds]
    box = Box(-1, 3, 7, 50)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for source, array in made:
            np.testing.assert_array_equal(pool.apply(source.read, (box,)), sliced(array, box))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_read_the_same(kind: str, folder: Path) -> None:
    source, array = make(kind, folder)
    some = [Box(top, left, 8, 11) for top in range(-4, 24, 4) for left in range(-6, 36, 6)]
    with ThreadPoolExecutor(8) as pool:
        for box, read in zip(some, pool.map(source.read, some), strict=True):
            np.testing.assert_array_equal(read, sliced(array, box))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_holds_is_gone_at_once(kind: str, folder: Path) -> None:
    """Without waiting for Python to look for cycles: an image may hold hundreds of megabytes."""
    source, _ = make(kind, folder)
    source.read(Box(-1, 2, 7, 6))
    source.view((3, 4))
    held = [source]
    del source
    goes_at_once(held)


def test_a_result_is_the_callers_own() -> None:
    array = pixels("uint8", 3)
    source = ArraySource(array)
    source.read(Box(0, 0, *SIZE))[:] = 0
    assert array.any()


def test_bytes_are_those_of_the_pixels_touched_in_memory() -> None:
    source = ArraySource(pixels("uint16", 3))
    assert source.bytes_read == 0
    source.read(Box(-5, -5, 10, 12))
    assert source.bytes_read == 5 * 7 * 3 * 2
    source.read(Box(100, 100, 4, 4))
    assert source.bytes_read == 5 * 7 * 3 * 2
    source.view((4, 4))
    assert source.bytes_read == 5 * 7 * 3 * 2 + SIZE[0] * SIZE[1] * 3 * 2


def test_levels_are_read_and_chosen_for_views() -> None:
    fine = np.full((20, 30), 0.25, np.float32)
    coarse = np.full((10, 15), 0.75, np.float32)  # told apart by value
    source = Pyramid(fine, coarse)
    assert source.read(Box(9, 14, 2, 2), level=1)[:, :, 0].tolist() == [[0.75, 0], [0, 0]]
    assert source.view((10, 15)).max() == source.view((10, 15)).min() == 0.75
    assert source.view((11, 15)).max() == 0.25
    assert source.view((4, 4), (0, 0, 7, 30)).max() == 0.25
    np.testing.assert_allclose(source.view((4, 3)), 0.75, atol=1e-7)


def test_thumbnails_keep_type_and_proportions() -> None:
    array = pixels("uint16", 3)
    assert ArraySource(array).thumbnail(10).shape == (6, 10, 3)
    np.testing.assert_array_equal(ArraySource(array).thumbnail(1000), array)
    np.testing.assert_array_equal(ArraySource(np.full((4, 6), 7, np.uint8)).thumbnail(3), np.full((2, 3, 1), 7))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda s: s.read(Box(0, 0, 0, 4)),
            "image in memory: a box must have at least one row and one column, got 0×4: ask for a larger one",
        ),
        (
            lambda s: s.read(Box(0, 0, 2, 4), level=1),
            "image in memory: level must be one of 0 … 0, got 1: see .levels",
        ),
        (
            lambda s: s.view((0, 3)),
            "image in memory: a view must have at least one row and one column, got 0×3: ask for a larger one",
        ),
        (
            lambda s: s.view((2, 3), (5, 0, 4, 10)),
            "image in memory: a region must go down and to the right, got top 5, left 0, bottom 4, right 10: "
            "order it as (top, left, bottom, right)",
        ),
    ],
)
def test_impossible_requests_are_refused(act: Callable[[Source], object], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        act(ArraySource(pixels("uint8", 1)))
    assert str(caught.value) == message


def test_impossible_arrays_are_refused() -> None:
    with pytest.raises(ImageError, match=r"got shape \(3, 0\): put the channels last"):
        ArraySource(np.zeros((3, 0), np.uint8))
    with pytest.raises(ImageError, match="must be bool, uint8, uint16 or floating point, got int64: convert it first"):
        ArraySource(np.zeros((3, 4), np.int64))
