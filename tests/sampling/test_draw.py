"""Which cells are drawn, how often, and that nothing else changes it."""

import itertools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.overrides import TorchFunctionMode

from foveate import sampling
from foveate.errors import FoveateError
from foveate.networks import log_attention
from foveate.sampling import expectation, fetch, weigh
from foveate.sampling.geometry import Grid
from foveate.types import Draw

METHODS = ["iid", "des_raj", "priority", "murthy", "uniform", "top"]
RANDOM = METHODS[:-1]
FAILURE_RATE = 1e-6
"""Chance, for one seed, that a statistical test below fails though the code is right; the seeds are fixed."""


@pytest.fixture(autouse=True, scope="module", params=["as on a CPU", "as on an accelerator"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs both ways; the accelerator's on the CPU, too, where it is called what it is not."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param != "as on a CPU":
            patched.setattr(import_module("foveate.sampling.draw"), "on_host", lambda values: False)  # noqa: ARG005
        yield request.param


def draw(*arguments: Any, **options: Any) -> Draw:
    """A draw, and all its checks."""
    drawn = sampling.draw(*arguments, **options)
    index, valid = fetch(drawn)
    assert torch.equal(index, drawn.index)
    assert torch.equal(valid, drawn.valid)
    return replace(drawn, checks=None)


def _generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _log_prob(*shape: int, scale: float = 2.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def _same(left: Draw, right: Draw) -> None:
    assert torch.equal(left.index, right.index)
    assert torch.equal(left.valid, right.valid)
    torch.testing.assert_close(left.weight, right.weight, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(left.log_rest, right.log_rest, rtol=1e-12, atol=1e-12)


def _rows(drawn: Draw, start: int, stop: int) -> Draw:
    part = slice(start, stop)
    return Draw(
        drawn.index[part],
        drawn.log_prob[part],
        drawn.weight[part],
        drawn.valid[part],
        drawn.log_rest[part],
        None if drawn.threshold is None else drawn.threshold[part],
        drawn.method,
        drawn.log_proposal[part],
    )


@pytest.mark.parametrize("method", ["iid", "murthy", "uniform"])
def test_ordered_pairs_have_the_right_frequencies(method: str) -> None:
    draws, prob = 3_000, torch.tensor([0.4, 0.25, 0.15, 0.1, 0.07, 0.03], dtype=torch.float64)
    index = draw(prob.log().expand(draws, -1), 2, method, generator=torch.Generator().manual_seed(1)).index
    observed = torch.bincount(index[:, 0] * 6 + index[:, 1], minlength=36).double()
    expected = torch.zeros(36, dtype=torch.float64)
    source = torch.full_like(prob, 1 / 6) if method == "uniform" else prob
    for first, second in itertools.product(range(6), repeat=2):
        if method == "iid":
            expected[first * 6 + second] = source[first] * source[second]
        elif first != second:
            expected[first * 6 + second] = source[first] * source[second] / (1 - source[first])
    possible = expected > 0
    assert not observed[~possible].any()
    statistic = ((observed - draws * expected).square() / (draws * expected))[possible].sum().item()
    assert stats.chi2.sf(statistic, int(possible.sum()) - 1) > FAILURE_RATE


@pytest.mark.one_in(3)
@pytest.mark.parametrize("drawn_from", ["attention", "proposal"])
@pytest.mark.parametrize("method", RANDOM)
def test_a_cell_counts_once_on_average(method: str, drawn_from: str) -> None:
    if drawn_from == "proposal" and method == "uniform":
        drawn_from = "attention"
    draws, cells = 3_000, 6
    log_prob = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.07, 0.03], dtype=torch.float64).log().expand(draws, -1)
    proposal = _log_prob(cells, scale=1.0).expand(draws, -1) if drawn_from == "proposal" else None
    drawn = draw(log_prob, 3, method, generator=torch.Generator().manual_seed(2), proposal=proposal)
    counts = torch.zeros(draws, cells, dtype=torch.float64).scatter_add(1, drawn.index, drawn.weight)
    deviation = (counts.mean(0) - 1).abs() / (counts.std(0) / math.sqrt(draws)).clamp(min=1e-12)
    assert deviation.max().item() < stats.norm.isf(FAILURE_RATE / 2 / cells)


def test_methods_without_replacement_draw_the_same_cells_and_threshold() -> None:
    log_prob = _log_prob(3, 50)
    drawn = [draw(log_prob, 7, method, generator=_generators(4)[0]) for method in ("des_raj", "priority", "murthy")]
    for other in drawn[1:]:
        assert torch.equal(other.index, drawn[0].index)
        assert other.threshold is not None
        assert torch.equal(other.threshold, drawn[0].threshold)


@given(data=st.data(), method=st.sampled_from(METHODS), rows=st.integers(1, 4), columns=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_padding_a_map_changes_no_draw(data: st.DataObject, method: str, rows: int, columns: int) -> None:
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    valid[0] = True
    more_rows, more_columns, n = (
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(1, 9)),
    )
    logits = torch.randn(rows * columns, generator=torch.Generator().manual_seed(rows * 7 + columns))
    log_prob = logits.masked_fill(~valid, -math.inf).log_softmax(0)

    def padded(values: Tensor, fill: float) -> Tensor:
        image = values.view(rows, columns)
        return torch.nn.functional.pad(image, (0, more_columns, 0, more_rows), value=fill).view(1, -1)

    small = draw(log_prob[None], n, method, valid[None], _generators(9)[0])
    large = draw(padded(log_prob, -3.0), n, method, padded(valid, False), _generators(9)[0])
    width = columns + more_columns
    assert torch.equal(small.index // columns, large.index // width)
    assert torch.equal(small.index % columns, large.index % width)
    torch.testing.assert_close(small.weight, large.weight, rtol=1e-12, atol=0.0)
    assert torch.equal(small.valid, large.valid)


@pytest.mark.parametrize("method", METHODS)
def test_a_draw_does_not_change_with_its_batch(method: str) -> None:
    log_prob, mask = _log_prob(3, 40), torch.ones(3, 40, dtype=torch.bool)
    mask[1, 5:] = False
    log_prob = log_prob.masked_fill(~mask, -math.inf).log_softmax(1)
    together = draw(log_prob, 6, method, mask, _generators(1, 2, 3))
    for image, seed in enumerate((1, 2, 3)):
        alone = draw(log_prob[image : image + 1], 6, method, mask[image : image + 1], _generators(seed)[0])
        _same(_rows(together, image, image + 1), alone)
    turned = draw(log_prob.flip(0), 6, method, mask.flip(0), _generators(3, 2, 1))
    assert torch.equal(turned.index.flip(0), together.index)


@pytest.mark.parametrize("method", RANDOM)
def test_one_generator_serves_the_images_in_turn(method: str) -> None:
    log_prob = _log_prob(3, 40)
    together = draw(log_prob, 6, method, generator=_generators(5)[0])
    generator = _generators(5)[0]
    for image in range(3):
        _same(_rows(together, image, image + 1), draw(log_prob[image : image + 1], 6, method, generator=generator))


def test_without_a_generator_torch_s_own_is_used() -> None:
    log_prob = _log_prob(2, 40)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        first = draw(log_prob, 5)
        second = draw(log_prob, 5)
        torch.manual_seed(8)
        _same(draw(log_prob, 5), first)
    assert not torch.equal(first.index, second.index)


@pytest.mark.parametrize("method", METHODS)
def test_images_with_few_cells_are_summed_exactly_beside_larger_ones(method: str) -> None:
    mask = torch.tensor([[True] * 7, [False, True, False, True, False, False, True], [False] * 6 + [True]])
    log_prob = torch.linspace(0, 1, 21).view(3, 7).masked_fill(~mask, -math.inf).log_softmax(1)
    drawn = draw(log_prob, 3, method, mask, _generators(3)[0])
    assert drawn.index.shape == drawn.weight.shape == drawn.valid.shape == (3, 3)
    assert mask.gather(1, drawn.index).all()
    if method == "iid":
        assert drawn.valid.all()
        return
    assert drawn.valid.tolist() == [[True] * 3, [True] * 3, [True, False, False]]
    assert drawn.weight[1:].tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    assert sorted(drawn.index[1].tolist()) == [1, 3, 6]
    assert drawn.index[2].tolist() == [6, 6, 6]
    assert drawn.log_rest[0] > -math.inf
    assert drawn.log_rest[1:].tolist() == [-math.inf, -math.inf]
    if method == "top":
        assert drawn.threshold is None
    else:
        assert drawn.threshold is not None
        assert drawn.threshold[0] > -math.inf
        assert drawn.threshold[1:].tolist() == [-math.inf, -math.inf]


def test_more_cells_asked_for_than_the_map_has() -> None:
    for method in METHODS:
        drawn = draw(_log_prob(2, 3), 5, method)
        assert drawn.index.shape == (2, 5)
        assert drawn.valid.sum().item() == (10 if method == "iid" else 6)


def test_the_log_mass_left_survives_a_peak_that_leaves_none_in_float32() -> None:
    log_prob = torch.tensor([[0.0, -40.0, -41.0, -42.0]])
    drawn = weigh(log_prob, torch.tensor([[0, 2]]), "des_raj")
    torch.testing.assert_close(drawn.log_rest.item(), math.log(math.exp(-40) + math.exp(-42)), rtol=1e-9, atol=0.0)
    left = math.exp(-40) + math.exp(-41) + math.exp(-42)
    torch.testing.assert_close(drawn.weight[0, 1].item(), left / math.exp(-41) / 2, rtol=1e-9, atol=0.0)


def test_top_takes_the_first_of_equals() -> None:
    mask = torch.tensor([[False, True, True, True, False, True]])
    log_prob = torch.zeros(1, 6).masked_fill(~mask, -math.inf).log_softmax(1)
    assert draw(log_prob, 3, "top", mask).index.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("method", METHODS)
def test_only_the_attention_carries_a_gradient(method: str) -> None:
    drawn = draw(_log_prob(2, 9).requires_grad_(), 4, method)
    assert drawn.log_prob.requires_grad
    assert drawn.weight.requires_grad == (method == "top")
    assert not drawn.log_rest.requires_grad
    assert not drawn.log_proposal.requires_grad
    assert drawn.weight.dtype == drawn.log_rest.dtype == drawn.log_proposal.dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_weigh_says_of_a_draw_what_draw_said(method: str) -> None:
    log_prob, mask = _log_prob(3, 12), torch.ones(3, 12, dtype=torch.bool)
    mask[0, 3:] = False
    log_prob = log_prob.masked_fill(~mask, -math.inf).log_softmax(1)
    drawn = draw(log_prob, 5, method, mask)
    _same(weigh(log_prob, drawn.index, method, mask, threshold=drawn.threshold), drawn)


def test_a_million_cells_are_drawn_without_ties_or_lost_tails(way: str) -> None:
    n = 1000 if way == "as on a CPU" else 100  # a race runs once through all cells for every draw
    log_prob = torch.full((1, 1_000_000), -math.log(1e6))
    index = draw(log_prob, n, generator=_generators(6)[0]).index[0]
    assert len(index.unique()) == n
    assert stats.kstest(index.double().numpy() / 1e6, "uniform").pvalue > FAILURE_RATE


ROW = torch.tensor([0.5, 0.3, 0.2]).log()


def _two(second: list[float]) -> Tensor:
    return torch.stack((ROW, torch.tensor(second)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, r"n must be at least 1, got 0: ask for one cell or more per image"),
        ({"method": "murthi"}, "unknown method 'murthi': choose one of iid, des_raj, priority, murthy, uniform, top"),
        (
            {"log_prob": _two([0.5, 0.3, 0.2])},
            r"log_prob must be normalised .* image 1 sums to 4.2.*: apply log_softmax",
        ),
        ({"log_prob": _two([0.0, math.nan, 0.0])}, "log_prob of image 1 is NaN at a valid cell"),
        ({"log_prob": _two([0.0, math.inf, 0.0])}, "image 1 sums to inf"),
        ({"log_prob": _two([-math.inf] * 3)}, "image 1 has no valid cell to draw from: all 3 of log_prob are masked"),
        ({"mask": torch.tensor([[False] * 3, [True] * 3])}, "image 0 has no valid cell .*widen its mask"),
        ({"mask": torch.tensor([[True] * 3, [True, True, False]])}, "image 1 sums to 0.8: apply log_softmax over the"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask must have the shape of log_prob, \(2, 3\), got \(2, 4\)"),
        ({"proposal": ROW[None]}, r"proposal must have the shape of log_prob, \(2, 3\), got \(1, 3\)"),
        ({"proposal": _two([0.0, -1.0, -2.0])}, "proposal must be normalised"),
        (
            {"proposal": _two([0.0, -math.inf, -math.inf])},
            "positive wherever log_prob is, but is 0 at cell 1 of image 1",
        ),
        ({"proposal": _two([0.0, -1.0, -2.0]), "method": "uniform"}, "method 'uniform' has no use for a proposal"),
        ({"generator": _generators(1)}, "one generator per image: got 1 generators for 2 images"),
        (
            {"generator": _generators(1, 2, 3), "method": "iid"},
            "one generator per image: got 3 generators for 2 images",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(FoveateError, match=message) as refusal:
        draw(**{"log_prob": torch.stack((ROW, ROW)), "n": 2, **arguments})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, math.nan, 0.0], r"log_prob of image 1 \(b.png\) is NaN at a valid cell"),
        ([-math.inf] * 3, r"image 1 \(b.png\) has no valid cell to draw from"),
        ([0.0, 0.0, 0.0], r"but image 1 \(b.png\) sums to 3"),
    ],
)
def test_what_an_accelerator_did_not_look_at_is_refused_by_name(
    values: list[float], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("foveate.sampling.draw"), "on_host", lambda values: False)  # noqa: ARG005
    for method in METHODS:
        drawn = sampling.draw(_two(values).repeat_interleave(2, 0), 5, method, generator=_generators(1)[0])
        assert 0 <= int(drawn.index.min()) <= int(drawn.index.max()) < 3
        with pytest.raises(FoveateError, match=message):
            fetch(drawn, ["a.png", "b.png"])


class _Looks(TorchFunctionMode):
    """Names of what makes values of tensors known to Python, in the order called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in {"cpu", "tolist", "item", "numpy", "nonzero", "unique", "masked_select"} or name in {
            f"__{kind}__" for kind in ("bool", "int", "float", "index", "iter", "contains")
        }:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", METHODS)
def test_an_accelerator_is_looked_at_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("foveate.sampling.draw"), "on_host", lambda values: False)  # noqa: ARG005
    proposal = None if method in ("uniform", "top") else _log_prob(2, 40, seed=1)
    with _Looks() as looks:
        drawn = sampling.draw(_log_prob(2, 40), 5, method, generator=_generators(1, 2), proposal=proposal)
        assert not looks.names
        fetch(drawn)
    assert looks.names == ["cpu", "tolist"]  # the first is the transfer, the second of what has come


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", METHODS)
def test_a_look_and_a_draw_need_no_value_of_a_tensor(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # tensors of the device "meta" have no values, and whatever asks for one is an error; nor has it an autocast
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    grid, sizes = Grid(stride=2, field=1), [(12, 17), (11, 14)]
    mask = torch.ones(2, 12, 17, dtype=torch.bool, device="meta")
    cells = grid.cell_mask(mask, sizes)
    logits = torch.zeros(cells.shape, device="meta", requires_grad=True)
    seen = logits + grid.cell_means(mask.float(), mask, sizes)
    drawn = sampling.draw(
        log_attention(seen, cells, 1e-5), 5, method, mask=cells.flatten(1), generator=_generators(1, 2)
    )
    features = torch.zeros(2, 5, 3, device="meta", requires_grad=True)
    expectation(drawn, features, None if method == "top" else "leave-one-out").sum().backward()
    assert logits.grad is not None
    with pytest.raises(NotImplementedError, match="meta"):
        fetch(drawn)


@pytest.mark.parametrize(
    ("index", "method", "message"),
    [
        ([[0, 3]], "murthy", r"index must lie in 0 … 2, got 0 … 3"),
        ([[0, 0]], "murthy", "cell 0 of image 0 is given twice, but method 'murthy' draws no cell twice"),
        ([[0, 2]], "des_raj", "cell 2 of image 0 is masked and cannot have been drawn"),
        ([[0, 1]], "priority", r"method 'priority' weighs by its threshold: pass threshold, the \(n\+1\)-th key"),
    ],
)
def test_cells_that_cannot_have_been_drawn_are_refused(index: list[list[int]], method: str, message: str) -> None:
    log_prob = torch.tensor([[0.6, 0.4, 0.0]]).log()
    with pytest.raises(FoveateError, match=message):
        weigh(log_prob, torch.tensor(index), method)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_draws_without_waiting_what_a_cpu_draws_as_on_an_accelerator(method: str, way: str) -> None:
    if way == "as on a CPU":
        pytest.skip("a CPU draws by keys, a GPU by a race")
    log_prob = _log_prob(3, 4000)
    here = draw(log_prob, 10, method, generator=_generators(1, 2, 3))
    there = log_prob.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = sampling.draw(there, 10, method, generator=_generators(1, 2, 3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(fetch(drawn)[0], here.index)
    torch.testing.assert_close(drawn.weight.cpu(), here.weight, rtol=1e-9, atol=0.0)
