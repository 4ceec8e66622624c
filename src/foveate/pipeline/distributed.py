"""Distributed training: where several processes must act as one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from foveate.devices import best_device
from foveate.errors import ConfigError, FoveateError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


def open_accelerator(precision: str = "no") -> "Accelerator":
    """Accelerator of this process: its device, its rank, and how gradients meet.

    The device is an accelerator that has float64, or else the CPU.

    Arguments:
        precision: "no", "bf16" or "fp16".

    Raises:
        ConfigError: "fp16" without a CUDA device.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("fp16 needs a CUDA device and there is none: set training.mixed_precision to bf16 or no")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized

    # Left to itself, accelerate takes several processes without a GPU for as many single ones.
    if is_initialized() and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # an earlier run of this process had another precision; no public way
    return Accelerator(mixed_precision=precision, cpu=best_device().type == "cpu")


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
