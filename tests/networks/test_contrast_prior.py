import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from foveate.errors import ConfigError
from foveate.networks import ContrastPrior, contrast_prior


def slow(view: Tensor, mask: Tensor, cells: Tensor, footprint: tuple[int, int], stride: int, field: int) -> Tensor:
    """The definition, cell by cell, pixel by pixel, for one image of its own size."""
    sides = [max(side, stride, 3) for side in footprint]
    allowed = view[:, mask]
    spread = float((allowed.amax(1) - allowed.amin(1)).max())
    sigma = torch.zeros(cells.shape, dtype=torch.float64)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            centre = [stride * index + (stride + field - 1) / 2 for index in (i, j)]
            first = [math.floor(c - side / 2 + 0.5) for c, side in zip(centre, sides, strict=True)]
            rows = slice(max(first[0], 0), max(first[0] + sides[0], 0))
            columns = slice(max(first[1], 0), max(first[1] + sides[1], 0))
            pixels = view[:, rows, columns][:, mask[rows, columns]].double()
            if pixels.shape[1]:
                sigma[i, j] = pixels.var(1, correction=0).mean().sqrt()
    value = sigma + 1e-2 * spread
    return torch.where(cells, (value / value[cells].mean()).log(), 0.0)


def everywhere(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(7, 16),
    width=st.integers(7, 16),
    stride=st.integers(1, 4),
    field=st.sampled_from([1, 3, 7]),
    footprint=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    masked=st.booleans(),
)
def test_equals_the_definition(
    height: int, width: int, stride: int, field: int, footprint: tuple[int, int], masked: bool
) -> None:
    generator = torch.Generator().manual_seed(height * 31 + width)
    view = torch.rand(1, 2, height, width, generator=generator)
    mask = torch.rand(1, height, width, generator=generator) > (0.5 if masked else -1)
    mask[0, 3, 3] = True
    rows, columns = (-(-(side - field + 1) // stride) for side in (height, width))
    cells = torch.rand(1, rows, columns, generator=generator) > (0.3 if masked else -1)
    cells[0, 0, 0] = True
    found = contrast_prior(view, mask, cells, [(height, width)], [footprint], stride, field)
    torch.testing.assert_close(found[0].double(), slow(view[0], mask[0], cells[0], footprint, stride, field),
                               rtol=0, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize(("stride", "footprint"), [(1, (26, 31)), (13, (26, 27)), (13, (64, 13)), (5, (34, 9))])
def test_long_windows_equal_the_definition(stride: int, footprint: tuple[int, int]) -> None:
    view = torch.rand(1, 3, 47, 60, generator=torch.Generator().manual_seed(1))
    view[:, :, 20:] = 0.95  # where a difference of large sums would show
    cells = everywhere(1, -(-47 // stride), -(-60 // stride))
    found = contrast_prior(view, everywhere(1, 47, 60), cells, [(47, 60)], [footprint], stride)
    expected = slow(view[0], everywhere(47, 60), cells[0], footprint, stride, 1)
    torch.testing.assert_close(found[0].double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0, 255.0])
def test_is_exactly_zero_on_a_constant_image(value: float) -> None:
    view = torch.full((1, 3, 11, 8), value)
    view[:, 1] /= 2  # constant, not grey
    assert not contrast_prior(view, everywhere(1, 11, 8), everywhere(1, 6, 4), [(11, 8)], [(5, 4)], 2).any()


@pytest.mark.parametrize(("gain", "offset"), [(0.01, 0.0), (1.0, -7.0), (255.0, 3.0), (0.2, 0.5)])
def test_is_unchanged_by_gain_and_offset(gain: float, offset: float) -> None:
    view = torch.rand(2, 1, 13, 9, generator=torch.Generator().manual_seed(0)).double()
    view[:, :, :, 5:] = view[:, :, :, 5:6]  # a flat side, where rounding would show
    where = (everywhere(2, 13, 9), everywhere(2, 5, 3), [(13, 9)] * 2, [(4, 3)] * 2, 3)
    torch.testing.assert_close(contrast_prior(gain * view + offset, *where), contrast_prior(view, *where),
                               rtol=0, atol=1e-5)  # fmt: skip


def test_a_flat_bright_background_is_flat_in_float32() -> None:
    view = torch.full((1, 1, 30, 40), 0.95)
    view[0, 0, :5, :5] = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    found = contrast_prior(view, everywhere(1, 30, 40), everywhere(1, 15, 20), [(30, 40)], [(4, 6)], 2)
    background = found[0, 6:, 8:]
    assert float(background.max() - background.min()) == 0.0
    assert float(found[0, 0, 0]) > float(background.max()) + 2


def test_padding_and_company_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes, footprints = [(9, 12), (14, 7), (9, 12)], [(3, 4), (5, 3), (6, 4)]
    views, mask = torch.zeros(3, 2, 14, 12), torch.zeros(3, 14, 12, dtype=torch.bool)
    cells = torch.zeros(3, 7, 6, dtype=torch.bool)
    for row, (height, width) in enumerate(sizes):
        views[row, :, :height, :width] = torch.rand(2, height, width, generator=generator)
        mask[row, :height, :width] = True
        cells[row, : -(-height // 2), : -(-width // 2)] = True
    together = contrast_prior(views, mask, cells, sizes, footprints, 2)
    for row, (height, width) in enumerate(sizes):
        rows, columns = -(-height // 2), -(-width // 2)
        alone = contrast_prior(
            views[row : row + 1, :, :height, :width],
            everywhere(1, height, width),
            everywhere(1, rows, columns),
            [sizes[row]],
            [footprints[row]],
            2,
        )
        torch.testing.assert_close(together[row, :rows, :columns], alone[0], rtol=0, atol=1e-6)
        assert not together[row].masked_fill(cells[row], 0).any()


def test_an_image_masked_altogether_is_left_at_zero() -> None:
    found = contrast_prior(torch.rand(1, 1, 6, 8), ~everywhere(1, 6, 8), ~everywhere(1, 3, 4), [(6, 8)], [(2, 2)], 2)
    assert not found.any()


def test_strength_scales_and_is_stored_with_the_model() -> None:
    view = torch.rand(1, 1, 9, 12, generator=torch.Generator().manual_seed(0))
    where = (everywhere(1, 9, 12), everywhere(1, 3, 4), [(9, 12)], [(4, 4)], 3)
    prior = ContrastPrior(2.0, epsilon=1e-2)
    torch.testing.assert_close(prior(view, *where), 2 * contrast_prior(view, *where))
    prior.strength.fill_(0.5)
    assert prior.state_dict()["strength"] == 0.5
    torch.testing.assert_close(prior(view, *where), contrast_prior(view, *where) / 2)
    assert not list(prior.parameters())


def test_epsilon_must_be_positive() -> None:
    with pytest.raises(ConfigError) as caught:
        ContrastPrior(1.0, epsilon=0.0)
    assert str(caught.value) == "model.prior.epsilon must be positive, got 0.0: set it to e.g. 0.01"
