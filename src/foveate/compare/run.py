"""Several methods on one split: train each, test each on the same images, measure what each costs."""

import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foveate.compare.cost import activation_bytes, pixels_read_share
from foveate.datasets import open_dataset
from foveate.errors import RunError
from foveate.models import Model, load_model
from foveate.training.config import RunSettings, changed_keys, load_settings
from foveate.training.evaluation import evaluate
from foveate.training.journal import read_journal
from foveate.training.loader import Loader, shares, split_indices
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.types import Batch, ImageDataset

__all__ = ["Method", "MethodResult", "compare", "read_results", "write_results"]


@dataclass(frozen=True)
class Method:
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


@dataclass(frozen=True)
class MethodResult:
    """What came of one entrant.

    Attributes:
        name: of the entrant.
        error: share of test images whose most probable class is wrong.
        interval: 95 % interval of `error`.
        n: test images.
        epochs: epochs trained.
        train_seconds: of training and validation.
        train_ms_per_image: median over the epochs of training time per image shown, validation apart.
        predict_ms_per_image: of testing, views and patch reading included.
        activation_mb_per_image: 10⁶ bytes kept for the backward pass, per image of a training batch.
        pixels_read_share: share of an image's pixels looked at, view included.
        patches_per_image: full-resolution patches read per prediction.
        parameters: number of trained parameters.
    """

    name: str
    error: float
    interval: tuple[float, float]
    n: int
    epochs: int
    train_seconds: float
    train_ms_per_image: float
    predict_ms_per_image: float
    activation_mb_per_image: float
    pixels_read_share: float
    patches_per_image: float
    parameters: int


def compare(
    methods: Sequence[Method],
    out: Path | str,
    *,
    dataset: ImageDataset | None = None,
    tell: Callable[[str], None] = print,
) -> list[MethodResult]:
    """Train and test every method on the same images; runs that are complete are not run again.

    Arguments:
        methods: the entrants, in order; names all different, data and seed all equal.
        out: folder; each entrant gets a run folder of its name in it, and `results.json` grows as they finish.
        dataset: the images; opened from the first entrant's settings if None.
        tell: receives a line for every step of the work.

    Returns:
        A result per method, in order.

    Raises:
        RunError: names repeat, or data or seeds differ, so that the comparison would not be one.
    """
    _check(methods)
    folder, results = Path(out), dict[str, MethodResult]()
    first = methods[0].settings
    images = open_dataset(first.data, first.seed) if dataset is None else dataset
    for method in methods:
        tell(f"training {method.name}")
        settings = method.settings
        if method.as_long_as is not None:
            settings = _long_enough(settings, folder / method.name, images, results[method.as_long_as].train_seconds)
        outcome = train(settings, folder / method.name, resume=True, dataset=images)
        results[method.name] = _measure(method.name, settings, outcome.folder, outcome.epochs, outcome.seconds, images)
        write_results(folder / "results.json", list(results.values()))
    return list(results.values())


def write_results(path: Path | str, results: Sequence[MethodResult], **more: Any) -> None:
    """Write `{"methods": [...]}` and what else is given, as JSON, in one go.

    Arguments:
        path: the file.
        results: one per method.
        more: further entries of the file.
    """
    path = Path(path)
    partial = path.with_suffix(".partial")
    plain = {"methods": [asdict(result) for result in results], **more}
    partial.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def read_results(path: Path | str) -> list[MethodResult]:
    """Read the results that `write_results` wrote."""
    plain = json.loads(Path(path).read_text(encoding="utf-8"))
    return [MethodResult(**{**one, "interval": tuple(one["interval"])}) for one in plain["methods"]]


def _check(methods: Sequence[Method]) -> None:
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
"""Share of time given on top of what the trial asks for, because no two epochs take the same."""


def _long_enough(settings: RunSettings, folder: Path, images: ImageDataset, seconds: float) -> RunSettings:
    """Raise the epochs until training lasts at least `seconds`; a run begun earlier keeps its number."""
    begun = folder / "config.yaml"
    if begun.exists():
        return replace(settings, training=replace(settings.training, epochs=load_settings(begun).training.epochs))
    trial = replace(settings.training, max_steps=TRIAL_STEPS, log_every=1, watch=0)
    with tempfile.TemporaryDirectory() as scratch:
        train(replace(settings, training=trial), scratch, dataset=images, progress=SilentProgress())
        per_step = seconds_per_step(Path(scratch), skip=TRIAL_STEPS // 3)
    per_epoch = per_step * math.ceil(len(split_indices(images, "train")) / settings.training.batch)
    epochs = max(settings.training.epochs, math.ceil(MARGIN * seconds / per_epoch))
    return replace(settings, training=replace(settings.training, epochs=epochs))


def _measure(
    name: str, settings: RunSettings, folder: Path, epochs: int, seconds: float, images: ImageDataset
) -> MethodResult:
    model = load_model(str(folder))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    test = split_indices(images, "test")
    start = time.perf_counter()
    evaluation = evaluate(model, images, test, seed=settings.seed, batch=settings.training.batch)
    predicting = time.perf_counter() - start
    batch = _training_batch(model, settings, images)
    return MethodResult(
        name=name,
        error=evaluation.error,
        interval=evaluation.interval,
        n=evaluation.n,
        epochs=epochs,
        train_seconds=seconds,
        train_ms_per_image=1e3 * seconds_per_step(folder) / settings.training.batch,
        predict_ms_per_image=1e3 * predicting / len(test),
        activation_mb_per_image=activation_bytes(model, batch) / len(batch) / 1e6,
        pixels_read_share=pixels_read_share(model, batch),
        patches_per_image=evaluation.patches_per_image,
        parameters=model.parameter_count,
    )


def seconds_per_step(folder: Path, skip: int = 0) -> float:
    """Median seconds of a training step, data work included and validation not, from a run's metrics.jsonl.

    Arguments:
        folder: of the run.
        skip: leave out so many steps at the start.
    """
    steps = [record for record in read_journal(folder / "metrics.jsonl", "step") if record["step"] > skip]
    spans: list[float] = [
        (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in itertools.pairwise(steps)
        if before["epoch"] == after["epoch"]
    ]
    if not spans:
        raise RunError(f"{folder} has too few steps to time one: train for more than {skip + 2} or log more often")
    return statistics.median(spans)


def _training_batch(model: Model, settings: RunSettings, images: ImageDataset) -> Batch:
    loader = Loader(images, model.view, settings.seed)
    (share,) = shares(split_indices(images, "train")[: settings.training.batch], settings.training.batch)
    (batch,) = loader.training(1, [share])
    return batch.to(model.device)
