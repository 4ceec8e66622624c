"""Preprocessing: from any image to what a model wants, to a batch of views."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from foveate.config.settings import GuideSettings, InputSettings, ViewSettings
from foveate.errors import ImageError
from foveate.images import Source
from foveate.images.header import Reading, not_finite
from foveate.images.tensors import make_view, may_hold_nan, pad_views, view_size
from foveate.images.view import nothing_there
from foveate.images.wrappers.channels import Bands, Colour
from foveate.images.wrappers.guide import Guided
from foveate.images.wrappers.resample import at_mpp
from foveate.images.wrappers.standardise import Neutral, Standardised
from foveate.models.types import Batch
from foveate.sampling.geometry import footprint
from foveate.types import Label, Size

CONVERTIBLE = (1, 3, 4)
"""Channels of the images that can become RGB or grey: grey, RGB, RGB with opacity."""


@dataclass(frozen=True)
class Intake:
    """Preprocessing of one image for a model, header only: the same in training and in prediction.

    Attributes:
        settings: scale, bands, colour, and where to look.
        channels: channels the model takes.
        means: gives what the model subtracts from each channel, which becomes the value of missing data; None where it
            subtracts nothing.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> scene = ArraySource(np.zeros((6, 8, 5), np.uint16))
        >>> Intake(InputSettings(bands=(3, 1)), channels=2)(scene).channels
        2
    """

    settings: InputSettings
    channels: int
    means: Callable[[], tuple[float, ...]] | None = None

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
        if self.settings.normalise == "image":
            return Standardised(chosen)
        return chosen if self.means is None else Neutral(chosen, self.means)

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
    """Input channels that a model needs for some images.

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


SeenView = tuple[Float[Tensor, "channel _ _"], Float[Tensor, "_ _"] | None]
"""A view (C, h, w), and its guide: log weights (h, w), or None where nothing is known."""

UNSEEN = ViewSettings(longest_side=512)
"""The resolution of masks, for models that want no view."""


def make_batch(
    sources: Sequence[Source],
    view: ViewSettings | None,
    seeds: Sequence[int],
    labels: Sequence[Label | None] | None = None,
    ids: Sequence[str] = (),
    made: Sequence[SeenView] | None = None,
    multi_label_classes: int | None = None,
    cells: Sequence[Float[Tensor, "_ _ feature"]] | None = None,
) -> Batch:
    """Collate images into one batch: their views, made here and padded, with masks, seeds and labels.

    Arguments:
        sources: B images.
        view: which view; a model's is `model.view`. None makes views of one pixel, 0, and reads nothing.
        seeds: B integers, one for all draws of an image.
        labels: B class indices, or B tuples of them where an image may have several labels, or B numbers (float); None
            where unknown.
        ids: B image ids, or empty.
        made: B views, each with its guide, made elsewhere, e.g. in a loader's worker; None makes them here.
        multi_label_classes: number of classes, where an image may have several labels; None where it has one.
        cells: what the model's eyes see of each image, if that is known already.

    Returns:
        A batch on the CPU, its mask True inside every image where nothing masks it. Its labels are (B,) int64, or
        (B, classes) float32, 1 for the classes an image has; −1 where a label is not known. Numbers are (B,) float64.

    Raises:
        ValueError: if there is no image, or the numbers of images, seeds, labels, ids and views differ.
        ImageError: if an image cannot be read, or its view has pixels that are no numbers.

    Example:
        >>> import numpy as np
        >>> from foveate.images import open_image
        >>> image = open_image(np.zeros((40, 60, 3), np.uint8))
        >>> make_batch([image], ViewSettings(longest_side=12), seeds=[0]).views.shape
        torch.Size([1, 3, 8, 12])
    """
    if not sources:
        raise ValueError("a batch needs at least one image")
    lengths = [len(seeds)] + [len(given) for given in (labels, made) if given is not None] + [len(ids) or len(sources)]
    if any(length != len(sources) for length in lengths):
        raise ValueError(f"{len(sources)} images need as many seeds, labels, ids and views, got {lengths}")
    seen = [see_source(source, view) for source in sources] if made is None else list(made)
    for source, (shown, _) in zip(sources, seen, strict=True):
        check_finite(source, shown)
    guides = [weights for _, weights in seen]
    if view is None:  # nothing is seen, but what is masked must be told somehow
        seen = [(one if weights is None else one.expand(-1, *weights.shape), weights) for one, weights in seen]
    padded, mask, sizes = pad_views([shown for shown, _ in seen])
    return Batch(
        views=padded,
        mask=_masked(mask, guides),
        sources=tuple(sources),
        seeds=tuple(seeds),
        view_sizes=tuple(sizes),
        labels=None if labels is None else label_tensor(labels, multi_label_classes),
        ids=tuple(ids),
        prior=_prior(mask, guides),
        cells=None if cells is None else pad_cells(cells),
    )


def extents(batch: Batch) -> Bool[Tensor, "batch height width"]:
    """(B, h, w) True inside each image's own view, whether its mask allows it or not; on the views' device."""
    sizes = torch.tensor(batch.view_sizes).to(batch.views.device, non_blocking=True)
    rows = torch.arange(batch.views.shape[2], device=batch.views.device) < sizes[:, :1]
    columns = torch.arange(batch.views.shape[3], device=batch.views.device) < sizes[:, 1:]
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def padded_extents(batch: Batch) -> Bool[Tensor, "batch height width"] | None:
    """`extents`, or None if no view is padded: a network is then spared masking what is all inside."""
    whole = all(size == tuple(batch.views.shape[2:]) for size in batch.view_sizes)
    return None if whole else extents(batch)


def footprints(batch: Batch, patch: Size) -> list[Size]:
    """(height, width) of a patch in view pixels, image by image."""
    images = (source.size for source in batch.sources)
    return [footprint(patch, view, image) for view, image in zip(batch.view_sizes, images, strict=True)]


def by_size(batch: Batch) -> list[tuple[list[int], Float[Tensor, "rows channel height width"]]]:
    """Views of a batch without their padding: those of one size together, with the numbers of their images."""
    groups: dict[Size, list[int]] = {}
    for row, size in enumerate(batch.view_sizes):
        groups.setdefault(size, []).append(row)
    if len(groups) == 1 and batch.view_sizes[0] == tuple(batch.views.shape[2:]):
        return [(list(range(len(batch))), batch.views)]
    return [(rows, batch.views[rows, :, :height, :width]) for (height, width), rows in groups.items()]


def pad_cells(cells: Sequence[Float[Tensor, "_ _ feature"]]) -> Float[Tensor, "batch row column feature"]:
    """Features of the cells of several views as one tensor, with 0 below and to the right of the smaller maps."""
    if len({one.shape for one in cells}) == 1:
        return torch.stack(list(cells))
    rows, columns = (max(one.shape[side] for one in cells) for side in (0, 1))
    padded = [functional.pad(one, (0, 0, 0, columns - one.shape[1], 0, rows - one.shape[0])) for one in cells]
    return torch.stack(padded)


def see_source(source: Source, view: ViewSettings | None) -> SeenView:
    """View of an image, and its guide, as a batch is made of them; one black pixel where no view is wanted.

    Raises:
        ImageError: the image cannot be read.
    """
    with Reading(source.name or "image in memory"):
        shown = torch.zeros(source.channels, 1, 1) if view is None else make_view(source, view)
        return shown, make_guide(source, UNSEEN if view is None else view)


def see_unseen(source: Source, view: ViewSettings, size: Size) -> SeenView:
    """Guide of an image, and zeros in the place of a view of this size that nothing needs."""
    with Reading(source.name or "image in memory"):
        return torch.zeros(1).expand(source.channels, *size), make_guide(source, view)


def make_guide(source: Source, view: ViewSettings) -> Float[Tensor, "height width"] | None:
    """Attention guide of the view of an image, known before any attention.

    Arguments:
        source: the image.
        view: how large its view is.

    Returns:
        (h, w) log weights: 0 anywhere, below 0 where something speaks against looking, −inf where masked; None where
        nothing is known.

    Raises:
        ImageError: if the image or its mask cannot be read, or all of it is masked.
    """
    guide = source.guide(view_size(view, source))
    if guide is not None and (guide == -torch.inf).all():
        raise nothing_there(source.name or "image in memory")
    return None if guide is None else torch.from_numpy(guide)


def _masked(
    mask: Bool[Tensor, "batch height width"], guides: Sequence[Float[Tensor, "_ _"] | None]
) -> Bool[Tensor, "batch height width"]:
    result = mask.clone()
    for row, guide in zip(result, guides, strict=True):
        if guide is not None:
            row[: guide.shape[0], : guide.shape[1]] &= guide > -torch.inf
    return result


def _prior(
    mask: Bool[Tensor, "batch height width"], guides: Sequence[Float[Tensor, "_ _"] | None]
) -> Float[Tensor, "batch height width"] | None:
    """The finite log weights, 0 elsewhere; None if all are 0."""
    result = torch.zeros(mask.shape)
    for row, guide in zip(result, guides, strict=True):
        if guide is not None:
            row[: guide.shape[0], : guide.shape[1]] = guide.masked_fill(guide == -torch.inf, 0)
    return result if bool(result.any()) else None


def check_finite(source: Source, view: Float[Tensor, "channel _ _"]) -> None:
    """Check that pixels are numbers, else name the image: from here on they would spread until nobody knows where from.

    Raises:
        ImageError: they are not.
    """
    if may_hold_nan(source) and not bool(view.isfinite().all()):
        raise not_finite(source.name, "its view")


def label_tensor(
    labels: Sequence[Label | None], classes: int | None
) -> Int[Tensor, " batch"] | Float[Tensor, " batch"] | Float[Tensor, "batch class"]:
    """Labels as a batch has them: class indices or, with several of so many classes, 0 and 1; −1 where unknown.

    Numbers are float64, and not a number where unknown.
    """
    if any(isinstance(label, float) for label in labels):
        return torch.tensor([math.nan if label is None else label for label in labels], dtype=torch.float64)
    if classes is None:
        return torch.tensor([-1 if label is None else label for label in labels], dtype=torch.int64)
    result = torch.zeros(len(labels), classes)
    for row, label in zip(result, labels, strict=True):
        if label is None:
            row.fill_(-1)
        elif isinstance(label, tuple):
            row[list(label)] = 1
        else:
            raise ValueError(f"with several labels each image has a tuple of class indices, got {label!r}")
    return result
