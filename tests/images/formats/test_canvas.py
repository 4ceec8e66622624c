"""The canvas: exactly the picture it stands for, at a cost that does not grow with it."""

import time
from pathlib import Path

import numpy as np
import pytest
from archives import damage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.errors import ImageError
from foveate.images import Canvas, area_average, open_image
from foveate.types import Box


def painted(stamps: np.ndarray, positions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The canvas made whole, pixel by pixel."""
    result = np.zeros((*size, 1), np.uint8)
    for stamp, (top, left) in zip(stamps, positions.tolist(), strict=True):
        for y, x in np.ndindex(stamp.shape):
            if 0 <= top + y < size[0] and 0 <= left + x < size[1]:
                result[top + y, left + x] = stamp[y, x]
    return result


def crowded(seed: int, size: tuple[int, int], stamps: int = 30) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 256, (stamps, 8, 11), dtype=np.uint8)
    positions = generator.integers((-9, -12), (size[0] + 2, size[1] + 2), (stamps, 2))
    return values, positions


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_is_the_painted_canvas(seed: int, size: tuple[int, int]) -> None:
    stamps, positions = crowded(seed, size)
    whole = painted(stamps, positions, size)
    canvas = Canvas(stamps, positions, size)
    np.testing.assert_array_equal(canvas.read(Box(0, 0, *size)), whole)
    np.testing.assert_allclose(canvas.view((5, 7)), area_average(whole, (5, 7)), atol=1e-6)
    region = (-3.7, 2.1, size[0] * 0.77, size[1] + 5.3)
    for shape in ((4, 9), (70, 33)):
        np.testing.assert_allclose(canvas.view(shape, region), area_average(whole, shape, region), atol=1e-6)


@pytest.mark.parametrize("size", [(1500, 1500), (1500, 1111)])
def test_view_is_that_of_the_same_canvas_as_png(size: tuple[int, int], tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    stamps = generator.integers(0, 256, (55, 28, 28), dtype=np.uint8)
    positions = generator.integers((0, 0), (size[0] - 28, size[1] - 28), (55, 2))
    positions[50:] = positions[:5] + np.array([7, -9])  # some noise over some digits
    canvas = Canvas(stamps, positions, size)
    Image.fromarray(canvas.read(Box(0, 0, *size))[:, :, 0]).save(tmp_path / "canvas.png")
    png = open_image(tmp_path / "canvas.png")
    view = (180, 180 * size[1] // size[0])
    for region in (None, (-20.5, 33.25, 1400.75, 1000.125)):
        difference = np.abs(canvas.view(view, region) - png.view(view, region))
        assert difference.max() <= 1e-6
    box = Box(700, 300, 50, 50)
    np.testing.assert_array_equal(canvas.read(box), png.read(box))


def test_black_of_a_later_stamp_covers() -> None:
    stamps = np.stack([np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8)])
    canvas = Canvas(stamps, np.array([[0, 0], [0, 2]]), (4, 6))
    assert canvas.read(Box(0, 0, 1, 6))[0, :, 0].tolist() == [255, 255, 0, 0, 0, 0]
    np.testing.assert_allclose(canvas.view((1, 3))[0, :, 0], [1, 0, 0])


def test_size_costs_nothing() -> None:
    canvas = Canvas(
        np.full((2, 3, 3), 255, np.uint8), np.array([[0, 0], [10**6 - 3, 2 * 10**6 - 3]]), (10**6, 2 * 10**6)
    )
    started = time.perf_counter()
    assert canvas.read(Box(10**6 - 4, 2 * 10**6 - 4, 9, 9)).sum() == 9 * 255
    view = canvas.view((100, 200))
    assert time.perf_counter() - started < 1
    np.testing.assert_allclose(view[[0, -1], [0, -1], 0], 9 / 1e8, rtol=1e-6)
    assert np.count_nonzero(view) == 2


def test_stamps_are_made_when_needed_and_once() -> None:
    calls: list[int] = []

    def provider() -> np.ndarray:
        calls.append(1)
        return np.full((1, 2, 2), 9, np.uint8)

    canvas = Canvas(provider, np.array([[1, 1]]), (5, 6))
    assert canvas.size == (5, 6)
    for _ in range(3):
        canvas.read(Box(0, 0, 3, 3))
        canvas.view((2, 3))
    assert len(calls) == 1
    canvas.close()
    assert canvas.read(Box(1, 1, 1, 1)).item() == 9
    assert len(calls) == 2


def test_a_canvas_without_stamps_is_black() -> None:
    canvas = Canvas(np.zeros((0, 5, 5), np.uint8), np.zeros((0, 2), np.int64), (7, 9))
    assert not canvas.read(Box(-1, 0, 9, 9)).any()
    assert not canvas.view((3, 4)).any()


def test_saved_and_loaded(tmp_path: Path) -> None:
    stamps, positions = crowded(3, (40, 50))
    path = tmp_path / "a canvas"
    Canvas(stamps, positions, (40, 50)).save(path)
    loaded = open_image(path, mpp=0.25)
    assert isinstance(loaded, Canvas)
    assert (loaded.size, loaded.name, loaded.mpp) == ((40, 50), str(path), 0.25)
    np.testing.assert_array_equal(loaded.read(Box(0, 0, 40, 50)), painted(stamps, positions, (40, 50)))


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, x_train=np.zeros(3))
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: not a canvas file (")
    assert str(caught.value).endswith(
        "must be an .npz archive of stamps, positions, size and channels, as Canvas.save writes"
    )
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match="not a canvas file"):
        open_image(path)


@pytest.mark.parametrize(
    ("how", "reason"), [("data", "error Error -3"), ("encrypted", "RuntimeError"), ("method", "NotImplementedError")]
)
def test_damaged_archives_are_refused(how: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "canvas.npz"
    Canvas(*crowded(3, (40, 50)), (40, 50)).save(path)
    damage(path, how)
    with pytest.raises(ImageError, match=rf"canvas.npz: not a canvas file \({reason}.*Canvas.save writes$") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_an_error_that_says_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Canvas(*crowded(3, (40, 50)), (40, 50)).save(tmp_path / "canvas.npz")

    def fail(*_: object, **__: object) -> None:
        raise EOFError

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(ImageError, match=r"not a canvas file \(EOFError\): it must be an .npz archive"):
        open_image(tmp_path / "canvas.npz")


def test_stamps_that_do_not_match_are_refused() -> None:
    with pytest.raises(ImageError, match=r"one for each of 2 positions, got uint8 of shape \(3, 4, 4\)"):
        Canvas(lambda: np.zeros((3, 4, 4), np.uint8), np.zeros((2, 2), np.int64), (9, 9)).read(Box(0, 0, 1, 1))
    with pytest.raises(ImageError, match="a canvas must have at least one pixel, got 0×9"):
        Canvas(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 2), np.int64), (0, 9))
