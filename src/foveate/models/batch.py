"""From images to the batch a model takes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from foveate.images import Source, make_view, pad_views
from foveate.settings import ViewSettings
from foveate.types import Batch

__all__ = ["make_batch"]


def make_batch(
    sources: Sequence[Source],
    view: ViewSettings,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    ids: Sequence[str] = (),
    views: Sequence[Float[Tensor, "channel _ _"]] | None = None,
) -> Batch:
    """Make the views of some images and pad them into one batch.

    Arguments:
        sources: B images.
        view: which view; a model's is `model.view`.
        seeds: B integers, one for all draws of an image.
        labels: B class indices, or None where unknown.
        ids: B image ids, or empty.
        views: B views (C, h, w) made elsewhere, e.g. in a loader's worker; None makes them here.

    Returns:
        A batch on the CPU, its mask True inside every image.

    Raises:
        ValueError: if there is no image, or the numbers of images, seeds, labels, ids and views differ.
        ImageError: if an image cannot be read.

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
    made = list(views) if views is not None else [make_view(source, view) for source in sources]
    padded, mask, sizes = pad_views(made)
    return Batch(
        views=padded,
        mask=mask,
        sources=tuple(sources),
        seeds=tuple(seeds),
        view_sizes=tuple(sizes),
        labels=None if labels is None else torch.tensor(list(labels), dtype=torch.int64),
        ids=tuple(ids),
    )
