"""Memory of a training step: the activations it keeps for its backward pass, and how far its process grows."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.models import Model, load_model
from foveate.models.receipts import Resident
from foveate.models.types import Batch
from foveate.pipeline.distributed import open_accelerator
from foveate.pipeline.loader import Loader, LoadOptions, shares
from foveate.training.build import build_for
from foveate.training.step import Stepper

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Mixed precision → the type that operations which stand it compute in."""


def activation_bytes(model: Model, batch: Batch, mixed_precision: str = "no") -> int:
    """Activations: bytes that a training step of `batch` keeps between its forward and its backward pass.

    Counts each storage once that autograd saved, and each that the forward pass made and somebody still holds when it
    is over: `torch.utils.checkpoint` keeps the inputs it computes again from where autograd does not know of them.
    Counts neither parameters nor buffers, which are there anyway. This is what limits the batch size; the peak of the
    process also holds what exists for a moment only.

    Arguments:
        model: the model; its mode is left as it was.
        batch: images of the training set, on the model's device.
        mixed_precision: of the run, "no", "bf16" or "fp16"; weights cast for the step count as kept.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> from foveate.models import build_model, make_batch
        >>> from foveate.config.settings import ModelSettings, ViewSettings
        >>> settings = ModelSettings(name="cnn", view=ViewSettings(scale=1.0))
        >>> model = build_model(settings, classes=("a", "b"), channels=1)
        >>> small, large = (ArraySource(np.zeros((side, 40, 1), np.uint8)) for side in (40, 80))
        >>> costs = [activation_bytes(model, make_batch([one], model.view, seeds=[0])) for one in (small, large)]
        >>> costs[1] > 1.5 * costs[0]
        True
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[StorageWeakRef, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(_storage(tensor), tensor)
        return tensor

    training = model.training
    model.train()
    made = _Made()
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), made:
            loss = _loss(model, batch, HALVES.get(mixed_precision))
        sizes = made.alive() | {storage: one.untyped_storage().nbytes() for storage, one in saved.items()}
        sizes.pop(_storage(loss), None)  # the loss itself is no activation
    finally:
        model.train(training)
    return sum(size for storage, size in sizes.items() if storage not in own)


def _storage(tensor: Tensor) -> StorageWeakRef:
    """Storage of a tensor as a key, the same for all its views; while the key lives, no other storage equals it."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _loss(model: Model, batch: Batch, half: torch.dtype | None) -> Tensor:
    with torch.autocast(batch.views.device.type, half, enabled=half is not None):
        logits = model(batch).logits.float()
    wanted = torch.zeros(len(batch), dtype=torch.long, device=logits.device)
    return nn.functional.cross_entropy(logits, wanted)


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that remembers, without holding them, the storages that operations make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        for tensor in _tensors(result):
            self._sizes[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return result

    def alive(self) -> dict[StorageWeakRef, int]:
        """Storage → bytes of those that somebody still holds."""
        return {storage: size for storage, size in self._sizes.items() if not storage.expired()}  # type: ignore[no-untyped-call]


def _tensors(result: Any) -> Iterator[Tensor]:
    """Tensors among what an operation gives."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for one in result:
            yield from _tensors(one)


def measured_model(folder: Path, settings: RunSettings, images: ImageDataset, indices: Sequence[int]) -> Model:
    """Model of a run; where only its predictions are left, a new one, which costs the same.

    Arguments:
        folder: of the run.
        settings: of the run.
        images: the images.
        indices: example numbers of training images.
    """
    if (folder / "model").is_dir():
        return load_model(folder, allow_code=settings.model.own_code)
    return build_for(settings, images, indices, open_accelerator(), pretrained=False)


@dataclass(frozen=True)
class _Job:
    """Measurement in a process of its own: what that process needs."""

    folder: str
    settings: RunSettings
    images: ImageDataset
    indices: tuple[int, ...]
    batch: int


def step_peak(
    folder: Path, settings: RunSettings, images: ImageDataset, indices: Sequence[int], batch: int
) -> int | None:
    """Peak memory of training steps: how far the resident memory of a fresh process grows, in bytes.

    The process takes the steps of two epochs on `indices`, `batch` images each. Its growth counts from when the model
    and its optimizer are there and no image is opened: decoded pixels, activations, gradients, the optimizer's moments,
    what exists for a moment only, libraries loaded at first use and memory that the allocator keeps for later are all
    in it; the weights are not. The resident memory is looked at every 2 ms: a shorter peak is missed. It is therefore
    more than `activation_bytes`, and differs a little from call to call.

    Arguments:
        folder: of a run of the method.
        settings: of the run.
        images: the images; must be picklable.
        indices: example numbers.
        batch: images per step.

    Returns:
        Bytes; None where no such process can be had.
    """
    try:
        job = pickle.dumps(_Job(str(Path(folder).resolve()), settings, images, tuple(indices), batch))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    code = "from foveate.compare.memory import measure_here; measure_here()"
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=False, env=surroundings)
    lines = done.stdout.split()
    return int(lines[-1]) if done.returncode == 0 and lines and lines[-1].isdigit() else None


def measure_here() -> None:
    """Read a job from standard input, and print the growth of this process in bytes."""
    job: _Job = pickle.loads(sys.stdin.buffer.read())
    model = measured_model(Path(job.folder), job.settings, job.images, job.indices)
    print(step_growth(model, job.settings, job.images, job.indices, job.batch))


def step_growth(model: Model, settings: RunSettings, images: ImageDataset, indices: Sequence[int], batch: int) -> int:
    """Growth of this process's memory (on CUDA: of its tensors) in the training steps of two epochs, in bytes.

    Arguments:
        model: the model, on the device to work on.
        settings: of its training.
        images: the images.
        indices: example numbers.
        batch: images per step.
    """
    stepper = Stepper(settings.training, model)
    alone = LoadOptions(ahead=0)  # the memory of a step, and not of those to come
    loader = Loader.of(model, images, settings.seed, settings.augment, alone)
    plan = shares(indices, batch)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _steps(stepper, loader, plan)
        return torch.cuda.max_memory_allocated() - before
    with Resident() as resident:
        _steps(stepper, loader, plan)
    return resident.growth


def _steps(stepper: Stepper, loader: Loader, plan: Sequence[Any]) -> None:
    for epoch in (1, 2):
        for share, images in zip(plan, loader.training(epoch, plan), strict=True):
            stepper(images, share)
