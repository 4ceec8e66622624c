"""Custom networks, a user's own, of attention and features: found by name, and measured by running them on zeros."""

from bisect import bisect_left
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.errors import ConfigError, FoveateError, one_line
from foveate.hooks import find
from foveate.networks.cnn import Body
from foveate.types import Size

LONGEST_SEARCHED = 256
"""Side of the largest zeros tried to find the smallest input: what needs more is made for one size."""


class _WrongSizeError(ConfigError):
    """Error: a network does not take inputs of a size."""


class OwnNetwork(nn.Module):
    """Custom network: a module of the user's, and the mean over positions if it gives one vector per position.

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
    """Body of a custom network, measured.

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


def import_network(
    name: str, channels: int, kind: Literal["attention", "features"] = "features", key: str = "model.features.name"
) -> nn.Module:
    """Custom network that a function of the user's gives.

    Arguments:
        name: of a function that is registered, or "package.module:function"; it is called with the number of channels
            and gives an `nn.Module`.
        channels: channels of a patch or a view.
        kind: of network.
        key: setting that names it, for errors.

    Returns:
        What the function gave.

    Raises:
        ConfigError: if the function cannot be had, fails or gives something else.

    Example:
        >>> import_network("torch.nn:InstanceNorm2d", channels=3).num_features
        3
    """
    function = find(kind, name, key)
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


class OwnAttention(nn.Module):
    """Custom attention network: a module of the user's, its logits pooled into cells, the same however it is padded.

    Images of different sizes that share a batch are looked at one by one, so that none is seen with another's padding.

    Arguments:
        network: (B, C, h, w) views → (B, h, w) or (B, 1, h, w) logits, one a view pixel; or one a cell,
            (B, ⌈h / stride⌉, ⌈w / stride⌉).
        stride: view pixels per cell.
        pool: "mean", or "max" for any other, by which logits of pixels become one of a cell.
        name: for errors.

    Example:
        >>> OwnAttention(nn.Conv2d(3, 1, 3, padding=1), 4, "max", "mine")(torch.zeros(2, 3, 10, 7)).shape
        torch.Size([2, 3, 2])
    """

    def __init__(self, network: nn.Module, stride: int, pool: str, name: str) -> None:
        super().__init__()
        self.network, self.stride, self.pool, self.name = network, stride, pool, name

    def forward(
        self,
        views: Float[Tensor, "batch channel height width"],
        inside: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch row column"]:
        """Score every cell; as `AttentionNetwork.forward`."""
        if inside is None:
            return self._cells(views)
        rows, columns = (-(-side // self.stride) for side in views.shape[2:])
        logits = []
        for view, own in zip(views, inside, strict=True):
            height, width = int(own.any(1).sum()), int(own.any(0).sum())
            cells = self._cells(view[None, :, :height, :width])
            around = (0, columns - cells.shape[2], 0, rows - cells.shape[1])
            logits.append(functional.pad(cells, around, value=torch.finfo(cells.dtype).min))
        return torch.cat(logits)

    def _cells(self, views: Tensor) -> Tensor:
        batch, _, height, width = views.shape
        logits = self.network(views.contiguous())
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else None
        rows, columns = (-(-side // self.stride) for side in (height, width))
        if shape in ((batch, rows, columns), (batch, 1, rows, columns)):
            return Tensor.reshape(logits, (batch, rows, columns))
        if shape not in ((batch, height, width), (batch, 1, height, width)):
            raise ConfigError(
                f"the attention network {self.name} gives {shape or type(logits).__name__} for views of "
                f"{tuple(views.shape)}: let it give one logit a view pixel, {(batch, height, width)}, or one a cell of "
                f"{self.stride} pixels, {(batch, rows, columns)}"
            )
        logits = logits.reshape(batch, 1, height, width)
        if self.pool == "mean":
            count = functional.avg_pool2d(torch.ones_like(logits), self.stride, ceil_mode=True, divisor_override=1)
            sums = functional.avg_pool2d(logits, self.stride, ceil_mode=True, divisor_override=1)
            return (sums / count)[:, 0]
        return functional.max_pool2d(logits, self.stride, ceil_mode=True)[:, 0]


def measure(layers: nn.Module, channels: int, size: Size, what: str) -> int:
    """Measurement of layers on zeros, in evaluation mode, which leaves them as if nothing had happened.

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
    """Smallest input: its least side, for layers that take inputs of any size from there on.

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
    return bisect_left(range(works), True, fails + 1, key=lambda side: _takes(layers, channels, (side, side), what))


def _takes(layers: nn.Module, channels: int, size: Size, what: str) -> bool:
    try:
        measure(layers, channels, size, what)
    except _WrongSizeError:
        return False
    return True
