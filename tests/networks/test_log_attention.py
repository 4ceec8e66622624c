import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from foveate.errors import FoveateError
from foveate.networks import log_attention


@pytest.mark.parametrize("smoothing", [0.0, 1e-5, 0.3])
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 13), spread=st.sampled_from([0.0, 1.0, 30.0]))
def test_equals_the_definition_and_is_normalised(smoothing: float, rows: int, columns: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    logits = spread * torch.randn(3, rows, columns, generator=generator)
    mask = torch.rand(3, rows, columns, generator=generator) > 0.4
    mask[:, 0, 0] = True
    result = log_attention(logits, mask, smoothing)
    for row in range(3):
        valid = mask[row].flatten()
        exact = logits[row].flatten()[valid].double().softmax(0)
        exact = (1 - smoothing) * exact + smoothing / int(valid.sum())
        torch.testing.assert_close(result[row][valid].double().exp(), exact, rtol=3e-5, atol=1e-12)
        assert (result[row][~valid] == -math.inf).all()
        assert abs(float(result[row].double().exp().sum()) - 1) < 1e-6


@pytest.mark.parametrize("cells", [(180, 180), (1000, 1000)])
@pytest.mark.parametrize("spread", [0.0, 3.0, 1000.0])
def test_large_maps_stay_normalised_in_float32(cells: tuple[int, int], spread: float) -> None:
    logits = spread * torch.randn(1, *cells, generator=torch.Generator().manual_seed(0))
    result = log_attention(logits, torch.ones(1, *cells, dtype=torch.bool), 1e-5)
    assert result.dtype == torch.float32
    assert abs(float(result.double().exp().sum()) - 1) < 1e-6
    assert result.min() > math.log(1e-5 / logits.numel()) - 1e-4


@pytest.mark.parametrize("smoothing", [0.0, 1e-5])
def test_gradients_are_finite_and_zero_where_masked(smoothing: float) -> None:
    logits = torch.tensor([[[1.0, 5.0, -500.0], [0.0, torch.finfo().min, 2.0]]], requires_grad=True)
    mask = torch.tensor([[[True, True, True], [True, False, False]]])
    log_prob = log_attention(logits, mask, smoothing)
    probability = log_prob.exp().masked_fill(~mask.flatten(1), 0)
    (torch.special.entr(probability.clamp(min=1e-30)).sum() + log_prob[mask.flatten(1)].sum()).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[~mask].tolist() == [0.0, 0.0]
    assert logits.grad[mask].abs().max() > 0


def test_half_precision_is_computed_on_in_full() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(2, 5, 7, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = log_attention(logits, mask, 1e-5)
    torch.testing.assert_close(result, log_attention(logits.float(), mask, 1e-5), rtol=0, atol=0)


def test_a_row_without_cells_is_an_error_that_names_it() -> None:
    mask = torch.ones(3, 2, 4, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(FoveateError) as caught:
        log_attention(torch.zeros(3, 2, 4), mask)
    assert str(caught.value) == (
        "image 1 of the batch has no cell to look at, all 8 are masked: check its mask, or enlarge the view"
    )
    with pytest.raises(FoveateError, match=r"image 1 of the batch \(b\.png\) has no cell"):
        log_attention(torch.zeros(3, 2, 4), mask, names=("a.png", "b.png", "c.png"))
