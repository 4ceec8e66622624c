"""What is kept on disk: found again, never wrong, never too much, and no reason to fail."""

import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from foveate import disk_cache
from foveate.disk_cache import OPEN, RECENT, DiskCache, cache_folder

LARGE = 10**9
OLD = RECENT + 60
"""Seconds since a file was used after which it may go."""


def array(number: int, values: int = 1000) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2**16, (values // 10, 10), np.uint16)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def opened(cache: DiskCache, key: tuple[object, ...]) -> np.ndarray | None:
    """The array of a key, whose file is opened, by a reader that reads all of it at once."""
    return cache.open(key, lambda path: np.load(path, allow_pickle=False))


def aged(cache: DiskCache, key: tuple[object, ...], seconds: float) -> Path:
    """The file of a key, last used so long ago."""
    path, then = cache._path(key), time.time() - seconds
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.bool_])
@pytest.mark.parametrize("shape", [(31, 20, 3), (7, 5, 1), (0, 0)])
def test_what_is_written_is_found_bit_by_bit(tmp_path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> None:
    given = np.random.default_rng(1).integers(0, 256, shape).astype(kind)
    assert DiskCache(tmp_path, LARGE).write(("a", 1), given)
    again = DiskCache(tmp_path, LARGE)
    for found in (again.read(("a", 1)), opened(again, ("a", 1))):
        assert found is not None
        assert (found.dtype, found.shape, found.tobytes()) == (given.dtype, given.shape, given.tobytes())
    assert again.read(("a", 2)) is None
    assert opened(again, ("a", 2)) is None


def test_keys_differ_by_type_and_by_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, LARGE)
    names = {cache._path(key) for key in (("a", 1), ("a", "1"), ("a", 1.0), ("a",), (("a", 1),))}
    assert len(names) == 5
    monkeypatch.setattr(disk_cache, "_versions", lambda: ("another",))
    assert cache._path(("a", 1)) not in names


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    before = DiskCache(tmp_path, LARGE)
    for number in range(10):
        before.write((number,), array(number))
        aged(before, (number,), OLD + 100 - number)
    each = files(tmp_path)[0].stat().st_size
    before.read((0,))  # by another run, just now
    cache = DiskCache(tmp_path, 8 * each)
    assert cache.write((10,), array(10))
    left = [number for number in range(11) if cache.read((number,)) is not None]
    assert left == [0, 5, 6, 7, 8, 9, 10], "8 fit, but a twentieth stays free for the next"
    assert cache.size() <= cache.limit


def test_a_set_larger_than_the_limit_does_not_go_round_in_circles(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 5 * 2200)
    kept = [cache.write((number,), array(number)) for number in range(8)]
    assert kept == [True] * 5 + [False] * 3
    assert not cache.takes(2000)
    assert cache.takes(1), "it may fit"
    assert [cache.read((number,)) is not None for number in range(8)] == kept
    assert cache._works


def test_threads_do_not_go_beyond_the_limit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, fsync, all_there = DiskCache(tmp_path, 5 * 2200), os.fsync, threading.Barrier(5, timeout=60)

    def slow(number: int) -> None:
        all_there.wait()  # no file is there before all that fit are being written
        fsync(number)

    monkeypatch.setattr(disk_cache.os, "fsync", slow)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda number: cache.write((number,), array(number)), range(8)))
    assert sum(kept) == 5
    assert cache.size() <= cache.limit


def test_an_array_larger_than_the_limit_is_not_written(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1000)
    assert not cache.write(("a",), array(0))
    assert files(tmp_path) == []


def test_files_of_others_are_never_removed(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 5000)
    (tmp_path / "ab").mkdir()
    strange = [tmp_path / "notes.npy", tmp_path / "ab" / "notes.npy", tmp_path / "ab" / "x.txt"]
    for path in strange:
        path.write_bytes(bytes(10**5))
        os.utime(path, (0, 0))
    assert all(cache.write((number,), array(number)) for number in range(2))
    assert all(path.exists() for path in strange)


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    old, new = tmp_path / "ab" / ".1.part", tmp_path / "ab" / ".2.part"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    DiskCache(tmp_path, LARGE).write(("a",), array(0))
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("damage", ["empty", "short", "header", "noise"])
def test_damaged_files_are_removed_and_made_anew(tmp_path: Path, damage: str) -> None:
    cache = DiskCache(tmp_path, LARGE)
    for find in (cache.read, partial(opened, cache)):
        cache.write((damage,), array(0))
        path = cache._path((damage,))
        content = path.read_bytes()
        broken = {"empty": b"", "short": content[:-1], "header": content[:60], "noise": bytes(len(content))}
        path.write_bytes(broken[damage])
        assert find((damage,)) is None
        assert not path.exists()
    assert cache.write((damage,), array(0))
    assert np.array_equal(opened(cache, (damage,)), array(0))


def test_a_removed_file_is_noticed_and_one_that_is_forgotten_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache(tmp_path, LARGE)
    cache.write(("a",), array(0))
    assert opened(cache, ("a",)) is opened(cache, ("a",)), "its header is read once"
    cache._path(("a",)).unlink()
    assert opened(cache, ("a",)) is not None, "its use was noted a moment ago"
    monkeypatch.setattr(disk_cache, "TOUCHED", -1.0)
    assert opened(cache, ("a",)) is None
    cache.write(("a",), array(0))
    assert opened(cache, ("a",)) is not None
    cache.forget(("a",))
    assert opened(cache, ("a",)) is None
    assert files(tmp_path) == []


def test_use_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, LARGE)
    cache.write(("a",), array(0))
    for find in (cache.read, partial(opened, cache), partial(opened, DiskCache(tmp_path, LARGE))):
        path = aged(cache, ("a",), OLD)
        find(("a",))
        assert path.stat().st_mtime > time.time() - OLD / 2
    path = aged(cache, ("a",), OLD)
    opened(cache, ("a",))
    assert path.stat().st_mtime < time.time() - OLD / 2, "not at every use of an open file"
    monkeypatch.setattr(disk_cache, "TOUCHED", -1.0)
    opened(cache, ("a",))
    assert path.stat().st_mtime > time.time() - OLD / 2


def test_so_many_headers_are_held_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "OPEN", 5)
    cache = DiskCache(tmp_path, LARGE)
    for number in range(8):
        cache.write((number,), array(number, 10))
        opened(cache, (number,))
    assert len(cache._open) == 5 < OPEN


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: int
) -> None:
    cache = DiskCache(tmp_path, LARGE)
    cache.write(("a",), array(0))

    def refused(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(disk_cache.os, "fsync", refused)
    with caplog.at_level(logging.WARNING, "foveate"):
        assert [cache.write((name,), array(0)) for name in "bcd"] == [False] * 3
    assert not cache.takes(1)
    (told,) = caplog.messages
    assert told == (
        f"foveate: warning: no more is kept in the cache in {tmp_path} ({os.strerror(fault)}): free some space there, "
        "or set data.cache_folder, data.cache_gigabytes or data.cache"
    )
    assert cache.read(("a",)) is not None, "what is there is found"
    assert len(files(tmp_path)) == 1, "nothing unfinished stays"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    try:
        assert not DiskCache(tmp_path / "images", LARGE).write(("a",), array(0))
    finally:
        tmp_path.chmod(0o700)
    assert "Permission denied" in caplog.text


def test_a_file_in_the_folders_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").touch()
    cache = DiskCache(tmp_path / "images", LARGE)
    assert cache.read(("a",)) is opened(cache, ("a",)) is None
    assert not cache.write(("a",), array(0))
    assert len(caplog.messages) == 1


def test_some_of_the_disk_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = namedtuple("usage", "total used free")
    total, others = 10**5, [85_000]
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: usage(total, 0, total - others[0] - sum(f.stat().st_size for f in files(tmp_path))),
    )
    cache = DiskCache(tmp_path, LARGE)
    each = 2128
    kept = [cache.write((number,), array(number)) for number in range(4)]
    assert kept == [True] * 4, "10,000 bytes may be taken, of which 5,000 stay free beside what others take"
    assert not cache.write((4,), array(4))
    assert "it is nearly full" in caplog.text
    for number in range(2):
        aged(cache, (number,), OLD)
    later = DiskCache(tmp_path, LARGE)
    assert later.write((4,), array(4)), "what was not used for a while makes room"
    assert len(files(tmp_path)) == 4
    assert files(tmp_path)[0].stat().st_size == each


def test_a_pickle_names_the_folder(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 12345)
    cache.write(("a",), array(0))
    assert opened(cache, ("a",)) is not None
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.folder, copy.limit, len(copy._open)) == (tmp_path, 12345, 0)
    assert np.array_equal(copy.read(("a",)), array(0))


def _work(folder: Path, limit: int, seed: int) -> None:
    cache = DiskCache(folder, limit)
    for number in np.random.default_rng(seed).integers(0, 20, 150).tolist():
        found = cache.read((number,)) if number % 2 else opened(cache, (number,))
        if found is None:
            cache.write((number,), array(number))
        elif not np.array_equal(found, array(number)):
            os._exit(1)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    method = multiprocessing.get_context("spawn")
    workers = [method.Process(target=_work, args=(tmp_path, 10 * 2200, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    cache = DiskCache(tmp_path, LARGE)
    assert 0 < cache.size() <= (10 + 3) * 2200, "each may be one file ahead of the others"
    assert not [path for path in files(tmp_path) if path.suffix != ".npy"]


@pytest.mark.parametrize(
    ("environment", "system", "folder"),
    [
        ({"FOVEATE_CACHE": "/a/b"}, "darwin", Path("/a/b")),
        ({}, "linux", Path.home() / ".cache" / "foveate"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", Path.home() / ".cache" / "foveate"),
        ({"XDG_CACHE_HOME": "/x"}, "linux", Path("/x/foveate")),
        ({"XDG_CACHE_HOME": "/x"}, "darwin", Path.home() / "Library" / "Caches" / "foveate"),
        ({}, "win32", Path.home() / "AppData" / "Local" / "foveate" / "Cache"),
        ({"LOCALAPPDATA": "/l"}, "win32", Path("/l/foveate/Cache")),
    ],
)
def test_where_the_platform_keeps_such_files(environment: dict[str, str], system: str, folder: Path) -> None:
    assert cache_folder(environment, system) == folder
