"""From images to the batch a model takes."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.config.settings import ViewSettings
from foveate.images import Source
from foveate.images.header import not_finite
from foveate.images.tensors import make_guide, make_view, pad_views
from foveate.models.types import Batch
from foveate.types import Label

__all__ = ["extents", "make_batch"]

UNSEEN = ViewSettings(longest_side=512)
"""The resolution of masks, for models that want no view."""


def make_batch(
    sources: Sequence[Source],
    view: ViewSettings | None,
    seeds: Sequence[int],
    labels: Sequence[Label | None] | None = None,
    ids: Sequence[str] = (),
    views: Sequence[Float[Tensor, "channel _ _"]] | None = None,
    guides: Sequence[Float[Tensor, "_ _"] | None] | None = None,
    multi_label_classes: int | None = None,
) -> Batch:
    """Make the views of some images and pad them into one batch.

    Arguments:
        sources: B images.
        view: which view; a model's is `model.view`. None makes views of one pixel, 0, and reads nothing.
        seeds: B integers, one for all draws of an image.
        labels: B class indices, or B tuples of them where an image may have several labels; None where unknown.
        ids: B image ids, or empty.
        views: B views (C, h, w) made elsewhere, e.g. in a loader's worker; None makes them here.
        guides: B log weights (h, w) of the views, made elsewhere, None where nothing is known; None makes them here.
        multi_label_classes: number of classes, where an image may have several labels; None where it has one.

    Returns:
        A batch on the CPU, its mask True inside every image where nothing masks it. Its labels are (B,) int64, or
        (B, classes) float32, 1 for
        the classes an image has; −1 where a label is not known.

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
    lengths = [len(seeds)] + [len(given) for given in (labels, views) if given is not None] + [len(ids) or len(sources)]
    if any(length != len(sources) for length in lengths):
        raise ValueError(f"{len(sources)} images need as many seeds, labels, ids and views, got {lengths}")
    made = list(views) if views is not None else [_view(source, view) for source in sources]
    _check_finite(sources, made)
    known = list(guides) if guides is not None else [_guide(source, view) for source in sources]
    if view is None:  # nothing is seen, but what is masked must be told somehow
        made = [
            one if weights is None else one.expand(-1, *weights.shape) for one, weights in zip(made, known, strict=True)
        ]
    padded, mask, sizes = pad_views(made)
    return Batch(
        views=padded,
        mask=_masked(mask, known),
        sources=tuple(sources),
        seeds=tuple(seeds),
        view_sizes=tuple(sizes),
        labels=None if labels is None else _labels(labels, multi_label_classes),
        ids=tuple(ids),
        prior=_prior(mask, known),
    )


def extents(batch: Batch) -> Bool[Tensor, "batch height width"]:
    """(B, h, w) True inside each image's own view, whether its mask allows it or not; on the views' device."""
    sizes = torch.tensor(batch.view_sizes, device=batch.views.device)
    rows = torch.arange(batch.views.shape[2], device=batch.views.device) < sizes[:, :1]
    columns = torch.arange(batch.views.shape[3], device=batch.views.device) < sizes[:, 1:]
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _view(source: Source, view: ViewSettings | None) -> Float[Tensor, "channel height width"]:
    return torch.zeros(source.channels, 1, 1) if view is None else make_view(source, view)


def _guide(source: Source, view: ViewSettings | None) -> Float[Tensor, "height width"] | None:
    return make_guide(source, UNSEEN if view is None else view)


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


def _check_finite(sources: Sequence[Source], views: Sequence[Float[Tensor, "channel _ _"]]) -> None:
    """Name the image whose pixels are no numbers: from here on they would spread until nobody knows where from."""
    for source, view in zip(sources, views, strict=True):
        if source.dtype.kind == "f" and not bool(view.isfinite().all()):
            raise not_finite(source.name, "its view")


def _labels(
    labels: Sequence[Label | None], classes: int | None
) -> Int[Tensor, " batch"] | Float[Tensor, "batch class"]:
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
