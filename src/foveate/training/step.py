"""Optimisation step on one batch, and its metrics: what the loop repeats, and what a comparison measures."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from foveate.config.training import TrainingSettings
from foveate.devices import keeping_large_blocks
from foveate.images import Source, original
from foveate.models.receipts import covering, peak_memory
from foveate.models.types import Batch, Output
from foveate.pipeline.distributed import check_precision, open_accelerator, synchronised_statistics, together
from foveate.pipeline.loader import Failed, Share
from foveate.seeds import derive_seed
from foveate.training.objective import TermWeights, image_losses
from foveate.training.optimisation import Annealed, build_optimizer, optimizer_groups, set_rates
from foveate.training.skipping import Sparing
from foveate.types import Size

if TYPE_CHECKING:
    from accelerate import Accelerator

    from foveate.models import Model

SUMS = ("loss", "cross_entropy", "errors", "entropy", "images", "patches", "kept", "not_finite")
"""What is added up over images, in the order of `batch_sums`; the last one over steps whose gradient is not finite."""

PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What the networks compute in, in a step: `training.mixed_precision`."""

STAGE = "seconds "
"""Before the name of a stage, among the sums of an epoch."""


def batch_sums(
    output: Output, errors: Tensor, losses: Tensor, plain: Tensor, entropy: Tensor, counted: Tensor
) -> Tensor:
    """Metric sums over the images of a batch that count.

    Arguments:
        output: of the model.
        errors: (B,) error per image.
        losses: (B,) loss per image, which is minimised.
        plain: (B,) cross-entropy per image, or squared error of a number, without class weights and without the entropy
            term.
        entropy: (B,) entropy per image.
        counted: (B,) False for an image that only lends its presence.

    Returns:
        (7,) the sums named in `SUMS`, but the last; detached.
    """
    patches = output.patches_read
    kept = torch.zeros_like(patches) if output.kept is None else output.kept.to(patches)
    each = [losses, plain, errors, entropy, torch.ones_like(losses), patches - kept, kept]
    return (torch.stack([one.to(losses) for one in each]) * counted).sum(1).detach()


class StepReceipts:
    """Receipts of steps: what each of them read, as sums that an epoch adds up; of this process alone.

    Arguments:
        patch: (height, width) of the model's patches, or None if it reads none.
    """

    def __init__(self, patch: Size | None) -> None:
        self._patch = patch
        self._seen: WeakKeyDictionary[Source, int] = WeakKeyDictionary()

    def sums(self, images: Batch, stages: dict[str, float]) -> dict[str, float]:
        """Sums of a step.

        Arguments:
            images: of the step.
            stages: seconds by stage, of the step.

        Returns:
            patches_of (patches that would cover the images), bytes_read and seconds by stage.
        """
        sums = {"patches_of": 0.0, "bytes_read": 0.0}
        for source in images.sources:
            if self._patch is not None:
                sums["patches_of"] += covering(source.size, self._patch)
            kept = original(source)  # one that stays open from epoch to epoch goes on counting
            sums["bytes_read"] += kept.bytes_read - self._seen.get(kept, 0)
            self._seen[kept] = kept.bytes_read
        return sums | {f"{STAGE}{stage}": seconds for stage, seconds in stages.items()}


def receipt_record(sums: dict[str, float]) -> dict[str, object]:
    """Receipt of an epoch, from its sums.

    Arguments:
        sums: patches, seconds, and what `StepReceipts` added.

    Returns:
        patches (read), patches_kept (not read again, since their features are kept), patches_of, bytes_read,
        peak_memory (bytes, of the process so far; None where not known) and seconds by stage; "learn" is the backward
        pass and the update: what no other stage accounts for.

    Example:
        >>> sums = {"patches": 20.0, "patches_of": 900.0, "bytes_read": 5e6, "seconds": 3.0, "seconds read": 1.0}
        >>> record = receipt_record(sums)
        >>> record["patches"], record["patches_of"], record["seconds"]
        (20, 900, {'read': 1.0, 'learn': 2.0})
    """
    stages = {name.removeprefix(STAGE): round(spent, 3) for name, spent in sums.items() if name.startswith(STAGE)}
    rest = max(0.0, sums["seconds"] - sum(stages.values()))
    return {
        "patches": round(sums["patches"]),
        "patches_kept": round(sums.get("kept", 0)),
        "patches_of": round(sums.get("patches_of", 0)),
        "bytes_read": round(sums.get("bytes_read", 0)),
        "peak_memory": peak_memory(),
        "seconds": stages | {"learn": round(rest, 3)},
    }


@contextlib.contextmanager
def seeded(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Seeding of dropout and stochastic depth: torch's own generators, set by the seeds of a batch, and put back after.

    Layers of PyTorch draw from the global generators, which nothing else in foveate uses. The seeds of a batch's images
    depend on the run's seed, the epoch and the images alone, so the same run, or a resumed one, drops the same values.

    Arguments:
        seeds: of the images of the batch.
        device: where the layers compute.

    Example:
        >>> with seeded([1, 2], torch.device("cpu")):
        ...     once = torch.rand(3)
        >>> with seeded([1, 2], torch.device("cpu")):
        ...     again = torch.rand(3)
        >>> torch.equal(once, again)
        True
    """
    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(others, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(derive_seed("layers", *seeds))
        yield


class Stepper:
    """Optimisation steps: forward, loss, backward, clipping, update.

    Called with a batch it takes a whole step, as a run of a single process does; the loop does its two halves,
    `backward` and `update`, and looks at the sums of all processes in between.

    Arguments:
        settings: loss, optimizer and clipping.
        model: what is trained; put on the accelerator's device.
        accelerator: of this process; opened if None.
        weights: (classes,) class weights, or None; see `foveate.models.losses.cross_entropies`.
        failed: told the number of an image that cannot be read, and why: the step is that of the others, and their
            losses are divided by the size of the batch as it was to be. None raises.

    Attributes:
        model: as given, its batch statistics synchronised where there are several processes.
        accelerator: of this process.
        optimizer: of the model's parameters.
        scaler: of the loss, in fp16.
        images: of the last step.
        stages: its seconds by stage: "view" is what was waited for them, then those of the forward pass.

    Raises:
        ConfigError: fp16 is asked for without a CUDA device, or batch statistics cannot be synchronised.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> from foveate.models import build_model, make_batch
        >>> from foveate.config.settings import ModelSettings
        >>> model = build_model(ModelSettings(patch=(24, 30), patches=4), ("cat", "dog"), channels=1)
        >>> stepper = Stepper(TrainingSettings(), model)
        >>> image = ArraySource(np.zeros((60, 80), np.uint8))
        >>> sums = stepper(make_batch([image, image], model.view, seeds=[0, 1], labels=[0, 1]))
        >>> sums["images"], sums["patches"], sums["errors"]
        (2.0, 8.0, 1.0)
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: "Model",
        accelerator: "Accelerator | None" = None,
        weights: Tensor | None = None,
        failed: Failed | None = None,
    ) -> None:
        self.settings, self.failed = settings, failed
        self.accelerator = open_accelerator() if accelerator is None else accelerator
        self.device = self.accelerator.device
        check_precision(settings.mixed_precision, self.device)
        self.model = synchronised_statistics(model, self.accelerator)
        model.parts = settings.parts
        sparing = None if failed is None else Sparing(model, lambda batch: seeded(batch.seeds, self.device))
        self._wrapped = self.accelerator.prepare_model(sparing or model)
        self.optimizer = build_optimizer(optimizer_groups(model, model.parameter_groups()), settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.mixed_precision == "fp16")
        self._weights = None if weights is None else weights.to(self.device)
        self.images: Batch
        self.stages: dict[str, float] = {}

    def __call__(self, images: Batch, share: Share | None = None, rate: float | None = None) -> dict[str, float]:
        """Step: take a whole one.

        Arguments:
            images: labelled; on any device.
            share: which of the images count, and of how many; all of them if None.
            rate: learning rate; the settings' peak if None.

        Returns:
            What `foveate.training.step.SUMS` names, summed over this process' images that count.
        """
        sums = dict(zip(SUMS, self.backward(images, share).tolist(), strict=True))
        self.update(self.settings.learning_rate if rate is None else rate)
        return sums

    @keeping_large_blocks()
    def backward(
        self, images: Batch | Iterator[Batch], share: Share | None = None, now: Annealed | None = None
    ) -> Tensor:
        """Backward pass, the first half: gradients of the batch's mean loss, clipped.

        The sum over this process' images is divided by the size of the global batch, so that processes with unequal
        shares together follow the gradient of a single process. Data parallelism averages over processes: hence
        `world`. The networks compute in `settings.mixed_precision` here and nowhere else.

        Arguments:
            images: labelled, on any device; or what has them next, whose failure is every process' failure.
            share: which of the images count, and of how many; all of them if None.
            now: weights of the terms of the attention, where these are annealed; the settings' if None.

        Returns:
            (8,) the sums that `foveate.training.step.SUMS` names, over this process' images that count; the last one is
            not 0 if a gradient is not finite.

        Raises:
            ImageError: an image cannot be read; raised in every process.
        """
        accelerator, settings = self.accelerator, self.settings
        self.model.train()
        output = together(accelerator, partial(self._forward, images, share))
        images = self.images
        share = Share(tuple(range(len(images))), len(images), len(images)) if share is None else share
        places = torch.tensor(images.places or range(len(images)))
        labels = images.labels
        assert labels is not None
        terms = TermWeights(*((now or {}).get(name, getattr(settings, name)) for name in TermWeights._fields))
        kind = self.model.kind
        losses, entropy = image_losses(output, labels, terms, self._weights, kind.losses)
        counted = ((places >= 0) & (places < share.counted)).to(losses.device)
        loss = (losses * counted).sum() * accelerator.num_processes / share.whole
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm or math.inf)
        with torch.no_grad():
            plain, errors = kind.losses(output.logits.float(), labels), kind.errors(output.logits, labels)
            # in fp16 an overflow is no fault, but skipped by the scaler
            wild = torch.zeros_like(norm) if self.scaler.is_enabled() else (~norm.isfinite()).to(norm)
        sums = batch_sums(output, errors, losses, plain, entropy, counted)
        return torch.cat([sums, wild.to(sums)[None]])

    def _forward(self, images: Batch | Iterator[Batch], share: Share | None) -> Output:
        start = time.perf_counter()
        given = images if isinstance(images, Batch) else next(images)
        waited = time.perf_counter() - start
        self.images = given.to(self.device, non_blocking=True)
        precision = PRECISIONS[self.settings.mixed_precision]
        lower = torch.autocast(self.device.type, precision, enabled=precision != torch.float32)
        output: Output
        with seeded(given.seeds, self.device), lower:
            if self.failed is None:
                output = self._wrapped(self.images)
            else:
                output, self.images, failures = self._wrapped(self.images)
                for place, error in failures:
                    self.failed(place if share is None else share.indices[place], error)
        self.stages = {"view": waited, **output.seconds}
        return output

    def update(self, rate: float) -> None:
        """Optimizer step, the second half: move the weights, and forget the gradients.

        Arguments:
            rate: learning rate; a group with a peak of its own takes its share of it.
        """
        set_rates(self.optimizer, self.settings, rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
