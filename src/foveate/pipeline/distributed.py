"""Distributed work: where several processes must act as one, and end as one."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed, nn

from foveate.devices import best_device
from foveate.errors import ConfigError, FoveateError
from foveate.networks.normalise import BATCH_NORMS

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
Trained = TypeVar("Trained", bound=nn.Module)


LONGEST_WAIT = timedelta(days=30)
"""How long a process waits for others that work on their own: not even a slide that takes hours is a fault."""


def open_accelerator() -> "Accelerator":
    """Accelerator of this process: its device and its rank; of precision it knows nothing (`training.step` does).

    The device is an accelerator that has float64, or else the CPU.
    """
    from accelerate import Accelerator

    # Left to itself, accelerate takes several processes without a GPU for as many single ones.
    return Accelerator(mixed_precision="no", cpu=best_device().type == "cpu")


def check_precision(precision: str, device: torch.device) -> None:
    """Precision check: refuse half precision of a narrow range where there is no GPU for it.

    Raises:
        ConfigError: "fp16" on anything but a CUDA device.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("fp16 needs a CUDA device and there is none: set training.mixed_precision to bf16 or no")


def synchronised_statistics(model: Trained, accelerator: "Accelerator") -> Trained:
    """Batch normalisation over all processes: the model, whose layers of it then see whole batches.

    Arguments:
        model: what is trained.
        accelerator: of this process.

    Raises:
        ConfigError: the model trains batch statistics in several processes, and not on CUDA devices.
    """
    layers = [one for one in model.modules() if isinstance(one, BATCH_NORMS)]
    trained = any(one.training and any(weight.requires_grad for weight in one.parameters()) for one in layers)
    if accelerator.num_processes == 1 or not trained:
        return model
    if accelerator.device.type != "cuda":
        raise ConfigError(
            f"a network with {type(layers[0]).__name__} trained by {accelerator.num_processes} processes needs CUDA "
            "devices, which synchronise its statistics: train it with one process, set model.features.frozen, or take "
            "a network without batch statistics"
        )
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(type(one).__module__.startswith("timm.") for one in layers):
        # Some of timm's layers are normalisation and activation in one; torch's conversion would lose the latter.
        from timm.layers import convert_sync_batchnorm as convert  # type: ignore[attr-defined, unused-ignore]
    convert(model)
    return model


def agreed(accelerator: "Accelerator", decide: Callable[[], T]) -> T:
    """Broadcast: what the first process decides, in all of them; its error, too.

    Arguments:
        accelerator: of this process.
        decide: called in the first process only; its result must be picklable.

    Raises:
        FoveateError: whatever `decide` raised, in every process.
    """
    if accelerator.num_processes == 1:
        return decide()
    from accelerate.utils import broadcast_object_list

    answer: list[T | FoveateError | None] = [None]
    if accelerator.is_main_process:
        try:
            answer = [decide()]
        except FoveateError as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], FoveateError):
        raise answer[0]
    return answer[0]  # type: ignore[return-value]


def together(accelerator: "Accelerator", work: Callable[[], T]) -> T:
    """Joint failure: what `work` gives here, or in all processes the error of where it failed, so that none waits.

    Arguments:
        accelerator: of this process.
        work: this process' part; must not wait for the other processes.

    Raises:
        FoveateError: what `work` raised, in the first of the processes where it did.
    """
    if accelerator.num_processes == 1:
        return work()
    from accelerate.utils import gather_object

    answer: list[T] = []
    errors: list[FoveateError] = []
    try:
        answer = [work()]
    except FoveateError as error:
        errors = [error]
    if bool(accelerator.reduce(torch.tensor(float(len(errors)), device=accelerator.device))):
        raise gather_object(errors)[0]
    return answer[0]


@contextmanager
def ending_together() -> Iterator[None]:
    """Failure detection among processes that work on their own: within, this one ends (code 2) when another one does.

    A launcher sees to that on one machine, and a step of training, in which all wait for each other, on any number.
    Between them lie machines whose processes meet only when all work is done. So each waits, in a thread, for word of
    the next one (a ring, over TCP by gloo), which comes when the block is left; a connection that breaks is an end
    before that. Every process must enter; leaving waits for the next one. Alone, nothing happens.
    """
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if world == 1:
        yield
        return
    rank, leaving = distributed.get_rank(), threading.Event()
    group: Any = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    following = (rank + 1) % world

    def watch() -> None:
        try:
            distributed.recv(torch.zeros(1), src=following, group=group)
        except RuntimeError:
            if leaving.is_set():
                return
            lost = f"process {following} of {world} ended before the work was done, and so does process {rank}"
            print(f"foveate: {lost}: see what was said before, and start them again", file=sys.stderr, flush=True)
            os._exit(2)  # the other threads are at work, or wait for the one that is no more

    watcher = threading.Thread(target=watch, name="foveate-watch", daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        leaving.set()  # with an error of its own to tell
        raise
    distributed.send(torch.zeros(1), dst=(rank - 1) % world, group=group)
    watcher.join()
