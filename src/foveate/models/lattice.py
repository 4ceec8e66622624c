"""All patches of a grid that is laid over images themselves, at full resolution."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from foveate.sampling.geometry import Grid
from foveate.types import Size

__all__ = ["all_boxes", "allowed_cells"]


def all_boxes(grid: Grid, image_sizes: Sequence[Size], patch: Size) -> Int64[Tensor, "batch cell 4"]:
    """The patches of all cells of some images.

    A cell at the lower or right border may be smaller than the others, and its patch is centred on what there is of it:
    patches laid side by side cover every pixel, and those of the border hang over it or overlap their neighbours.

    Arguments:
        grid: over the images, in level-0 pixels.
        image_sizes: B (height, width), in level-0 pixels.
        patch: (height, width), in level-0 pixels.

    Returns:
        (B, K, 4) top, left, height, width in level-0 pixels, row-major over a map as large as the largest of the
        images needs; cells an image does not have stand for the nearest one it has.

    Example:
        >>> all_boxes(Grid((50, 100)), [(120, 200)], (50, 100))[0, ::2].tolist()
        [[0, 0, 50, 100], [50, 0, 50, 100], [85, 0, 50, 100]]
    """
    rows, columns = _largest(grid, image_sizes)
    index = torch.arange(rows * columns).expand(len(image_sizes), -1)
    return grid.boxes(index, columns, image_sizes, image_sizes, patch)


def allowed_cells(
    grid: Grid, mask: Bool[Tensor, "batch height width"], view_sizes: Sequence[Size], image_sizes: Sequence[Size]
) -> Bool[Tensor, "batch row column"]:
    """Which cells are there and may be looked at; unlike `Grid.cell_mask`, of a mask at a resolution of its own.

    Arguments:
        grid: over the images, in level-0 pixels.
        mask: (B, h, w) True where the attention may look, at any resolution.
        view_sizes: B (height, width), the part of the mask that an image fills.
        image_sizes: B (height, width), in level-0 pixels.

    Returns:
        (B, rows, columns) True where an image has the cell and the mask allows its centre.
    """
    rows, columns = _largest(grid, image_sizes)
    allowed = torch.zeros(len(image_sizes), rows, columns, dtype=torch.bool)
    for image, (view, size) in enumerate(zip(view_sizes, image_sizes, strict=True)):
        own = grid.shape(size)
        cells = torch.cartesian_prod(torch.arange(own[0]), torch.arange(own[1])).reshape(-1, 2)
        places = grid.centres(cells, size, size) * torch.tensor(view) / torch.tensor(size)
        seen = places.floor().long().to(mask.device)
        allowed[image, : own[0], : own[1]] = mask[image, seen[:, 0], seen[:, 1]].reshape(own).to(allowed.device)
    return allowed


def _largest(grid: Grid, image_sizes: Sequence[Size]) -> Size:
    shapes = [grid.shape(size) for size in image_sizes]
    return max(rows for rows, _ in shapes), max(columns for _, columns in shapes)
