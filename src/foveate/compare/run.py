"""Several methods on one split: train each, test each on the same images, measure what each costs."""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from foveate.compare.cost import activation_bytes, pixels_read_share
from foveate.compare.results import MethodResult, read_results, write_results
from foveate.datasets import open_dataset
from foveate.errors import DataError, RunError
from foveate.models import load_model
from foveate.training.config import RunSettings, changed_keys, load_settings
from foveate.training.evaluation import evaluate
from foveate.training.journal import read_journal
from foveate.training.loader import Loader, shares, split_indices
from foveate.training.loop import TrainResult, train
from foveate.training.progress import Progress, SilentProgress
from foveate.types import ImageDataset

__all__ = ["Entrant", "compare", "seconds_per_step"]


@dataclass(frozen=True)
class Entrant:
    """One entrant of a comparison.

    Attributes:
        name: what the table calls it, e.g. "ats-10"; also its folder.
        settings: its run; all entrants share data and seed.
        as_long_as: name of an entrant before it, whose training time this one must at least be given; its epochs are
            raised until a timed trial says that they suffice.
    """

    name: str
    settings: RunSettings
    as_long_as: str | None = None


def compare(
    methods: Sequence[Entrant],
    out: Path | str,
    *,
    dataset: ImageDataset | None = None,
    tell: Callable[[str], None] = print,
    remedy: str | None = None,
) -> list[MethodResult]:
    """Train and test every method on the same images; what is complete is neither trained nor measured again.

    Arguments:
        methods: the entrants, in order; names all different, data and seed all equal.
        out: folder; each entrant gets a run folder of its name in it, and `results.json` grows as they finish.
        dataset: the images; opened from the first entrant's settings if None.
        tell: receives a line for every step of the work.
        remedy: what to say to whoever stops it, e.g. "to continue: foveate demo".

    Returns:
        A result per method, in order.

    Raises:
        RunError: names repeat, or data or seeds differ, so that the comparison would not be one.
        DataError: there is no test image.
        Interrupted: Ctrl-C or SIGTERM; what was done is kept.
    """
    _check(methods)
    folder, first = Path(out), methods[0].settings
    images = open_dataset(first.data, first.seed) if dataset is None else dataset
    if not split_indices(images, "test"):
        raise DataError("there is no test image to compare on: check the manifest's split column, or data.test")
    file = folder / "results.json"
    known = {result.name: result for result in read_results(file)} if file.exists() else {}
    results = dict[str, MethodResult]()
    for method in methods:
        least = 0.0 if method.as_long_as is None else results[method.as_long_as].train_seconds
        run = _Run(method.settings, folder / method.name, images, least, remedy)
        tell(f"training {method.name}")
        outcome = run.train()
        result = known.get(method.name)
        if result is None or result.epochs != outcome.epochs:
            result = run.measure(method.name, outcome)
        results[method.name] = known[method.name] = result
        write_results(file, list(known.values()))
    return list(results.values())


def _check(methods: Sequence[Entrant]) -> None:
    if not methods:
        raise RunError("there is nothing to compare: give at least one method")
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise RunError(f"methods must have different names, got {names}: rename one")
    for number, method in enumerate(methods):
        differing = changed_keys(methods[0].settings, method.settings)
        unfair = [key for key in differing if key == "seed" or key.startswith("data.")]
        if unfair:
            raise RunError(f"{method.name} differs from {names[0]} in {', '.join(unfair)}: compare on the same images")
        if method.as_long_as is not None and method.as_long_as not in names[:number]:
            raise RunError(f"{method.name} is to train as long as {method.as_long_as!r}: list that method before it")


TRIAL_STEPS = 12
"""Steps of the timed trial; the first third only warms up."""
MARGIN = 1.15
"""Time asked for on top of what the trial says, because no two epochs take the same."""


@dataclass(frozen=True)
class _Run:
    """One entrant at work; `least` is how many seconds it must be given."""

    settings: RunSettings
    folder: Path
    images: ImageDataset
    least: float
    remedy: str | None

    def train(self) -> TrainResult:
        settings = self.settings
        begun = self.folder / "config.yaml"
        if self.least > 0:
            epochs = load_settings(begun).training.epochs if begun.exists() else self._epochs_of_trial()
            settings = _with_epochs(settings, epochs)
        outcome = self._train(settings, self.folder)
        while outcome.seconds < self.least:  # the trial was slower than the run
            more = math.ceil(outcome.epochs * MARGIN * self.least / outcome.seconds)
            outcome = self._train(_with_epochs(settings, max(more, outcome.epochs + 1)), self.folder)
        return outcome

    def _epochs_of_trial(self) -> int:
        """Epochs that last as long as they must, by the pace of a few steps."""
        trial = replace(self.settings.training, max_steps=TRIAL_STEPS, log_every=1, watch=0)
        with tempfile.TemporaryDirectory() as scratch:
            self._train(replace(self.settings, training=trial), Path(scratch), SilentProgress())
            per_step = seconds_per_step(Path(scratch), skip=TRIAL_STEPS // 3)
        steps = math.ceil(len(split_indices(self.images, "train")) / self.settings.training.batch)
        return max(self.settings.training.epochs, math.ceil(MARGIN * self.least / (per_step * steps)))

    def _train(self, settings: RunSettings, folder: Path, progress: Progress | None = None) -> TrainResult:
        return train(settings, folder, resume=True, dataset=self.images, progress=progress, remedy=self.remedy)

    def measure(self, name: str, outcome: TrainResult) -> MethodResult:
        """Test the trained model, and count what it costs."""
        batch_size, seed = self.settings.training.batch, self.settings.seed
        model = load_model(str(self.folder))
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        test = split_indices(self.images, "test")
        start = time.perf_counter()
        evaluation = evaluate(model, self.images, test, seed=seed, batch=batch_size)
        predicting = time.perf_counter() - start
        (share,) = shares(split_indices(self.images, "train")[:batch_size], batch_size)
        (batch,) = Loader(self.images, model.view, seed).training(1, [share])
        batch = batch.to(model.device)
        return MethodResult(
            name=name,
            error=evaluation.error,
            interval=evaluation.interval,
            n=evaluation.n,
            epochs=outcome.epochs,
            train_seconds=outcome.seconds,
            train_ms_per_image=1e3 * seconds_per_step(self.folder) / batch_size,
            predict_ms_per_image=1e3 * predicting / len(test),
            activation_mb_per_image=activation_bytes(model, batch) / len(batch) / 1e6,
            pixels_read_share=pixels_read_share(model, batch),
            patches_per_image=evaluation.patches_per_image,
            parameters=model.parameter_count,
        )


def _with_epochs(settings: RunSettings, epochs: int) -> RunSettings:
    return replace(settings, training=replace(settings.training, epochs=epochs))


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
    epochs = [{"step": 0}, *read_journal(journal, "epoch")]
    whole = [
        epoch["training_seconds"] / (epoch["step"] - before["step"])
        for before, epoch in itertools.pairwise(epochs)
        if epoch["step"] > before["step"]
    ]
    return float(statistics.median(spans or whole))
