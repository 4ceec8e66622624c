"""The training loop: small enough to read, the same for every model."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveate.datasets import open_dataset
from foveate.errors import DataError, FoveateError, RunError
from foveate.models import build_model, save_model
from foveate.seeds import derive_seed
from foveate.serial import to_plain
from foveate.training.averaging import WeightAverage
from foveate.training.config import RunSettings
from foveate.training.evaluation import Evaluation, evaluate, watch_attention
from foveate.training.interrupts import Interrupts, interruption
from foveate.training.journal import Journal
from foveate.training.loader import Loader, Share, epoch_order, fingerprint, shares, split_indices, typical_image
from foveate.training.objective import build_optimizer, class_weights, image_losses
from foveate.training.processes import agreed, open_accelerator, together
from foveate.training.progress import Progress, SilentProgress, choose_progress
from foveate.training.records import SUMS, batch_sums, epoch_record, step_record
from foveate.training.replace import replace_file
from foveate.training.run_folder import prepare_folder
from foveate.training.schedule import learning_rate, total_steps
from foveate.training.state import Best, Position, State, pack_tensors, save_state, unpack_tensors
from foveate.types import Batch, ImageDataset

if TYPE_CHECKING:
    from accelerate import Accelerator

    from foveate.models import Model

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What came of a run.

    Attributes:
        folder: of the run.
        model_folder: of the best model by validation.
        validation_error: of that model; None without validation images.
        epochs: epochs finished.
        steps: steps taken.
        seconds: of training and validation, over all resumptions.
    """

    folder: Path
    model_folder: Path
    validation_error: float | None
    epochs: int
    steps: int
    seconds: float


def train(
    settings: RunSettings,
    out: Path | str,
    *,
    resume: bool = False,
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
    remedy: str | None = None,
) -> TrainResult:
    """Train a model and keep the best by validation.

    Arguments:
        settings: what determines the run.
        out: folder of the run; must be empty or absent unless resumed.
        resume: continue from the state in `out`; starts from the beginning where there is none.
        dataset: the images; opened from `settings.data` if None.
        progress: who is told; a bar or lines on standard output if None.
        remedy: how to go on after an interruption, said in its message; by `foveate train --resume --out` if None.

    Returns:
        The run's folder and its best validation error.

    Raises:
        ConfigError, DataError, ImageError, RunError: the input is at fault; a state, once there, is saved.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    accelerator = open_accelerator(settings.training.mixed_precision)
    with accelerator.main_process_first():
        images = open_dataset(settings.data, settings.seed) if dataset is None else dataset
    run = _Run(settings, Path(out), images, accelerator, progress, remedy)
    run.start(resume)
    return run.finish()


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
    ) -> None:
        self.settings, self.folder, self.dataset, self.accelerator = settings, folder, dataset, accelerator
        self.remedy = remedy or f"to continue: foveate train --resume --out {folder}"
        self.training_indices = split_indices(dataset, "train")
        self.validation_indices = split_indices(dataset, "validation")
        if not self.training_indices:
            raise DataError(
                "there is no training image: check the manifest's split column, or data.validation and data.test"
            )
        self.fingerprint = fingerprint(dataset, self.training_indices + self.validation_indices)
        self.main = accelerator.is_main_process
        self.progress = (progress or choose_progress()) if self.main else SilentProgress()
        self.steps_per_epoch = math.ceil(len(self.training_indices) / settings.training.batch)
        self.total = total_steps(settings.training, self.steps_per_epoch)
        self.position = Position()
        self.interrupts = Interrupts(echoes=accelerator.num_processes > 1)

    def start(self, resume: bool) -> None:
        """Build everything, and put it where the state says."""
        settings, training = self.settings, self.settings.training
        channels, size = typical_image(self.dataset, self.training_indices)
        seed = derive_seed(settings.seed, "model")
        self.model: Model = build_model(settings.model, self.dataset.classes, channels, seed=seed, image_size=size)
        optimizer = build_optimizer(self.model.parameters(), training)
        processes = self.accelerator.num_processes
        prepare = partial(prepare_folder, self.folder, settings, resume, self.fingerprint, processes)
        self.state = agreed(self.accelerator, prepare)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        self.average = WeightAverage(self.model, training.averaging)
        self.loader = Loader(
            self.dataset, self.model.view, settings.seed, self.model.check_channels, settings.augment, training.workers
        )
        labels = [self.dataset.examples[index].label for index in self.training_indices]
        weighed = training.class_weights == "balanced"
        weights = class_weights(labels, len(self.dataset.classes)) if weighed else None
        self.class_weights = None if weights is None else weights.to(self.accelerator.device)
        if self.state is not None:
            unpack_tensors(self.state, self.model, self.optimizer, self.average)
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(self.state.plain["scaler"])
            self.position = Position.from_plain(self.state.plain["position"])
        kept = 0 if self.state is None else self.state.plain["journal"]
        self.journal = Journal(self.folder / "metrics.jsonl" if self.main else None, kept)

    def finish(self) -> TrainResult:
        """Train what is left to train."""
        self.progress.begin(self.total, self.position.step)
        self.clock = time.perf_counter()
        with self.interrupts:
            try:
                if self.state is None:
                    self._save()
                    self._watch(0)
                    self._tick()
                while not self._finished():
                    self._epoch()
            except FoveateError:
                self._save()
                raise
            finally:
                self.progress.end()
        self.accelerator.wait_for_everyone()  # whoever returns finds the model there
        best, position = self.position.best, self.position
        error = None if best is None else best.error
        return TrainResult(
            self.folder, self.folder / "model", error, position.epoch - 1, position.step, position.seconds
        )

    def _epoch(self) -> None:
        position, training = self.position, self.settings.training
        order = epoch_order(self.training_indices, self.settings.seed, position.epoch)
        plan = shares(order, training.batch, self.accelerator.process_index, self.accelerator.num_processes)
        plan = plan[position.done :]
        if not self._over():
            with closing(self.loader.training(position.epoch, plan)) as batches:
                for share in plan:
                    if self._step(share, together(self.accelerator, partial(next, batches))):
                        break
        self._close_epoch()

    def _step(self, share: Share, images: Batch) -> bool:
        """Take one step; True if it was the last for now.

        The sum over this process' images is divided by the size of the global batch, so that processes with unequal
        shares together follow the gradient of a single process. Data parallelism averages over processes: hence
        `world`.
        """
        position, training, accelerator = self.position, self.settings.training, self.accelerator
        world = accelerator.num_processes
        rate = learning_rate(training, position.step, self.total, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        images = images.to(accelerator.device)
        assert images.labels is not None
        output = together(accelerator, partial(self.wrapped, images))
        losses, entropy = image_losses(output, images.labels, training.entropy, self.class_weights)
        counted = torch.arange(len(images), device=losses.device) < share.counted
        accelerator.backward((losses * counted).sum() * world / share.whole)
        norm = accelerator.clip_grad_norm_(self.model.parameters(), training.clip_norm or math.inf)
        sums, arrived, late = self._gather(batch_sums(output, images.labels, losses, entropy, counted))
        if not math.isfinite(sums["loss"]) or (accelerator.scaler is None and not bool(torch.isfinite(norm))):
            raise self._diverged(rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(position.step)
        position.take(sums, self._tick())
        record = step_record(position, sums, rate)
        if position.step % training.log_every == 0 or position.step == self.total:
            self.journal.write(record)
        self.progress.step(record)
        if world == 1:  # nobody to agree with: not one step later than need be
            arrived, late = self.interrupts.signal, self._late()
        self._stop(arrived)
        return late or self._over()

    def _gather(self, local: Tensor) -> tuple[dict[str, float], int, bool]:
        """Sums over all processes; a signal that reached any of them stops all, the first one's clock decides."""
        told = torch.tensor(
            [float(self.interrupts.signal), float(self._late())], device=local.device, dtype=local.dtype
        )
        every = self.accelerator.gather(torch.cat([local, told])[None])
        sums = dict(zip(SUMS, every[:, : len(SUMS)].sum(0).tolist(), strict=True))
        return sums, int(every[:, -2].max()), bool(every[0, -1])

    def _close_epoch(self) -> None:
        """Validate where due, keep the best model, write metrics and state."""
        position, training = self.position, self.settings.training
        complete = position.done == self.steps_per_epoch
        last = self._over() or agreed(self.accelerator, self._late)
        result, better = None, False
        if last or position.epoch % training.validate_every == 0:
            with self.average.applied():
                result = self._validate()
                better = self._keep(result)
                self._watch(position.epoch)
            if position.best is not None:
                position.stale = position.epoch - position.best.epoch
        position.closed = position.step
        self._tick()
        rate = self.optimizer.param_groups[0]["lr"]
        record = epoch_record(position, result, rate=rate, better=better, complete=complete)
        self.journal.write(record)
        self.progress.epoch(record)
        if complete:
            position.epoch, position.done, position.sums = position.epoch + 1, 0, {}
        self._save()
        self._tick()  # of the run, and not of its next step

    def _validate(self) -> Evaluation | None:
        if not self.validation_indices:
            return None
        training = self.settings.training
        alone = self.accelerator.num_processes == 1
        return evaluate(
            self.model,
            self.dataset,
            self.validation_indices,
            seed=self.settings.seed,
            batch=training.batch,
            workers=training.workers,
            check=self._stop if alone else None,
        )

    def _keep(self, result: Evaluation | None) -> bool:
        """Save the model if it is the best so far, or the latest where nothing tells."""
        position = self.position
        card: dict[str, Any] = {"epoch": position.epoch, "step": position.step, "seed": self.settings.seed}
        if result is not None:
            best = position.best
            if best is not None and (best.error, best.loss) <= (result.error, result.loss):
                return False
            card |= {"metrics": {"validation error": result.error, "validation images": result.n}}
        if self.main:
            save_model(self.model, self.folder / "model", card)
        if result is not None:
            position.best = Best(result.error, result.loss, position.epoch, position.step)
        return True

    def _watch(self, epoch: int) -> None:
        """Keep the attention maps of a few validation images."""
        indices = self.validation_indices[: self.settings.training.watch]
        if indices:
            agreed(self.accelerator, partial(self._keep_maps, indices, epoch))

    def _keep_maps(self, indices: Sequence[int], epoch: int) -> None:
        content = BytesIO()
        maps: dict[str, Any] = watch_attention(self.model, self.dataset, indices, self.settings.seed)
        np.savez_compressed(content, **maps)
        replace_file(self.folder / "attention" / f"epoch-{epoch:03d}.npz", content.getvalue())

    def _save(self) -> None:
        if not self.main:
            return
        scaler = self.accelerator.scaler
        tensors, numbers = pack_tensors(self.model, self.optimizer, self.average)
        plain = {
            "position": self.position.plain(),
            "optimizer": numbers,
            "scaler": None if scaler is None else scaler.state_dict(),
            "journal": self.journal.length,
            "settings": to_plain(self.settings),
            "fingerprint": self.fingerprint,
        }
        save_state(self.folder / "state", State(tensors, plain))

    def _finished(self) -> bool:
        patience = self.settings.training.patience
        position = self.position
        over = self._over() or agreed(self.accelerator, self._late)
        return (over and position.closed == position.step > 0) or bool(patience and position.stale >= patience)

    def _over(self) -> bool:
        return self.position.step >= self.total

    def _late(self) -> bool:
        minutes = self.settings.training.max_minutes
        return minutes is not None and self.position.seconds >= 60 * minutes

    def _tick(self) -> float:
        """Seconds since the last call, added to the run's."""
        now = time.perf_counter()
        elapsed, self.clock = now - self.clock, now
        self.position.seconds += elapsed
        return elapsed

    def _stop(self, number: int | None = None) -> None:
        """End the run if a signal has arrived; the state is saved on the way out."""
        number = self.interrupts.signal if number is None else number
        if number:
            raise interruption(number, f"after step {self.position.step} of {self.total}", self.remedy)

    def _diverged(self, rate: float) -> RunError:
        where = f"step {self.position.step + 1} (learning rate {rate:.3g})"
        return RunError(
            f"loss or gradient is not finite at {where}: train anew with a lower training.learning_rate or "
            f"training.clip_norm; {self.folder} keeps the state before that step"
        )
