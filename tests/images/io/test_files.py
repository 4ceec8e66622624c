"""Bytes of local files: any part, from many threads, and nothing that stays open."""

import io
import multiprocessing
import os
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from foveate.errors import ImageError
from foveate.images.io.local import LocalFile, stream
from foveate.images.io.open import open_bytes

CONTENT = np.random.default_rng(3).integers(0, 256, 40_001, np.uint8).tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    return tmp_path / "a.bin"


def open_descriptors() -> int:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list open files")
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_any_part_is_what_the_file_holds(path: Path) -> None:
    file = open_bytes(path)
    counted: list[int] = []
    file.count = counted.append
    size = len(CONTENT)
    parts = [(0, 10), (size - 3, 10), (size, 5), (size + 7, 5), (123, 0), (100, size)]
    assert file.size == size
    assert file.read_many(parts) == [CONTENT[offset : offset + length] for offset, length in parts]
    assert file.read(5, 6) == CONTENT[5:11]
    assert sum(counted) == 10 + 3 + size - 100 + 6


def test_many_threads_read_and_leave_nothing_open(path: Path) -> None:
    file = LocalFile(path)
    before = open_descriptors()
    offsets = random.Random(1).choices(range(40_000), k=600)
    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(lambda offset: file.read(offset, 50), offsets))
    assert read == [CONTENT[offset : offset + 50] for offset in offsets]
    assert open_descriptors() == before


def test_nothing_stays_open_when_files_are_refused(path: Path) -> None:
    before = open_descriptors()
    for wrong in (path.parent, path.parent / "missing"):
        with pytest.raises(ImageError):
            LocalFile(wrong).read(0, 1)
    assert open_descriptors() == before


def test_can_be_pickled_before_and_after_reading(path: Path) -> None:
    file = LocalFile(path)
    for _ in range(2):
        assert pickle.loads(pickle.dumps(file)).read(7, 9) == CONTENT[7:16]
        file.read(0, 1)


def test_a_replaced_file_is_another_file(path: Path) -> None:
    old = LocalFile(path)
    assert old.read(0, 4) == CONTENT[:4]
    beside = path.with_name("beside")
    beside.write_bytes(b"another")
    beside.replace(path)
    assert LocalFile(path).read(0, 9) == b"another"
    with pytest.raises(ImageError) as caught:
        old.read(0, 4)
    assert str(caught.value) == f"{path}: the file has changed since it was opened: open the image again"


@pytest.mark.parametrize("change", ["length", "time"])
def test_a_file_that_is_written_to_is_refused(change: str, path: Path) -> None:
    file = LocalFile(path)
    assert file.size == len(CONTENT)
    state = path.stat()
    if change == "length":
        path.write_bytes(CONTENT[:-1])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    with pytest.raises(ImageError, match="the file has changed since it was opened: open the image again"):
        file.read(0, 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_reads_what_its_parent_reads(path: Path) -> None:
    file = LocalFile(path)
    file.read(0, 1)
    child = multiprocessing.get_context("fork").Process(target=check_in_child, args=(file,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert file.read(9, 9) == CONTENT[9:18]


def check_in_child(file: LocalFile) -> None:
    assert file.read(50, 5) == CONTENT[50:55]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "missing.tif", "no such file: check the path"),
        (lambda folder: folder, "a folder, not an image: name a file in it"),
        (
            lambda folder: folder / ("x" * 300),
            "cannot be read (File name too long): check the path and the file's mode",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(ImageError) as caught:
        _ = LocalFile(path).size
    assert str(caught.value) == f"{path}: {said}"


def test_unknown_addresses_are_refused() -> None:
    with pytest.raises(ImageError) as caught:
        open_bytes("ftp://host/a.tif")
    assert str(caught.value) == (
        "ftp://host/a.tif: addresses of images begin with one of http://, https://, s3://, got ftp://: "
        "copy the file to this machine"
    )


def test_a_stream_reads_like_a_file(path: Path) -> None:
    file = LocalFile(path)
    counted: list[int] = []
    file.count = counted.append
    with path.open("rb") as real, stream(file, ahead=512) as ours:
        for act in (
            lambda one: one.read(3),
            lambda one: one.seek(100),
            lambda one: one.read(20_000),
            lambda one: one.seek(-5, io.SEEK_CUR),
            lambda one: (one.read(9), one.tell()),
            lambda one: one.seek(-7, io.SEEK_END),
            lambda one: one.read(),
            lambda one: one.read(4),
            lambda one: one.seek(99_999),
            lambda one: one.read(4),
        ):
            assert act(ours) == act(real)
        with pytest.raises(OSError, match="Invalid argument"):
            ours.seek(-1)
    assert file.read(0, 1) == CONTENT[:1]  # the file outlives the stream


def test_a_stream_reads_ahead(path: Path) -> None:
    file = LocalFile(path)
    counted: list[int] = []
    file.count = counted.append
    with stream(file, ahead=1000) as reader:
        for _ in range(100):
            reader.read(7)
    assert counted == [1000]
