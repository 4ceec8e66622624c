"""Model building: from settings to a model, every number checked and every choice left open settled."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from foveate.config.settings import InputSettings, ModelSettings, ViewSettings
from foveate.errors import ArgumentTypeError, ConfigError
from foveate.hooks import find, is_own
from foveate.images.tensors import check_view
from foveate.models.base import Model
from foveate.models.cnn import CNN
from foveate.models.deep_mil import DeepMil
from foveate.models.evidence import Evidence
from foveate.models.gmic import Gmic
from foveate.models.heads import check_head
from foveate.models.ips import Ips
from foveate.models.multi_scale import MultiScale, check_scales
from foveate.models.probabilities import SEPARATOR
from foveate.models.sampling import AttentionSampling, PatchModel
from foveate.models.top_k import PerturbedTopK, TopK
from foveate.models.types import BuildOptions
from foveate.models.uniform import Uniform
from foveate.models.zoom import Zoom, check_zoom
from foveate.networks import receptive_field
from foveate.networks.evidence import has_backbone
from foveate.networks.normalise import BandStatistics
from foveate.types import Size

MODELS: dict[str, type[Model]] = {
    "attention-sampling": AttentionSampling,
    "cnn": CNN,
    "deep-mil": DeepMil,
    "evidence": Evidence,
    "gmic": Gmic,
    "multi-scale": MultiScale,
    "perturbed-top-k": PerturbedTopK,
    "ips": Ips,
    "top-k": TopK,
    "uniform": Uniform,
    "zoom": Zoom,
}
SIGHTED = {"attention-sampling", "evidence", "gmic", "multi-scale", "perturbed-top-k", "top-k", "uniform", "zoom"}
"""The models that lay a map over a view."""


def build_model(
    settings: ModelSettings,
    classes: Sequence[str],
    channels: int,
    seed: int = 0,
    image_size: Size | None = None,
    *,
    multi_label: bool = False,
    bands: BandStatistics | None = None,
    features: nn.Module | None = None,
    pretrained: bool = True,
) -> Model:
    """Build a model with seeded weights; the global random state is left as it was.

    Arguments:
        settings: what to build.
        classes: names of the classes, in the order of the logits; all different, at least two unless an image may have
            several labels; none where `head.kind` is "number", whose head `measure`s the training labels.
        channels: channels of the images, after `input` (`foveate.models.wanted_channels`).
        seed: of the initial weights.
        image_size: a typical (height, width) of the images, to settle `attention.stride`; see `resolve`.
        multi_label: whether an image may have any number of labels, none included.
        bands: mean and deviation of each band over the training images, where `input.normalise` is "bands" (until they
            are loaded, 0 and 1) or "auto", which without them is "none".
        features: layers of your own, (M, C, h, w) → (M, D), in the place of the network `features.name` names. They
            are not copied; a model folder keeps their weights, and `load_model` must be given such layers again.
        pretrained: False never fetches pretrained weights, whatever the settings say.

    Returns:
        A model on the CPU, in training mode, its `settings` resolved.

    Raises:
        ConfigError: if a setting contradicts another or makes no sense.
        MissingExtra: if the feature network needs a package that is not installed.

    Example:
        >>> settings = ModelSettings(view=ViewSettings(scale=0.12), patch=(50, 50))
        >>> model = build_model(settings, classes=("0", "1"), channels=1)
        >>> model.parameter_count, model.settings.attention.stride
        (24355, 3)
    """
    if isinstance(classes, str):
        raise ArgumentTypeError(f"classes are the names of all classes, got the text {classes!r}: give a list of names")
    _check(settings, channels)
    if settings.name == "zoom":
        check_zoom(settings, view_scale(settings.view, image_size))
    if settings.name == "multi-scale":
        check_scales(settings)
    if not settings.head.numeric:
        _check_classes(tuple(classes), multi_label)
    check_head(settings, issubclass(model_class(settings.name), PatchModel), tuple(classes), multi_label)
    _check_evidence(settings, tuple(classes), multi_label)
    settings = resolve(settings, image_size)
    if settings.input.normalise == "auto":
        settings = replace(settings, input=replace(settings.input, normalise="none" if bands is None else "bands"))
    options = BuildOptions(multi_label, bands, features, pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return model_class(settings.name)(settings, tuple(classes), channels, options)


def model_class(name: str) -> type[Model]:
    """Class of a model by its name: foveate's, or one of a user's own.

    Raises:
        ConfigError: there is none of that name, or it is no `Model`.

    Example:
        >>> model_class("cnn").__name__
        'CNN'
    """
    if name in MODELS:
        return MODELS[name]
    if not is_own(name):
        raise ConfigError(f"no model {name!r}, there are {', '.join(sorted(MODELS))}: set model.name to one of them")
    found = find("model", name, "model.name")
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ConfigError(f"model.name {name} names {getattr(found, '__name__', found)}: let it be a subclass of Model")
    return found


def view_of(settings: ModelSettings) -> ViewSettings | None:
    """Low-resolution view that a model of these settings wants; None if it looks at full resolution alone.

    Example:
        >>> view_of(ModelSettings(name="deep-mil")) is None
        True
    """
    return settings.view if model_class(settings.name).wants_view else None


def resolve(settings: ModelSettings, image_size: Size | None = None) -> ModelSettings:
    r"""Settle the stride of the attention map, if it is None: about half a patch.

    .. math:: \text{stride} = \max(1, \lfloor \tfrac12 \min(\text{patch}) \cdot \text{scale} + \tfrac12 \rfloor)

    Cells much closer than a patch let several draws crowd on one object (docs/method.md). The scale is
    `view.scale`, or follows from `view.longest_side` and a typical image size. Where it is not known (no image size,
    or a view set by microns per pixel) the stride is 1: every view pixel is a cell, and none is out of reach. Where
    attention zooms, the scale is that of its last level.

    Arguments:
        settings: a model's settings.
        image_size: a typical (height, width) of the images, level-0 pixels.

    Returns:
        The settings with a stride; what is saved with the model.

    Example:
        >>> resolve(ModelSettings(view=ViewSettings(longest_side=180), patch=(50, 60)), (1500, 1000)).attention.stride
        3
    """
    if settings.attention.stride is not None:
        return settings
    scale = view_scale(settings.view, image_size)
    if scale is not None and settings.name == "zoom":
        scale *= math.prod(settings.zoom.factors)
    stride = 1 if scale is None else max(1, math.floor(min(settings.patch) * scale / 2 + 0.5))
    return replace(settings, attention=replace(settings.attention, stride=stride))


def view_scale(view: ViewSettings, image_size: Size | None) -> float | None:
    """View pixels per full-resolution pixel of images of a typical size; None where that says nothing."""
    if view.scale is not None:
        return view.scale
    if view.longest_side is not None and image_size is not None:
        return min(1.0, view.longest_side / max(image_size))
    return None


def _check_classes(classes: tuple[str, ...], multi_label: bool) -> None:
    least, words = (1, "one class, all") if multi_label else (2, "two classes")
    if len(classes) < least or len(set(classes)) < len(classes):
        raise ConfigError(f"a model needs at least {words} with different names, got {list(classes)}")
    if multi_label and any(SEPARATOR in name for name in classes):
        raise ConfigError(
            f"names of several labels must not contain {SEPARATOR}, which stands between them, got {list(classes)}: "
            "rename them"
        )


def _check_evidence(settings: ModelSettings, classes: tuple[str, ...], multi_label: bool) -> None:
    evidence, attention = settings.evidence, settings.attention
    if settings.name == "evidence" and not has_backbone(attention):
        raise ConfigError(
            f"the model evidence is read off a backbone, got model.attention.name {attention.name}: set it to e.g. "
            "timm:tf_efficientnet_lite0, and model.attention.weights to bundled"
        )
    if settings.control and not (settings.name == "attention-sampling" and has_backbone(attention)):
        raise ConfigError(
            f"model.control foretells features from what a backbone sees, but model.name is {settings.name} and "
            f"model.attention.name {attention.name}: set model.control to false, or the latter to e.g. "
            "timm:tf_efficientnet_lite0"
        )
    if not 0 <= evidence.share < 1 or (evidence.share and not has_backbone(attention)):
        raise ConfigError(
            f"model.evidence.share must be in [0, 1), and 0 without evidence, got {evidence.share} with "
            f"model.attention.name {attention.name}: leave it out, training.find sets it"
        )
    if not evidence.top > 0:
        raise ConfigError(
            f"model.evidence.top must be positive, got {evidence.top}: set it to e.g. 3 cells, or 0.1, a tenth of all"
        )
    if evidence.background is not None and (multi_label or evidence.background not in classes):
        reason = "an image has several labels" if multi_label else f"the classes are {', '.join(classes)}"
        raise ConfigError(
            f"model.evidence.background is {evidence.background!r}, but {reason}: set data.background to null, or to "
            "the class of images that show nothing"
        )


def _check_input(settings: InputSettings, channels: int) -> None:
    if settings.bands and settings.colour != "auto":
        raise ConfigError(
            f"model.input.bands chooses bands and model.input.colour {settings.colour} makes others: set one of them"
        )
    if min((band for band in settings.bands if isinstance(band, int)), default=0) < 0:
        raise ConfigError(f"model.input.bands must be at least 0, got {list(settings.bands)}: the first band is 0")
    wanted = len(settings.bands) or {"rgb": 3, "grey": 1}.get(settings.colour, channels)
    if channels != wanted:
        raise ConfigError(
            f"model.input makes images of {wanted} channel(s), but the model is built for {channels}: "
            f"build it with channels={wanted}"
        )


def _check(settings: ModelSettings, channels: int) -> None:
    model_class(settings.name)
    check_view(settings.view)
    _check_input(settings.input, channels)
    attention, mil = settings.attention, settings.mil
    positive = {
        "channels": channels,
        "model.patch": min(settings.patch),
        "model.patches": settings.patches,
        "model.attention.stride": 1 if attention.stride is None else attention.stride,
        "model.attention.widths": min(attention.widths, default=1),
        "model.attention.hidden": attention.hidden,
        "model.attention.members": attention.members,
        "model.mil.hidden": mil.hidden,
        "model.mil.stride": 1 if mil.stride is None else mil.stride,
        "model.mil.chunk": mil.chunk,
    }
    for key, value in positive.items():
        if value < 1:
            raise ConfigError(f"{key} must be at least 1, got {value}: set it to a positive number")
    for what, rate in (("features", settings.features.learning_rate), ("attention", attention.learning_rate)):
        if rate is not None and not 0 < rate < math.inf:
            raise ConfigError(
                f"model.{what}.learning_rate must be positive, got {rate}: set it to e.g. 1e-4, or model.{what}.frozen "
                "to true"
            )
    if attention.pool == "strided" and attention.padding == "valid" and not has_backbone(attention):
        raise ConfigError(
            "model.attention.pool strided needs model.attention.padding same, got valid: set pool to max, or padding "
            "to same"
        )
    if not 0 <= attention.smoothing < 1:
        raise ConfigError(
            f"model.attention.smoothing must be at least 0 and less than 1, got {attention.smoothing}: "
            "it is a share, e.g. 1e-5"
        )
    longest, field = settings.view.longest_side, 1 if has_backbone(attention) else receptive_field(attention)
    if settings.name in SIGHTED and longest is not None and longest < field:
        raise ConfigError(
            f"model.view.longest_side is {longest}, less than the {field} pixels that the attention network needs: "
            "enlarge it or set model.attention.padding to same"
        )
