"""Bytes of local files: any part, from many threads, behind a bounded number of handles."""

import io
import multiprocessing
import os
import pickle
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from foveate.errors import ImageError
from foveate.images.handles import HANDLES, Handle, Handles
from foveate.images.io.local import LocalFile, open_bytes, stream

CONTENT = np.random.default_rng(3).integers(0, 256, 40_001, np.uint8).tobytes()


@pytest.fixture(params=["pread", "seek"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, on a system that reads at a place, and on one that must go there first."""
    if request.param == "seek":
        monkeypatch.delattr(os, "pread", raising=False)
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


def test_a_read_that_gives_less_than_asked_is_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Handle.read
    monkeypatch.setattr(Handle, "read", lambda self, offset, length: whole(self, offset, min(length, 1000)))
    assert LocalFile(path).read(17, 9000) == CONTENT[17:9017]
    assert LocalFile(path).read(39_000, 9000) == CONTENT[39_000:]


def test_many_threads_read_while_the_file_is_closed_again_and_again(path: Path) -> None:
    file = LocalFile(path)
    done = threading.Event()

    def close() -> None:
        while not done.is_set():
            file.close()

    offsets = random.Random(1).choices(range(40_000), k=600)
    closer = threading.Thread(target=close)
    closer.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            read = list(pool.map(lambda offset: file.read(offset, 50), offsets))
    finally:
        done.set()
        closer.join()
    assert read == [CONTENT[offset : offset + 50] for offset in offsets]


def test_handles_are_bounded_and_the_one_used_longest_ago_goes(tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(5)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(bytes([number]))
    handles = Handles(most=2)
    before = open_descriptors()
    for number, path in enumerate(paths):
        handle = handles.borrow(path)
        assert handle.read(0, 1) == bytes([number])
        handles.give_back(handle)
        assert len(handles) <= 2
    assert open_descriptors() == before + 2
    first = handles.borrow(paths[0])
    second, third = handles.borrow(paths[1]), handles.borrow(paths[2])
    assert len(handles) == 3  # nothing that is being read is closed
    assert [one.read(0, 1) for one in (first, second, third)] == [b"\0", b"\1", b"\2"]
    for handle in (first, second, third):
        handles.give_back(handle)
    assert len(handles) == 2
    for path in paths:
        handles.close(path)
    assert open_descriptors() == before


def test_a_file_closed_while_it_is_read_is_closed_afterwards(path: Path) -> None:
    handles = Handles()
    before = open_descriptors()
    handle = handles.borrow(str(path))
    handles.close(str(path))
    assert handle.read(0, 4) == CONTENT[:4]
    again = handles.borrow(str(path))
    assert again is not handle
    handles.give_back(handle)
    assert open_descriptors() == before + 1
    handles.give_back(again)
    handles.close(str(path))
    assert open_descriptors() == before


def test_a_file_is_forgotten_by_whoever_comes_next_if_the_lock_is_held(path: Path) -> None:
    handles = Handles()
    before = open_descriptors()
    handle = handles.borrow(str(path))
    handles.forget(*handle.key)
    assert len(handles) == 0
    assert handle.read(0, 4) == CONTENT[:4]  # as long as it is being read
    handles.give_back(handle)
    assert open_descriptors() == before
    handles.give_back(handles.borrow(str(path)))
    with handles._lock:  # as this thread may hold it when Python collects
        handles.forget(*handle.key)
        assert len(handles) == 1
    other = path.with_name("other")
    other.write_bytes(b"other")
    handles.give_back(handles.borrow(str(other)))
    assert len(handles) == 1
    handles.forget(str(path), (0, 0))  # another file of that name
    handles.close(str(other))
    assert open_descriptors() == before


def test_no_handle_leaks_when_files_are_refused(path: Path) -> None:
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
    assert old.read(4, 4) == CONTENT[4:8]  # as long as it is open
    old.close()
    with pytest.raises(ImageError) as caught:
        old.read(0, 4)
    assert str(caught.value) == f"{path}: the file has changed since it was opened: open the image again"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_reads_though_a_thread_of_its_parent_was_in_the_middle(path: Path) -> None:
    file = LocalFile(path)
    file.read(0, 1)
    with HANDLES._lock:  # as another thread might hold it
        child = multiprocessing.get_context("fork").Process(target=check_in_child, args=(file,))
        child.start()
    child.join(30)
    assert child.exitcode == 0
    assert file.read(9, 9) == CONTENT[9:18]


def check_in_child(file: LocalFile) -> None:
    assert len(HANDLES) == 0
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
