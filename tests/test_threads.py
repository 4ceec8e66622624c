"""Work shared out among threads: in order, the caller among them, nested, and in child processes."""

import os
import threading
import weakref
from functools import partial

import pytest

from foveate.errors import ImageError
from foveate.threads import MOST_THREADS, in_threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_work_is_done_by_as_many_threads_as_asked_for_the_caller_among_them(threads: int) -> None:
    together = threading.Barrier(threads)

    def work(item: int) -> tuple[int, int]:
        if item < threads:
            together.wait(20)  # nobody gets here before all do
        return item * item, threading.get_ident()

    done = in_threads(work, range(9), threads)
    assert [square for square, _ in done] == [item * item for item in range(9)]
    workers = {worker for _, worker in done}
    assert threading.get_ident() in workers
    assert len(workers) <= threads


def test_the_first_item_that_fails_is_told_and_no_other_begins() -> None:
    begun: list[int] = []
    late = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 3:
            late.wait(20)
            raise ImageError("three")
        if item == 4:
            late.set()
            raise ImageError("four")

    for _ in range(20):
        begun.clear()
        late.clear()
        with pytest.raises(ImageError, match="three"):
            in_threads(work, range(1000), 2)
        assert set(begun) <= {0, 1, 2, 3, 4}


def test_work_shares_itself_out_in_turn_however_many_threads_are_busy() -> None:
    """All threads that stay are in the outer work when the inner one asks for more."""
    together = threading.Barrier(MOST_THREADS + 1)

    def outer(item: int) -> list[int]:
        together.wait(20)
        return in_threads(lambda inner: item * inner, range(3), 3)

    found = in_threads(outer, range(MOST_THREADS + 1), MOST_THREADS + 1)
    assert found == [[0, item, 2 * item] for item in range(MOST_THREADS + 1)]


class Thing:
    """Something that can be referred to weakly."""


def test_threads_that_stay_hold_nothing_of_what_is_done() -> None:
    for _ in range(300):
        thing = Thing()
        known = weakref.ref(thing)
        found = in_threads(partial(lambda one, _: one, thing), range(4), 3)
        assert found == [thing] * 4
        del thing, found
        assert known() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_threads_of_its_own() -> None:
    assert in_threads(abs, [-1, -2, -3], 3) == [1, 2, 3]
    child = os.fork()
    if child == 0:
        os._exit(0 if in_threads(abs, [-1, -2, -3], 3) == [1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
