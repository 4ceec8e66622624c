"""Ctrl-C and SIGTERM end a run after the step they fall into."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """While open, remembers SIGINT or SIGTERM instead of dying from it; the second one kills as usual.

    Arguments:
        echoes: remember the second one too: a launcher of several processes repeats the terminal's Ctrl-C.

    Example:
        >>> with Interrupts() as interrupts:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupts.signal == signal.SIGINT
        True
    """

    def __init__(self, echoes: bool = False) -> None:
        self._echoes = echoes
        self.signal = 0
        """Number of the signal that arrived, or 0."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        if not self._echoes:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
