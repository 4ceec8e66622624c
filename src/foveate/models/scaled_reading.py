"""Reading of patches that show more or less of an image, all as large in pixels for the network."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from foveate.images import Source
from foveate.images.header import Reading
from foveate.images.tensors import read_patches, to_unit
from foveate.models.patch_reading import Network, PatchReading
from foveate.models.preprocess import check_finite
from foveate.threads import in_threads, reading_threads
from foveate.types import Size


class ScaledReading(PatchReading):
    """Patches of several sizes: the area average of each, in as many pixels as the network sees.

    What has as many is read as it is stored, what is larger from the level of the file that is just fine enough.

    Arguments:
        patch: (height, width) of what the network sees.
        sizes: (height, width) that boxes may have, none smaller than that.
        further: networks of the second size and those after it; empty where one network sees all.
        given: see `PatchReading`.

    Example:
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> image = ArraySource(np.tile(np.array([[0, 255]], np.uint8), (4, 3)))
        >>> boxes = torch.tensor([[[0, 0, 1, 2], [1, 2, 2, 4]]])
        >>> reading = ScaledReading((1, 2), ((1, 2), (2, 4)), (), [image], boxes, None, torch.device("cpu"))
        >>> reading.features(torch.nn.Flatten())
        tensor([[[0.0000, 1.0000],
                 [0.5000, 0.5000]]])
    """

    def __init__(self, patch: Size, sizes: Sequence[Size], further: Sequence[Network], *given: Any) -> None:
        self._patch, self._sizes, self._further = patch, torch.tensor(sizes), further
        super().__init__(*given)

    def _read(self, part: slice) -> Shaped[Tensor, "rows draw channel height width"]:
        sources, boxes = self._sources[part], self._boxes[part]
        valid = torch.ones(boxes.shape[:2], dtype=torch.bool) if self._valid is None else self._valid[part]
        larger = (boxes[:, :, 2:] != torch.tensor(self._patch)).any(-1)
        stored = self._stored(sources, boxes, valid & ~larger)
        if not bool((larger & valid).any()):
            return stored
        patches = to_unit(stored)
        rows = [row for row in range(len(sources)) if bool((larger & valid)[row].any())]
        threads = reading_threads() if any(sources[row].threaded for row in rows) else 1

        def fill(row: int) -> None:
            for slot in (larger & valid)[row].nonzero()[:, 0].tolist():
                patches[row, slot] = shrunk(sources[row], boxes[row, slot].tolist(), self._patch)

        in_threads(fill, rows, threads)
        return patches

    def _stored(
        self, sources: Sequence[Source], boxes: Int[Tensor, "rows draw 4"], valid: Tensor
    ) -> Shaped[Tensor, "rows draw channel height width"]:
        """Those that are valid, as they are stored; boxes of the others are made as large and not read."""
        same = torch.cat((boxes[:, :, :2], torch.tensor(self._patch).expand(*boxes.shape[:2], 2)), -1)
        return read_patches(sources, same, valid, pin=self._device.type == "cuda")

    def _seen_by(
        self, network: Network, patches: Float[Tensor, "patch channel height width"], boxes: Int[Tensor, "*any 4"]
    ) -> Float[Tensor, "patch feature"]:
        if not self._further:
            return network(patches)
        scale = (boxes.view(-1, 1, 4)[:, :, 2:] == self._sizes).all(-1).int().argmax(1)[: len(patches)]
        found = sorted(set(scale.tolist()))
        parts = [(number, (scale == number).nonzero()[:, 0].to(patches.device)) for number in found]
        networks = (network, *self._further)
        features = [networks[number](patches[rows]) for number, rows in parts]
        order = torch.cat([rows for _, rows in parts]).argsort()
        return torch.cat(features)[order]


def shrunk(source: Source, box: Sequence[int], size: Size) -> Float[Tensor, "channel height width"]:
    """What a box of an image shows, as an area average of another size; 0 outside the image.

    Raises:
        ImageError: it cannot be read, or has pixels that are no numbers.
    """
    top, left, height, width = box
    with Reading(source.name or "image in memory"):
        shown = torch.from_numpy(source.view(size, (top, left, top + height, left + width))).permute(2, 0, 1)
        check_finite(source, shown)
    return shown
