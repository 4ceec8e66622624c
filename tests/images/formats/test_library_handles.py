"""Handles of other libraries: few, each lent as its library allows, and none of a parent process."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from foveate.images.formats.library import LibraryHandles


class Opened:
    """Counts what is open: like the libraries' handles, it is closed when nobody refers to it."""

    count = 0

    def __init__(self) -> None:
        type(self).count += 1
        self.readers = 0

    def __del__(self) -> None:
        type(self).count -= 1


def test_the_one_used_longest_ago_is_closed() -> None:
    handles, opened = LibraryHandles(most=2), []

    def opens() -> Opened:
        opened.append(0)
        return Opened()

    for key in ("a", "b", "a", "c", "a", "b"):
        handles.get(key, 0, opens, shared=True)
        assert len(handles) == Opened.count <= 2
    assert len(opened) == 4  # only b was opened twice
    for key in ("a", "b", "c"):
        handles.drop(key)
    assert (len(handles), Opened.count) == (0, 0)


def test_all_levels_of_a_file_are_dropped() -> None:
    handles = LibraryHandles()
    for key, level in (("a", 0), ("a", 1), ("b", 0)):
        handles.get(key, level, Opened, shared=level == 0)
    handles.drop("a")
    assert len(handles) == Opened.count == 1
    handles.drop("b")
    assert len(handles) == Opened.count == 0


def test_handles_in_use_are_closed_when_given_back() -> None:
    handles = LibraryHandles(most=1)
    first = handles.get("a", 0, Opened, shared=True)
    handles.get("b", 0, Opened, shared=True)
    assert Opened.count == 2
    handles.drop("b")
    assert Opened.count == 1
    second = handles.get("a", 0, Opened, shared=True)
    assert second is not first
    handles.drop("a")
    assert Opened.count == 2
    del first, second
    assert Opened.count == 0


def test_a_handle_that_is_not_shared_has_one_reader() -> None:
    handles = LibraryHandles(most=3)

    def read(_: int) -> int:
        handle = handles.get("a", 0, Opened, shared=False)
        handle.readers += 1
        seen: int = handle.readers
        handle.readers -= 1
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(200))) == {1}
    assert len(handles) <= 3
    handles.drop("a")
    assert Opened.count == 0


def test_a_failed_opening_leaves_nothing() -> None:
    handles = LibraryHandles()
    with pytest.raises(ZeroDivisionError):
        handles.get("a", 0, lambda: 1 // 0, shared=True)
    assert len(handles) == 0


def test_a_child_process_opens_its_own() -> None:
    handles = LibraryHandles()
    handles.get("a", 0, Opened, shared=True)
    handles.after_fork()
    assert len(handles) == 0
    assert Opened.count == 1  # it is the parent's: set aside, not closed
    del handles
    assert Opened.count == 0
