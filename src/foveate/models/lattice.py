"""Where the patches of a regular grid lie in an image: geometry's grid, with a stride for each axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from foveate.sampling.geometry import Grid
from foveate.types import Size

__all__ = ["Lattice"]


@dataclass(frozen=True)
class Lattice:
    r"""Cells of `stride` pixels that tile an image at full resolution, a patch centred on each.

    It answers what `foveate.sampling.geometry.Grid` answers, with the image in the place of the view; a cell at the
    lower or right border may be smaller, and its patch is centred on what there is of it. So patches laid side by side
    cover every pixel, and those of the border hang over it or overlap their neighbours.

    Attributes:
        stride: level-0 pixels per cell, (down the rows, along the columns); at least 1.

    Raises:
        ValueError: if a stride is below 1.

    Example:
        >>> lattice = Lattice((50, 100))
        >>> lattice.shape((120, 200))
        (3, 2)
        >>> lattice.all_boxes([(120, 200)], (50, 100))[0, ::2].tolist()
        [[0, 0, 50, 100], [50, 0, 50, 100], [85, 0, 50, 100]]
    """

    stride: Size

    def __post_init__(self) -> None:
        self._axes()

    def shape(self, view_size: Size) -> Size:
        """Rows and columns over an image of (height, width) level-0 pixels."""
        down, along = self._axes()
        return down.shape(view_size)[0], along.shape(view_size)[1]

    def extent(self, view_size: Size, image_size: Size) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of all cells in level-0 pixels; see `Grid.extent`. Both sizes are the image's."""
        down, along = (axis.extent(view_size, image_size) for axis in self._axes())
        return down[0], along[1], down[2], along[3]

    def centres(self, cells: Int[Tensor, "*shape 2"], view_size: Size, image_size: Size) -> Float64[Tensor, "*shape 2"]:
        """Centres of (…, 2) cells in level-0 pixels; see `Grid.centres`. Both sizes are the image's."""
        down, along = (axis.centres(cells, view_size, image_size) for axis in self._axes())
        return torch.stack([down[..., 0], along[..., 1]], -1)

    def cells(self, points: Float[Tensor, "*shape 2"], view_size: Size, image_size: Size) -> Int64[Tensor, "*shape 2"]:
        """Cells that contain (…, 2) points in level-0 pixels; see `Grid.cells`. Both sizes are the image's."""
        down, along = (axis.cells(points, view_size, image_size) for axis in self._axes())
        return torch.stack([down[..., 0], along[..., 1]], -1)

    def boxes(
        self,
        index: Int[Tensor, "batch draw"],
        map_columns: int,
        view_sizes: Sequence[Size],
        image_sizes: Sequence[Size],
        patch: Size,
    ) -> Int64[Tensor, "batch draw 4"]:
        """The patches of (B, n) cells, row-major over a map; see `Grid.boxes`. All sizes are the images'."""
        down, along = (axis.boxes(index, map_columns, view_sizes, image_sizes, patch) for axis in self._axes())
        return torch.stack([down[..., 0], along[..., 1], down[..., 2], down[..., 3]], -1)

    def all_boxes(self, image_sizes: Sequence[Size], patch: Size) -> Int64[Tensor, "batch cell 4"]:
        """The patches of all cells of some images.

        Arguments:
            image_sizes: B (height, width), in level-0 pixels.
            patch: (height, width), in level-0 pixels.

        Returns:
            (B, K, 4) top, left, height, width in level-0 pixels, row-major over a map as large as the largest of the
            images needs; cells an image does not have stand for the nearest one it has.
        """
        rows, columns = self._largest(image_sizes)
        index = torch.arange(rows * columns).expand(len(image_sizes), -1)
        return self.boxes(index, columns, image_sizes, image_sizes, patch)

    def cell_mask(
        self, mask: Bool[Tensor, "batch height width"], view_sizes: Sequence[Size], image_sizes: Sequence[Size]
    ) -> Bool[Tensor, "batch row column"]:
        """Which cells are there and may be looked at.

        Arguments:
            mask: (B, h, w) True where the attention may look, at any resolution.
            view_sizes: B (height, width), the part of the mask that an image fills.
            image_sizes: B (height, width), in level-0 pixels.

        Returns:
            (B, rows, columns) True where an image has the cell and the mask allows its centre.
        """
        rows, columns = self._largest(image_sizes)
        allowed = torch.zeros(len(image_sizes), rows, columns, dtype=torch.bool)
        for image, (view, size) in enumerate(zip(view_sizes, image_sizes, strict=True)):
            own = self.shape(size)
            cells = torch.cartesian_prod(torch.arange(own[0]), torch.arange(own[1])).reshape(-1, 2)
            places = self.centres(cells, size, size) * torch.tensor(view) / torch.tensor(size)
            seen = places.floor().long().to(mask.device)
            allowed[image, : own[0], : own[1]] = mask[image, seen[:, 0], seen[:, 1]].reshape(own).to(allowed.device)
        return allowed

    def _largest(self, image_sizes: Sequence[Size]) -> Size:
        shapes = [self.shape(size) for size in image_sizes]
        return max(rows for rows, _ in shapes), max(columns for _, columns in shapes)

    def _axes(self) -> tuple[Grid, Grid]:
        return Grid(self.stride[0]), Grid(self.stride[1])
