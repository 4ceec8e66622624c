"""Work shared out among threads: in order, the caller among them, nested, in child processes, and ahead of time."""

import os
import threading
import time
import weakref
from functools import partial

import pytest

from foveate.errors import ImageError
from foveate.threads import (
    MOST_THREADS,
    available_cores,
    in_background,
    in_threads,
    read_ahead,
    reading_threads,
    set_reading_threads,
)


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


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3), (5, 2)])
def test_what_is_read_ahead_comes_in_order_and_no_more_is_begun_than_asked_for(threads: int, ahead: int) -> None:
    begun: list[int] = []
    running, most, lock = [0], [0], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002 * (item % 3))
        with lock:
            running[0] -= 1
        return item * item

    results = read_ahead(work, iter(range(20)), threads, ahead)
    for number in range(20):
        assert next(results) == number * number
        assert len(begun) <= number + 1 + ahead
    assert list(results) == []
    assert most[0] <= min(threads, ahead)
    assert sorted(begun) == list(range(20))


def test_what_is_read_ahead_is_not_begun_once_it_is_closed_and_no_thread_stays() -> None:
    begun: list[int] = []
    results = read_ahead(begun.append, range(100), 2, 4)
    next(results)
    results.close()
    assert max(begun) <= 5
    assert not any(one.name.startswith("foveate-ahead") for one in threading.enumerate())


def test_an_item_that_fails_is_told_when_its_turn_comes() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ImageError("two")
        return item

    results = read_ahead(work, range(9), 3, 9)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ImageError, match="two"):
        next(results)


@pytest.mark.parametrize("at_once", [1, 3])
def test_background_work_is_taken_up_in_order_so_many_at_a_time(at_once: int) -> None:
    begun: list[int] = []
    running, most, lock = [0], [0], threading.Lock()

    def work(number: int) -> int:
        with lock:
            begun.append(number)
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002)
        with lock:
            running[0] -= 1
        if number == 7:
            raise ImageError("seven")
        return number

    futures = in_background([partial(work, number) for number in range(30)], at_once)
    for number, future in enumerate(futures):
        if number == 7:
            with pytest.raises(ImageError, match="seven"):
                future.result()
        else:
            assert future.result() == number
    assert begun == list(range(30)) if at_once == 1 else sorted(begun) == list(range(30))
    assert most[0] <= at_once


def test_as_many_threads_read_as_cores_may_be_used_or_as_are_set() -> None:
    assert reading_threads() == available_cores() >= 1
    try:
        set_reading_threads(3)
        assert reading_threads() == 3
    finally:
        set_reading_threads(None)
    assert reading_threads() == available_cores()


def test_processes_of_one_machine_share_its_cores_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.threads.available_cores", lambda: 6)
    for processes, threads in (("1", 6), ("4", 1), ("6", 1), ("8", 1), ("2", 3)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert reading_threads() == threads
