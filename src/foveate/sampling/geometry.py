"""Geometry of cells and patches: the only place where low-resolution and full-resolution coordinates meet.

All coordinates are edge coordinates: pixel p covers [p, p + 1), its centre is p + ½. A full-resolution coordinate is a
view coordinate times H / h, exactly and per axis, so nothing accumulates and nothing is rounded before the very end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from torch import Tensor

from foveate.errors import ImageError
from foveate.types import Affine, Size


@dataclass(frozen=True)
class Grid:
    r"""Grid of cells: how an attention map lies over a view.

    A convolution over a view of v pixels has v − field + 1 positions; position p is centred at view coordinate
    p + field/2. Cell i pools the positions stride·i … stride·i + stride − 1, those that exist: the last cell may hold
    fewer. Its centre is the middle of their centres; for a full cell

    .. math:: c_i = \mathrm{stride} \cdot i + (\mathrm{stride} + \mathrm{field} - 1) / 2

    and in full resolution :math:`c_i H / h`. A patch of P pixels has its first pixel at
    :math:`\lfloor c_i H / h - P/2 + 1/2 \rfloor`.

    The idea: Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019.
    Their released code spreads view − field pixels evenly over the map instead; where field is above 1 that differs
    from the centres given here by up to half a view pixel.

    A grid of patches laid over an image itself is the same thing, with the image in the place of the view.

    Attributes:
        stride: view pixels per cell, after pooling, or (down the rows, along the columns); at least 1.
        field: view pixels, along one side, that one unpooled position of a valid convolution sees; 1 where padding
            keeps the view's size.

    Raises:
        ValueError: if one of them is below 1.

    Example:
        >>> grid = Grid(stride=2, field=1)
        >>> grid.shape((3, 4))
        (2, 2)
        >>> grid.boxes(torch.tensor([[0, 3]]), 2, [(3, 4)], [(30, 80)], (10, 20))
        tensor([[[ 5, 10, 10, 20],
                 [20, 50, 10, 20]]])
        >>> Grid(stride=(50, 100)).shape((120, 200))
        (3, 2)
    """

    stride: int | Size
    field: int = 1

    def __post_init__(self) -> None:
        if min(*self.strides, self.field) < 1:
            raise ValueError(f"stride and field must be at least 1 view pixel, got {self.stride} and {self.field}")

    @property
    def strides(self) -> Size:
        """View pixels per cell, (down the rows, along the columns)."""
        return self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)

    def shape(self, view_size: Size) -> Size:
        """Rows and columns of the attention map over a view.

        Arguments:
            view_size: (height, width) of the view, in view pixels.

        Returns:
            (rows, columns): the positions of the convolution, pooled by `stride` with the last window kept.

        Raises:
            ImageError: if the view is smaller than the field.
        """
        rows, columns = self._positions(view_size)
        down, along = self.strides
        return -(-rows // down), -(-columns // along)

    def extent(self, view_size: Size, image_size: Size) -> tuple[float, float, float, float]:
        r"""What a map covers when it is drawn over its image: all its cells, each a stride wide.

        .. math:: \bigl(\tfrac{\mathrm{field} - 1}{2},\; \tfrac{\mathrm{field} - 1}{2} + \mathrm{stride} \cdot
                  \mathrm{rows}\bigr) \cdot H / h

        A last cell that holds fewer positions reaches beyond the image by as much as it lacks.

        Arguments:
            view_size: (height, width) of the view, in view pixels.
            image_size: (height, width) of the image, in level-0 pixels.

        Returns:
            (top, left, bottom, right), in level-0 pixels.

        Example:
            >>> Grid(stride=3).extent((180, 120), (1500, 900))
            (0.0, 0.0, 1500.0, 900.0)
        """
        along, _, left, _, down, top = self.affine(view_size, image_size)
        rows, columns = self.shape(view_size)
        return top, left, top + down * rows, left + along * columns

    def affine(self, view_size: Size, image_size: Size) -> Affine:
        r"""From cells to full-resolution pixels, as an affine map: cell i covers [i, i + 1).

        .. math:: x = \mathrm{stride} \cdot \tfrac{W}{w} \cdot \mathrm{column} + \tfrac{\mathrm{field} - 1}{2}
                  \cdot \tfrac{W}{w}

        and y likewise. The image may be the one that the view was made from or the file behind it at another scale: a
        view shows all of both, so its own size is all that is needed. `extent` is where this puts the map's corners.

        Arguments:
            view_size: (height, width) of the view, in view pixels.
            image_size: (height, width) of the image, in level-0 pixels.

        Returns:
            (a, b, c, d, e, f): the point (row, column) of the map lies at x = a·column + b·row + c,
            y = d·column + e·row + f, in level-0 pixels; b and d are 0.

        Example:
            >>> Grid(stride=4, field=3).affine((60, 80), (600, 1600))
            (80.0, 0.0, 20.0, 0.0, 40.0, 10.0)
        """
        down, along = self.strides
        (height, width), (high, wide) = view_size, image_size
        start = self.field - 1
        return (
            along * wide / width,
            0.0,
            start * wide / (2 * width),
            0.0,
            down * high / height,
            start * high / (2 * height),
        )

    def boxes(
        self,
        index: Int[Tensor, "batch draw"],
        map_columns: int,
        view_sizes: Sequence[Size],
        image_sizes: Sequence[Size],
        patch: Size,
    ) -> Int64[Tensor, "batch draw 4"]:
        """The full-resolution patches behind cells.

        Arguments:
            index: (B, n) cells, row-major over the map; those that lie in a map's padding stand for the nearest cell
                that does not.
            map_columns: columns of the map the index counts in, padding included.
            view_sizes: B (height, width) of the views without padding, in view pixels.
            image_sizes: B (height, width) of the images, in level-0 pixels.
            patch: (height, width) of a patch, in level-0 pixels.

        Returns:
            (B, n, 4) top, left, height, width in level-0 pixels; may hang over the border.

        Raises:
            ImageError: if a view is smaller than the field.
        """
        cells = torch.stack([index // map_columns, index % map_columns], -1).long()
        views, images = (_pairs(sizes, cells.device) for sizes in (view_sizes, image_sizes))
        sides = torch.tensor(patch, device=cells.device)
        # floor(c·H/h − P/2 + 1/2) with c = twice/2, over the common denominator 2h: all integers
        corners = (self._twice_centres(cells, view_sizes) * images + views * (1 - sides)) // (2 * views)
        return torch.cat([corners, sides.expand_as(corners)], -1)

    def cell_mask(
        self, mask: Bool[Tensor, "batch height width"], view_sizes: Sequence[Size]
    ) -> Bool[Tensor, "batch rows columns"]:
        """Which cells may be drawn.

        Arguments:
            mask: (B, h, w) True where the attention may look, in pixels of the padded views.
            view_sizes: B (height, width) of the views without padding; nothing outside them is allowed.

        Returns:
            (B, rows, columns) True where one of a cell's positions is allowed: its field lies inside the image's own
            view and the mask allows its centre pixel (the one below and to the right of the centre, for even fields).

        Raises:
            ImageError: if the padded view is smaller than the field.
        """
        return self._by_cell(self._allowed(mask, view_sizes)).any(4).any(2)

    def cell_means(
        self,
        values: Float[Tensor, "batch height width"],
        mask: Bool[Tensor, "batch height width"],
        view_sizes: Sequence[Size],
    ) -> Float[Tensor, "batch rows columns"]:
        """Means of a map of view pixels over cells.

        Arguments:
            values: (B, h, w) of the pixels of the padded views.
            mask: (B, h, w) as in `cell_mask`.
            view_sizes: B (height, width) of the views without padding.

        Returns:
            (B, rows, columns) the mean over the allowed positions of a cell, each at its centre pixel; 0 where there
            is none.

        Raises:
            ImageError: if the padded view is smaller than the field.
        """
        allowed = self._by_cell(self._allowed(mask, view_sizes))
        rows, columns = self._positions((mask.shape[1], mask.shape[2]))
        middle = self.field // 2
        seen = self._by_cell(values[:, middle : middle + rows, middle : middle + columns])
        count = allowed.sum((2, 4)).clamp(min=1)
        return seen.masked_fill(~allowed, 0).sum((2, 4)) / count

    def centres(self, cells: Int[Tensor, "*shape 2"], view_size: Size, image_size: Size) -> Float64[Tensor, "*shape 2"]:
        """Full-resolution centres of cells.

        Arguments:
            cells: (…, 2) row and column in the map.
            view_size: (height, width) of the view without padding, in view pixels.
            image_size: (height, width) of the image, in level-0 pixels.

        Returns:
            (…, 2) float64 row and column, in level-0 pixels.

        Raises:
            ImageError: if the view is smaller than the field.
        """
        flat = cells.reshape(1, -1, 2).long()
        twice = self._twice_centres(flat, [view_size]).double()
        view, image = (torch.tensor(size, dtype=torch.float64, device=cells.device) for size in (view_size, image_size))
        return (twice * image / (2 * view)).reshape(cells.shape)

    def cells(self, points: Float[Tensor, "*shape 2"], view_size: Size, image_size: Size) -> Int64[Tensor, "*shape 2"]:
        """The cells whose windows contain full-resolution points; the inverse of `centres`.

        The windows tile the view: position p's is the view pixel around its centre, a cell's is that of its positions.

        Arguments:
            points: (…, 2) row and column, in level-0 pixels.
            view_size: (height, width) of the view without padding, in view pixels.
            image_size: (height, width) of the image, in level-0 pixels.

        Returns:
            (…, 2) int64 row and column in the map; of the nearest cell for points no window contains.

        Raises:
            ImageError: if the view is smaller than the field.
        """
        view, image = (
            torch.tensor(size, dtype=torch.float64, device=points.device) for size in (view_size, image_size)
        )
        last = torch.tensor(self.shape(view_size), dtype=torch.float64, device=points.device) - 1
        strides = torch.tensor(self.strides, dtype=torch.float64, device=points.device)
        place = (points.double() * view / image - (self.field - 1) / 2) / strides
        return place.floor().clamp(min=torch.zeros_like(last), max=last).long()

    def _allowed(
        self, mask: Bool[Tensor, "batch height width"], view_sizes: Sequence[Size]
    ) -> Bool[Tensor, "batch down along"]:
        """Which positions of the convolution are inside their image's own view and allowed by the mask."""
        batch, height, width = mask.shape
        rows, columns = self._positions((height, width))
        middle = self.field // 2
        allowed = mask[:, middle : middle + rows, middle : middle + columns]
        inside = _pairs(view_sizes, mask.device).reshape(batch, 2) - self.field + 1
        down, along = torch.arange(rows, device=mask.device), torch.arange(columns, device=mask.device)
        return allowed & (down < inside[:, :1])[:, :, None] & (along < inside[:, 1:])[:, None, :]

    def _by_cell(self, positions: Shaped[Tensor, "batch down along"]) -> Shaped[Tensor, "batch rows s columns t"]:
        """What is known of each position, cell by cell; positions that a last cell lacks are 0, or False."""
        batch, rows, columns = positions.shape
        down, along = self.strides
        map_rows, map_columns = -(-rows // down), -(-columns // along)
        padded = positions.new_zeros(batch, map_rows * down, map_columns * along)
        padded[:, :rows, :columns] = positions
        return padded.reshape(batch, map_rows, down, map_columns, along)

    def _positions(self, view_size: Size) -> Size:
        rows, columns = view_size[0] - self.field + 1, view_size[1] - self.field + 1
        if rows < 1 or columns < 1:
            raise ImageError(
                f"a view must be at least as large as the attention's receptive field, got a view of "
                f"{view_size[0]}×{view_size[1]} and a field of {self.field}: ask for a larger view (model.view), "
                "or set model.attention.padding to same"
            )
        return rows, columns

    def _twice_centres(self, cells: Int64[Tensor, "batch draw 2"], view_sizes: Sequence[Size]) -> Int64[Tensor, "..."]:
        """Twice the view coordinates of cells' centres, so that they are integers."""
        positions = _pairs([self._positions(size) for size in view_sizes], cells.device)
        strides = torch.tensor(self.strides, device=cells.device)
        start = torch.minimum(cells, (positions - 1) // strides) * strides
        stop = torch.minimum(start + strides, positions)
        return start + stop + self.field - 1


def _pairs(sizes: Sequence[Size], device: torch.device) -> Int64[Tensor, "batch 1 2"]:
    # non-blocking: torch.tensor(…, device=…) waits until the device has done all that it was told before
    return torch.tensor(list(sizes), dtype=torch.int64).to(device, non_blocking=True).reshape(-1, 1, 2)


def footprint(patch: Size, view: Size, image: Size) -> Size:
    """(height, width) of a patch in pixels of a view of an image, rounded half up and at least 1.

    Example:
        >>> footprint((100, 50), (150, 120), (1500, 1200)), footprint((10, 10), (20, 20), (900, 900))
        ((10, 5), (1, 1))
    """
    down, along = (
        (2 * side * seen + whole) // (2 * whole) for side, seen, whole in zip(patch, view, image, strict=True)
    )
    return max(1, down), max(1, along)
