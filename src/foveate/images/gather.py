"""Full-resolution patches of a batch of images, in one tensor."""

import os
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Shaped
from torch import Tensor

from foveate.errors import ImageError
from foveate.images.pixels import full_scale, not_finite
from foveate.images.source import Source
from foveate.images.threads import in_threads
from foveate.types import Box

__all__ = ["gather"]

THREADS = min(4, os.cpu_count() or 1)
"""Images, or their tiles, read at a time by default."""


def gather(
    sources: Sequence[Source],
    boxes: Int[Tensor, "batch draw 4"],
    valid: Bool[Tensor, "batch draw"] | None = None,
    threads: int = THREADS,
) -> Float32[Tensor, "batch draw channel height width"]:
    """Read patches of several images.

    Arguments:
        sources: the B images, all with the same number of channels C.
        boxes: (B, n, 4) top, left, height, width in level-0 pixels, all of one size; on the CPU.
        valid: (B, n) False where nothing is to be read and the patch is 0; None reads all.
        threads: images read at the same time; of fewer images, tiles decoded at the same time. 1 reads one after the
            other. Only sources for which it pays (`Source.threaded`) are read in threads.

    Returns:
        (B, n, C, height, width) float32 in the unit range; `flatten(0, 1)` of it is channels-last and not a copy.

    Raises:
        ImageError: if boxes differ in size, images in their number of channels, an image cannot be read, or a patch has
            pixels that are no numbers.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = ArraySource(np.full((8, 9, 3), 255, np.uint8))
        >>> patches = gather([source], torch.tensor([[[0, 0, 2, 3], [7, 0, 2, 3]]]))
        >>> patches.shape, patches[0, :, 0, :, 0].tolist()
        (torch.Size([1, 2, 3, 2, 3]), [[1.0, 1.0], [1.0, 0.0]])
    """
    if len(sources) != boxes.shape[0]:
        raise ImageError(f"boxes must be given for every image, got {len(sources)} images and {boxes.shape[0]} rows")
    height, width = _one_size(boxes)
    channels = _one_channel_count(sources)
    batch, draws = boxes.shape[:2]
    # by NumPy: torch's threads would go on waiting, busily, for work that the reading threads need the processor for
    target, rows = np.zeros((batch, draws, height, width, channels), np.float32), boxes.tolist()
    wanted = [[True] * draws] * batch if valid is None else valid.tolist()

    def fill(i: int, at_once: int = 1) -> None:
        source, floats = sources[i], sources[i].dtype.kind == "f"
        scale = np.float32(full_scale(source.dtype))
        some = {s: Box(*rows[i][s]) for s in range(draws) if wanted[i][s]}
        for s, pixels in zip(some, _read(source, list(some.values()), at_once), strict=True):
            np.divide(pixels, scale, out=target[i, s], casting="same_kind")
            if floats and not np.isfinite(target[i, s]).all():
                raise not_finite(source.name, f"the patch at row {some[s].top}, column {some[s].left}")

    slow = [i for i in range(batch) if sources[i].threaded and threads > 1]
    if len(slow) > 1:
        # images first: what is left of the threads goes to the tiles of each
        in_threads(partial(fill, at_once=max(1, threads // len(slow))), slow, threads)
    elif slow:
        fill(slow[0], threads)
    for i in sorted(set(range(batch)) - set(slow)):
        fill(i)
    return torch.from_numpy(target).permute(0, 1, 4, 2, 3)


def _read(source: Source, boxes: Sequence[Box], threads: int) -> Iterator[Shaped[np.ndarray, "height width channel"]]:
    """The pixels of every box; read at once where that reads no more than one by one, as on a grid of patches.

    Images of tiles see by themselves that boxes share them.
    """
    top, left = (min((getattr(box, side) for box in boxes), default=0) for side in ("top", "left"))
    bottom, right = (max((getattr(box, side) for box in boxes), default=0) for side in ("bottom", "right"))
    joined = len(boxes) > 1 and (bottom - top) * (right - left) <= sum(box.height * box.width for box in boxes)
    if joined and source.header.tile is None:
        whole = source.read_many([Box(top, left, bottom - top, right - left)], 0, threads)[0]
        for box in boxes:
            yield whole[box.top - top : box.bottom - top, box.left - left : box.right - left]
    else:
        yield from source.read_many(boxes, 0, threads)


def _one_size(boxes: Int[Tensor, "batch draw 4"]) -> tuple[int, int]:
    sizes = torch.unique(boxes[:, :, 2:].reshape(-1, 2), dim=0).tolist()
    if len(sizes) != 1:
        got = " and ".join(f"{height}×{width}" for height, width in sizes) or "none"
        raise ImageError(f"boxes gathered together must all have one size, got {got}: gather each size by itself")
    return sizes[0][0], sizes[0][1]


def _one_channel_count(sources: Sequence[Source]) -> int:
    first = sources[0]
    for other in sources:
        if other.channels != first.channels:
            raise ImageError(
                f"images in a batch must have the same number of channels, got {first.channels} "
                f"({first.name or 'in memory'}) and {other.channels} ({other.name or 'in memory'}): "
                "convert them to one kind, grey or RGB"
            )
    return first.channels
