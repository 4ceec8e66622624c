import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.models.deep_mil import all_boxes, allowed_cells
from foveate.sampling.geometry import Grid

SIDE = st.integers(1, 60)
SIZE = st.tuples(SIDE, SIDE)


@given(stride=st.tuples(st.integers(1, 20), st.integers(1, 20)), size=SIZE)
@settings(max_examples=40, deadline=None)
def test_cells_tile_the_image_and_centres_lie_in_them(stride: tuple[int, int], size: tuple[int, int]) -> None:
    lattice = Grid(stride)
    rows, columns = lattice.shape(size)
    assert (rows, columns) == (-(-size[0] // stride[0]), -(-size[1] // stride[1]))
    cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
    for (row, column), (down, along) in zip(cells.tolist(), lattice.centres(cells, size, size).tolist(), strict=True):
        assert down == (row * stride[0] + min((row + 1) * stride[0], size[0])) / 2
        assert along == (column * stride[1] + min((column + 1) * stride[1], size[1])) / 2
    assert torch.equal(lattice.cells(lattice.centres(cells, size, size), size, size), cells)
    assert lattice.extent(size, size) == (0, 0, rows * stride[0], columns * stride[1])


@given(stride=st.integers(1, 20), size=SIZE, patch=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=40, deadline=None)
def test_two_equal_strides_are_one(stride: int, size: tuple[int, int], patch: tuple[int, int]) -> None:
    lattice, grid = Grid((stride, stride)), Grid(stride)
    index = torch.arange(grid.shape(size)[0] * grid.shape(size)[1])[None]
    assert lattice.shape(size) == grid.shape(size)
    assert lattice.extent(size, size) == grid.extent(size, size)
    expected = grid.boxes(index, grid.shape(size)[1], [size], [size], patch)
    assert torch.equal(all_boxes(lattice, [size], patch), expected)


@given(size=SIZE, patch=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=40, deadline=None)
def test_patches_side_by_side_leave_no_pixel_out(size: tuple[int, int], patch: tuple[int, int]) -> None:
    covered = torch.zeros(size, dtype=torch.int64)
    for top, left, height, width in all_boxes(Grid(patch), [size], patch)[0].tolist():
        covered[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] += 1
    assert (covered >= 1).all()
    if size[0] % patch[0] == size[1] % patch[1] == 0:
        assert (covered == 1).all()


def test_boxes_and_masks_of_a_batch_by_hand() -> None:
    """Images of 10×6 and 4×9 in cells of 4×3: maps of 3×2 and 1×3 in one of 3×3."""
    lattice, sizes = Grid((4, 3)), [(10, 6), (4, 9)]
    boxes = all_boxes(lattice, sizes, (4, 3)).view(2, 3, 3, 4)
    assert boxes[0, 2, 1].tolist() == [7, 3, 4, 3]  # the last two rows: centre 9
    assert boxes[0, 2, 2].tolist() == boxes[0, 2, 1].tolist()  # not there: the nearest
    assert boxes[1, 0].tolist() == [[0, 0, 4, 3], [0, 3, 4, 3], [0, 6, 4, 3]]
    everywhere = torch.ones(2, 1, 1, dtype=torch.bool)
    there = allowed_cells(lattice, everywhere, [(1, 1), (1, 1)], sizes)
    assert there.tolist() == [[[True, True, False]] * 3, [[True] * 3, [False] * 3, [False] * 3]]
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[0, 4, 4] = True  # of 5×6, for 10×6 pixels: rows 8 and 9, column 4, where the centre of cell (2, 1) is
    mask[1, 1, 1] = True  # of 2×3, for 4×9 pixels: rows 2 and 3, columns 3 to 5: centre (2, 4.5) of cell (0, 1)
    allowed = allowed_cells(lattice, mask, [(5, 6), (2, 3)], sizes)
    assert allowed.nonzero().tolist() == [[0, 2, 1], [1, 0, 1]]


@pytest.mark.parametrize("stride", [(0, 3), (3, -1)])
def test_a_stride_must_be_positive(stride: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^stride and field must be at least 1 view pixel"):
        Grid(stride)
