import re
from pathlib import Path

import numpy as np
import pytest
from archives import damage
from sklearn.utils import Bunch

from foveate.datasets.megapixel_mnist.digits import load_pools
from foveate.errors import DataError


def arrays(count: int = 20, **replaced: np.ndarray) -> dict[str, np.ndarray]:
    images = np.arange(count * 28 * 28, dtype=np.uint64).reshape(count, 28, 28).astype(np.uint8)
    labels = np.arange(count) % 10
    return {"x_train": images, "y_train": labels, "x_test": images + 1, "y_test": labels} | replaced


def test_bundled_pools_share_no_digit_and_have_all_classes() -> None:
    train, test = load_pools("bundled")
    assert len(train.images) + len(test.images) == 1797
    assert train.images.dtype == np.uint8
    assert train.images.shape[1:] == (28, 28)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}
    shares = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_bundled_digits_look_like_those_of_mnist() -> None:
    train, _ = load_pools("bundled")
    margin = train.images.astype(float)
    margin[:, 2:26, 2:26] = 0
    assert margin.max() < 20  # the digit fills the middle 20 × 20, its soft edge a pixel more
    assert 30 < train.images.mean() < 45  # MNIST: 33.3
    assert train.images.max() == 255


def test_bundled_digits_are_enlarged_not_changed() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    train, _ = load_pools("bundled")
    first = train.images[0].astype(float)  # the first bundled digit is a training digit
    # 8 × 8 averages over the 20 × 20 in the middle, 2.5 pixels a side
    fine = np.kron(first[4:24, 4:24], np.ones((2, 2))).reshape(8, 5, 8, 5).mean((1, 3))
    assert np.corrcoef(fine.ravel(), digits.images[0].ravel())[0, 1] > 0.97
    assert train.labels[0] == digits.target[0]


def test_npz_is_read_as_it_is(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "digits.npz", **given)
    train, test = load_pools(str(tmp_path / "digits.npz"))
    np.testing.assert_array_equal(train.images, given["x_train"])
    np.testing.assert_array_equal(test.labels, given["y_test"])


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"x_train": np.zeros((20, 28, 28))},
            r"x_train in .* must be uint8 \(N, 28, 28\), got float64 \(20, 28, 28\): convert it before saving",
        ),
        ({"x_test": np.zeros((20, 28, 20), np.uint8)}, r"x_test in .* got uint8 \(20, 28, 20\)"),
        ({"y_test": np.zeros(20)}, r"y_test in .* must be 20 integers, one a digit, got float64 \(20,\)"),
        ({"y_train": np.zeros(19, int)}, r"y_train in .* must be 20 integers, one a digit, got int64 \(19,\)"),
        ({"y_train": np.arange(20) % 9}, r"y_train in .* must hold all the classes 0 to 9 and no other, got \[0, 1"),
    ],
)
def test_npz_of_another_layout_is_refused(tmp_path: Path, replaced: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "digits.npz", **arrays(**replaced))
    with pytest.raises(DataError, match=message):
        load_pools(str(tmp_path / "digits.npz"))


def test_npz_without_an_array_is_refused(tmp_path: Path) -> None:
    given = arrays()
    del given["y_test"]
    np.savez(tmp_path / "digits.npz", **given)
    with pytest.raises(DataError, match="has no array y_test: write x_train, y_train, x_test and y_test"):
        load_pools(str(tmp_path / "digits.npz"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"path,label\n"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "digits.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"digits.npz is not an .npz file of digits \(.*\): write it with numpy.savez"):
        load_pools(str(tmp_path / "digits.npz"))


@pytest.mark.parametrize(
    ("how", "reason"), [("data", "error Error -3"), ("encrypted", "RuntimeError"), ("method", "NotImplementedError")]
)
def test_a_damaged_npz_is_refused(how: str, reason: str, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "digits.npz", **arrays())
    damage(tmp_path / "digits.npz", how)
    with pytest.raises(DataError, match=rf"is not an .npz file of digits \({reason}.*\): write it with numpy.savez"):
        load_pools(str(tmp_path / "digits.npz"))


def test_a_plain_npy_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"is not an .npz file of digits"):
        load_pools(str(tmp_path / "digits.npy"))


def test_a_misspelt_source_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.digits names no file: bundeled; use bundled, mnist, or an .npz file"):
        load_pools("bundeled")


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fail)
    with pytest.raises(
        DataError,
        match=re.escape(
            "MNIST could not be downloaded (OSError: <urlopen error [Errno -2] Name or service not known>): "
        )
        + "set data.digits to bundled, or to an .npz file",
    ):
        load_pools("mnist")
    assert not list(tmp_path.iterdir())


def test_mnist_is_downloaded_once_and_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    data = np.zeros((70_000, 784), np.uint8)
    data[:, 0] = np.arange(70_000) // 300
    target = (np.arange(70_000) % 10).astype(str).astype(object)

    def download(name: str, **settings: object) -> Bunch:
        calls.append((name, settings["version"]))
        return Bunch(data=data, target=target)

    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", download)
    for _ in range(2):
        train, test = load_pools("mnist")
    assert calls == [("mnist_784", 1)]
    assert (len(train.images), len(test.images)) == (60_000, 10_000)
    assert test.images[0, 0, 0] == 200
    assert train.labels[13] == 3
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["mnist.npz"]
