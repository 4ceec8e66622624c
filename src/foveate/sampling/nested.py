"""Geometry of nested grids: maps over ever finer views of an image, a cell of one being a region of the next."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from foveate.sampling.geometry import Grid
from foveate.types import Size


@dataclass(frozen=True)
class NestedGrid:
    r"""Nested grids: level l is a `Grid` over a view F_l times as fine as that of level 0, which is never made whole.

    .. math:: F_l = \prod_{j < l} f_j, \qquad \text{view}_l = F_l \cdot \text{view}_0

    All levels have the same stride, counted in pixels of their own; so cell (r, c) of level l is the region of cells
    (f_l r + i, f_l c + j) of level l + 1, those that exist: at the lower and right border there are fewer. As in
    `Grid`, a view shows all of its image, and a full-resolution coordinate is a view coordinate times H / (F_l h).

    Attributes:
        stride: pixels of a level per cell of that level.
        factors: f_l, of every step from a level to the next.

    Example:
        >>> nested = NestedGrid(stride=2, factors=(3,))
        >>> nested.size(1, (5, 4)), nested.shape(0, (5, 4)), nested.shape(1, (5, 4))
        ((15, 12), (3, 2), (8, 6))
        >>> nested.extents(0, torch.tensor([[2, 1]]), torch.tensor([[5, 4]]), torch.tensor([[50, 40]]))
        tensor([[40., 20., 60., 40.]], dtype=torch.float64)
    """

    stride: int
    factors: tuple[int, ...]

    @property
    def levels(self) -> int:
        """Number of levels, that of the view included."""
        return len(self.factors) + 1

    def fineness(self, level: int) -> int:
        """F_l: pixels of a level per view pixel, along a side."""
        return math.prod(self.factors[:level])

    def size(self, level: int, view_size: Size) -> Size:
        """(height, width) of a level, in its own pixels."""
        fine = self.fineness(level)
        return view_size[0] * fine, view_size[1] * fine

    def shape(self, level: int, view_size: Size) -> Size:
        """Rows and columns of the map of a level."""
        return Grid(self.stride).shape(self.size(level, view_size))

    def children(
        self, level: int, cells: Int64[Tensor, "node 2"], views: Int64[Tensor, "node 2"]
    ) -> tuple[Int64[Tensor, "node child 2"], Bool[Tensor, "node child"]]:
        """Cells of the next level that cells are the regions of.

        Arguments:
            level: of the cells.
            cells: (M, 2) row and column.
            views: (M, 2) (height, width) of the view of each one's image.

        Returns:
            (M, f², 2) rows and columns, row-major over the region; and (M, f²) which of them exist.
        """
        factor = self.factors[level]
        steps = torch.arange(factor, device=cells.device)
        within = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).view(1, -1, 2)
        children = cells[:, None] * factor + within
        # the map of a level has ⌈view · F / stride⌉ rows and columns
        return children, (children * self.stride < views[:, None] * self.fineness(level + 1)).all(2)

    def extents(
        self,
        level: int,
        cells: Int64[Tensor, "node 2"],
        views: Int64[Tensor, "node 2"],
        images: Int64[Tensor, "node 2"],
        margin: int = 0,
    ) -> Float64[Tensor, "node 4"]:
        """Full-resolution extents of cells, as regions of the next level; they may hang over the border.

        Arguments:
            level: of the cells.
            cells: (M, 2) row and column.
            views: (M, 2) (height, width) of the view of each one's image.
            images: (M, 2) (height, width) of each one's image, in level-0 pixels of it.
            margin: cells of the next level to add on every side.

        Returns:
            (M, 4) top, left, bottom, right, in level-0 pixels of the image, with fractions.
        """
        factor, fine = self.factors[level], self.fineness(level + 1)
        first = (cells * factor - margin) * self.stride
        corners = torch.cat((first, first + (factor + 2 * margin) * self.stride), 1).double()
        return corners * images.repeat(1, 2) / (views.repeat(1, 2) * fine)

    def side(self, level: int, margin: int = 0) -> int:
        """Side of the region of a cell, in pixels of the next level, with a margin of so many cells of that."""
        return (self.factors[level] + 2 * margin) * self.stride

    def inside(
        self, level: int, cells: Int64[Tensor, "node 2"], views: Int64[Tensor, "node 2"], margin: int = 0
    ) -> Bool[Tensor, "node row column"]:
        """Which pixels of cells' regions, in the resolution of the next level, lie inside their images.

        Arguments are those of `extents`; returns (M, side, side).
        """
        first = (cells * self.factors[level] - margin) * self.stride
        places = first[:, :, None] + torch.arange(self.side(level, margin), device=cells.device)
        there = (places >= 0) & (places < (views * self.fineness(level + 1))[:, :, None])
        return there[:, 0, :, None] & there[:, 1, None, :]
