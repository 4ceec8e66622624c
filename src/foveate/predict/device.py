"""The device a user asked for."""

import torch

from foveate.errors import ConfigError
from foveate.training.processes import WITHOUT_FLOAT64

__all__ = ["choose_device"]


def choose_device(name: str) -> torch.device:
    """The device a user asked for.

    Arguments:
        name: "auto" (the first CUDA GPU, or the CPU), "cpu", "cuda", "cuda:1" …

    Returns:
        The device.

    Raises:
        ConfigError: if this machine, or this build of torch, does not have it, or it has no float64.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
