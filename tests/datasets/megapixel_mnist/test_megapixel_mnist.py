import hashlib
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2, kstest

from foveate.config.settings import DataSettings
from foveate.datasets import MegapixelMnist, megapixel_mnist
from foveate.datasets.megapixel_mnist.digits import load_pools
from foveate.errors import DataError
from foveate.images import open_image
from foveate.types import Box

FAILURE_RATE = 1e-6
"""Chance that a correct generator fails one statistical test, for a seed chosen at random; the seed is fixed."""

SMALL = DataSettings(canvas=(300, 420), train_images=12, test_images=6)


@pytest.fixture(scope="module")
def small() -> MegapixelMnist:
    return megapixel_mnist(SMALL)


@pytest.fixture(scope="module")
def thousand() -> MegapixelMnist:
    return megapixel_mnist(replace(SMALL, train_images=1000, test_images=0))


def pixels(data: MegapixelMnist, index: int) -> np.ndarray:
    return data.open(index).read(Box(0, 0, *data.size))[:, :, 0]


def stamp(pixels_: np.ndarray, box: Box) -> np.ndarray:
    return pixels_[box.top : box.bottom, box.left : box.right]


def test_ids_labels_and_splits(small: MegapixelMnist) -> None:
    assert small.classes == tuple("0123456789")
    assert [example.id for example in small.examples[:2]] == ["train-00000", "train-00001"]
    assert [example.split for example in small.examples] == ["train"] * 12 + ["test"] * 6
    assert small.examples[17].id == "test-00005"
    assert small.open(17).name == "test-00005"


def test_same_seed_same_pixels_other_seed_other_pixels(small: MegapixelMnist) -> None:
    again, other = megapixel_mnist(SMALL), megapixel_mnist(replace(SMALL, generator_seed=1))
    for i in range(len(small)):
        np.testing.assert_array_equal(pixels(small, i), pixels(again, i))
        assert not np.array_equal(pixels(small, i), pixels(other, i))
    assert small.examples == again.examples


def test_a_canvas_does_not_depend_on_how_many_there_are(small: MegapixelMnist) -> None:
    more = megapixel_mnist(replace(SMALL, train_images=30, test_images=9))
    where = {example.id: i for i, example in enumerate(more.examples)}
    for i, example in enumerate(small.examples):
        np.testing.assert_array_equal(pixels(small, i), pixels(more, where[example.id]))
        assert more.examples[where[example.id]] == example


def test_three_digits_are_of_the_class_and_two_are_not(thousand: MegapixelMnist) -> None:
    for i, example in enumerate(thousand.examples):
        names = [name for name, _ in thousand.digits(i)]
        assert names[:3] == [thousand.classes[example.label]] * 3
        assert thousand.classes[example.label] not in names[3:]


def test_digits_lie_inside_the_canvas_and_do_not_overlap(thousand: MegapixelMnist) -> None:
    height, width = thousand.size
    for i in range(len(thousand)):
        corners = np.array([(box.top, box.left) for _, box in thousand.digits(i)])
        assert corners.min() >= 0
        assert (corners <= [height - 28, width - 28]).all()
        apart = (np.abs(corners[:, None] - corners[None]) >= 28).any(2)
        assert apart[~np.eye(5, dtype=bool)].all()


def test_the_digits_shown_are_those_of_the_pool() -> None:
    data = megapixel_mnist(replace(SMALL, noise=0))
    train, test = load_pools("bundled")
    for i, example in enumerate(data.examples):
        pool = train if example.split == "train" else test
        known = {image.tobytes(): label for image, label in zip(pool.images, pool.labels, strict=True)}
        canvas = pixels(data, i)
        for name, box in data.digits(i):
            assert str(known[stamp(canvas, box).tobytes()]) == name
            canvas[box.top : box.bottom, box.left : box.right] = 0
        assert not canvas.any()  # nothing but the five digits


def test_noise_lies_over_digits_or_under_them(small: MegapixelMnist) -> None:
    under = megapixel_mnist(replace(SMALL, noise_over_digits=False))
    clean = megapixel_mnist(replace(SMALL, noise=0))
    covered = 0
    for i in range(len(small)):
        canvas, over_canvas, clean_canvas = pixels(under, i), pixels(small, i), pixels(clean, i)
        for _, box in clean.digits(i):
            np.testing.assert_array_equal(stamp(canvas, box), stamp(clean_canvas, box))
            covered += not np.array_equal(stamp(over_canvas, box), stamp(clean_canvas, box))
        assert (canvas > 0).sum() > (clean_canvas > 0).sum() + 1000
    assert covered > 10  # fifty strokes on so small a canvas hit most digits


def test_strokes_erase_what_is_under_their_square() -> None:
    crowded = replace(SMALL, canvas=(90, 200), noise=400, train_images=1, test_images=0)
    canvas = pixels(megapixel_mnist(crowded), 0)
    inside = canvas[28:-28, 28:-28]
    assert set(np.unique(inside)) <= {0, *range(204, 256)}  # a digit's greys are gone: squares are pasted opaque


def test_strokes_keep_their_distance_from_the_border(thousand: MegapixelMnist) -> None:
    height, width = thousand.size
    corners = thousand.positions[:, 5:]
    assert (corners.min((0, 1)) == 28).all()
    assert (corners.max((0, 1)) == [height - 29, width - 29]).all()


def test_training_and_test_canvases_share_no_digit_and_no_stroke(small: MegapixelMnist) -> None:
    data = megapixel_mnist(replace(SMALL, train_images=400, test_images=100))
    test = np.array([example.split == "test" for example in data.examples])
    seen = [{data.stamps[i].tobytes() for i in np.unique(data.stamp_index[rows])} for rows in (~test, test)]
    assert min(map(len, seen)) > 50
    assert not seen[0] & seen[1]


def test_classes_and_places_are_uniform(thousand: MegapixelMnist) -> None:
    counts = np.bincount([example.label for example in thousand.examples], minlength=10)
    assert ((counts - 100) ** 2 / 100).sum() < chi2.isf(FAILURE_RATE, 9)
    height, width = thousand.size
    first = thousand.positions[:, 0]  # the first digit has the whole canvas to itself
    assert kstest(first[:, 0] / (height - 28), "uniform").pvalue > FAILURE_RATE
    assert kstest(first[:, 1] / (width - 28), "uniform").pvalue > FAILURE_RATE
    patterns = np.bincount(thousand.stamp_index[:, 5:].ravel() - thousand.stamp_index[:, 5:].min(), minlength=50)
    assert ((patterns - 1000) ** 2 / 1000).sum() < chi2.isf(FAILURE_RATE, 49)


@pytest.mark.parametrize("size", [(36, 50), (37, 53), (300, 420)])
def test_the_view_is_that_of_the_same_canvas_as_png(
    small: MegapixelMnist, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.fromarray(pixels(small, 5)).save(tmp_path / "canvas.png")
    written = open_image(tmp_path / "canvas.png")
    np.testing.assert_allclose(small.open(5).view(size), written.view(size), rtol=0, atol=1e-6)


def test_five_thousand_images_are_small() -> None:
    data = megapixel_mnist(DataSettings(train_images=5000, test_images=0))
    assert len(pickle.dumps(data)) < 10e6


def test_the_view_at_the_papers_size_is_that_of_the_png(tmp_path: Path) -> None:
    data = megapixel_mnist(DataSettings(train_images=1, test_images=0))
    Image.fromarray(pixels(data, 0)).save(tmp_path / "canvas.png")
    written = open_image(tmp_path / "canvas.png")
    np.testing.assert_allclose(data.open(0).view((180, 180)), written.view((180, 180)), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_five_thousand_images_of_mnist_stay_under_150_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    digits = {
        f"x_{split}": rng.integers(0, 256, (n, 28, 28), np.uint8) for split, n in (("train", 60_000), ("test", 10_000))
    }
    labels = {f"y_{split}": np.arange(n) % 10 for split, n in (("train", 60_000), ("test", 10_000))}
    np.savez(tmp_path / "mnist.npz", **digits, **labels)
    del digits
    tracemalloc.start()
    data = megapixel_mnist(DataSettings(digits=str(tmp_path / "mnist.npz"), train_images=5000, test_images=1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6
    assert len(pickle.dumps(data)) < 50e6


def test_a_pickled_data_set_opens_the_same_canvases(small: MegapixelMnist) -> None:
    copy = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(pixels(copy, 7), pixels(small, 7))


def strokes_of(data: MegapixelMnist, index: int) -> list[bytes]:
    """The noise patterns of a canvas, found where they lie; strokes are pasted last, and few enough to lie free."""
    canvas, stamps = pixels(data, index), []
    corners = data.positions[index, 5:]
    for row, column in corners:
        near = (np.abs(corners - [row, column]) < 28).all(1)
        if near.sum() == 1:
            stamps.append(canvas[row : row + 28, column : column + 28].tobytes())
    return stamps


@pytest.mark.parametrize("strokes", ["fresh", "varied"])
def test_no_two_canvases_share_a_stroke_drawn_afresh(strokes: Any) -> None:
    settings = replace(SMALL, canvas=(500, 620), noise=8, train_images=150, test_images=50)
    banked, drawn = megapixel_mnist(settings), megapixel_mnist(replace(settings, strokes=strokes))
    seen, fresh = ([one for i in range(200) for one in strokes_of(data, i)] for data in (banked, drawn))
    assert len(fresh) == len(seen) > 1000
    assert len(set(seen)) == 100  # two banks of fifty
    assert len(set(fresh)) == len(fresh)


@pytest.mark.parametrize("strokes", ["fresh", "varied"])
def test_canvases_with_fresh_strokes_are_those_of_the_bank_but_for_the_strokes(
    small: MegapixelMnist, strokes: Any
) -> None:
    data = megapixel_mnist(replace(SMALL, strokes=strokes))
    under = megapixel_mnist(replace(SMALL, strokes=strokes, noise_over_digits=False))
    assert data.examples == small.examples
    np.testing.assert_array_equal(data.positions, small.positions)
    clean = megapixel_mnist(replace(SMALL, noise=0))
    for i in range(len(data)):
        assert data.digits(i) == small.digits(i)
        assert not np.array_equal(pixels(data, i), pixels(small, i))
        for _, box in data.digits(i):
            np.testing.assert_array_equal(stamp(pixels(under, i), box), stamp(pixels(clean, i), box))


@pytest.mark.parametrize("strokes", ["fresh", "varied"])
def test_a_seed_determines_every_pixel_of_fresh_strokes(strokes: Any) -> None:
    settings = replace(SMALL, strokes=strokes)
    data, more = megapixel_mnist(settings), megapixel_mnist(replace(settings, train_images=30, test_images=9))
    other, copy = megapixel_mnist(replace(settings, generator_seed=1)), pickle.loads(pickle.dumps(data))
    where = {example.id: i for i, example in enumerate(more.examples)}
    for i in reversed(range(len(data))):
        np.testing.assert_array_equal(pixels(data, i), pixels(more, where[data.examples[i].id]))
        np.testing.assert_array_equal(pixels(data, i), pixels(copy, i))
        assert not np.array_equal(pixels(data, i), pixels(other, i))


def test_strokes_of_the_bank_are_those_they_always_were(small: MegapixelMnist) -> None:
    digest = hashlib.blake2b(digest_size=8)
    for i in range(len(small)):
        digest.update(pixels(small, i).tobytes())
    assert digest.hexdigest() == "1f80b9257b20a420"


def test_fresh_strokes_are_drawn_when_a_canvas_is_read_and_kept_by_nobody_else() -> None:
    data = megapixel_mnist(DataSettings(train_images=400, test_images=0, strokes="varied"))
    assert len(data.stamps) <= 1442  # the digits shown; 20,000 strokes would be 16 megabytes
    assert len(pickle.dumps(data)) < 2e6
    canvas = data.open(7)
    assert len(pickle.dumps(canvas)) < 10_000  # five digits and where fifty strokes will lie
    one = canvas.read(Box(0, 0, *data.size))
    tracemalloc.start()
    for i in range(40):  # 43 kilobytes of stamps each
        data.open(i).view((36, 36))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    np.testing.assert_array_equal(canvas.read(Box(0, 0, *data.size)), one)


def test_five_digits_fit_on_a_tight_canvas() -> None:
    data = megapixel_mnist(replace(SMALL, canvas=(84, 90)))
    for i in range(len(data)):
        corners = np.array([(box.top, box.left) for _, box in data.digits(i)])
        assert ((np.abs(corners[:, None] - corners[None]) >= 28).any(2) | np.eye(5, dtype=bool)).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"canvas": (28, 139)}, "a canvas of 28×139 pixels is too small for 5 digits of 28×28: set data.canvas to at"),
        (
            {"canvas": (56, 84), "noise": 0},
            "5 digits of 28×28 pixels found no room on a canvas of 56×84: set data.canv",
        ),
        (
            {"canvas": (56, 400)},
            "noise strokes keep 28 pixels from the border, which a canvas of 56×400 does not allow",
        ),
        ({"train_images": 0}, "train_images must be at least 1, test_images and noise at least 0, got 0, 6 and 50"),
        ({"noise": -1}, "got 12, 6 and -1"),
    ],
)
def test_impossible_settings_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        megapixel_mnist(replace(SMALL, **changed))
