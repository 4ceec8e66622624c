"""Progress of a run: a bar on a terminal, one line an epoch in a pipe, nothing elsewhere."""

import sys
from typing import Any, TextIO


class Progress:
    """Progress of a run, as the loop tells it, silent here; records are those of metrics.jsonl."""

    def begin(self, total: int, done: int) -> None:
        """A run of `total` steps starts after `done` of them."""

    def step(self, record: dict[str, Any]) -> None:
        """A step was taken."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch was finished and, where due, validated."""

    def say(self, line: str) -> None:
        """Something else is worth a line."""

    def end(self) -> None:
        """The run is over, for whatever reason."""


class SilentProgress(Progress):
    """Silent progress: says nothing."""


class LineProgress(Progress):
    """Progress lines, one per epoch, flushed, so that a log file can be followed.

    Arguments:
        stream: where to write; standard output if None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._news = News()

    def epoch(self, record: dict[str, Any]) -> None:
        """Write the epoch's line, and what is wrong with the attention."""
        for line in (epoch_line(record), *self._news(record)):
            self.say(line)

    def say(self, line: str) -> None:
        """Write the line."""
        print(line, file=self._stream or sys.stdout, flush=True)


class BarProgress(Progress):
    """Progress bar over all steps, with one line per epoch above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._task = self._bar.add_task("")
        self._news = News()

    def begin(self, total: int, done: int) -> None:
        """Show the bar."""
        self._bar.update(self._task, total=total, completed=done)
        self._bar.start()

    def step(self, record: dict[str, Any]) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=record["step"], description=f"loss {record['loss']:.3f}")

    def epoch(self, record: dict[str, Any]) -> None:
        """Write the epoch's line above the bar, and what is wrong with the attention."""
        for line in (epoch_line(record), *self._news(record)):
            self.say(line)

    def say(self, line: str) -> None:
        """Write the line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False)

    def end(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class News:
    """Warnings that two validations in a row gave, each said once: at the start of a training maps are uniform.

    Example:
        >>> news = News()
        >>> record = {"validation_error": 0.5, "attention_warnings": {"uniform": "it is uniform: train longer"}}
        >>> news(record), news(record), news(record)
        ([], ['warning: it is uniform: train longer'], [])
    """

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._said: set[str] = set()

    def __call__(self, record: dict[str, Any]) -> list[str]:
        """Lines to say of an epoch's record."""
        if record.get("validation_error") is None:
            return []
        told: dict[str, str] = record.get("attention_warnings", {})
        fresh = [finding for finding in told if finding in self._before and finding not in self._said]
        self._before, self._said = set(told), self._said & set(told) | set(fresh)
        return [f"warning: {told[finding]}" for finding in fresh]


def epoch_line(record: dict[str, Any]) -> str:
    """Progress line of an epoch.

    Example:
        >>> epoch_line({"epoch": 3, "step": 12, "loss": 0.5, "training_error": 0.25, "seconds": 9.0})
        'epoch 3 · step 12 · loss 0.5000 · training error 0.250 · 9 s'
    """
    parts = [f"epoch {record['epoch']}", f"step {record['step']}", f"loss {record['loss']:.4f}"]
    parts.append(f"training error {record['training_error']:.3f}")
    if record.get("validation_error") is not None:
        better = " (best)" if record.get("best") else ""
        parts.append(f"validation error {record['validation_error']:.3f}{better}")
    return " · ".join([*parts, f"{record['seconds']:.0f} s"])


def choose_progress() -> Progress:
    """Progress bar if standard output is a terminal, lines otherwise."""
    return BarProgress() if sys.stdout.isatty() else LineProgress()
