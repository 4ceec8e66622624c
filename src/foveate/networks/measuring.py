"""What a network made elsewhere takes and gives, found by running it on zeros."""

import torch
from torch import Tensor, nn

from foveate.errors import ConfigError, FoveateError
from foveate.types import Size

__all__ = ["measure", "one_line", "smallest_input"]

LONGEST_SEARCHED = 256
"""Side of the largest zeros tried to find the smallest input: what needs more is made for one size."""


class _WrongSizeError(ConfigError):
    """A network does not take inputs of a size."""


def measure(layers: nn.Module, channels: int, size: Size, what: str) -> int:
    """Run layers on zeros in evaluation mode, as if nothing had happened.

    Neither the random state nor any buffer nor the mode of any layer is changed.

    Arguments:
        layers: from (M, C, h, w) to (M, D).
        channels: C.
        size: (h, w), in pixels.
        what: the network's name, for messages.

    Returns:
        D, features per patch.

    Raises:
        ConfigError: if the layers fail or do not give one vector per patch.

    Example:
        >>> measure(nn.Sequential(nn.Flatten(), nn.Linear(3 * 20, 7)), 3, (4, 5), "mine")
        7
    """
    at = next((parameter.device for parameter in layers.parameters()), None)
    modes = [(layer, layer.training) for layer in layers.modules()]
    layers.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            # One patch alone as well: a network that squeezes its output loses it.
            shapes = [_shape(layers(torch.zeros(count, channels, *size, device=at)), what) for count in (1, 2)]
    except FoveateError:
        raise
    except Exception as error:
        raise _WrongSizeError(
            f"the feature network {what} cannot take patches of {size[0]}×{size[1]} pixels and {channels} channels "
            f"({one_line(error)}): set model.patch to a size it takes or choose another model.features.name"
        ) from error
    finally:
        for layer, mode in modes:
            layer.training = mode
    if shapes[0][1:] != shapes[1][1:] or [shape[0] for shape in shapes] != [1, 2] or len(shapes[0]) != 2:
        raise ConfigError(
            f"the feature network {what} gives {shapes[0]} for one patch and {shapes[1]} for two, not one vector each: "
            "let it map (M, C, h, w) to (M, D) or (M, D, rows, columns)"
        )
    return shapes[0][1]


def _shape(features: object, what: str) -> tuple[int, ...]:
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = f"a tensor of {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"the feature network {what} gives {kind}, not a tensor of floating-point numbers: "
            "let it map (M, C, h, w) to (M, D) or (M, D, rows, columns)"
        )
    return tuple(features.shape)


def smallest_input(layers: nn.Module, channels: int, what: str) -> int:
    """Find the least side of an input, for layers that take inputs of any size from there on.

    Arguments:
        layers: from (M, C, h, w) to (M, D).
        channels: C.
        what: the network's name, for messages.

    Returns:
        The side, in pixels.

    Raises:
        ConfigError: if the layers take some sizes only.

    Example:
        >>> pool = nn.Sequential(nn.Conv2d(1, 8, 5), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        >>> smallest_input(pool, 1, "mine")
        5
    """
    fails, works = 0, 1
    while not _takes(layers, channels, (works, works), what):
        fails, works = works, 2 * works
        if works > LONGEST_SEARCHED:
            break
    # A network that takes patches of one size takes some square, but not one a few pixels wider.
    if works > LONGEST_SEARCHED or not _takes(layers, channels, (works + 1, works + 3), what):
        raise ConfigError(
            f"the feature network {what} takes patches of one size, not whole views: choose another model.features.name"
        )
    while works - fails > 1:
        middle = (works + fails) // 2
        if _takes(layers, channels, (middle, middle), what):
            works = middle
        else:
            fails = middle
    return works


def _takes(layers: nn.Module, channels: int, size: Size, what: str) -> bool:
    try:
        measure(layers, channels, size, what)
    except _WrongSizeError:
        return False
    return True


def one_line(error: BaseException) -> str:
    """Say an error of somebody else's in one line of reasonable length, without a full stop.

    Example:
        >>> one_line(RuntimeError("No  kernel. Try another."))
        'RuntimeError: No kernel. Try another'
    """
    text = " ".join(str(error).split()).rstrip(".")
    if len(text) > 240:
        text = text[:239] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
