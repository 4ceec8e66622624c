"""Training loop: small enough to read, the same for every model; early stopping, and the best model by validation."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveate.config.training import RunSettings
from foveate.datasets import open_dataset
from foveate.datasets.types import ImageDataset
from foveate.errors import DataError, FoveateError, ImageError
from foveate.evaluation.calibration import calibrate_best
from foveate.evaluation.number_verdict import AnyVerdict, verdict_of
from foveate.evaluation.numbers import AnyEvaluation, evaluate_any
from foveate.models import Evidence, Model, load_model
from foveate.models.kept import KeptFeatures
from foveate.models.types import Batch, DrawOptions
from foveate.pipeline.distributed import agreed, check_precision, open_accelerator
from foveate.pipeline.loader import (
    Loader,
    LoadOptions,
    Share,
    epoch_order,
    fingerprint,
    shares,
    split_indices,
)
from foveate.pipeline.source_cache import SourceCache, memory_limits
from foveate.threads import set_reading_threads
from foveate.training.attention_log import Board, keep_watched, require_tensorboard, watch_attention
from foveate.training.build import as_it_began, build_for, loss_weights, measure_features
from foveate.training.checkpoint import Checkpoints, Position, has_state
from foveate.training.find import FOUND, Stage, check_stage, find_or_load, finds, with_evidence
from foveate.training.interrupts import Clock, Interrupts, interruption
from foveate.training.optimisation import WeightAverage, anneal, annealed, learning_rate, scheduled_step, total_steps
from foveate.training.progress import Plan, Progress, SilentProgress, choose_progress, opening_lines
from foveate.training.run_folder import MetricsLog, TrainResult, diverged, epoch_record, prepare_folder, step_record
from foveate.training.skipping import SkipLog, recall, refuse, remember
from foveate.training.step import SUMS, Stepper, StepReceipts

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(
    settings: RunSettings,
    out: Path | str,
    *,
    resume: bool = False,
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
    remedy: str | None = None,
    features: nn.Module | None = None,
    stage: Stage = "all",
) -> TrainResult:
    """Train a model and keep the best by validation.

    Arguments:
        settings: what determines the run.
        out: folder of the run; must be empty or absent unless resumed.
        resume: continue from the state in `out`; starts from the beginning where there is none.
        dataset: the images; opened from `settings.data` if None.
        progress: who is told; a bar or lines on standard output if None.
        remedy: how to go on after an interruption, said in its message; by `foveate train --resume --out` if None.
        features: a feature network of your own, in place of the one that the settings name: from (n, channels, height,
            width) patches to (n, dimension). To load the trained model, give `load_model` such a network again.
        stage: "find" ends when evidence has been found, where the model looks for any; resume to go on.

    Returns:
        The run's folder and its best validation error.

    Raises:
        ConfigError, DataError, ImageError, RunError: the input is at fault; a state, once there, is saved.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_stage(settings, stage)
    accelerator = open_accelerator()
    check_precision(settings.training.mixed_precision, accelerator.device)
    set_reading_threads(settings.training.threads)
    with accelerator.main_process_first():
        whole = settings.training.on_error == "raise"
        given = settings.data, settings.seed, whole, settings.model.head.numeric
        images = open_dataset(*given) if dataset is None else dataset
    gone = 0
    if resume and has_state(Path(out) / "state"):
        images, gone = recall(Path(out), images, settings.training.skip_limit)
        settings = as_it_began(settings, Path(out))
    run = _Run(settings, Path(out), images, accelerator, progress, remedy, stage, gone)
    with memory_limits(settings.data):
        run.start(resume, features)
        result = run.finish()
    if settings.training.calibrate and stage == "all":
        calibrate_best(result.model_folder, settings, images, run.validation_indices, accelerator, features)
    return result


class _Run:
    """One process' side of a run."""

    def __init__(
        self,
        settings: RunSettings,
        folder: Path,
        dataset: ImageDataset,
        accelerator: "Accelerator",
        progress: Progress | None,
        remedy: str | None,
        stage: Stage,
        gone: int,
    ) -> None:
        self.settings, self.folder, self.dataset, self.accelerator = settings, folder, dataset, accelerator
        self.stage = stage
        self.remedy = remedy or f"to continue: foveate train --resume --out {folder}"
        self.training_indices = split_indices(dataset, "train")
        self.validation_indices = split_indices(dataset, "validation")
        if not self.training_indices:
            raise DataError(
                "there is no training image: check the manifest's split column, or data.validation and data.test"
            )
        used = self.training_indices + self.validation_indices
        self.fingerprint = fingerprint(dataset, used)
        self.skips = SkipLog(folder, dataset, len(used), settings.training.skip_limit)
        self.failed = self.skips if settings.training.on_error == "skip" else refuse if gone else None
        self.main = accelerator.is_main_process
        self.progress = (progress or choose_progress()) if self.main else SilentProgress()
        for note in getattr(dataset, "notes", ()):
            self.progress.say(f"note: {note}")
        if gone:
            self.progress.say(f"goes on without {gone} of its images, which are no longer there")
        self.steps_per_epoch = math.ceil(len(self.training_indices) / settings.training.batch)
        self.total = total_steps(settings.training, self.steps_per_epoch)
        self.position = Position()
        self.found: Evidence | None = None
        self.kept: AnyEvaluation | None = None
        self.known: float | None = None
        self.interrupts = Interrupts(echoes=accelerator.num_processes > 1)

    def start(self, resume: bool, features: nn.Module | None) -> None:
        """Build everything, and put it where the state says."""
        settings, training, accelerator = self.settings, self.settings.training, self.accelerator
        self.own = features
        fresh = not (resume and has_state(self.folder / "state"))
        if training.tensorboard:
            agreed(accelerator, lambda: bool(require_tensorboard()))  # said before anything is built or written
        known = accelerator, features, fresh, self.failed, self.progress.say
        model = build_for(settings, self.dataset, self.training_indices, *known)
        prepare = partial(prepare_folder, self.folder, settings, resume, self.fingerprint, accelerator.num_processes)
        self.state = agreed(accelerator, prepare)
        self.skips.begin()
        for line in opening_lines(settings, self.dataset, model, accelerator.device):
            self.progress.say(line)
        if self.state is None and self.main:
            remember(self.folder, self.dataset)
        opened = SourceCache.of_settings(self.dataset, model.intake, settings.data)
        self.loading = LoadOptions(training.batch, opened=opened, failed=self.failed)
        if finds(settings):
            images = self.dataset, self.training_indices, self.validation_indices
            began, told = time.perf_counter(), (accelerator, self.progress.say, self.loading)
            self.found = find_or_load(settings, model, *images, self.folder / FOUND, fresh, *told)
            self.position.seconds += time.perf_counter() - began  # a state, if there is one, knows better
            model = with_evidence(model, self.found, settings, features)
            if isinstance(model, Evidence):
                self.total = 0  # it has learnt all it will
        if self.state is None:
            unchanged = Loader.of(model, self.dataset, settings.seed, loading=self.loading)
            measure_features(model.to(accelerator.device), unchanged, self.training_indices)
        weights = loss_weights(settings, self.dataset, self.training_indices)
        self.stepper = Stepper(training, model, accelerator, weights, self.failed)
        self.average = WeightAverage(model, training.averaging) if training.averaging else None
        trained = (model, self.stepper.optimizer, self.stepper.scaler, self.average)
        self.checkpoints = Checkpoints(self.folder, settings, self.fingerprint, accelerator, *trained)
        if settings.model.features.frozen:
            kept = KeptFeatures(round(1e9 * settings.data.memory_gigabytes))
            for one in {model, self.checkpoints.judged}:
                one.keep_features(kept)
        self.receipts = StepReceipts(model.patch)
        self.loader = Loader.of(model, self.dataset, settings.seed, settings.augment, self.loading)
        if self.state is not None:
            self.position = self.checkpoints.restore(self.state)
        logged = 0 if self.state is None else self.state.plain["logged"]
        self.log = MetricsLog(self.folder / "metrics.jsonl" if self.main else None, logged)
        shown = self.folder / "tensorboard" if training.tensorboard and self.main else None
        self.board = Board(shown, None if self.state is None else self.position)

    def finish(self) -> TrainResult:
        """Train what is left to train."""
        position, training = self.position, self.settings.training
        self.progress.begin(Plan(self.total, position.step, len(self.training_indices), training))
        self.clock = Clock(position, training.max_minutes)
        with self.interrupts:
            try:
                if self.state is None:
                    self._begin_with_found()
                    self.clock.tick()
                    position.begun = position.seconds
                    if self.clock.share() >= 1 and self.stage == "all" and self.total:
                        self.progress.say(f"note: finding took all of training.max_minutes {training.max_minutes:g}")
                    self._save()
                    self._watch(0)
                    self.clock.tick()
                while self.stage == "all" and not self._finished():
                    self._epoch()
            except FoveateError as fault:
                # Divergence spoils batch statistics in the forward pass: then the last good state is the one on disk.
                if all(bool(values.isfinite().all()) for values in self.stepper.model.state_dict().values()):
                    self._save()
                if type(fault) is ImageError and self.failed is None:
                    raise ImageError(f"{fault}; the run goes on with --resume and --on-error skip") from fault
                raise
            finally:
                self.progress.end()
                self.board.close()
        self.accelerator.wait_for_everyone()  # whoever returns finds the model there
        error = None if position.best is None else position.best.error
        model, took = self.folder / "model", (position.epoch - 1, position.step, position.seconds)
        return TrainResult(self.folder, model, error, self._verdict(), *took)

    def _verdict(self) -> AnyVerdict | None:
        """Whether the kept model has learnt anything, by the validation images."""
        if self.kept is None and self.position.best is not None:  # it was validated before the run was resumed
            model = load_model(self.folder, features=self.own, allow_code=self.settings.model.own_code)
            self.kept = self._validate(model.to(self.accelerator.device))
        return None if self.kept is None else verdict_of(self.kept, self.dataset.examples, self.known)

    def _begin_with_found(self) -> None:
        """The evidence is the run's first model: what comes later has to be better."""
        if self.found is not None:
            self.kept = result = self._validate(self.found)
            self.checkpoints.keep_best(self.position, result, self.found)
            if result is not None:
                self.progress.say(f"evidence alone · validation error {result.error:.3f}")

    def _epoch(self) -> None:
        position, training = self.position, self.settings.training
        order = epoch_order(self.training_indices, self.settings.seed, position.epoch)
        plan = shares(order, training.batch, self.accelerator.process_index, self.accelerator.num_processes)
        plan = plan[position.done :]
        if not self._over():
            with closing(self.loader.training(position.epoch, plan)) as batches:
                for share in plan:
                    if self._step(share, batches):
                        break
        self._close_epoch()

    def _step(self, share: Share, batches: Iterator[Batch]) -> bool:
        """Take one step; True if it was the last for now."""
        position, training = self.position, self.settings.training
        position.at = scheduled_step(position.step, self.total, position.share)
        rate = learning_rate(training, position.at, self.total, self.steps_per_epoch)
        now = anneal(self.stepper.model, self.settings, position.at, self.total)
        sums, arrived, over = self._gather(self.stepper.backward(batches, share, now))
        if not math.isfinite(sums["loss"]) or sums.pop("not_finite"):
            raise diverged(self.folder, position.step + 1, rate)
        self.stepper.update(rate)
        if self.average is not None:
            self.average.update_parameters(self.stepper.model)
        position.take(sums | self.receipts.sums(self.stepper.images, self.stepper.stages), self.clock.tick())
        record = step_record(position, sums, rate, now)
        if position.step % training.log_every == 0 or position.step == self.total:
            self.log.write(record)
            self.board.step(record)
        self.progress.step(record)
        if self.accelerator.num_processes == 1:  # nobody to agree with: not one step later than need be
            arrived, over = self.interrupts.signal, self.clock.share()
        position.share = over
        self._stop(arrived)
        return self._over()

    def _gather(self, local: Tensor) -> tuple[dict[str, float], int, float]:
        """Sums over all processes; a signal that reached any of them stops all, the first one's clock decides."""
        told = torch.tensor([float(self.interrupts.signal), self.clock.share()]).to(local)
        # the second, and last, time in a step that a device is waited for
        rows = self.accelerator.gather(torch.cat([local, told])[None]).tolist()
        sums = {name: sum(row[place] for row in rows) for place, name in enumerate(SUMS)}
        return sums, int(max(row[-2] for row in rows)), float(rows[0][-1])

    def _close_epoch(self) -> None:
        """Validate where due, keep the best model, write metrics and state."""
        position, training = self.position, self.settings.training
        complete = position.done == self.steps_per_epoch
        position.share = agreed(self.accelerator, self.clock.share)
        last, result, better = self._over(), None, False
        if last or position.epoch % training.validate_every == 0:
            # The strength of the prior is annealed, and no weight: it is the latest, not an average.
            self.checkpoints.judged.anneal(annealed(self.settings, position.at, self.total).get("prior"))
            result = self._validate(self.checkpoints.judged)
            better = self.checkpoints.keep_best(position, result)
            self.kept = result if better else self.kept
            if position.best is not None:
                position.stale = position.epoch - position.best.lowest
        if last or self._out_of_patience() or position.epoch % training.watch_every == 0:
            self._watch(position.epoch)
        position.closed = position.step
        self.clock.tick()
        rate = learning_rate(training, position.at, self.total, self.steps_per_epoch)
        record = epoch_record(position, result, rate=rate, better=better, complete=complete)
        self.known = record["training_error"]
        self.log.write(record)
        self.board.epoch(record)
        self.progress.epoch(record)
        if complete:
            position.epoch, position.done, position.sums = position.epoch + 1, 0, {}
        self._save()
        self.clock.tick()  # of the run, and not of its next step

    def _validate(self, model: Model) -> AnyEvaluation | None:
        if not self.validation_indices:
            return None
        what, options = (self.dataset, self.validation_indices), DrawOptions(seed=self.settings.seed)
        check = self._stop if self.accelerator.num_processes == 1 else None
        return evaluate_any(model, *what, options, loading=self.loading, check=check)

    def _watch(self, epoch: int) -> None:
        """Log the attention maps of a few validation images, in the first process; 0 is before training."""
        watched = self.validation_indices[: self.settings.training.watch]
        if watched:
            agreed(self.accelerator, partial(self._log_maps, watched, epoch))

    def _log_maps(self, watched: Sequence[int], epoch: int) -> None:
        arrays = watch_attention(self.checkpoints.judged, self.dataset, watched, self.settings.seed, self.loading)
        keep_watched(self.folder, epoch, arrays)
        self.board.maps(self.position.step, arrays)

    def _save(self) -> None:
        self.checkpoints.save(self.position, self.log.length)

    def _finished(self) -> bool:
        position = self.position
        position.share = agreed(self.accelerator, self.clock.share)
        closed = position.closed == position.step and (position.step > 0 or self.total == 0)
        return (self._over() and closed) or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        """Early stopping: too many epochs without a better validation."""
        return 0 < self.settings.training.patience <= self.position.stale

    def _over(self) -> bool:
        return self.position.step >= self.total or (self.position.share >= 1 and self.position.step > 0)

    def _stop(self, number: int | None = None) -> None:
        """End the run if a signal has arrived; the state is saved on the way out."""
        number = self.interrupts.signal if number is None else number
        if number:
            raise interruption(number, f"after step {self.position.step} of {self.total}", self.remedy)
