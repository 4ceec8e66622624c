"""What ends a run before its last step: Ctrl-C (SIGINT) and SIGTERM, after the step they fall into; and its time."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from foveate.errors import Interrupted
from foveate.training.checkpoint import Position


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


class Clock:
    r"""Clock of a run: adds its seconds to its position, and says which share of its time is over.

    .. math:: p = \min\Bigl(1, \max\Bigl(0, \frac{t - t_0}{60\,m - t_0}\Bigr)\Bigr)

    with t the seconds of the run, over all resumptions, t₀ those before its first step (evidence is found then) and m
    `training.max_minutes`; 0 without a limit.

    Arguments:
        position: of the run.
        minutes: m, or None.

    Example:
        >>> Clock(Position(seconds=100.0, begun=40.0), minutes=2.0).share()
        0.75
    """

    def __init__(self, position: Position, minutes: float | None) -> None:
        self._position, self._minutes = position, minutes
        self._last = time.perf_counter()

    def tick(self) -> float:
        """Seconds since the last call, added to the run's."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        self._position.seconds += elapsed
        return elapsed

    def share(self) -> float:
        """Share of the time that is over."""
        if self._minutes is None:
            return 0.0
        begun, limit = self._position.begun, 60 * self._minutes
        return min(1.0, max(0.0, (self._position.seconds - begun) / (limit - begun))) if begun < limit else 1.0


def interruption(number: int, where: str, remedy: str) -> Interrupted:
    """Interruption: the error that ends a run after a signal.

    Example:
        >>> print(interruption(2, "after step 3 of 8", "to continue: foveate train --resume --out runs/demo"))
        stopped by Ctrl-C after step 3 of 8, the state is saved; to continue: foveate train --resume --out runs/demo
    """
    name = {2: "Ctrl-C", 15: "SIGTERM"}.get(number, f"signal {number}")
    return Interrupted(f"stopped by {name} {where}, the state is saved; {remedy}", number)
