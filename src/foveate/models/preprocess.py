"""What a model makes of an image before it looks at it: one scale, its bands, its colours, or a refusal."""

from collections.abc import Iterable
from dataclasses import dataclass

from foveate.config.settings import GuideSettings, InputSettings
from foveate.errors import ImageError
from foveate.images import Source
from foveate.images.wrappers.channels import Bands, Colour
from foveate.images.wrappers.guide import Guided
from foveate.images.wrappers.resample import at_mpp
from foveate.images.wrappers.standardise import Standardised

__all__ = ["Intake", "wanted_channels"]

CONVERTIBLE = (1, 3, 4)
"""Channels of the images that can become RGB or grey: grey, RGB, RGB with opacity."""


@dataclass(frozen=True)
class Intake:
    """Hand a model the images it wants: the same in training and in prediction.

    Attributes:
        settings: scale, bands, colour, and where to look.
        channels: channels the model takes.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> scene = ArraySource(np.zeros((6, 8, 5), np.uint16))
        >>> Intake(InputSettings(bands=(3, 1)), channels=2)(scene).channels
        2
    """

    settings: InputSettings
    channels: int

    def __call__(self, source: Source) -> Source:
        """The image as the model wants it; nothing but its header is read.

        With `colour` "auto" a grey image becomes RGB for a model of RGB images: nothing is lost, and such a model may
        have been trained on both.

        Arguments:
            source: any image.

        Returns:
            The image itself where nothing is to be done, else one that wraps it.

        Raises:
            ImageError: if the image does not have the bands, or cannot be had with the model's number of channels.
        """
        if self.settings.guide != GuideSettings():
            source = Guided(source, self.settings.guide)
        chosen = self._chosen(source if self.settings.mpp is None else at_mpp(source, self.settings.mpp))
        return Standardised(chosen) if self.settings.normalise == "image" else chosen

    def _chosen(self, source: Source) -> Source:
        if self.settings.bands:
            return Bands(source, self.settings.bands)
        if source.channels == self.channels:
            return source
        kind = self.settings.colour
        if kind == "auto" and (source.channels, self.channels) == (1, 3):
            kind = "rgb"
        if kind == "auto" or source.channels not in CONVERTIBLE:
            raise self._refusal(source)
        return Colour(source, kind)

    def _refusal(self, source: Source) -> ImageError:
        remedy = {
            (3, 4): "save it without its alpha channel, or train a model with model.input.colour rgb",
            (1, 3): "save it in grey, or train a model with model.input.colour grey",
            (1, 4): "save it in grey, or train a model with model.input.colour grey",
        }.get((self.channels, source.channels), "choose its bands, or train a model on such images")
        return ImageError(
            f"the model wants {self.channels} channel(s), {source.name or 'the array'} has {source.channels}: {remedy}"
        )


def wanted_channels(sources: Iterable[Source], settings: InputSettings) -> int:
    """Channels a model needs for some images.

    Arguments:
        sources: at least one; their headers are read.
        settings: bands and colour.

    Returns:
        The number of bands if they are named; 3 for "rgb", 1 for "grey"; else that of the images, 3 where some are grey
        and some RGB.

    Raises:
        ImageError: if the images have different numbers of channels and nothing says what to do about it.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> images = [ArraySource(np.zeros((6, 8, channels), np.uint8)) for channels in (3, 1)]
        >>> wanted_channels(images, InputSettings())
        3
    """
    if settings.bands:
        return len(settings.bands)
    if settings.colour != "auto":
        return 3 if settings.colour == "rgb" else 1
    found: dict[int, str] = {}
    for source in sources:
        found.setdefault(source.channels, source.name or "in memory")
    if len(found) == 1 or found.keys() == {1, 3}:
        return max(found)
    listed = " and ".join(f"{channels} ({found[channels]})" for channels in sorted(found)) or "none"
    remedy = "set model.input.colour rgb (or grey)" if found.keys() <= set(CONVERTIBLE) else "set model.input.bands"
    raise ImageError(f"training images must have the same number of channels, got {listed}: {remedy}")
