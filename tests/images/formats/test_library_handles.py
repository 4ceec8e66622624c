"""Handles of other libraries: few, each lent as its library allows, and none of a parent process."""

from concurrent.futures import ThreadPoolExecutor

from foveate.images.formats.handles import LibraryHandles


class Opened:
    """Counts what is open."""

    count = 0

    def __init__(self) -> None:
        type(self).count += 1
        self.readers = 0

    def close(self) -> None:
        assert self.readers == 0
        type(self).count -= 1


def test_the_one_used_longest_ago_is_closed() -> None:
    handles, opened = LibraryHandles(most=2), []

    def opens() -> Opened:
        opened.append(Opened())
        return opened[-1]

    for key in ("a", "b", "a", "c", "a", "b"):
        with handles.borrow(key, opens, Opened.close, shared=True):
            pass
        assert len(handles) <= 2
    assert len(opened) == 4  # only b was opened twice
    handles.drop("a", "b", "c")
    assert (len(handles), Opened.count) == (0, 0)


def test_handles_in_use_are_closed_when_given_back() -> None:
    handles = LibraryHandles(most=1)
    with handles.borrow("a", Opened, Opened.close, shared=True) as first:
        with handles.borrow("b", Opened, Opened.close, shared=True):
            assert Opened.count == 2
        handles.drop("a")
        assert Opened.count == 1
        with handles.borrow("a", Opened, Opened.close, shared=True) as second:
            assert second is not first
    handles.drop("a")
    assert Opened.count == 0


def test_a_handle_that_is_not_shared_has_one_reader() -> None:
    handles = LibraryHandles(most=3)

    def read(_: int) -> int:
        with handles.borrow("a", Opened, Opened.close, shared=False) as handle:
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
    try:
        with handles.borrow("a", lambda: 1 // 0, Opened.close, shared=True):
            raise AssertionError
    except ZeroDivisionError:
        assert len(handles) == 0


def test_a_child_process_opens_its_own() -> None:
    handles = LibraryHandles()
    with handles.borrow("a", Opened, Opened.close, shared=True):
        handles.after_fork()
        assert len(handles) == 0
    assert Opened.count == 1  # it is the parent's: set aside, not closed
    Opened.count = 0
