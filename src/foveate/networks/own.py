"""A feature network of the user's: any module, handed over or named by where it is made."""

import importlib
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from foveate.errors import ConfigError
from foveate.networks.bodies import Body
from foveate.networks.measuring import measure, one_line, smallest_input
from foveate.types import Size

__all__ = ["OwnNetwork", "import_network", "own_body"]


class OwnNetwork(nn.Module):
    """A module of the user's, and the mean over positions if it gives one vector per position.

    Patches are handed over in the plain memory layout, for a module may well call `Tensor.view`.

    Arguments:
        network: (M, C, h, w) → (M, D) or (M, D, rows, columns).

    Example:
        >>> import torch
        >>> OwnNetwork(nn.Conv2d(3, 8, 3))(torch.zeros(2, 3, 9, 7)).shape
        torch.Size([2, 8])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    # Not annotated as a Tensor: what somebody's module gives is for `measure` to judge.
    def forward(self, patches: Float[Tensor, "patch channel height width"]) -> Any:
        """Map (M, C, h, w) patches in the unit range to (M, D) features."""
        features = self.network(patches.contiguous())
        return features.mean((2, 3)) if isinstance(features, Tensor) and features.ndim == 4 else features


def own_body(network: nn.Module, channels: int, patch: Size | None, what: str = "") -> Body:
    """Measure a module of the user's.

    Arguments:
        network: (M, C, h, w) → (M, D) or (M, D, rows, columns); used as it is, not copied.
        channels: C.
        patch: (height, width) of a patch, in pixels; None for inputs of any size.
        what: the network's name, for messages; that of its class if empty.

    Returns:
        Layers (M, C, h, w) → (M, D).

    Raises:
        ConfigError: if the module takes or gives anything else.

    Example:
        >>> own_body(nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.ReLU()), channels=1, patch=(20, 30)).dimension
        5
    """
    what = what or f"{type(network).__name__} (yours)"
    layers = OwnNetwork(network)
    smallest = smallest_input(layers, channels, what) if patch is None else min(patch)
    return Body(layers, measure(layers, channels, patch or (smallest, smallest), what), smallest)


def import_network(name: str, channels: int) -> nn.Module:
    """Make the network that a function of the user's gives.

    Arguments:
        name: "package.module:function"; the function is called with the number of channels and gives an `nn.Module`.
        channels: channels of a patch.

    Returns:
        What the function gave.

    Raises:
        ConfigError: if the function cannot be had, fails or gives something else.

    Example:
        >>> import_network("torch.nn:InstanceNorm2d", channels=3).num_features
        3
    """
    where, _, function_name = name.partition(":")
    if not function_name.isidentifier() or not all(part.isidentifier() for part in where.split(".")):
        raise ConfigError(
            f"model.features.name {name!r} names no function of yours: write it as package.module:function"
        )
    try:
        module = importlib.import_module(where)
    except Exception as error:
        raise ConfigError(
            f"the module {where} of model.features.name {name} cannot be imported ({one_line(error)}): install it, or "
            "name the folder it lies in in PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"the module {where} ({getattr(module, '__file__', None)}) has no function {function_name}: "
            "write model.features.name as package.module:function"
        )
    try:
        network = function(channels)
    except Exception as error:
        raise ConfigError(
            f"{name}, called with {channels} channels, failed ({one_line(error)}): let it take the number of channels "
            "and give an nn.Module"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{name}, called with {channels} channels, gave {type(network).__name__}: let it give an nn.Module"
        )
    return network
