"""Progress of a run, told: on what it trains, its pace and the time left, and a bar or a line an epoch."""

import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import torch

from foveate.config.training import RunSettings, TrainingSettings
from foveate.datasets.types import ImageDataset
from foveate.training.build import described
from foveate.training.numbers import number_lines
from foveate.types import Label

if TYPE_CHECKING:
    from foveate.models import Model

TINY = 30
"""Validation images fewer than which an error deserves a word before it is measured."""

SETTLED = 10.0
"""Seconds of steps after which a run's pace is told, or when its first epoch is over."""


@dataclass(frozen=True)
class Plan:
    """Plan of a run: how long it lasts unless it ends early.

    Attributes:
        total: steps in all.
        done: steps taken before, where it is resumed.
        images: training images, seen once an epoch.
        training: its settings.
    """

    total: int
    done: int
    images: int
    training: TrainingSettings


class Pace:
    """Pace of a run: images a second and the time left, validation included, by its latest epochs.

    Arguments:
        plan: of the run.

    Example:
        >>> pace = Pace(Plan(40, 0, 80, TrainingSettings(epochs=4, batch=8)))
        >>> for step in (1, 2, 3):
        ...     pace.see({"step": step, "seconds": 4.0 * step})
        >>> pace.left, pace.line()
        (148.0, 'pace: 2.0 images a second · 4 epochs of 80 images take about 3 min')
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._marks: deque[tuple[int, float]] = deque(maxlen=3)
        self._last = (0, 0.0)
        self.told = False

    def see(self, record: dict[str, Any]) -> None:
        """Take in the record of a step, or of an epoch, which is a mark that later ones are timed from."""
        self._last = record["step"], record["seconds"]
        if not self._marks or record.get("kind") == "epoch":
            self._marks.append(self._last)

    @property
    def _per_step(self) -> float | None:
        steps, seconds = (end - begin for end, begin in zip(self._last, self._marks[0], strict=True))
        return seconds / steps if steps > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds left; None as long as nobody can tell."""
        per_step, minutes = self._per_step if self._marks else None, self._plan.training.max_minutes
        if per_step is None:
            return None
        left = (self._plan.total - self._last[0]) * per_step
        return max(0.0, left if minutes is None else min(left, 60 * minutes - self._last[1]))

    def is_settled(self, over: bool) -> bool:
        """Whether it may be told now, for the first time: after some seconds, or if an epoch is over."""
        return not self.told and bool(self._per_step) and (over or self._last[1] - self._marks[0][1] >= SETTLED)

    def line(self) -> str:
        """Line that says it, and how long the run will take."""
        plan, per_step = self._plan, self._per_step
        assert per_step is not None
        self.told = True
        training, whole = plan.training, (plan.total - plan.done) * per_step
        epoch = f"epoch{'' if training.epochs == 1 else 's'} of {plan.images:,} images"
        per_epoch = per_step * plan.images / training.batch
        line = f"pace: {training.batch / per_step:.1f} images a second · "
        minutes = training.max_minutes
        if minutes is not None and self._last[1] + (self.left or 0.0) >= 60 * minutes - per_step:
            within = max(1, round(training.epochs * 60 * minutes / max(60 * minutes, whole)))
            return f"{line}training.max_minutes {minutes:g} ends it after about {within} of {training.epochs} {epoch}"
        if plan.total * training.batch < training.epochs * plan.images:  # max_steps ends it
            return f"{line}{plan.total:,} steps take about {span(whole)}"
        return f"{line}{training.epochs} {epoch} take about {span(max(whole, per_epoch))}"


def span(seconds: float) -> str:
    """Span of time, in the unit that people would say it in.

    Example:
        >>> span(42.3), span(754.0), span(9000.0)
        ('42 s', '13 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Progress:
    """Progress of a run, as the loop tells it, silent here; records are those of metrics.jsonl."""

    def begin(self, plan: Plan) -> None:
        """A run starts, or goes on."""

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
        name: what its lines of pace and epochs begin with, such as "fold 2 of 5", where there are several runs.
    """

    def __init__(self, stream: TextIO | None = None, name: str = "") -> None:
        self._stream, self._name = stream, f"{name} · " if name else ""
        self._news = News()
        self._pace: Pace | None = None

    def begin(self, plan: Plan) -> None:
        """Begin to measure its pace."""
        self._pace = Pace(plan)

    def step(self, record: dict[str, Any]) -> None:
        """Say the pace, once it is known."""
        self._see(record, over=False)

    def epoch(self, record: dict[str, Any]) -> None:
        """Write the epoch's line, and what is wrong with the attention."""
        left = self._see(record, over=True)
        for line in (self._name + epoch_line(record, left), *self._news(record)):
            self.say(line)

    def say(self, line: str) -> None:
        """Write the line."""
        print(line, file=self._stream or sys.stdout, flush=True)

    def _see(self, record: dict[str, Any], over: bool) -> float | None:
        """Seconds left."""
        if self._pace is None:
            return None
        self._pace.see(record)
        if self._pace.is_settled(over):
            self.say(self._name + self._pace.line())
        return self._pace.left


class BarProgress(LineProgress):
    """Progress bar over all steps, with one line per epoch above it.

    Arguments:
        name: as of `LineProgress`.
    """

    def __init__(self, name: str = "") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        super().__init__(name=name)
        self._bar = Bar(
            TextColumn(f"{self._name}step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
        )
        self._task = self._bar.add_task("")

    def begin(self, plan: Plan) -> None:
        """Show the bar."""
        super().begin(plan)
        self._bar.update(self._task, total=plan.total, completed=plan.done)
        self._bar.start()

    def step(self, record: dict[str, Any]) -> None:
        """Move the bar."""
        left = self._see(record, over=False)
        told = "" if left is None else f" · about {span(left)} left"
        self._bar.update(self._task, completed=record["step"], description=f"loss {record['loss']:.3f}{told}")

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


def epoch_line(record: dict[str, Any], left: float | None = None) -> str:
    """Progress line of an epoch.

    Arguments:
        record: as in metrics.jsonl.
        left: seconds left, if anybody can tell.

    Example:
        >>> epoch_line({"epoch": 3, "step": 12, "loss": 0.5, "training_error": 0.25, "seconds": 9.0}, left=30.0)
        'epoch 3 · step 12 · loss 0.5000 · training error 0.250 · 9 s, about 30 s left'
    """
    parts = [f"epoch {record['epoch']}", f"step {record['step']}", f"loss {record['loss']:.4f}"]
    digits = ".4g" if "validation_r_squared" in record else ".3f"  # of numbers, errors are of any size
    parts.append(f"training error {record['training_error']:{digits}}")
    if record.get("validation_error") is not None:
        better = " (best)" if record.get("best") else ""
        told = f" · R² {record['validation_r_squared']:.3f}" if "validation_r_squared" in record else ""
        parts.append(f"validation error {record['validation_error']:{digits}}{told}{better}")
    told = "" if left is None or left < 1 else f", about {span(left)} left"
    return " · ".join([*parts, f"{record['seconds']:.0f} s{told}"])


def choose_progress(name: str = "") -> Progress:
    """Progress bar if standard output is a terminal, lines otherwise; of a run of that name, if there are several."""
    return BarProgress(name) if sys.stdout.isatty() else LineProgress(name=name)


def opening_lines(settings: RunSettings, dataset: ImageDataset, model: "Model", device: torch.device) -> list[str]:
    """Lines before the first step: what will be trained on what, and what of the splits will say little.

    Arguments:
        settings: of the run.
        dataset: its images.
        model: what is trained.
        device: where.
    """
    labels = {split: [one.label for one in dataset.examples if one.split == split] for split in _SPLITS}
    parts = [f"{len(some):,} {_SPLITS[split]}{_counted(some, dataset)}" for split, some in labels.items() if some]
    training, on = settings.training, str(device)
    threads = torch.get_num_threads()
    on += f", {threads} thread{'' if threads == 1 else 's'}" if device.type == "cpu" else ""
    steps = -(-len(labels["train"]) // training.batch)
    longest = training.max_minutes
    spent = "1 minute if that is" if longest == 1 else f"{longest:g} minutes if these are" if longest else ""
    limit = f", or {spent} over first" if spent else ""
    limit += "" if training.max_steps is None else f", or {training.max_steps:,} steps"
    return [
        f"images: {', '.join(parts)}",
        *_doubts([one for one in labels["train"] if one is not None], labels["validation"], dataset),
        *(
            [f"grades: {' < '.join(model.settings.head.order or model.classes)}"]
            * (model.settings.head.kind == "ordinal")
        ),
        *number_lines(settings, [one for one in dataset.examples if one.split == "train"], model),
        f"model: {described(model.settings)} · {model.parameter_count:,} weights to train · on {on}",
        f"schedule: {training.epochs} epochs of {steps} steps of {training.batch} images{limit}",
    ]


_SPLITS = {"train": "to train on", "validation": "to validate", "test": "to test"}


def _counted(labels: Sequence[Label | None], dataset: ImageDataset) -> str:
    """Images of each class, in brackets, the commonest first."""
    known = [one for one in labels if one is not None and not isinstance(one, float)]
    names = [dataset.classes[k] for one in known for k in (one if isinstance(one, tuple) else (one,))]
    counts = Counter(names).most_common()
    rest = f", {len(counts) - 6} classes more" if len(counts) > 7 else ""
    return f" ({', '.join(f'{name} {n:,}' for name, n in counts[: 6 if rest else 7])}{rest})" if counts else ""


def _doubts(training: Sequence[Label], validation: Sequence[Label | None], dataset: ImageDataset) -> list[str]:
    """What can be said beforehand of splits that are tiny, or of one class."""
    doubts, several = [], dataset.multi_label
    counts = Counter(training if not several else [k for one in training if isinstance(one, tuple) for k in one])
    rare = [f"{name} {counts[k]}" for k, name in enumerate(dataset.classes) if counts[k] < 5]
    if rare:
        doubts.append(f"note: few images to learn from: {', '.join(rare[:6])}: add some, or leave the class out")
    kinds, n = set(validation), len(validation)
    if not n:
        doubts.append("note: no image validates: the latest model is kept, and nothing tells whether it has learnt")
    elif len(kinds) == 1:
        one = next(iter(kinds))
        name = dataset.classes[one] if isinstance(one, int) else f"{one:g}" if isinstance(one, float) else "alike"
        doubts.append(
            f"note: all {n} validation images are {name}: they cannot tell whether anything is learnt, and the latest "
            "model is kept; let others validate (column split, or data.validation), or cross-validate (--folds 5)"
        )
    elif n < TINY:
        doubts.append(
            f"note: {n} validation images are few: their loss, not their error, chooses the model, and a later one "
            "unless it is clearly worse; for an error to believe, raise data.validation, or cross-validate (--folds 5)"
        )
    return doubts
