"""Patch reading: from boxes to features of the patches in them, read by threads while the network works."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from foveate.images import Source
from foveate.images.augment.patches import change_patches
from foveate.images.tensors import read_patches, to_unit
from foveate.models.receipts import Stages
from foveate.networks.normalise import BATCH_NORMS
from foveate.threads import in_background, reading_threads

PARTS = 4
"""Parts of a training batch on a GPU: a quarter of the patches is waited for, the others are read meanwhile."""

Network = Callable[[Tensor], Tensor]
"""(M, C, h, w) patches → (M, D) features."""


class PatchReading:
    """Patches of a batch, and their features: read in parts, each by threads while the network works on the one before.

    Arguments:
        sources: one image per row.
        boxes: (rows, n, 4) top, left, height, width in level-0 pixels, all of one size; on the CPU.
        valid: (rows, n) False where nothing is to be read and the patch is 0; None reads all.
        device: where the network is.
        stages: where to note the time: "read" (waited for patches) and "features".
        parts: how many parts of rows; what a network makes of a patch must not depend on the others of its batch.
        ahead: whether reading begins now, in the background; else a part is read when its features are wanted.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> image, boxes = ArraySource(np.full((8, 9), 255, np.uint8)), torch.tensor([[[0, 0, 2, 3]]])
        >>> PatchReading([image], boxes, None, torch.device("cpu")).features(nn.Flatten())
        tensor([[[1., 1., 1., 1., 1., 1.]]])
    """

    def __init__(
        self,
        sources: Sequence[Source],
        boxes: Int[Tensor, "rows draw 4"],
        valid: Bool[Tensor, "rows draw"] | None,
        device: torch.device,
        stages: Stages | None = None,
        parts: int = 1,
        ahead: bool = False,
    ) -> None:
        self._sources, self._boxes, self._valid, self._device = sources, boxes, valid, device
        self._stages = stages or Stages()
        rows = [slice(int(part[0]), int(part[-1]) + 1) for part in torch.arange(len(sources)).tensor_split(parts)]
        reads: list[Callable[[], Tensor]] = [partial(self._read, part) for part in rows]
        if ahead:  # as many parts at a time as there are threads for their images
            at_once = max(1, reading_threads() * parts // len(sources))
            reads = [part.result for part in in_background(reads, at_once)]
        self._parts = list(zip(rows, reads, strict=True))

    def features(self, network: Network, normalise: nn.Module | None = None) -> Float[Tensor, "rows draw feature"]:
        """Features of the patches.

        Arguments:
            network: (M, C, h, w) → (M, D).
            normalise: what is done to the pixels first, or None.

        Returns:
            (rows, n, D) features; 0 where nothing is read.

        Raises:
            ImageError: if a patch cannot be read.
        """
        parts, self._parts = self._parts, []  # whoever keeps this does not keep the patches
        results = [self._features(network, normalise, part, patches) for part, patches in parts]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _read(self, part: slice) -> Shaped[Tensor, "rows draw channel height width"]:
        valid = None if self._valid is None else self._valid[part]
        return read_patches(self._sources[part], self._boxes[part], valid, pin=self._device.type == "cuda")

    def _features(
        self, network: Network, normalise: nn.Module | None, part: slice, read: Callable[[], Tensor]
    ) -> Float[Tensor, "rows draw feature"]:
        boxes, valid = self._boxes[part], None if self._valid is None else self._valid[part]
        with self._stages("read"):
            patches = to_unit(read().to(self._device, non_blocking=True))
            changes = [source.patch_change for source in self._sources[part]]
            if any(changes):
                patches = change_patches(patches, changes, boxes)
            patches = patches.flatten(0, 1)
            wanted = None if valid is None or bool(valid.all()) else valid.flatten().nonzero()[:, 0]
            if wanted is not None:  # one at least, which says how many features there are
                patches = patches[wanted.to(self._device, non_blocking=True)] if len(wanted) else patches[:1]
        with self._stages("features"):
            patches = patches if normalise is None else normalise(patches)
            features = self._seen_by(network, patches, boxes if wanted is None else boxes.flatten(0, 1)[wanted])
        if wanted is not None:
            rows = wanted.to(self._device, non_blocking=True)
            whole = features.new_zeros(boxes.shape[0] * boxes.shape[1], features.shape[1])
            features = whole.index_put((rows,), features[: len(rows)])
        return features.reshape(*boxes.shape[:2], -1)

    def _seen_by(
        self,
        network: Network,
        patches: Float[Tensor, "patch channel height width"],
        boxes: Int[Tensor, "*any 4"],  # noqa: ARG002  for subclasses
    ) -> Float[Tensor, "patch feature"]:
        return network(patches)


def parts_of_training(networks: Sequence[nn.Module], wanted: int | None, device: torch.device) -> int:
    """Parts that a training batch is read in: as many as are wanted; 1 where statistics are those of a whole batch."""
    layers = (layer for network in networks for layer in network.modules() if isinstance(layer, BATCH_NORMS))
    if any(layer.training for layer in layers):
        return 1
    return wanted or (1 if device.type == "cpu" else PARTS)
