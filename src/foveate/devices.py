"""Devices: the one rule for where to compute, on a GPU or another accelerator with float64, else on the CPU."""

from typing import TYPE_CHECKING

from foveate.errors import ConfigError

if TYPE_CHECKING:
    import torch

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Kinds of accelerator without float64, in which draws and their weights are computed: never chosen, and refused."""


def best_device() -> "torch.device":
    """The accelerator of this machine, if it has one with float64; the CPU if not."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if device is None or device.type in WITHOUT_FLOAT64 else device


def choose_device(name: str) -> "torch.device":
    """The device a user asked for.

    Arguments:
        name: "auto" (an accelerator, or the CPU; see `best_device`), "cpu", "cuda", "cuda:1" …

    Returns:
        The device.

    Raises:
        ConfigError: if this machine, or this build of torch, does not have it, or it has no float64.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    import torch

    if name == "auto":
        return best_device()
    try:
        device = torch.device(name)
        if device.type in WITHOUT_FLOAT64:
            raise ConfigError(
                f"device {name!r} has no float64, in which foveate draws and weighs patches: use auto or cpu"
            )
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}): use auto or cpu") from error
    return device
