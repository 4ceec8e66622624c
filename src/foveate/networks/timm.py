"""Backbones of the library timm, with or without their pretrained weights."""

import difflib
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.errors import ConfigError, FoveateError, MissingExtra, one_line
from foveate.networks.cnn import Body
from foveate.networks.custom import measure, smallest_input
from foveate.types import Size

PREFIX = "timm:"
"""What the name of such a network begins with."""

SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")
"""What timm calls networks that are described outside timm: on the hub, or in a folder."""


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
        self.register_buffer("mean", torch.tensor(list(mean)))
        self.register_buffer("deviation", torch.tensor(list(deviation)))

    def forward(self, patches: Float[Tensor, "patch channel height width"]) -> Tensor:
        """Map (M, C, h, w) patches in the unit range to (M, D) features."""
        features: Tensor = self.network((patches - self.mean[:, None, None]) / self.deviation[:, None, None])
        return features


def timm_body(
    name: str, channels: int, patch: Size | None, pretrained: bool, download: bool, standardised: bool = False
) -> Body:
    """Body of a network of timm, without its classifier.

    A pretrained network gets its pixels shifted and scaled as its weights have seen them: by the constants timm names
    for three channels, by their averages for one, by their repetition for any other number, as timm does with the
    weights themselves.

    Arguments:
        name: as `timm.create_model` knows it, "resnet18.a1_in1k" or "hf-hub:owner/name", with or without "timm:".
        channels: C, channels of a patch.
        patch: (height, width) of a patch, in pixels, which a network made for one size is built for; None for inputs
            of any size.
        pretrained: whether its weights are pretrained ones.
        download: whether to load those now, from the cache or over the network; False where a saved model's tensors
            replace them anyway.
        standardised: whether patches come with mean 0 and deviation 1 already.

    Returns:
        Layers (M, C, h, w) → (M, D).

    Raises:
        MissingExtra: if timm is not installed or cannot be imported.
        ConfigError: if there is no such network, it does not take such patches, or its weights cannot be had.
    """
    timm, name = _import_timm(), name.removeprefix(PREFIX)
    what = PREFIX + name
    _check_name(timm, name, pretrained and download)
    options = {"num_classes": 0, "in_chans": channels}
    try:
        network = _create(timm, name, patch, pretrained=False, **options)
    except Exception as error:
        raise _not_built(what, channels, patch, error) from error
    _check_tokens(network, patch, what)
    # Whatever is wrong with the name or the patch is said before anything large is downloaded.
    smallest = smallest_input(network, channels, what) if patch is None else min(patch)
    dimension = measure(network, channels, patch or (smallest, smallest), what)
    mean, deviation = [0.0] * channels, [1.0] * channels
    if pretrained and not standardised:
        constants = timm.data.resolve_model_data_config(network)
        mean, deviation = _for_channels(constants["mean"], channels), _for_channels(constants["std"], channels)
    if pretrained and download:
        try:
            network = _create(timm, name, patch, pretrained=True, **options)
        except Exception as error:
            raise ConfigError(
                f"the pretrained weights of {what} could not be had ({one_line(_root(error))}): connect to the "
                "network, point HF_HOME at a cache that holds them, or set model.features.pretrained to false"
            ) from error
    return Body(Backbone(network, mean, deviation), dimension, smallest)


def _import_timm() -> ModuleType:
    try:
        import timm
        import timm.data
        import timm.models
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise MissingExtra("feature networks timm:NAME need timm: pip install 'timm>=1.0'") from error
        # A torchvision of another release or build than torch's fails while it is imported.
        raise MissingExtra(
            f"timm is installed but cannot be imported ({one_line(error)}): pip install the torchvision that belongs "
            f"to torch {torch.__version__}"
        ) from error
    return timm


def _check_name(timm: ModuleType, name: str, needs_weights: bool) -> None:
    if name.startswith(SOURCES):
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
        hint = f"did you mean {_names(close)}?" if close else "timm.list_models() names them all"
        raise ConfigError(f"timm has no network {name!r}: {hint}")
    tags = [each.partition(".")[2] for each in timm.list_models(architecture, pretrained=True)]
    if tag and tag not in tags:
        hint = f"there are {_names([f'{architecture}.{each}' for each in tags])}" if tags else "leave out the tag"
        raise ConfigError(f"timm has no pretrained weights {name!r}: {hint}")
    if needs_weights and not tags:
        raise ConfigError(
            f"timm has no pretrained weights for {name!r}: choose another network or set model.features.pretrained "
            "to false"
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(PREFIX + name for name in names)


def _create(timm: ModuleType, name: str, patch: Size | None, **options: Any) -> nn.Module:
    network: nn.Module
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # it tells of each attempt; what fails is said once, by the error
    try:
        network = timm.create_model(name, **options | ({} if patch is None else {"img_size": patch}))
    except TypeError as error:
        if patch is None or "img_size" not in str(error):
            raise
        network = timm.create_model(name, **options)
    finally:
        hub.setLevel(level)
    return network


def _not_built(what: str, channels: int, patch: Size | None, error: Exception) -> FoveateError:
    reason = one_line(_root(error))
    if what.removeprefix(PREFIX).startswith(SOURCES):
        return ConfigError(
            f"the description of the feature network {what} could not be had or used ({reason}): check the name, "
            "connect to the network or point HF_HOME at a cache that holds it"
        )
    size = "any size" if patch is None else f"{patch[0]}×{patch[1]} pixels"
    return ConfigError(
        f"timm cannot build {what} for patches of {size} and {channels} channels ({reason}): set model.patch to a size "
        "it takes or choose another model.features.name"
    )


def _check_tokens(network: nn.Module, patch: Size | None, what: str) -> None:
    """Check of patches of which a network that cuts them into tokens would leave out the last rows or columns."""
    cut = getattr(network, "patch_embed", None)
    layer = getattr(cut, "proj", None)
    if patch is None or not isinstance(layer, nn.Conv2d) or getattr(cut, "dynamic_img_pad", False):
        return
    if layer.stride != layer.kernel_size or any(layer.padding):
        return
    height, width = layer.kernel_size
    if patch[0] % height or patch[1] % width:
        fitting = (max(round(patch[0] / height), 1) * height, max(round(patch[1] / width), 1) * width)
        raise ConfigError(
            f"the feature network {what} cuts patches into tokens of {height}×{width} pixels, which patches of "
            f"{patch[0]}×{patch[1]} are no multiple of: set model.patch to e.g. {fitting[0]} {fitting[1]}"
        )


def _for_channels(constants: Sequence[float], channels: int) -> list[float]:
    if channels == 1:
        return [sum(constants) / len(constants)]
    return [constants[number % len(constants)] for number in range(channels)]


def _root(error: BaseException) -> BaseException:
    """Root cause of an error: the hub's own says no more than that something went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
