"""Which patch is that: worked by hand, then as laws. Nothing here is square."""

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.errors import ImageError
from foveate.sampling.geometry import Grid
from foveate.types import Size


def boxes(grid: Grid, cells: list[tuple[int, int]], view: Size, image: Size, patch: Size) -> list[tuple[int, int]]:
    """Top and left of the boxes of cells given as (row, column)."""
    columns = grid.shape(view)[1]
    index = torch.tensor([[row * columns + column for row, column in cells]])
    result = grid.boxes(index, columns, [view], [image], patch)[0]
    assert result[:, 2:].tolist() == [list(patch)] * len(cells)
    return [tuple(corner) for corner in result[:, :2].tolist()]


class TestByHand:
    def test_padded_map_at_an_integer_scale(self) -> None:
        # view 4 × 6 of an image 40 × 60: cell (0, 0) is centred at (0.5, 0.5) → (5, 5); a patch of 10 × 20 → (0, −5)
        # cell (3, 5) at (3.5, 5.5) → (35, 55) → (30, 45): its right edge, 65, hangs over by 5
        assert boxes(Grid(1), [(0, 0), (3, 5), (1, 2)], (4, 6), (40, 60), (10, 20)) == [(0, -5), (30, 45), (10, 15)]

    def test_padded_map_at_the_megapixel_mnist_scale(self) -> None:
        # 180 × 120 of 1500 × 1000: 8⅓ pixels a cell; patch 50
        # cell 0: 0.5 · 25/3 = 4.1667; − 25 + ½ = −20.33 → −21        cell 1: 12.5; − 24.5 = −12 exactly
        # cell 179: 179.5 · 25/3 = 1495.83; − 24.5 = 1471.33 → 1471    cell 119: 995.83 → 971
        assert boxes(Grid(1), [(0, 1), (179, 119)], (180, 120), (1500, 1000), (50, 50)) == [(-21, -12), (1471, 971)]

    def test_odd_patches_have_a_middle_pixel(self) -> None:
        # scale 1: the patch of cell (i, j) has pixel (i, j) in its middle, and even ones have it just below the middle
        assert boxes(Grid(1), [(7, 3)], (20, 30), (20, 30), (5, 3)) == [(5, 2)]
        assert boxes(Grid(1), [(7, 3)], (20, 30), (20, 30), (4, 2)) == [(6, 3)]

    def test_pooled_map_with_a_partial_last_window(self) -> None:
        # view 7 × 10, stride 3: windows of rows 0–2, 3–5, 6, of columns 0–2, 3–5, 6–8, 9; image 8 times larger
        grid = Grid(3)
        assert grid.shape((7, 10)) == (3, 4)
        # full cell (1, 1): centre 4.5 → 36; patch 8 × 4: 36 − 4 + ½ → 32, 36 − 2 + ½ → 34
        # last cell (2, 3): centres 6.5 and 9.5 → 52 and 76 → 48 and 74
        assert boxes(grid, [(1, 1), (2, 3)], (7, 10), (56, 80), (8, 4)) == [(32, 34), (48, 74)]

    def test_valid_convolution_pooled_as_for_speed_limits(self) -> None:
        # view 288 × 384 of 960 × 1280, field 9, pooled by 8: 280 × 376 positions, 35 × 47 cells
        grid = Grid(stride=8, field=9)
        assert grid.shape((288, 384)) == (35, 47)
        # cell 0 pools positions 0 … 7, centred at 4.5 … 11.5: 8 → 8 · 10/3 = 26.67; − 50 + ½ → −23
        # cell (34, 46): 34 · 8 + 8 = 280 → 933.33 → 883; 46 · 8 + 8 = 376 → 1253.33 → 1203
        assert boxes(grid, [(0, 0), (34, 46)], (288, 384), (960, 1280), (100, 100)) == [(-23, -23), (883, 1203)]

    def test_valid_convolution_unpooled(self) -> None:
        # field 5, view 6 × 8: 2 × 4 positions, (0, 0) centred on pixel 2, at 2.5 → 25; patch 10 → 20
        grid = Grid(stride=1, field=5)
        assert grid.shape((6, 8)) == (2, 4)
        assert boxes(grid, [(0, 0), (1, 3)], (6, 8), (60, 80), (10, 10)) == [(20, 20), (30, 50)]

    def test_each_axis_has_its_own_scale(self) -> None:
        # rows 3 → 10, columns 4 → 13: cell (2, 3) at 2.5 · 10/3 = 8.33 and 3.5 · 13/4 = 11.375; patch 1 × 1 → 8 and 11
        assert boxes(Grid(1), [(2, 3)], (3, 4), (10, 13), (1, 1)) == [(8, 11)]

    def test_masks(self) -> None:
        # view 4 × 5 in a batch padded to 5 × 7; pixel (0, 1) and (3, 4) allowed
        mask = torch.zeros(1, 5, 7, dtype=torch.bool)
        mask[0, 0, 1] = mask[0, 3, 4] = mask[0, 4, 6] = True  # the last is padding: not allowed whatever the mask says
        assert Grid(2).cell_mask(mask, [(4, 5)])[0].int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
        # field 3: positions 2 × 3 of the view's own, centres at pixels 1 … 2 and 1 … 3: neither allowed pixel is one
        assert not Grid(1, 3).cell_mask(mask, [(4, 5)]).any()
        mask[0, 1, 3] = True
        assert Grid(1, 3).cell_mask(mask, [(4, 5)])[0].int().tolist() == [[0, 0, 1, 0, 0]] + [[0] * 5] * 2
        assert Grid(2, 3).cell_mask(mask, [(4, 5)])[0].int().tolist() == [[0, 1, 0], [0, 0, 0]]

    def test_points(self) -> None:
        # view 7 × 10, stride 3, image ×8: windows end at 24, 48, 56 and at 24, 48, 72, 80
        points = torch.tensor([[0.0, 79.9], [24.0, 23.9], [47.9, 48.0], [56.0, 72.0], [-5.0, 300.0]])
        cells = Grid(3).cells(points, (7, 10), (56, 80))
        assert cells.tolist() == [[0, 3], [1, 0], [1, 2], [2, 3], [0, 3]]
        # field 5: position 0 is pixel 2, so its window is [2, 3) → [20, 30); what lies before belongs to it as well
        cells = Grid(1, 5).cells(torch.tensor([[29.9, 30.0], [3.0, 59.0]]), (6, 8), (60, 80))
        assert cells.tolist() == [[0, 1], [0, 3]]

    def test_centres(self) -> None:
        cells = torch.tensor([[0, 0], [1, 1], [2, 3]])
        centres = Grid(3).centres(cells, (7, 10), (56, 85))
        torch.testing.assert_close(
            centres, torch.tensor([[12, 12.75], [36, 38.25], [52, 80.75]], dtype=torch.float64), rtol=0, atol=0
        )

    def test_the_affine_map(self) -> None:
        # 6 × 8 pixels at field 3, scales 10 and 20 down and along: the map starts one pixel in
        assert Grid((2, 4), 3).affine((6, 8), (60, 160)) == (80.0, 0.0, 20.0, 0.0, 20.0, 10.0)


sides = st.integers(1, 40)
grids = st.builds(Grid, st.integers(1, 7), st.integers(1, 6))


def large_enough(grid: Grid, view: Size) -> Size:
    return view[0] + grid.field - 1, view[1] + grid.field - 1


def all_cells(shape: Size) -> Tensor:
    return torch.cartesian_prod(torch.arange(shape[0]), torch.arange(shape[1])).reshape(-1, 2)


@settings(max_examples=60, deadline=None)
@given(grids, st.tuples(sides, sides))
def test_the_shape_is_what_convolution_and_pooling_produce(grid: Grid, view: Size) -> None:
    view = large_enough(grid, view)
    layers = nn.Sequential(nn.Conv2d(1, 1, grid.field), nn.MaxPool2d(grid.stride, ceil_mode=True))
    assert tuple(layers(torch.zeros(1, 1, *view)).shape[2:]) == grid.shape(view)


@settings(max_examples=60, deadline=None)
@given(grids, st.tuples(sides, sides), st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_the_cell_of_a_cells_centre_is_the_cell(grid: Grid, view: Size, image: Size) -> None:
    view = large_enough(grid, view)
    cells = all_cells(grid.shape(view))
    assert torch.equal(grid.cells(grid.centres(cells, view, image), view, image), cells)


@settings(max_examples=60, deadline=None)
@given(
    grids,
    st.tuples(sides, sides),
    st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
    st.tuples(st.integers(1, 999), st.integers(1, 999)),
)
def test_patches_lie_around_the_centres_to_half_a_pixel(grid: Grid, view: Size, image: Size, patch: Size) -> None:
    view = large_enough(grid, view)
    shape = grid.shape(view)
    centres = grid.centres(all_cells(shape), view, image)
    index = torch.arange(shape[0] * shape[1])[None]
    top_left = grid.boxes(index, shape[1], [view], [image], patch)[0, :, :2].double()
    away = top_left + torch.tensor(patch) / 2 - centres
    # the patch's middle is the centre, rounded half up to the pixels a patch of this size can lie on
    assert (away <= 0.5 + 1e-7).all()
    assert (away > -0.5 - 1e-7).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.tuples(sides, sides), st.integers(0, 10**6))
def test_every_allowed_pixel_lies_in_a_valid_cell(stride: int, view: Size, seed: int) -> None:
    grid = Grid(stride)
    padded = (view[0] + 3, view[1] + 5)
    mask = torch.rand(1, *padded, generator=torch.Generator().manual_seed(seed)) < 0.1
    mask[:, view[0] :] = False
    mask[:, :, view[1] :] = False
    valid = grid.cell_mask(mask, [view])[0]
    pixels = mask[0].nonzero()
    assert valid[tuple((pixels // stride).T)].all()
    # and no cell is valid without one
    cells = torch.unique(pixels // stride, dim=0) if len(pixels) else pixels
    assert int(valid.sum()) == len(cells)


@settings(max_examples=40, deadline=None)
@given(grids, st.tuples(sides, sides), st.integers(0, 10**6))
def test_masks_of_valid_convolutions_by_their_definition(grid: Grid, view: Size, seed: int) -> None:
    view = large_enough(grid, view)
    padded = (view[0] + 4, view[1] + 2)
    mask = torch.rand(1, *padded, generator=torch.Generator().manual_seed(seed)) < 0.3
    expected = torch.zeros(grid.shape(padded), dtype=torch.bool)
    for row in range(view[0] - grid.field + 1):
        for column in range(view[1] - grid.field + 1):
            if mask[0, row + grid.field // 2, column + grid.field // 2]:
                expected[row // grid.stride, column // grid.stride] = True
    assert torch.equal(grid.cell_mask(mask, [view])[0], expected)


@settings(max_examples=40, deadline=None)
@given(grids, st.tuples(sides, sides), st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_padding_a_view_changes_no_box_and_no_mask(grid: Grid, view: Size, more: Size) -> None:
    view = large_enough(grid, view)
    padded = (view[0] + more[0], view[1] + more[1])
    (rows, columns), (_, map_columns) = grid.shape(view), grid.shape(padded)
    alone = torch.arange(rows * columns)[None]
    together = alone // columns * map_columns + alone % columns
    image, patch = (view[0] * 9 + 4, view[1] * 5 + 1), (13, 20)
    expected = grid.boxes(alone, columns, [view], [image], patch)
    assert torch.equal(grid.boxes(together, map_columns, [view], [image], patch), expected)
    mask = torch.zeros(1, *padded, dtype=torch.bool)
    mask[:, : view[0], : view[1]] = True
    valid = grid.cell_mask(mask, [view])[0]
    assert torch.equal(valid.nonzero(), all_cells((rows, columns)))


def test_images_of_a_batch_do_not_mix() -> None:
    grid, views, images = Grid(2), [(8, 12), (5, 9), (3, 11)], [(800, 700), (50, 99), (333, 1000)]
    index = torch.tensor([[0, 7, 13], [1, 6, 14], [0, 5, 11]])
    together = grid.boxes(index, 6, views, images, (30, 40))
    for i in range(3):
        assert torch.equal(together[i : i + 1], grid.boxes(index[i : i + 1], 6, [views[i]], [images[i]], (30, 40)))


def test_cells_in_the_padding_stand_for_the_nearest() -> None:
    grid = Grid(2)
    inside = grid.boxes(torch.tensor([[2 * 9 + 3]]), 9, [(6, 8)], [(60, 80)], (10, 10))
    assert torch.equal(grid.boxes(torch.tensor([[7 * 9 + 8]]), 9, [(6, 8)], [(60, 80)], (10, 10)), inside)


@pytest.mark.parametrize("side", [10**6 - 1, 10**6])
def test_sizes_to_a_million_do_not_overflow_and_stay_exact(side: int) -> None:
    # the last cell of a view as large as the image: its pixel is the last one
    index = torch.tensor([[side * 3 - 1]])
    assert Grid(1).boxes(index, side, [(3, side)], [(3, side)], (1, 1)).tolist() == [[[2, side - 1, 1, 1]]]
    last = Grid(1).boxes(torch.tensor([[side - 1]]), side, [(1, side)], [(1, side * 1000 + 7)], (1, 1))
    assert last[0, 0, 1] == ((2 * side - 1) * (side * 1000 + 7)) // (2 * side)


def test_a_view_smaller_than_the_field_is_refused() -> None:
    message = (
        "a view must be at least as large as the attention's receptive field, got a view of 8×20 and a field of 9: "
        "ask for a larger view (model.view), or set model.attention.padding to same"
    )
    for act in (
        lambda: Grid(8, 9).shape((8, 20)),
        lambda: Grid(8, 9).boxes(torch.tensor([[0]]), 1, [(8, 20)], [(80, 200)], (5, 5)),
        lambda: Grid(8, 9).centres(torch.tensor([0, 0]), (8, 20), (80, 200)),
    ):
        with pytest.raises(ImageError) as caught:
            act()
        assert str(caught.value) == message


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="stride and field must be at least 1 view pixel, got 0 and 1"):
        Grid(0)


def test_a_maps_extent_puts_full_cells_around_their_centres() -> None:
    # View 12×20 of an image 60×50: 5 rows and 2.5 columns to a view pixel. Field 3, stride 2: 5×9 cells, from pixel 1.
    grid, view, image = Grid(stride=2, field=3), (12, 20), (60, 50)
    assert grid.extent(view, image) == (5.0, 2.5, 55.0, 47.5)
    top, left, bottom, right = grid.extent(view, image)
    rows, columns = grid.shape(view)
    cells = all_cells((rows, columns))
    middle = torch.tensor([(bottom - top) / rows, (right - left) / columns], dtype=torch.float64)
    expected = torch.tensor([top, left], dtype=torch.float64) + (cells + 0.5) * middle
    assert torch.equal(grid.centres(cells, view, image), expected)


@settings(max_examples=60, deadline=None)
@given(grids, st.tuples(sides, sides), st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_the_affine_map_puts_full_cells_where_their_centres_are(grid: Grid, view: Size, image: Size) -> None:
    view = large_enough(grid, view)
    a, b, c, d, e, f = grid.affine(view, image)
    assert (b, d) == (0, 0)
    full = [(side - grid.field + 1) // stride for side, stride in zip(view, grid.strides, strict=True)]
    cells = all_cells((full[0], full[1]))
    placed = (cells + 0.5) * torch.tensor([e, a], dtype=torch.float64) + torch.tensor([f, c], dtype=torch.float64)
    torch.testing.assert_close(placed, grid.centres(cells, view, image), rtol=1e-12, atol=1e-9)
    back = grid.cells(placed.clamp(max=1e9), view, image)
    assert (back == cells).all()


def test_shapes_in_signatures_are_executed_in_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match=r"Grid\.boxes"):
        Grid(1).boxes(torch.zeros(3, dtype=torch.long), 5, [(4, 5)], [(40, 50)], (6, 8))
