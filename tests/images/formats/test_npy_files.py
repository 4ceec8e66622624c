"""Arrays in files: read in parts, counted by their pixels, refused in one line; reading laws are in test_sources."""

from pathlib import Path

import numpy as np
import pytest

from foveate.errors import ImageError
from foveate.images import NpySource, open_image
from foveate.types import Box


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def test_bytes_are_those_of_the_pixels_read(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 65536, (40, 70, 3)).astype(">u2")
    source = open_image(saved(tmp_path / "a.npy", array), mpp=0.5)
    assert isinstance(source, NpySource)
    assert (source.size, source.channels, source.dtype, source.mpp) == ((40, 70), 3, np.uint16, 0.5)
    assert source.bytes_read == 0
    source.read(Box(-5, 60, 10, 20))
    assert source.bytes_read == 5 * 10 * 3 * 2
    source.view((4, 7), (0, 0, 20, 35))
    assert source.bytes_read == 5 * 10 * 3 * 2 + 20 * 35 * 3 * 2


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    """A file of 40 GB, of which only the header and a few pages take any space."""
    path = tmp_path / "large.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (200000, 200000)}
        )
        start = stream.tell()
        stream.seek(start + 150000 * 200000 + 7)
        stream.write(b"\xff")
        stream.truncate(start + 200000 * 200000)
    source = open_image(path)
    assert source.read(Box(149999, 6, 3, 3))[:, :, 0].tolist() == [[0, 0, 0], [0, 255, 0], [0, 0, 0]]
    assert source.bytes_read == 9


def test_what_is_read_is_not_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.zeros((4, 6), np.uint8))
    part = open_image(path)._read(Box(0, 0, 2, 2), 0)
    part[:] = 7
    assert type(part) is np.ndarray
    assert not np.load(path).any()


def test_closing_lets_go_and_opens_again(tmp_path: Path) -> None:
    source = open_image(saved(tmp_path / "a.npy", np.full((4, 6), 9, np.uint8)))
    source.close()
    assert source._opened is None
    assert source.read(Box(0, 0, 1, 1)).item() == 9


def test_files_that_are_no_images_say_so(tmp_path: Path) -> None:
    shapes = "put the channels last, one image in a file"
    kinds = "pixels must be bool, integers or floating point, got"
    broken = "broken .npy file, or one of Python objects ("
    cases = {
        saved(tmp_path / "complex.npy", np.zeros((3, 4), np.complex64)): f"{kinds} complex64: convert it first",
        saved(tmp_path / "four.npy", np.zeros((1, 3, 4, 3), np.uint8)): f"got shape (1, 3, 4, 3): {shapes}",
        saved(tmp_path / "empty.npy", np.zeros((0, 4), np.uint8)): f"got shape (0, 4): {shapes}",
        saved(tmp_path / "objects.npy", np.array([[{}, None]], dtype=object)): broken,
    }
    cut = saved(tmp_path / "cut.npy", np.zeros((30, 40), np.uint8))
    cut.write_bytes(cut.read_bytes()[:-1])
    headless = tmp_path / "headless.npy"
    headless.write_bytes(cut.read_bytes()[:20])
    garbled = tmp_path / "garbled.npy"
    garbled.write_bytes(cut.read_bytes().replace(b"descr", b"d\xff\n\x00r"))
    for path, part in {**cases, cut: broken, headless: broken, garbled: broken}.items():
        with pytest.raises(ImageError) as caught:
            open_image(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert part in message
        assert "\n" not in message
        if part == broken:
            assert message.endswith("): write it again with numpy.save, as an array of numbers")


def test_files_that_went_away_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file: check the path"):
        _ = NpySource(tmp_path / "missing.npy").size
    with pytest.raises(ImageError, match="a folder, not an image: name a file in it"):
        _ = NpySource(tmp_path).size
