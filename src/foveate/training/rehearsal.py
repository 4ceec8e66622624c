"""Rehearsal (dry run) of a configuration: a step forward and backward, measured, and what a whole run would take."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import psutil
import torch

from foveate.config.training import RunSettings
from foveate.datasets import open_dataset
from foveate.datasets.types import ImageDataset
from foveate.errors import DataError
from foveate.evaluation.numbers import evaluate_any
from foveate.models import DrawOptions, Model
from foveate.models.kept import KeptFeatures
from foveate.models.receipts import Resident
from foveate.pipeline.distributed import open_accelerator
from foveate.pipeline.loader import Failed, Loader, LoadOptions, split_indices
from foveate.pipeline.loader import shares as split_shares
from foveate.pipeline.source_cache import SourceCache, memory_limits
from foveate.threads import set_reading_threads
from foveate.training.build import build_for, loss_weights, measure_features
from foveate.training.find import finds
from foveate.training.optimisation import total_steps
from foveate.training.progress import opening_lines, span
from foveate.training.step import Stepper

ROOM = 0.9
"""Share of the memory that a run may take: other programs, and peaks too short to see, need some."""

PARTS = (4, 2)
"""Parts of a batch that the two smaller ones are by which the memory of a whole one is foretold."""

LOOKED = 4
"""Validation images that are timed."""


@dataclass(frozen=True)
class Rehearsal:
    """Rehearsal of a run: what was measured of a few steps, and what follows for all.

    Attributes:
        lines: what would be trained on what.
        device: where, "cpu" or "cuda:0".
        batch: images of a step.
        memory: bytes at the peak: of the process, on a GPU of its tensors.
        per_image: bytes that an image more takes.
        available: bytes that there are.
        whole: whether a whole batch was tried; a smaller one is all that fits.
        first: seconds of the first epoch's steps, in which images are opened and seen.
        epoch: seconds of any other.
        finding: seconds in which the views are seen by which evidence is found; 0 where none is.
        validation: seconds of one an epoch.
        stages: share of a step's time by stage, the first epoch's.
        frozen: whether the feature network is left as it is.
        epochs: of the whole run.
        minutes: it may last, or None.
    """

    lines: tuple[str, ...]
    device: str
    batch: int
    memory: int
    per_image: int
    available: int
    whole: bool
    first: float
    epoch: float
    finding: float
    validation: float
    stages: dict[str, float]
    frozen: bool
    epochs: float
    minutes: float | None

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.memory <= ROOM * self.available

    @property
    def largest(self) -> int:
        """Batch that fits, at most; 0 if none does."""
        spare = ROOM * self.available - self.memory
        return max(0, self.batch + math.floor(spare / max(1, self.per_image)))

    @property
    def total(self) -> float:
        """Seconds of the whole run, were there no limit; but for the teaching of evidence."""
        rest = max(0.0, self.epochs - 1)
        return self.finding + min(1.0, self.epochs) * self.first + rest * self.epoch + self.epochs * self.validation

    @property
    def epochs_in_time(self) -> float:
        """Epochs that are over when the time is."""
        if self.minutes is None or self.total <= 60 * self.minutes:
            return self.epochs
        left = 60 * self.minutes - self.finding - self.first - self.validation
        return max(0.0, min(self.epochs, 1 + left / max(1e-9, self.epoch + self.validation)))


def rehearse(settings: RunSettings, available: float | None = None) -> Rehearsal:
    """Dry run: build the model, take a few steps with small batches and, if it fits, with a whole one.

    Nothing is written, and nothing is kept: not even in the cache of decoded images.

    Arguments:
        settings: of the run.
        available: gigabytes that it may take; what is free if None.

    Raises:
        ConfigError, DataError, ImageError: as the run itself would.
    """
    skips = settings.training.on_error == "skip"
    settings = replace(settings, data=replace(settings.data, cache="memory"))
    accelerator = open_accelerator()
    set_reading_threads(settings.training.threads)
    numbers = settings.model.head.numeric
    dataset = open_dataset(settings.data, settings.seed, check_files=not skips, numbers=numbers)
    training, validation = split_indices(dataset, "train"), split_indices(dataset, "validation")
    if not training:
        raise DataError("there is no training image: check the manifest's split column")
    failed = None if not skips else lambda *_: None
    with memory_limits(settings.data):
        model = build_for(settings, dataset, training, accelerator, failed=failed)
        lines = opening_lines(settings, dataset, model, accelerator.device)
        stage = _Stage(settings, dataset, model.to(accelerator.device), training, failed)
        return stage.rehearsed(tuple(lines), validation, available)


class _Stage:
    """Stage of a rehearsal: model, loader and optimizer as a run has them."""

    def __init__(
        self, settings: RunSettings, dataset: ImageDataset, model: Model, training: Sequence[int], failed: Failed | None
    ) -> None:
        self.settings, self.dataset, self.model, self.training = settings, dataset, model, tuple(training)
        opened = SourceCache.of_settings(dataset, model.intake, settings.data)
        self.loading = LoadOptions(settings.training.batch, opened=opened, failed=failed)
        measure_features(model, Loader.of(model, dataset, settings.seed, loading=self.loading), training[:8])
        self.stepper = Stepper(
            settings.training, model, weights=loss_weights(settings, dataset, training), failed=self.loading.failed
        )
        self.loader = Loader.of(model, dataset, settings.seed, settings.augment, self.loading)
        if settings.model.features.frozen:
            model.keep_features(KeptFeatures(round(1e9 * settings.data.memory_gigabytes)))
        ramp = settings.training.anneal.patches
        ends = [settings.model.patches if end is None else round(end) for end in (ramp.first, ramp.last)]
        model.anneal(None, max(ends) if ramp.moves else None)

    def step(self, indices: Sequence[int], epoch: int) -> tuple[float, int]:
        """Seconds and bytes at the peak of a step on some images."""
        plan = split_shares(tuple(indices), len(indices))
        cuda = self.model.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with Resident() as resident, closing(self.loader.training(epoch, plan)) as batches:
            for share in plan:
                self.stepper.backward(batches, share)
                self.stepper.update(0.0)
            if cuda:
                torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return seconds, int(torch.cuda.max_memory_allocated()) if cuda else resident.peak

    def rehearsed(self, lines: tuple[str, ...], validation: Sequence[int], available: float | None) -> Rehearsal:
        """All that is measured."""
        training, batch = self.settings.training, min(self.settings.training.batch, len(self.training))
        few, half = (max(1, batch // part) for part in PARTS)
        turned = self.training[::-1] * 2  # other images than the whole batch has
        self.step(turned[:few], 1)  # libraries are loaded, memory is claimed
        _, one = self.step(turned[:few], 2)
        _, more = self.step(turned[few : few + half], 1)
        per_image = max(0, more - one) // max(1, half - few)
        memory, free = more + (batch - half) * per_image, self._available(available)
        whole = memory <= ROOM * free
        tried = batch if whole else half
        cold, peak = self.step(self.training[:tried], 1)
        shares = dict(self.stepper.stages)
        warm, again = self.step(self.training[:tried], 2)
        memory = max(peak, again) if whole else memory
        steps = math.ceil(len(self.training) / training.batch)
        scale = batch / tried * steps
        looked, judged = list(validation[:LOOKED]), 0.0
        if looked:
            start = time.perf_counter()
            evaluate_any(self.model, self.dataset, looked, DrawOptions(), loading=self.loading)
            judged = (time.perf_counter() - start) / len(looked) * len(validation)
        shares["learn"] = max(0.0, cold - sum(shares.values()))
        seen = max(0.0, cold - warm) / tried * (len(self.training) + len(validation)) if finds(self.settings) else 0.0
        return Rehearsal(
            lines=lines,
            device=str(self.model.device),
            batch=batch,
            memory=memory,
            per_image=per_image,
            available=free,
            whole=whole,
            first=(warm if finds(self.settings) else cold) * scale,
            epoch=warm * scale,
            finding=seen,
            validation=judged / training.validate_every,
            stages={name: spent / cold for name, spent in shares.items()},
            frozen=self.settings.model.features.frozen,
            epochs=total_steps(training, steps) / steps,
            minutes=training.max_minutes,
        )

    def _available(self, gigabytes: float | None) -> int:
        if gigabytes is not None:
            return round(1e9 * gigabytes)
        if self.model.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info()
            return int(free + torch.cuda.memory_reserved())
        return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def verdicts(found: Rehearsal) -> list[tuple[str, str, str, str]]:
    """Findings of a rehearsal as `foveate doctor` shows them: name, state, what was found, what to do about it."""
    rows = [(line.partition(": ")[0], "ok", line.partition(": ")[2], "") for line in found.lines]
    rows = [(name, "low" if name == "note" else state, told, "") for name, state, told, _ in rows]
    amount = f"{found.memory / 1e9:.1f} GB at the peak of a step of {found.batch} images on {found.device}, "
    amount += f"{found.available / 1e9:.1f} GB are there; {found.per_image / 1e6:.0f} MB an image"
    remedy = ""
    if not found.fits:
        lower = "lower model.view, model.patch or model.patches"
        remedy = f"set training.batch to {found.largest}" if found.largest else f"{lower}: not even one image fits"
        amount += " (foretold from smaller batches)"
    rows.append(("memory", "ok" if found.fits else "wrong", amount, remedy))
    if found.finding:
        told = f"about {span(found.finding)} to see all views, and then some time to teach evidence"
        rows.append(("finding", "ok", told, ""))
    pace = f"an epoch takes {span(found.epoch)}, the first {span(found.first)}, a validation {span(found.validation)}"
    if not found.whole:
        pace += " (smaller batches than these were timed)"
    longest = max(found.stages, key=lambda name: found.stages[name])
    told = f"{pace}; most of the first: {longest} ({found.stages[longest]:.0%})"
    rows.append(("pace", "ok", told, _quicker(longest, found.frozen)))
    whole = f"{found.epochs:g} epochs take about {span(found.total)}"
    if found.minutes is None:
        rows.append(("time", "ok", whole, "training.max_minutes ends it, and its schedule, in time"))
    elif found.total <= 60 * found.minutes:
        rows.append(("time", "ok", f"{whole}, of {found.minutes:g} minutes", ""))
    else:
        within = found.epochs_in_time
        told = f"{whole}; training.max_minutes {found.minutes:g} ends it after about {within:.1f} of them"
        low = within < min(5.0, found.epochs)
        remedy = "raise training.max_minutes, lower model.view or training.anneal.patches, or freeze model.features"
        rows.append(("time", "low" if low else "ok", told, remedy if low else ""))
    return rows


def _quicker(stage: str, frozen: bool) -> str:
    """What would make the stage quicker that takes longest."""
    less = "fewer training.anneal.patches, or model.features.enlarge 1"
    return {
        "view": "a smaller model.view; foveate convert, where images are decoded whole",
        "read": "foveate convert, where images are decoded whole; fewer training.anneal.patches",
        "features": less if frozen else f"model.features.frozen true; {less}",
        "learn": less if frozen else f"model.features.frozen true, or more frozen_stages; {less}",
    }.get(stage, "")
