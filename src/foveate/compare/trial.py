"""One run of a comparison: trained where it stopped, its test images predicted once."""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foveate.compare.budget import Budget, read_budget, write_budget
from foveate.compare.contenders import as_of_now, lasting
from foveate.compare.plan import Task
from foveate.compare.store import Predictions, read_curve, read_predictions, write_predictions
from foveate.config.files import load_settings
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import RunError
from foveate.evaluation.evaluate import Evaluation, evaluate
from foveate.models import DrawOptions, load_model
from foveate.pipeline.loader import LoadOptions, fingerprint, split_indices
from foveate.training.checkpoint import has_state
from foveate.training.folds import write_splits
from foveate.training.interrupts import Interrupts, interruption
from foveate.training.loop import TrainResult, train
from foveate.training.progress import Progress, SilentProgress
from foveate.training.run_folder import read_journal, refuse_changes
from foveate.types import Label

__all__ = ["Run", "seconds_per_step", "stoppable"]

TRIAL_STEPS = 12
"""Steps of the timed trial; the first third only warms up."""
MARGIN = 1.15
"""Time asked for on top of what the trial says, because no two epochs take the same."""


@dataclass(frozen=True)
class Run:
    """One entrant at work on one split of the images.

    Attributes:
        task: which run it is.
        settings: of the run, its seed included.
        folder: of the run.
        images: divided for this run.
        remedy: what to say to whoever stops it.
        minutes: that it is to train; None trains as its settings say.
    """

    task: Task
    settings: RunSettings
    folder: Path
    images: ImageDataset
    remedy: str
    minutes: float | None = None

    def done(self, least: float = 0.0) -> Predictions | None:
        """Its predictions, if it is complete, as these settings and images would have it.

        Arguments:
            least: seconds it must have been trained; its epochs are then its own.

        Raises:
            RunError: they are damaged, or a frozen record.
        """
        kept = read_predictions(self.folder)
        if kept is not None and kept.settings is None:
            raise RunError(f"{self.folder} holds a record of results, which is never added to: choose another --out")
        if kept is None or kept.settings is None or kept.fingerprint != self._fingerprint() or kept.seconds < least:
            return None
        wanted = lasting(self.settings)
        if kept.minutes != self.minutes:
            return None
        if self.minutes is not None:  # how many steps these are was settled when it began
            for key in ("epochs", "max_steps"):
                wanted["training"][key] = kept.settings["training"][key]
        if least > 0:
            wanted["training"]["epochs"] = max(kept.settings["training"]["epochs"], self.settings.training.epochs)
        return kept if as_of_now(kept.settings) == wanted else None

    def check(self) -> None:
        """Refuse, before anything is written or trained, to go on with a run that was begun otherwise.

        Raises:
            RunError: what is in the folder is another run.
        """
        kept = self.folder / "config.yaml"
        if not (has_state(self.folder / "state") and kept.is_file()):
            return
        self._write_splits()
        refuse_changes(self.folder, load_settings(kept), self.settings, moved=True)
        budget = read_budget(self.folder)
        minutes = None if budget is None else budget.minutes
        if minutes != self.minutes:
            given, now = (
                "the epochs of its settings" if one is None else f"{one:g} minutes" for one in (minutes, self.minutes)
            )
            raise RunError(
                f"{self.folder} was given {given} to train, not {now}: leave minutes as it was to go on, or choose "
                "another --out"
            )

    def _write_splits(self) -> None:
        write_splits(self.folder, self.images.examples, "compare with the images, folds and seeds")

    def complete(self, least: float = 0.0, progress: Progress | None = None) -> Predictions:
        """Train what is left to train and predict the test images, unless that is done.

        Arguments:
            least: seconds it must be trained; its epochs are raised until it is.
            progress: who is told; chosen if None.

        Raises:
            RunError: what is in the folder is another run.
            Interrupted: Ctrl-C or SIGTERM; what was done is kept.
        """
        kept = self.done(least)
        if kept is not None:
            return kept
        self._write_splits()
        settings, outcome = self._trained(least, progress)
        model = load_model(self.folder)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        test = split_indices(self.images, "test")
        start = time.perf_counter()
        with stoppable(f"while testing {self.task}", self.remedy) as check:
            options, loading = DrawOptions(seed=settings.seed), LoadOptions(settings.training.batch)
            tested = evaluate(model, self.images, test, options, loading=loading, check=check)
        predictions = self._predictions(settings, outcome, tested, time.perf_counter() - start)
        write_predictions(self.folder, predictions)
        return predictions

    def _trained(self, least: float, progress: Progress | None) -> tuple[RunSettings, TrainResult]:
        settings = self.settings
        if self.minutes is not None:
            settings = self._within(self.minutes)
            return settings, self._train(settings, self.folder, progress)
        begun = self.folder / "config.yaml"
        if least > 0:
            epochs = load_settings(begun).training.epochs if begun.exists() else self._epochs_of_trial(least)
            settings = _with_epochs(settings, max(epochs, settings.training.epochs))
        outcome = self._train(settings, self.folder, progress)
        while outcome.seconds < least:  # the trial was slower than the run
            more = math.ceil(outcome.epochs * MARGIN * least / outcome.seconds)
            settings = _with_epochs(settings, max(more, outcome.epochs + 1))
            outcome = self._train(settings, self.folder, progress)
        return settings, outcome

    def _within(self, minutes: float) -> RunSettings:
        """Settings under which it trains so long, validation apart, and its schedule ends there."""
        budget = read_budget(self.folder)
        if budget is None:
            budget = Budget.of(minutes, self._pace())
            write_budget(self.folder, budget)
        epochs = math.ceil(budget.steps / self._steps_per_epoch)
        training = replace(self.settings.training, epochs=epochs, max_steps=budget.steps)
        return replace(self.settings, training=training)

    def _epochs_of_trial(self, least: float) -> int:
        """Epochs that last as long as they must, by the pace of a few steps."""
        seconds = self._pace() * self._steps_per_epoch
        return max(self.settings.training.epochs, math.ceil(MARGIN * least / seconds))

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(len(split_indices(self.images, "train")) / self.settings.training.batch)

    def _pace(self) -> float:
        """Seconds a step takes, by a trial of a few."""
        trial = replace(self.settings.training, max_steps=TRIAL_STEPS, log_every=1, watch=0, tensorboard=False)
        with tempfile.TemporaryDirectory() as scratch:
            self._train(replace(self.settings, training=trial), Path(scratch), SilentProgress())
            return seconds_per_step(Path(scratch), skip=TRIAL_STEPS // 3)

    def _train(self, settings: RunSettings, folder: Path, progress: Progress | None) -> TrainResult:
        return train(settings, folder, resume=True, dataset=self.images, progress=progress, remedy=self.remedy)

    def _predictions(
        self, settings: RunSettings, outcome: TrainResult, tested: Evaluation, seconds: float
    ) -> Predictions:
        last = read_journal(self.folder / "metrics.jsonl", "epoch")[-1]
        examples = [self.images.examples[index] for index in tested.indices]
        return Predictions(
            method=self.task.method,
            seed=self.task.seed,
            fold=self.task.fold,
            classes=tuple(self.images.classes),
            multi_label=self.images.multi_label,
            ids=tuple(one.id for one in examples),
            groups=tuple(one.group for one in examples),
            labels=tuple(_known(one.label) for one in examples),
            probabilities=tuple(tuple(map(_short, row)) for row in tested.probabilities.tolist()),
            error=tested.error,
            loss=tested.loss,
            training_loss=last["training_loss"],
            training_error=last["training_error"],
            epochs=outcome.epochs,
            steps=outcome.steps,
            seconds=outcome.seconds,
            test_seconds=seconds,
            patches_per_image=tested.patches_per_image,
            settings=lasting(settings),
            fingerprint=self._fingerprint(),
            curve=read_curve(self.folder),
            coverage=tested.coverage,
            minutes=self.minutes,
        )

    def _fingerprint(self) -> int:
        return fingerprint(self.images, split_indices(self.images, None))


def _short(probability: float) -> float:
    return float(f"{probability:.7g}")  # a network's float32 has no more, and the file half as many bytes


class stoppable:  # noqa: N801  used like a function
    """Lets a signal end a piece of work between two of its steps, with the line that says how to go on.

    Arguments:
        where: what would be interrupted, e.g. "while testing ats-10".
        remedy: how to go on.

    Returns:
        As a context manager, a function to call between steps.
    """

    def __init__(self, where: str, remedy: str) -> None:
        self._where, self._remedy = where, remedy
        self._interrupts = Interrupts()

    def __enter__(self) -> Callable[[], None]:
        self._interrupts.__enter__()
        return self._check

    def __exit__(self, *error: Any) -> None:
        self._interrupts.__exit__(*error)

    def _check(self) -> None:
        if self._interrupts.signal:
            raise interruption(self._interrupts.signal, self._where, self._remedy)


def seconds_per_step(folder: Path, skip: int = 0) -> float:
    """Median seconds of a training step, data work included and validation not, from a run's metrics.jsonl.

    Between two logged steps of an epoch where there are such; else over whole epochs.

    Arguments:
        folder: of the run.
        skip: leave out so many steps at the start.
    """
    journal = folder / "metrics.jsonl"
    steps = [record for record in read_journal(journal, "step") if record["step"] > skip]
    spans: list[float] = [
        (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in itertools.pairwise(steps)
        if before["epoch"] == after["epoch"]
    ]
    epochs: Sequence[dict[str, Any]] = [{"step": 0}, *read_journal(journal, "epoch")]
    whole = [
        epoch["training_seconds"] / (epoch["step"] - before["step"])
        for before, epoch in itertools.pairwise(epochs)
        if epoch["step"] > before["step"]
    ]
    return float(statistics.median(spans or whole))


def _with_epochs(settings: RunSettings, epochs: int) -> RunSettings:
    return replace(settings, training=replace(settings.training, epochs=epochs))


def _known(label: Label | None) -> Label:
    assert label is not None  # split_indices refuses images without one
    return label
