"""Handwritten digits to build images from: scikit-learn's bundled ones, MNIST, or an .npz file of the same layout."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveate.atomic import whole_file
from foveate.disk_cache import cache_folder
from foveate.errors import DataError, one_line
from foveate.images import BROKEN_ZIP

SIDE = 28
"""Height and width of a digit, in pixels."""

_TEST_EVERY = 5
"""Every fifth bundled digit of a class is a test digit."""

_BROKEN = (*BROKEN_ZIP, AttributeError, OSError, TypeError)
"""What NumPy and zipfile raise on archives that are not what they should be."""


@dataclass(frozen=True)
class Pool:
    """Pool of digits to draw from.

    Attributes:
        images: (N, 28, 28) bright digits on black.
        labels: (N,) the digits' values, 0 to 9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def load_pools(name: str) -> tuple[Pool, Pool]:
    """Digit pools for training and for testing; no digit is in both.

    Arguments:
        name: "bundled" for the 1,797 digits that come with scikit-learn, a fifth of each class for testing; "mnist"
            for MNIST's 60,000 and 10,000, downloaded from OpenML on first use; or an .npz file with the arrays
            x_train, y_train, x_test, y_test.

    Returns:
        The training pool and the test pool; each has digits of all ten classes.

    Raises:
        DataError: if the file is missing or of another layout, or the download fails.

    Example:
        >>> train, test = load_pools("bundled")
        >>> len(train.images), len(test.images)
        (1442, 355)
    """
    if name == "bundled":
        return _bundled()
    if name == "mnist":
        return _mnist()
    return _read_npz(Path(name).expanduser())


@cache  # a second to read and enlarge them
def _bundled() -> tuple[Pool, Pool]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.stack([_enlarge(digit) for digit in digits.images])
    labels = digits.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    for value in range(10):
        test[np.flatnonzero(labels == value)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    pools = Pool(images[~test], labels[~test]), Pool(images[test], labels[test])
    for pool in pools:
        pool.images.flags.writeable = pool.labels.flags.writeable = False
    return pools


def _enlarge(digit: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """An 8×8 digit of values 0 … 16 as MNIST shows one: 20×20 pixels in the middle of 28×28."""
    framed = np.pad((digit * (255 / 16)).round().astype(np.uint8), 4)
    border = (16 - 8 * SIDE / 20) / 2
    box = (border, border, 16 - border, 16 - border)
    return np.asarray(Image.fromarray(framed).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def _mnist() -> tuple[Pool, Pool]:
    cached = cache_folder() / "mnist.npz"
    if not cached.exists():
        _download_mnist(cached)
    return _read_npz(cached)


def _download_mnist(cached: Path) -> None:
    from sklearn.datasets import fetch_openml

    try:
        # liac-arff is the parser that does not need pandas
        bunch = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff", data_home=cached.parent)
        images = np.asarray(bunch.data, dtype=np.uint8).reshape(70_000, SIDE, SIDE)
        labels = np.asarray(bunch.target).astype(np.uint8)
    except Exception as error:  # whatever goes wrong between here and a server, the remedy is the same
        raise DataError(
            f"MNIST could not be downloaded ({type(error).__name__}: {error}): set data.digits to bundled, or to an "
            ".npz file with x_train, y_train, x_test, y_test"
        ) from error
    with whole_file(cached) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(
            file, x_train=images[:60_000], y_train=labels[:60_000], x_test=images[60_000:], y_test=labels[60_000:]
        )


def _read_npz(path: Path) -> tuple[Pool, Pool]:
    if not path.is_file():
        raise DataError(f"data.digits names no file: {path}; use bundled, mnist, or an .npz file that exists")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # NumPy leaks a file it opened
            arrays = {key: archive[key] for key in archive.files if key in ("x_train", "y_train", "x_test", "y_test")}
    except _BROKEN as error:
        raise DataError(
            f"{path} is not an .npz file of digits ({one_line(error)}): write it with numpy.savez"
        ) from error
    return _pool(path, arrays, "train"), _pool(path, arrays, "test")


def _pool(path: Path, arrays: dict[str, npt.NDArray[Any]], split: str) -> Pool:
    for key in (f"x_{split}", f"y_{split}"):
        if key not in arrays:
            raise DataError(f"{path} has no array {key}: write x_train, y_train, x_test and y_test with numpy.savez")
    images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"x_{split} in {path} must be uint8 (N, {SIDE}, {SIDE}), got {images.dtype} {images.shape}: "
            "convert it before saving"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"y_{split} in {path} must be {len(images)} integers, one a digit, got {labels.dtype} {labels.shape}: "
            "save integer labels"
        )
    if not np.array_equal(np.unique(labels), np.arange(10)):
        raise DataError(
            f"y_{split} in {path} must hold all the classes 0 to 9 and no other, got {np.unique(labels).tolist()[:12]}:"
            " add or remove digits"
        )
    return Pool(images, labels.astype(np.int64))
