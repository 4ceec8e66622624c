r"""Stages of a backbone: its feature maps of stride 2^s, what becomes of them, and layers that are left as they are.

.. math:: z = (x - \mu) / \sigma, \qquad m_s = \text{last map of stride } 2^s \text{ of } f(z)
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.errors import ConfigError

Pool = Literal["mean", "max", "both"]
"""How a map becomes one vector."""

OWN = 0
"""Stage that stands for a network's own last features, pooled as it does it."""


class Backbone(nn.Module):
    r"""Backbone: a network of timm, fed with pixels as its pretrained weights have seen them.

    .. math:: y = f\bigl((x - \mu) / \sigma\bigr)

    μ and σ are buffers, so a saved model that is built again without its pretrained weights computes the same.

    Arguments:
        network: (M, C, h, w) → (M, D).
        mean: μ of the C channels, in the unit range.
        deviation: σ of the C channels.

    Example:
        >>> Backbone(nn.Flatten(), [0.5], [0.25])(torch.ones(1, 1, 1, 2))
        tensor([[2., 2.]])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.frozen: tuple[str, ...] = ()
        self.register_buffer("mean", torch.tensor(list(mean)))
        self.register_buffer("deviation", torch.tensor(list(deviation)))

    def forward(self, patches: Float[Tensor, "patch channel height width"]) -> Float[Tensor, "patch feature"]:
        """Map (M, C, h, w) patches in the unit range to (M, D) features."""
        features: Tensor = self.network(self.seen(patches))
        return features

    def seen(self, patches: Float[Tensor, "patch channel height width"]) -> Tensor:
        """The (M, C, h, w) pixels as the network sees them: shifted by μ, scaled by 1 / σ."""
        patches = patches.contiguous(memory_format=torch.channels_last)
        return (patches - self.mean[:, None, None]) / self.deviation[:, None, None]

    def freeze(self, names: Sequence[str]) -> None:
        """Leave layers as they are from now on: without gradients, and in evaluation mode even while others train.

        Arguments:
            names: of parameters and layers of the network; those it does not have are passed over.
        """
        for name, parameter in self.network.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        self.frozen = tuple(name for name, _ in self.network.named_modules() if name in names)
        self.train(self.training)

    def cut(self, indices: Sequence[int]) -> None:
        """Drop layers that none of the numbered feature maps needs, the classifier among them."""
        network: Any = self.network
        network.prune_intermediate_layers(list(indices), prune_norm=True, prune_head=True)
        there = {name for name, _ in network.named_modules()}
        self.frozen = tuple(name for name in self.frozen if name in there)

    def train(self, mode: bool = True) -> "Backbone":
        """Training or evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()
        return self


class StageMaps(nn.Module):
    r"""Feature maps of a backbone: those of chosen stages, of images of any size.

    .. math:: m_s \in \mathbb{R}^{D_s \times \lceil h / 2^s \rceil \times \lceil w / 2^s \rceil}

    (some networks round the sides of a map down). Layers after the last of these stages are dropped.

    Arguments:
        backbone: a network of timm, changed in place.
        stages: s ≥ 1, each once, in any order.
        key: setting that names them, for messages.
        what: the network's name, for messages.
        whole: whether later layers are kept.

    Attributes:
        dimensions: D_s of the stages, in their order.
        dimension: their sum.
        strides: 2^s of the stages, in their order.

    Raises:
        ConfigError: if the network has no such stages.
    """

    def __init__(
        self,
        backbone: Backbone,
        stages: Sequence[int],
        key: str = "model.attention.stages",
        what: str = "the network",
        whole: bool = False,
    ) -> None:
        super().__init__()
        found = stage_indices(backbone.network, stages, key, what)
        network: Any = backbone.network
        self.backbone = backbone
        self.indices = sorted(found)
        self.places = [self.indices.index(index) for index in found]
        self.dimensions = tuple(int(network.feature_info[index]["num_chs"]) for index in found)
        self.dimension, self.strides = sum(self.dimensions), tuple(2**stage for stage in stages)
        if not whole:
            backbone.cut(self.indices)

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> list[Float[Tensor, "batch _feature _rows _columns"]]:
        """Map (B, C, h, w) images in the unit range to a (B, D_s, h_s, w_s) map of each stage, in their order."""
        network: Any = self.backbone.network
        maps = network.forward_intermediates(self.backbone.seen(images), indices=self.indices, intermediates_only=True)
        return [maps[place] for place in self.places]

    def with_last(self, images: Float[Tensor, "batch channel height width"]) -> tuple[list[Tensor], Tensor]:
        """The maps, and the network's own last features, pooled as it does it: (B, D)."""
        network: Any = self.backbone.network
        last, maps = network.forward_intermediates(self.backbone.seen(images), indices=self.indices)
        return [maps[place] for place in self.places], network.forward_head(last)


class StageFeatures(nn.Module):
    r"""Features of a backbone's stages: a vector of each map, side by side.

    .. math:: y = [\text{pool}(m_s)]_s, \qquad \text{pool} \in \{\text{mean}, \text{max}, \text{both}\}

    Arguments:
        backbone: a network of timm, changed in place.
        stages: s of the maps, each once, in the order of their vectors; 0 for the network's own last features.
        pool: over the positions of a map; "both" puts the mean before the maximum.
        key: setting that names the stages, for messages.
        what: the network's name, for messages.

    Raises:
        ConfigError: if the network has no such stages.
    """

    def __init__(
        self,
        backbone: Backbone,
        stages: Sequence[int],
        pool: Pool = "mean",
        key: str = "model.features.stages",
        what: str = "the network",
    ) -> None:
        super().__init__()
        if stages.count(OWN) > 1:
            raise ConfigError(f"{key} {' '.join(map(str, stages))} names a stage twice: leave one of them out")
        self.own = stages.index(OWN) if OWN in stages else None
        self.maps = StageMaps(backbone, [one for one in stages if one != OWN], key, what, whole=OWN in stages)
        self.pool = pool

    def forward(self, patches: Float[Tensor, "patch channel height width"]) -> Float[Tensor, "patch feature"]:
        """Map (M, C, h, w) patches in the unit range to (M, D) features."""
        if self.own is None:
            return torch.cat([self._vector(one) for one in self.maps(patches)], 1)
        maps, last = self.maps.with_last(patches)
        vectors = [self._vector(one) for one in maps]
        return torch.cat([*vectors[: self.own], last, *vectors[self.own :]], 1)

    def _vector(self, stage: Tensor) -> Tensor:
        if self.pool == "both":
            return torch.cat([stage.mean((2, 3)), stage.amax((2, 3))], 1)
        return stage.mean((2, 3)) if self.pool == "mean" else stage.amax((2, 3))


def stage_indices(network: nn.Module, stages: Sequence[int], key: str, what: str) -> list[int]:
    """Numbers of the feature maps that are the last ones of stride 2^s, for every stage s.

    Arguments:
        network: a network of timm.
        stages: s ≥ 1.
        key: settings that name them, for messages.
        what: the network's name, for messages.

    Raises:
        ConfigError: if there are no such maps, or a stage is named twice.
    """
    listed = getattr(network, "feature_info", None) if hasattr(network, "forward_intermediates") else None
    last = {int(one["reduction"]): number for number, one in enumerate(listed or ())}
    there = {power: last[2**power] for power in range(1, 12) if 2**power in last}
    told = " ".join(map(str, stages))
    if len(set(stages)) < len(stages):
        raise ConfigError(f"{key} {told} names a stage twice: leave one of them out")
    missing = [stage for stage in stages if stage not in there]
    if missing:
        stages_there = ", ".join(map(str, there))
        remedy = f"choose among its stages {stages_there}" if there else "choose another network"
        raise ConfigError(f"{key} {told}: {what} has no stage {missing[0]}, a feature map of stride 2^s: {remedy}")
    return [there[stage] for stage in stages]


def layers_up_to(network: nn.Module, index: int) -> list[str]:
    """Names of the parameters and layers of a network that a feature map is made by.

    They are what is left of a copy of the network that timm cuts off after that map.

    Arguments:
        network: a network of timm, whole; it is not changed.
        index: number of the map.
    """
    cut: Any = copy.deepcopy(network)
    cut.prune_intermediate_layers([index], prune_norm=True, prune_head=True)
    kept = {name: sorted(layer.state_dict()) for name, layer in cut.named_modules()}
    own = {name: sorted(layer.state_dict()) for name, layer in network.named_modules()}
    # A layer without tensors says nothing: what was cut off is replaced by such a one.
    layers = [name for name, tensors in own.items() if tensors and kept.get(name) == tensors]
    return [name for name, _ in cut.named_parameters()] + layers
