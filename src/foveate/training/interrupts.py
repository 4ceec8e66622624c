"""Signals: Ctrl-C (SIGINT) and SIGTERM end a run after the step they fall into."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from foveate.errors import Interrupted


class Interrupts:
    """Signal handler: while open, remembers SIGINT or SIGTERM instead of dying from it; the second one kills as usual.

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


def interruption(number: int, where: str, remedy: str) -> Interrupted:
    """Interruption: the error that ends a run after a signal.

    Example:
        >>> print(interruption(2, "after step 3 of 8", "to continue: foveate train --resume --out runs/demo"))
        stopped by Ctrl-C after step 3 of 8, the state is saved; to continue: foveate train --resume --out runs/demo
    """
    name = {2: "Ctrl-C", 15: "SIGTERM"}.get(number, f"signal {number}")
    return Interrupted(f"stopped by {name} {where}, the state is saved; {remedy}", number)
