"""Patch features: from boxes of images to feature vectors, where alone models touch full-resolution pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate.images import Source
from foveate.images.augment.patches import change_patches
from foveate.images.tensors import gather
from foveate.models.receipts import Stages

__all__ = ["patch_features"]


def patch_features(
    network: nn.Module,
    normalise: nn.Module | None,
    sources: Sequence[Source],
    boxes: Int[Tensor, "rows draw 4"],
    valid: Bool[Tensor, "rows draw"] | None,
    device: torch.device,
    stages: Stages | None = None,
) -> Float[Tensor, "rows draw feature"]:
    """Read patches and compute their features.

    Arguments:
        network: (M, C, h, w) → (M, D).
        normalise: what is done to the pixels first, or None.
        sources: one image per row.
        boxes: (rows, n, 4) top, left, height, width in level-0 pixels, all of one size; on the CPU.
        valid: (rows, n) False where nothing is to be read and the patch is 0; None reads all.
        device: where the network is.
        stages: where to note the time; "read" and "features".

    Returns:
        (rows, n, D) features; 0 where nothing is read.

    Raises:
        ImageError: if a patch cannot be read.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> image, boxes = ArraySource(np.full((8, 9), 255, np.uint8)), torch.tensor([[[0, 0, 2, 3]]])
        >>> patch_features(nn.Flatten(), None, [image], boxes, None, torch.device("cpu"))
        tensor([[[1., 1., 1., 1., 1., 1.]]])
    """
    stages = stages or Stages()
    with stages("read"):
        patches = gather(sources, boxes, valid)
        if device.type == "cuda":
            patches = patches.pin_memory()
        patches = patches.to(device, non_blocking=True)
        changes = [source.patch_change for source in sources]
        if any(changes):
            patches = change_patches(patches, changes, boxes)
        patches = patches.flatten(0, 1)
        wanted = None if valid is None or bool(valid.all()) else valid.flatten().to(device)
        if wanted is not None and bool(wanted.any()):
            patches = patches[wanted]
    with stages("features"):
        features: Tensor = network(patches if normalise is None else normalise(patches))
    if wanted is not None:
        rows = wanted.nonzero()[:, 0]
        features = features.new_zeros(len(wanted), features.shape[1]).index_put((rows,), features[: len(rows)])
    return features.reshape(*boxes.shape[:2], -1)
