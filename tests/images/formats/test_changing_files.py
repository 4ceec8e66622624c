"""Files that are cut or replaced while they are read: every reader notices, and none takes the process down."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from foveate.errors import ImageError
from foveate.images import NpySource, Source, open_image
from foveate.types import Box

SIZE = (300, 403)


def scene(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def npy(path: Path, pixels: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, pixels)


def columns_first(path: Path, pixels: np.ndarray) -> None:
    npy(path, np.asfortranarray(pixels))


def tiled(path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")


def plain(path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(path, pixels, photometric="rgb")


def png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, "PNG", compress_level=0)


def bmp(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, "BMP")


WRITERS = (npy, columns_first, tiled, plain, png, bmp)

READERS: dict[str, tuple[Callable[[Path, np.ndarray], None], Callable[[Path], Source]]] = {
    **{write.__name__: (write, open_image) for write in WRITERS},
    "raster": (tiled, lambda path: open_image(path, reader="raster")),
    "vips": (tiled, lambda path: open_image(path, reader="vips")),
    "openslide": (tiled, lambda path: open_image(path, reader="openslide")),
}


@pytest.fixture(params=READERS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path, np.ndarray], None], Source]:
    """A file, what wrote it, and its image, of which a box has been read."""
    write, reader = READERS[request.param]
    if request.param in ("raster", "vips", "openslide"):
        pytest.importorskip({"raster": "rasterio", "vips": "pyvips", "openslide": "openslide"}[request.param])
    path = tmp_path / "a"
    write(path, scene(0))
    source = reader(path)
    assert np.array_equal(source.read(Box(3, 5, 40, 50)), scene(0)[3:43, 5:55])
    return path, write, source


def answer(source: Source) -> np.ndarray | None:
    """What is read of the far end, or None if it is refused."""
    try:
        return source.read(Box(260, 350, 30, 40))
    except ImageError:
        return None


@pytest.mark.parametrize("left", [0.6, 0.0])
def test_a_file_that_is_cut_is_refused_or_answered_as_it_was(
    left: float, opened: tuple[Path, Callable[[Path, np.ndarray], None], Source]
) -> None:
    path, _, source = opened
    os.truncate(path, int(path.stat().st_size * left))
    found = answer(source)
    assert found is None or np.array_equal(found, scene(0)[260:290, 350:390])
    with pytest.raises(ImageError):
        open_image(path).view((3, 4))


@pytest.mark.parametrize("how", ["in its place", "by a rename"])
def test_what_was_opened_is_not_mixed_with_what_replaced_it(
    how: str, opened: tuple[Path, Callable[[Path, np.ndarray], None], Source]
) -> None:
    path, write, source = opened
    other = path if how == "in its place" else path.with_name("b")
    write(other, scene(1))
    os.utime(other, (1, 1))
    other.replace(path)
    found = answer(source)
    assert found is None or np.array_equal(found, scene(0)[260:290, 350:390])
    if found is None:
        with pytest.raises(ImageError, match="the file has changed since it was opened: open the image again"):
            source.read(Box(260, 350, 30, 40))
    assert np.array_equal(open_image(path).read(Box(260, 350, 30, 40)), scene(1)[260:290, 350:390])


def test_a_cut_array_file_takes_no_process_down(tmp_path: Path) -> None:
    """As a memory map did: SIGBUS, exit code −7."""
    path = tmp_path / "a.npy"
    npy(path, np.zeros((3000, 4000), np.uint8))
    code = (
        "import os, sys; from foveate.images import open_image; from foveate.types import Box\n"
        "source = open_image(sys.argv[1]); source.read(Box(0, 0, 9, 9)); os.truncate(sys.argv[1], 5000)\n"
        "source.read(Box(2900, 3000, 50, 60))"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "a.npy: the file has changed since it was opened: open the image again" in ended.stderr


def test_files_that_libvips_would_map_are_refused(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    pyvips.Image.new_from_array(scene(0)).write_to_file(str(tmp_path / "a.v"))
    with pytest.raises(ImageError, match=r"a\.v: libvips maps files of this kind into memory, .*: convert it, e\.g\."):
        open_image(tmp_path / "a.v", reader="vips")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(41, 5000), (41, 5000, 3), (4100, 57, 2), (9000, 21)])
@pytest.mark.parametrize("kind", ["|u1", ">u2", "<f4"])
def test_parts_of_array_files_are_those_of_the_array(
    order: str, shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    array = np.random.default_rng(3).integers(0, 250, shape).astype(kind)
    npy(tmp_path / "a.npy", np.asarray(array, order=order))
    source = NpySource(tmp_path / "a.npy")
    boxes = [Box(3, 2, 20, 17), Box(0, 0, *shape[:2]), Box(shape[0] - 1, shape[1] - 1, 1, 1), Box(7, 0, 9, shape[1])]
    for box in boxes:
        wanted = array[box.top : box.bottom, box.left : box.right].reshape(box.height, box.width, -1)
        found = source.read(box)
        assert found.dtype == wanted.dtype.newbyteorder("=")
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_format(version: tuple[int, int], tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as stream:
        np.lib.format.write_array(stream, scene(0), version=version)
    assert np.array_equal(open_image(tmp_path / "a.npy").read(Box(9, 8, 20, 30)), scene(0)[9:29, 8:38])
