"""Augmentation of patches, each about its own centre, made where the patches are: on the model's device."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import affine_grid, grid_sample

from foveate.images.header import PatchChange


def change_patches(
    patches: Float[Tensor, "rows draw channel height width"],
    changes: Sequence[PatchChange | None],
    boxes: Int[Tensor, "rows draw 4"],
) -> Float[Tensor, "rows draw channel height width"]:
    r"""Augmented patches: flipped, turned and enlarged about their centres, brighter or darker, of other colours.

    A pixel at p from the centre shows, by bilinear interpolation, what was at

    .. math:: \frac1s \begin{pmatrix} \cos\varphi & -\sin\varphi \\ \sin\varphi & \cos\varphi \end{pmatrix} p

    and the nearest pixel of the patch where that lies outside. Nothing beyond the patch is read.

    Arguments:
        patches: (rows, n, C, h, w).
        changes: one per row; None leaves the row's patches as they are.
        boxes: (rows, n, 4) top, left, height, width in level-0 pixels; on the CPU.

    Returns:
        (rows, n, C, h, w); `patches` itself if there is nothing to change.

    Example:
        >>> from foveate.images import PatchChange
        >>> from foveate.images.augment.patches import change_patches
        >>> patch, twice = torch.tensor([0.0, 4.0, 8.0]).view(1, 1, 1, 1, 3), PatchChange(0.0, (2.0, 2.0), seed=1)
        >>> change_patches(patch, [twice], torch.tensor([[[0, 0, 1, 3]]])).flatten().round(decimals=3)
        tensor([2., 4., 6.])
    """
    rows = [row for row, change in enumerate(changes) if change is not None]
    if not rows:
        return patches
    patches = _flipped(_shaded(patches, changes, boxes), changes, boxes)
    rows = [row for row in rows if _moves(changes[row])]
    if not rows:
        return patches
    height, width = patches.shape[3:]
    maps = []
    for row in rows:
        change = changes[row]
        assert change is not None
        for top, left, _, _ in boxes[row].tolist():
            turn, scale = change.drawn(top, left)
            cosine, sine = math.cos(turn) / scale, math.sin(turn) / scale
            # torch measures x and y in halves of the patch's own sides
            maps.append([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    chosen = patches[rows].flatten(0, 1)
    grid = affine_grid(torch.tensor(maps).to(chosen), list(chosen.shape), align_corners=False)
    moved = grid_sample(chosen, grid, mode="bilinear", padding_mode="border", align_corners=False)
    moved = moved.view(len(rows), *patches.shape[1:])
    if len(rows) == len(changes):
        return moved
    return patches.index_copy(0, torch.tensor(rows, device=patches.device), moved)


def shift_boxes(boxes: Int[Tensor, "rows draw 4"], changes: Sequence[PatchChange | None]) -> Int[Tensor, "rows draw 4"]:
    """Boxes of patches as they are read: beside their places, where an image's patches are shifted.

    Arguments:
        boxes: (rows, n, 4) top, left, height, width in level-0 pixels; on the CPU.
        changes: one per row.
    """
    if not any(change is not None and change.shift for change in changes):
        return boxes
    moves = [
        [(0, 0) if change is None else change.moved(top, left) for top, left, _, _ in row]
        for row, change in zip(boxes.tolist(), changes, strict=True)
    ]
    return boxes + functional.pad(torch.tensor(moves).view(*boxes.shape[:2], 2), (0, 2))


def _moves(change: PatchChange | None) -> bool:
    return change is not None and (change.turn, change.scale) != (0.0, (1.0, 1.0))


def _flipped(
    patches: Float[Tensor, "rows draw channel height width"],
    changes: Sequence[PatchChange | None],
    boxes: Int[Tensor, "rows draw 4"],
) -> Float[Tensor, "rows draw channel height width"]:
    if not any(change is not None and change.flip for change in changes):
        return patches
    square, flipped = patches.shape[3] == patches.shape[4], patches.clone()
    for row, change in enumerate(changes):
        if change is not None and change.flip:
            for place, (top, left, _, _) in enumerate(boxes[row].tolist()):
                down, along, diagonal = change.flipped(top, left)
                patch = patches[row, place].flip([axis for axis, turned in ((1, down), (2, along)) if turned])
                flipped[row, place] = patch.transpose(1, 2) if diagonal and square else patch
    return flipped


def _shaded(
    patches: Float[Tensor, "rows draw channel height width"],
    changes: Sequence[PatchChange | None],
    boxes: Int[Tensor, "rows draw 4"],
) -> Float[Tensor, "rows draw channel height width"]:
    if not any(change is not None and change.shades for change in changes):
        return patches
    channels = patches.shape[2]
    gains, biases = torch.ones(*patches.shape[:3]), torch.zeros(*patches.shape[:2])
    for row, change in enumerate(changes):
        if change is not None and change.shades:
            for place, (top, left, _, _) in enumerate(boxes[row].tolist()):
                gain, bias = change.shaded(top, left, channels)
                gains[row, place], biases[row, place] = torch.tensor(gain), bias
    return patches * gains[..., None, None].to(patches) + biases[..., None, None, None].to(patches)
