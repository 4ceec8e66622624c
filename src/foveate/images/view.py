"""The low-resolution view a model looks at first: its size, its pixels, its place in a batch."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from foveate.errors import ConfigError, ImageError
from foveate.images.source import Source
from foveate.settings import ViewSettings
from foveate.types import Size

__all__ = ["check_view", "make_guide", "make_view", "pad_views", "view_size"]


def check_view(settings: ViewSettings) -> None:
    """Refuse settings of a view that make no sense, whatever the image.

    Arguments:
        settings: exactly one of longest side (at least 1 view pixel), scale (in (0, 1]) and microns per pixel (positive
            and finite) must be set.

    Raises:
        ConfigError: if none or several of the three are set, or the one that is has an impossible value.

    Example:
        >>> check_view(ViewSettings(scale=0.25))
    """
    chosen = {k: v for k, v in vars(settings).items() if v is not None}
    if len(chosen) != 1:
        listed = " and ".join(f"{name} {value}" for name, value in chosen.items()) or "none"
        raise ConfigError(
            f"model.view needs exactly one of longest_side, scale and mpp, got {listed}: "
            "set one and leave the others null"
        )
    if settings.longest_side is not None and settings.longest_side < 1:
        raise ConfigError(
            f"model.view.longest_side must be at least 1 pixel, got {settings.longest_side}: set e.g. 512"
        )
    if settings.scale is not None and not 0 < settings.scale <= 1:
        raise ConfigError(f"model.view.scale must be above 0 and at most 1, got {settings.scale}: set e.g. 0.25")
    if settings.mpp is not None and not 0 < settings.mpp < float("inf"):
        raise ConfigError(f"model.view.mpp must be above 0 microns per pixel, got {settings.mpp}: set e.g. 8")


def view_size(settings: ViewSettings, source: Source) -> Size:
    """Size of an image's view; views are never larger than the image.

    Arguments:
        settings: exactly one of longest side, scale and microns per pixel.
        source: the image; its pixels are not read.

    Returns:
        (rows, columns); sides round to the nearest pixel, halves up, and are at least 1.

    Raises:
        ConfigError: if none or several of the three are set, or the one that is has an impossible value.
        ImageError: if the view is asked for in microns per pixel and the image's are not known.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> view_size(ViewSettings(longest_side=50), ArraySource(np.zeros((61, 100), np.uint8)))
        (31, 50)
    """
    check_view(settings)
    ratio = min(_ratio(settings, source), Fraction(1))
    rows, columns = (max(1, (2 * side * ratio.numerator + ratio.denominator) // (2 * ratio.denominator))
                     for side in source.size)  # fmt: skip
    return rows, columns


def _ratio(settings: ViewSettings, source: Source) -> Fraction:
    """View pixels per full-resolution pixel, exact for the decimals the user wrote."""
    if settings.longest_side is not None:
        return Fraction(settings.longest_side, max(source.size))
    if settings.scale is not None:
        return Fraction(str(settings.scale))
    if source.mpp is None:
        raise ImageError(
            f"{source.name or 'image in memory'}: a view of {settings.mpp} microns per pixel needs the image's own, "
            "which are not known: give mpp in the manifest, or set model.view.longest_side or model.view.scale"
        )
    return Fraction(str(float(source.mpp))) / Fraction(str(settings.mpp))


def make_view(source: Source, settings: ViewSettings) -> Float32[Tensor, "channel height width"]:
    """The view of an image: its area average, in the unit range.

    Arguments:
        source: the image.
        settings: how large the view is.

    Returns:
        (C, h, w) float32, channels last in memory.

    Raises:
        ConfigError: if the settings are impossible.
        ImageError: if the image cannot be read, or has no microns per pixel where they are needed.
    """
    return torch.from_numpy(source.view(view_size(settings, source))).permute(2, 0, 1)


def make_guide(source: Source, settings: ViewSettings) -> Float32[Tensor, "height width"] | None:
    """What is known of where to look in the view of an image, before any attention.

    Arguments:
        source: the image.
        settings: how large the view is.

    Returns:
        (h, w) log weights: 0 anywhere, below 0 where something speaks against looking, −inf where masked; None where
        nothing is known.

    Raises:
        ImageError: if the image or its mask cannot be read.
    """
    guide = source.guide(view_size(settings, source))
    return None if guide is None else torch.from_numpy(guide)


def pad_views(
    views: Sequence[Float32[Tensor, "channel _ _"]],
) -> tuple[Float32[Tensor, "batch channel height width"], Bool[Tensor, "batch height width"], tuple[Size, ...]]:
    """Stack views of different sizes, with zeros below and to the right of the smaller ones.

    Arguments:
        views: (C, h, w) views; all with the same number of channels.

    Returns:
        (B, C, h, w) float32 in channels-last memory; (B, h, w) True inside the images; B sizes without padding.

    Raises:
        ImageError: if there is no view or their numbers of channels differ.

    Example:
        >>> views, mask, sizes = pad_views([torch.ones(1, 2, 3), torch.ones(1, 1, 4)])
        >>> views.shape, mask[1].tolist(), sizes
        (torch.Size([2, 1, 2, 4]), [[True, True, True, True], [False, False, False, False]], ((2, 3), (1, 4)))
    """
    channels = sorted({view.shape[0] for view in views})
    if len(channels) != 1:
        raise ImageError(
            f"views in a batch must have the same number of channels, got {' and '.join(map(str, channels)) or 'none'}:"
            " convert the images to one kind, grey or RGB"
        )
    sizes = tuple((int(view.shape[1]), int(view.shape[2])) for view in views)
    rows, columns = max(size[0] for size in sizes), max(size[1] for size in sizes)
    padded = torch.zeros(len(views), rows, columns, channels[0]).permute(0, 3, 1, 2)
    mask = torch.zeros(len(views), rows, columns, dtype=torch.bool)
    for i, (view, (height, width)) in enumerate(zip(views, sizes, strict=True)):
        padded[i, :, :height, :width] = view
        mask[i, :height, :width] = True
    return padded, mask, sizes
