"""Work shared out among threads that stay: starting one takes as long as a third of a tile."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["in_threads"]

MOST_THREADS = 32
"""Threads that stay in this process, at the most, beside those that call."""

In = TypeVar("In")
Out = TypeVar("Out")


class _Helpers:
    """The threads of this process, started when they are first needed."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Start anew, in a child process that has none of its parent's threads."""
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST_THREADS, "foveate")
            return self._pool


_HELPERS = _Helpers()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HELPERS.after_fork)


def in_threads(work: Callable[[In], Out], items: Iterable[In], threads: int) -> list[Out]:
    """Do some work on every item, `threads` items at a time; in order.

    The thread that calls is one of them, and waits for no other that has not begun: so work may share itself out in
    turn, however many threads are busy.

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
    job, pool = _Job(work, items), _HELPERS.pool()
    others = [pool.submit(job.some) for _ in range(workers - 1)]
    try:
        job.some()
    finally:
        job.waiting.clear()  # Ctrl-C leaves some
        for other in others:
            if not other.cancel():
                other.result()
        job.forget()
    if job.failed:
        raise job.failed[min(job.failed)]
    return [job.results.pop(number) for number in range(len(items))]


class _Job(Generic[In, Out]):
    """What is to be done, and what has been; known to threads for a moment longer than it lasts."""

    def __init__(self, work: Callable[[In], Out], items: Sequence[In]) -> None:
        self.work: Callable[[In], Out] | None = work
        self.items = items
        self.waiting = deque(range(len(items)))
        self.results: dict[int, Out] = {}
        self.failed: dict[int, Exception] = {}

    def some(self) -> None:
        """Work on what nobody has begun."""
        work, items = self.work, self.items
        while work is not None:
            try:
                number = self.waiting.popleft()
            except IndexError:
                return
            try:
                self.results[number] = work(items[number])
            except Exception as error:
                self.failed[number] = error
                self.waiting.clear()  # all before this one have begun: the first to fail is among them

    def forget(self) -> None:
        """Hold nothing any more that the work was about: whoever asked for it may let go of it."""
        self.work, self.items = None, ()
