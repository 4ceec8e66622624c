"""Where several processes must act as one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from foveate.errors import FoveateError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["agreed", "open_accelerator"]

T = TypeVar("T")


def open_accelerator(precision: str = "no") -> "Accelerator":
    """Accelerate's view of this process: its device, its rank, and how gradients meet.

    Arguments:
        precision: "no", "bf16" or "fp16".
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Left to itself, accelerate takes several processes without a GPU for as many single ones.
    cpu = not torch.accelerator.is_available()
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # an earlier run of this process had another precision
    return Accelerator(mixed_precision=precision, cpu=cpu)


def agreed(accelerator: "Accelerator", decide: Callable[[], T]) -> T:
    """What the first process decides, in all of them; its error, too.

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
