"""Threads for reading: how many, work shared out among them, and work done ahead of whoever wants its results."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

MOST_THREADS = 128
"""Threads that stay in this process, at the most, beside those that call."""

In = TypeVar("In")
Out = TypeVar("Out")


class _Threads:
    """Threads of this process: how many read at a time, and those that stay, which are started when first needed.

    Starting a thread takes as long as a third of a tile.
    """

    def __init__(self) -> None:
        self.reading: int | None = None
        self._lock = threading.Lock()
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def pool(self, name: str, most: int) -> ThreadPoolExecutor:
        with self._lock:
            if name not in self._pools:
                self._pools[name] = ThreadPoolExecutor(most, name)
            return self._pools[name]


_THREADS = _Threads()


def available_cores() -> int:
    """Cores that this process may use, which a scheduler or a container may have limited; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return max(1, (os.cpu_count() or 1) if affinity is None else len(affinity(0)))


def reading_threads() -> int:
    """Threads that read, decode and make views at a time: as many as was set, else as there are cores to use.

    Where a launcher started several processes on this machine (LOCAL_WORLD_SIZE says so), each has its part of them.
    """
    return _THREADS.reading or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def set_reading_threads(threads: int | None) -> None:
    """Set how many threads of this process read at a time, which changes no result.

    Arguments:
        threads: at least 1; None for as many as there are cores to use.
    """
    _THREADS.reading = threads


def in_threads(work: Callable[[In], Out], items: Iterable[In], threads: int) -> list[Out]:
    """Thread map: do some work on every item, `threads` items at a time; in order.

    The thread that calls is one of them, and waits for no other that has not begun: so work may share itself out in
    turn, however many threads are busy, where `ThreadPoolExecutor.map` would wait for itself.

    Raises:
        Exception: of the first item whose work fails; those that have begun are finished, and no other begins.

    Example:
        >>> in_threads(abs, [3, -4], threads=2)
        [3, 4]
    """
    items = list(items)
    workers = min(threads, len(items))
    if workers < 2:
        return [work(item) for item in items]
    # the pool's threads know `some` for a moment longer than it lasts: once this is empty, it holds nothing of the work
    waiting = deque((number, partial(work, item)) for number, item in enumerate(items))
    results: dict[int, Out] = {}
    failed: dict[int, Exception] = {}

    def some() -> None:
        while True:
            try:
                number, do = waiting.popleft()
            except IndexError:
                return
            try:
                results[number] = do()
            except Exception as error:
                failed[number] = error
                waiting.clear()  # all before this one have begun: the first to fail is among them

    pool = _THREADS.pool("foveate", MOST_THREADS)
    others = [pool.submit(some) for _ in range(workers - 1)]
    try:
        some()
    finally:
        waiting.clear()  # Ctrl-C leaves some
        for other in others:
            if not other.cancel():
                other.result()
    if failed:
        raise failed[min(failed)]
    return [results.pop(number) for number in range(len(results))]


def read_ahead(
    work: Callable[[In], Out],
    items: Iterable[In],
    threads: int,
    ahead: int,
    begin: Callable[[], object] | None = None,
) -> Generator[Out, None, None]:
    """Prefetching: the results of some work on every item, in order, begun before they are asked for.

    Arguments:
        work: what is done, in threads that last as long as this.
        items: taken one by one as work begins, in the thread that asks for results.
        threads: items worked on at a time.
        ahead: items begun at a time, and so the results that may wait.
        begin: called first in each thread.

    Yields:
        The results. Closed early, or when work fails, it waits for what has begun, and begins nothing more.

    Raises:
        Exception: of the first item whose work fails, when its result is due.

    Example:
        >>> list(read_ahead(abs, [3, -4, 5], threads=2, ahead=2))
        [3, 4, 5]
    """
    left = iter(items)
    pool = ThreadPoolExecutor(threads, "foveate-ahead", initializer=begin)
    try:
        begun = deque(pool.submit(work, item) for item in islice(left, ahead))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(left, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def in_background(works: Sequence[Callable[[], Out]], at_once: int) -> "list[Future[Out]]":
    """Background work: pieces that threads which stay take up in order, so many at a time; their results to come.

    Example:
        >>> [piece.result() for piece in in_background([lambda: 1, lambda: 2], at_once=2)]
        [1, 2]
    """
    results: list[Future[Out]] = [Future() for _ in works]
    waiting = deque(zip(works, results, strict=True))

    def some() -> None:
        while True:
            try:
                work, result = waiting.popleft()
            except IndexError:
                return
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

    pool = _THREADS.pool("foveate-background", MOST_THREADS)
    for _ in range(min(at_once, len(works))):
        pool.submit(some)
    return results


def one_ahead(begun: Iterable[Out]) -> Iterator[Out]:
    """Pipelining: what is begun, one after the other, each handed over only when the next one is begun, too."""
    waiting: list[Out] = []
    for one in begun:
        waiting.append(one)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
