import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from foveate import atomic
from foveate.atomic import leftovers, replace_file, sweep, whole_file, whole_folder
from foveate.errors import WriteError

Way = Callable[[Path], AbstractContextManager[Path]]


def write(place: Path, text: str) -> None:
    """Make a file, or fill a folder that is there."""
    (place / "inside" if place.is_dir() else place).write_text(text)


def read(place: Path) -> str:
    return (place / "inside" if place.is_dir() else place).read_text()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state"
    replace_file(file, b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", no_space)
    with pytest.raises(WriteError, match=r"state: cannot be written \(No space left"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def break_off(way: Way, place: Path, error: BaseException) -> None:
    with way(place) as beside:
        write(beside, "half")
        raise error


@pytest.mark.parametrize("way", [whole_file, whole_folder])
def test_what_is_written_appears_at_the_end_or_never(tmp_path: Path, way: Way) -> None:
    place = tmp_path / "new" / "a.b"
    with pytest.raises(KeyboardInterrupt):
        break_off(way, place, KeyboardInterrupt())
    assert list(place.parent.iterdir()) == []
    for text in ("second", "third"):
        with way(place) as beside:
            write(beside, text)
            assert leftovers(place.parent) == [beside]
            assert not place.exists() or read(place) == "second"
        assert read(place) == text
        assert list(place.parent.iterdir()) == [place]
    with pytest.raises(OSError, match="full"):
        break_off(way, place, OSError("full"))
    assert read(place) == "third"
    assert list(place.parent.iterdir()) == [place]


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", b"")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")] == [0o640, 0o750]


def test_what_killed_processes_left_is_swept_up(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old, fresh, ours, other = (
        tmp_path / name
        for name in (
            f".a.tif.{gone.pid}.part",
            f".a.tif.{gone.pid + 1}0000000.part",
            f".a.tif.{os.getppid()}.part",
            f".b.tif.{gone.pid}.part",
        )
    )
    for left in (old, fresh, ours, other):
        left.write_bytes(b"half")
        os.utime(left, (1, 1))
    os.utime(fresh)
    replace_file(tmp_path / "a.tif", b"whole")
    assert set(tmp_path.iterdir()) == {fresh, ours, other, tmp_path / "a.tif"}
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {tmp_path / "a.tif"}


def test_files_and_folders_replace_each_other_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a"
    replace_file(place, b"file")
    with whole_folder(place) as beside:
        write(beside, "folder")
    assert read(place) == "folder"
    with pytest.raises(IsADirectoryError):
        replace_file(place, b"file")
    assert read(place) == "folder"
    with monkeypatch.context() as patch:
        replace = Path.replace

        def fails(self: Path, target: Path) -> Path:
            if self.suffix == ".part":
                raise OSError("busy")
            return replace(self, target)

        patch.setattr(Path, "replace", fails)
        with pytest.raises(OSError, match="busy"), whole_file(place, over_folder=True) as beside:
            write(beside, "file")
    assert read(place) == "folder"
    with whole_file(place, over_folder=True) as beside:
        write(beside, "file")
    assert place.read_text() == "file"
    assert list(tmp_path.iterdir()) == [place]
