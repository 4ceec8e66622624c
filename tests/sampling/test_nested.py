"""Cells of nested grids are the regions of the next: nothing is missed, nothing is there twice, borders included."""

import pytest
import torch

from foveate.sampling.geometry import Grid
from foveate.sampling.nested import NestedGrid

CASES = [(2, (3, 2), (5, 4)), (3, (2,), (7, 11)), (4, (3, 2, 2), (9, 5)), (1, (2, 2), (3, 1)), (5, (4,), (3, 17))]


def cells_of(nested: NestedGrid, level: int, view: tuple[int, int]) -> torch.Tensor:
    rows, columns = nested.shape(level, view)
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(-1, 2)


@pytest.mark.parametrize(("stride", "factors", "view"), CASES)
def test_children_are_all_cells_of_the_next_level_once(
    stride: int, factors: tuple[int, ...], view: tuple[int, int]
) -> None:
    nested = NestedGrid(stride, factors)
    for level in range(nested.levels - 1):
        cells = cells_of(nested, level, view)
        views = torch.tensor([view]).expand(len(cells), 2)
        children, there = nested.children(level, cells, views)
        assert there.any(1).all()  # no region is without a cell
        found = sorted(map(tuple, children[there].tolist()))
        assert found == list(map(tuple, cells_of(nested, level + 1, view).tolist()))


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize(("stride", "factors", "view"), CASES)
def test_regions_lie_where_their_cells_do(
    stride: int, factors: tuple[int, ...], view: tuple[int, int], margin: int
) -> None:
    """A region is as wide as its cell, its first cell begins where it does, and its pixels are those of the level."""
    nested, image = NestedGrid(stride, factors), (view[0] * 24, view[1] * 30)
    for level in range(nested.levels - 1):
        cells = cells_of(nested, level, view)
        views, images = (torch.tensor([size]).expand(len(cells), 2) for size in (view, image))
        extents = nested.extents(level, cells, views, images, margin)
        down, along = (side / (of * nested.fineness(level)) for side, of in zip(image, view, strict=True))
        around = margin * stride / nested.factors[level]
        expected = torch.tensor([
            [
                (row * stride - around) * down,
                (column * stride - around) * along,
                ((row + 1) * stride + around) * down,
                ((column + 1) * stride + around) * along,
            ]
            for row, column in cells.tolist()
        ])  # fmt: skip
        torch.testing.assert_close(extents, expected.double(), rtol=1e-6, atol=1e-5)
        height, width = nested.size(level + 1, view)
        inside = nested.inside(level, cells, views, margin)
        assert inside.shape[1:] == (nested.side(level, margin),) * 2
        for cell, own in zip(cells.tolist(), inside, strict=True):
            first = [(one * nested.factors[level] - margin) * stride for one in cell]
            rows = sum(0 <= first[0] + step < height for step in range(own.shape[0]))
            columns = sum(0 <= first[1] + step < width for step in range(own.shape[1]))
            assert int(own.sum()) == rows * columns


def test_the_last_level_is_a_grid_over_a_finer_view() -> None:
    nested = NestedGrid(3, (4, 2))
    assert nested.shape(2, (10, 7)) == Grid(3).shape((80, 56))
    assert nested.levels == 3
