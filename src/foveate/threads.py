"""Thread pool for decoding, whose threads stay: starting one takes as long as a third of a tile."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

MOST_THREADS = 32
"""Threads that stay in this process, at the most, beside those that call."""

In = TypeVar("In")
Out = TypeVar("Out")


class _Pool:
    """Thread pool of this process, started when first needed, and anew in a child process, which has no thread."""

    def __init__(self) -> None:
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __call__(self) -> ThreadPoolExecutor:
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(MOST_THREADS, "foveate")
            return self._pool


_POOL = _Pool()


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

    pool = _POOL()
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
