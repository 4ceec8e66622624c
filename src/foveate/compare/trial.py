"""Trial: one method trained and tested on one split, with one seed; it goes on where it stopped, and tests once."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foveate.compare.settings import Method
from foveate.compare.store import (
    Predictions,
    read_curve,
    read_predictions,
    read_record,
    seconds_per_step,
    write_predictions,
    write_record,
)
from foveate.config.files import load_settings
from foveate.config.serial import from_plain, to_plain
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.devices import best_device
from foveate.errors import ConfigError, RunError
from foveate.evaluation.evaluate import Evaluation, evaluate
from foveate.models import DrawOptions, load_model
from foveate.pipeline.loader import LoadOptions, fingerprint, split_indices
from foveate.training.checkpoint import has_state
from foveate.training.folds import write_splits
from foveate.training.interrupts import Interrupts, interruption
from foveate.training.loop import train
from foveate.training.progress import Progress, SilentProgress
from foveate.training.run_folder import KEEPS, PLACES, TrainResult, read_metrics, refuse_changes
from foveate.types import Label

PACE_STEPS = 12
"""Steps by which the pace of a run is timed; the first third only warms up."""
MARGIN = 1.15
"""Time asked for on top of what the pace says, because no two epochs take the same."""
BUDGET = "budget.json"
"""File in a run's folder: its `Budget`."""


@dataclass(frozen=True)
class Budget:
    r"""Training budget of a run: how many steps an equal time is, by its pace; settled once before it begins.

    .. math:: \text{steps} = \max(1, \lfloor 60 \cdot \text{minutes} / \text{pace} \rceil)

    Attributes:
        minutes: of training, data work included and validation not.
        pace: seconds that a step took when it was timed, the median.
        steps: that it trains, and at which its schedule ends.
    """

    minutes: float
    pace: float
    steps: int

    @classmethod
    def of(cls, minutes: float, pace: float) -> "Budget":
        """Budget of a run of such a pace.

        Example:
            >>> Budget.of(minutes=3.0, pace=0.5).steps
            360
        """
        return cls(minutes, pace, max(1, round(60 * minutes / pace)))


def read_budget(folder: Path) -> Budget | None:
    """Budget of the run in a folder; None if it has none.

    Raises:
        RunError: the file is damaged.
    """
    remedy = f"delete {folder} to train that run from the start"
    return read_record(folder / BUDGET, lambda plain: Budget(**plain), remedy)


@dataclass(frozen=True)
class Trial:
    """Trial of a method: one run, and its answers on the test images.

    Attributes:
        name: METHOD/seed-S/fold-F, its folder within the comparison's.
        method: which.
        seed: of the run.
        fold: which fold tests, counted from 1; None without folds.
        out: folder of the comparison.
        divided: seed and fold → the images, divided for them.
        remedy: what to say to whoever stops it.
        minutes: that it is to train; None trains as its settings say.
        leader: the trial that it must train as long as, if there is one.
    """

    name: str
    method: Method
    seed: int
    fold: int | None
    out: Path
    divided: Callable[[int, int | None], ImageDataset]
    remedy: str = ""
    minutes: float | None = None
    leader: "Trial | None" = None

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.out / self.name

    @property
    def settings(self) -> RunSettings:
        """Of the run, its seed included."""
        return replace(self.method.settings, seed=self.seed)

    @property
    def images(self) -> ImageDataset:
        """Divided for this trial."""
        return self.divided(self.seed, self.fold)

    @property
    def first(self) -> "Trial":
        """The trial that decides how long this one trains: itself, if it has no leader."""
        return self if self.leader is None else self.leader.first

    def check(self) -> None:
        """Refuse, before anything is written or trained, to go on with a run that was begun otherwise.

        Raises:
            RunError: what is in the folder is another run.
        """
        begun = self.folder / "config.yaml"
        if not (has_state(self.folder / "state") and begun.is_file()):
            return
        self._write_splits()
        refuse_changes(self.folder, load_settings(begun), self.settings, moved=True)
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

    def done(self, least: float = 0.0) -> Predictions | None:
        """Predictions of the trial, if it is complete, as these settings and images would have it.

        Arguments:
            least: seconds it must have been trained; its epochs are then its own.

        Raises:
            RunError: they are damaged, or a frozen record.
        """
        found = read_predictions(self.folder)
        if found is None:
            return None
        if found.settings is None:
            raise RunError(f"{self.folder} holds a record of results, which is never added to: choose another --out")
        if (found.fingerprint, found.minutes) != (self._fingerprint(), self.minutes) or found.seconds < least:
            return None
        wanted, trained = lasting(self.settings), found.settings["training"]
        if self.minutes is not None:  # how many steps these are was settled when it began
            wanted["training"] |= {key: trained[key] for key in ("epochs", "max_steps")}
        if least > 0:
            wanted["training"]["epochs"] = max(trained["epochs"], self.settings.training.epochs)
        try:  # settings that foveate has gained since are at their defaults, which leave everything as it was
            same = lasting(from_plain(RunSettings, found.settings)) == wanted
        except ConfigError:
            return None
        return found if same else None

    def complete(self, least: float = 0.0, progress: Progress | None = None) -> Predictions:
        """Train what is left to train and predict the test images, unless that is done.

        Arguments:
            least: seconds it must be trained; its epochs are raised until it is.
            progress: who is told; chosen if None.

        Raises:
            RunError: what is in the folder is another run.
            Interrupted: Ctrl-C or SIGTERM; what was done stays.
        """
        found = self.done(least)
        if found is not None:
            return found
        self._write_splits()
        settings, outcome = self._trained(least, progress)
        model = load_model(self.folder, allow_code=settings.model.own_code)
        model.to(best_device())
        test = split_indices(self.images, "test")
        start = time.perf_counter()
        with stoppable(f"while testing {self.name}", self.remedy) as check:
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
            epochs = load_settings(begun).training.epochs if begun.exists() else self._epochs_of(least)
            settings = _with_epochs(settings, max(epochs, settings.training.epochs))
        outcome = self._train(settings, self.folder, progress)
        while outcome.seconds < least:  # the pace was slower than the run
            more = math.ceil(outcome.epochs * MARGIN * least / outcome.seconds)
            settings = _with_epochs(settings, max(more, outcome.epochs + 1))
            outcome = self._train(settings, self.folder, progress)
        return settings, outcome

    def _within(self, minutes: float) -> RunSettings:
        """Settings under which it trains so long, validation apart, and its schedule ends there."""
        budget = read_budget(self.folder)
        if budget is None:
            budget = Budget.of(minutes, self._pace())
            write_record(self.folder / BUDGET, budget)
        epochs = math.ceil(budget.steps / self._steps_per_epoch)
        return replace(self.settings, training=replace(self.settings.training, epochs=epochs, max_steps=budget.steps))

    def _epochs_of(self, least: float) -> int:
        """Epochs that last so many seconds, by the pace of a few steps."""
        seconds = self._pace() * self._steps_per_epoch
        return max(self.settings.training.epochs, math.ceil(MARGIN * least / seconds))

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(len(split_indices(self.images, "train")) / self.settings.training.batch)

    def _pace(self) -> float:
        """Seconds a step takes, by timing a few."""
        few = replace(self.settings.training, max_steps=PACE_STEPS, log_every=1, watch=0, tensorboard=False)
        with tempfile.TemporaryDirectory() as scratch:
            self._train(replace(self.settings, training=few), Path(scratch), SilentProgress())
            return seconds_per_step(Path(scratch), skip=PACE_STEPS // 3)

    def _train(self, settings: RunSettings, folder: Path, progress: Progress | None) -> TrainResult:
        return train(settings, folder, resume=True, dataset=self.images, progress=progress, remedy=self.remedy)

    def _predictions(
        self, settings: RunSettings, outcome: TrainResult, tested: Evaluation, seconds: float
    ) -> Predictions:
        epochs = read_metrics(self.folder / "metrics.jsonl", "epoch")
        last = epochs[-1] if epochs else self._judged_by_training()
        examples = [self.images.examples[index] for index in tested.indices]
        return Predictions(
            method=self.method.name,
            seed=self.seed,
            fold=self.fold,
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

    def _judged_by_training(self) -> dict[str, float]:
        """Loss and error of the training images, for a model that has no epochs: evidence alone."""
        indices, loading = split_indices(self.images, "train"), LoadOptions(self.settings.training.batch)
        known = evaluate(
            load_model(self.folder, allow_code=self.settings.model.own_code), self.images, indices, loading=loading
        )
        return {"training_loss": known.loss, "training_error": known.error}

    def _write_splits(self) -> None:
        write_splits(self.folder, self.images.examples, "compare with the images, folds and seeds")

    def _fingerprint(self) -> int:
        return fingerprint(self.images, split_indices(self.images, None))


def lasting(settings: RunSettings) -> dict[str, Any]:
    """Settings as plain values, without what is kept of images and where these lie, which a fingerprint knows."""
    plain: dict[str, Any] = to_plain(settings)
    for name in (*PLACES, *KEEPS):
        del plain["data"][name]
    return plain


@contextmanager
def stoppable(where: str, remedy: str) -> Iterator[Callable[[], None]]:
    """Interrupts let a piece of work end between two of its steps, with the line that says how to go on.

    Arguments:
        where: what would be interrupted, e.g. "while testing ats-10".
        remedy: how to go on.

    Yields:
        A function to call between steps.
    """
    with Interrupts() as interrupts:

        def check() -> None:
            if interrupts.signal:
                raise interruption(interrupts.signal, where, remedy)

        yield check


def _with_epochs(settings: RunSettings, epochs: int) -> RunSettings:
    return replace(settings, training=replace(settings.training, epochs=epochs))


def _short(probability: float) -> float:
    return float(f"{probability:.7g}")  # a network's float32 has no more, and the file half as many bytes


def _known(label: Label | None) -> int | tuple[int, ...]:
    assert label is not None  # split_indices refuses images without one
    assert not isinstance(label, float)  # and `CompareSettings` numbers
    return label
