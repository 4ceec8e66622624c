"""Backbones of the library timm, with or without their pretrained weights."""

import copy
import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn

from foveate.errors import ConfigError, FoveateError, MissingExtra, one_line
from foveate.networks.cnn import Body
from foveate.networks.custom import measure, smallest_input
from foveate.networks.stages import (
    OWN,
    Backbone,
    Pool,
    StageFeatures,
    StageMaps,
    layers_up_to,
    stage_indices,
)
from foveate.networks.weights import load_weights
from foveate.types import Size

PREFIX = "timm:"
"""What the name of such a network begins with."""

SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")
"""What timm calls networks that are described outside timm: on the hub, or in a folder."""

ANY_SIZE = (97, 163)
"""Size of an image that a network made for one size does not take."""


@dataclass(frozen=True)
class BackboneChoice:
    """Choice of a backbone: a network of timm, and where its weights come from.

    Attributes:
        name: as `timm.create_model` knows it, "resnet18.a1_in1k" or "hf-hub:owner/name", with or without "timm:".
        channels: C, channels of an image or a patch.
        pretrained: whether its weights are pretrained ones.
        weights: where those are: None for timm's own, from its cache or over the network; "bundled" or a path, see
            `load_weights`.
        load: whether to load those now; False where a saved model's tensors replace them anyway.
        standardised: whether pixels come with mean 0 and deviation 1 already.
        frozen_stages: s of the last stage that is left as it is, with all before; 0 for none.
        key: settings that the choice is made in, for messages.
    """

    name: str
    channels: int
    pretrained: bool = True
    weights: str | None = None
    load: bool = True
    standardised: bool = False
    frozen_stages: int = 0
    key: str = "model.features"

    @property
    def bare(self) -> str:
        """The name as timm knows it."""
        return self.name.removeprefix(PREFIX)

    @property
    def what(self) -> str:
        """The name as settings have it."""
        return PREFIX + self.bare


def timm_body(choice: BackboneChoice, patch: Size | None, stages: Sequence[int] = (), pool: Pool = "mean") -> Body:
    """Body of a network of timm, without its classifier.

    A pretrained network gets its pixels shifted and scaled as its weights have seen them: by the constants timm names
    for three channels, by their averages for one, by their repetition for any other number, as timm does with the
    weights themselves.

    Arguments:
        choice: which network, and its weights.
        patch: (height, width) of a patch, in pixels, which a network made for one size is built for; None for inputs
            of any size.
        stages: of which the features are made, see `StageFeatures`; the network's own last features if empty.
        pool: how a stage's map becomes one vector.

    Returns:
        Layers (M, C, h, w) → (M, D).

    Raises:
        MissingExtra: if timm is not installed or cannot be imported, or the bundled weights are not installed.
        ConfigError: if there is no such network, it does not take such patches, or its weights cannot be had.
    """

    def layers(network: nn.Module) -> nn.Module:
        backbone = _backbone(network, choice)
        chosen = tuple(stages) not in {(), (OWN,)}
        return StageFeatures(backbone, stages, pool, f"{choice.key}.stages", choice.what) if chosen else backbone

    body = layers(_unlearnt(choice, patch))
    # Whatever is wrong with the name or the patch is said before anything large is downloaded.
    smallest = smallest_input(body, choice.channels, choice.what) if patch is None else min(patch)
    dimension = measure(body, choice.channels, patch or (smallest, smallest), choice.what)
    if choice.pretrained and choice.load:
        body = layers(_learnt(choice, patch))
    return Body(body, dimension, smallest)


def stage_maps(choice: BackboneChoice, stages: Sequence[int]) -> StageMaps:
    """Feature maps of a network of timm: those of chosen stages, of images of any size.

    Arguments:
        choice: which network, and its weights.
        stages: s ≥ 1, each once, in the order of their maps.

    Returns:
        Layers from (B, C, h, w) images in the unit range to a list of (B, D_s, h_s, w_s) maps.

    Raises:
        MissingExtra: as `timm_body`.
        ConfigError: as `timm_body`; or if the network has no such stages or takes images of one size only.

    Example:
        >>> maps = stage_maps(BackboneChoice("timm:tf_efficientnet_lite0", 3, weights="bundled"), (3, 4))
        >>> maps.dimension, maps.strides, [tuple(one.shape) for one in maps(torch.zeros(2, 3, 60, 100))]
        (152, (8, 16), [(2, 40, 8, 13), (2, 112, 4, 7)])
    """
    if not stages:
        raise ConfigError(f"{choice.key}.stages is empty: name one stage of {choice.what} or more, e.g. 3 4")

    def layers(network: nn.Module) -> StageMaps:
        return StageMaps(_backbone(network, choice), stages, f"{choice.key}.stages", choice.what)

    maps = layers(_unlearnt(choice, None))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(maps).eval()(torch.zeros(1, choice.channels, *ANY_SIZE))
    except Exception as error:
        raise ConfigError(
            f"{choice.what} takes images of one size, not whole views ({one_line(error)}): choose another "
            f"{choice.key}.name"
        ) from error
    maps = layers(_learnt(choice, None)) if choice.pretrained and choice.load else maps
    return maps.to(memory_format=torch.channels_last)


def _unlearnt(choice: BackboneChoice, size: Size | None) -> nn.Module:
    timm = _import_timm()
    if choice.weights is not None and not choice.pretrained:
        raise ConfigError(
            f"{choice.key}.weights {choice.weights} are pretrained ones, and {choice.key}.pretrained is false: set "
            f"{choice.key}.weights to null, or {choice.key}.pretrained to true"
        )
    _check_name(timm, choice)
    try:
        network = _create(timm, choice, size, pretrained=False)
    except Exception as error:
        raise _not_built(choice, size, error) from error
    _check_tokens(network, size, choice.what)
    return network


def _learnt(choice: BackboneChoice, size: Size | None) -> nn.Module:
    timm = _import_timm()
    if choice.weights is not None:
        network = _create(timm, choice, size, pretrained=False)
        load_weights(network, choice.weights, choice.bare, choice.key)
        return network
    try:
        return _create(timm, choice, size, pretrained=True)
    except Exception as error:
        raise ConfigError(
            f"the pretrained weights of {choice.what} could not be had ({one_line(_root(error))}): connect to the "
            f"network, point HF_HOME at a cache that holds them, or set {choice.key}.pretrained to false"
        ) from error


def _backbone(network: nn.Module, choice: BackboneChoice) -> Backbone:
    """Backbone of a network: fed with what its weights have seen, and frozen up to a stage."""
    timm, channels = _import_timm(), choice.channels
    mean, deviation = [0.0] * channels, [1.0] * channels
    if choice.pretrained and not choice.standardised:
        constants = timm.data.resolve_model_data_config(network)
        mean, deviation = _for_channels(constants["mean"], channels), _for_channels(constants["std"], channels)
    backbone = Backbone(network, mean, deviation)
    if choice.frozen_stages:
        (last,) = stage_indices(network, [choice.frozen_stages], f"{choice.key}.frozen_stages", choice.what)
        backbone.freeze(layers_up_to(network, last))
    return backbone


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


def _check_name(timm: ModuleType, choice: BackboneChoice) -> None:
    name = choice.bare
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
    if choice.pretrained and choice.load and choice.weights is None and not tags:
        raise ConfigError(
            f"timm has no pretrained weights for {name!r}: choose another network or set {choice.key}.pretrained to "
            "false"
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(PREFIX + name for name in names)


def _create(timm: ModuleType, choice: BackboneChoice, patch: Size | None, pretrained: bool) -> nn.Module:
    options = {"num_classes": 0, "in_chans": choice.channels, "pretrained": pretrained}
    name = choice.bare
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


def _not_built(choice: BackboneChoice, patch: Size | None, error: Exception) -> FoveateError:
    reason, what = one_line(_root(error)), choice.what
    if choice.bare.startswith(SOURCES):
        return ConfigError(
            f"the description of the feature network {what} could not be had or used ({reason}): check the name, "
            "connect to the network or point HF_HOME at a cache that holds it"
        )
    size = "any size" if patch is None else f"{patch[0]}×{patch[1]} pixels"
    return ConfigError(
        f"timm cannot build {what} for patches of {size} and {choice.channels} channels ({reason}): set model.patch "
        f"to a size it takes or choose another {choice.key}.name"
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
