"""Averages of maps over cells, evidence of several small networks at once, and what becomes of it in an image."""

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from foveate.config.settings import AttentionSettings
from foveate.networks.evidence import (
    ALL_CELLS,
    CellFeatures,
    EvidenceHead,
    attention_logits,
    cells_of_top,
    has_backbone,
    pooled_evidence,
)
from foveate.networks.features import CLAMP


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pooled_on_a_fine_grid(
    one: Tensor, view: tuple[int, int], stride: int, pool: Callable[[Tensor, tuple[int, int]], Tensor]
) -> Tensor:
    """Means or maxima over cells (rows, columns, D) of a map (D, h, w), whose pixels are repeated on a common grid."""
    fine = [math.lcm(side, pixels) for side, pixels in zip(view, one.shape[1:], strict=True)]
    spread = one.double()
    for axis, (length, pixels) in enumerate(zip(fine, one.shape[1:], strict=True), start=1):
        spread = spread.repeat_interleave(length // pixels, axis)
    per_view = [length // side for length, side in zip(fine, view, strict=True)]
    rows = []
    for top in range(0, view[0], stride):
        part = spread[:, top * per_view[0] : (top + stride) * per_view[0]]
        columns = range(0, view[1], stride)
        rows.append([part[:, :, left * per_view[1] : (left + stride) * per_view[1]] for left in columns])
    return torch.stack([torch.stack([pool(cell, (1, 2)) for cell in row]) for row in rows])


@pytest.mark.parametrize(
    ("view", "maps", "stride"),
    [
        ((12, 20), ((6, 10), (3, 5)), 4),  # everything divides
        ((13, 20), ((7, 10), (4, 5)), 3),  # neither cells nor map pixels do
        ((9, 14), ((3, 4),), 5),  # cells finer than map pixels in part
        ((5, 3), ((5, 3), (1, 1)), 1),
        ((4, 7), ((2, 4),), 9),  # one cell, larger than the view
        ((10, 6), ((15, 7),), 4),  # a map finer than its view
    ],
)
@pytest.mark.parametrize("maxima", [False, True])
def test_cells_are_averages_over_their_area_and_maxima(
    view: tuple[int, int], maps: tuple[tuple[int, int], ...], stride: int, maxima: bool
) -> None:
    given = [numbers(2, 3 + number, *size, seed=number) for number, size in enumerate(maps)]
    cells = CellFeatures(lambda _: given, sum(one.shape[1] for one in given), stride, maxima=maxima)
    found = cells(torch.zeros(2, 3, *view))
    assert found.shape == (2, -(-view[0] // stride), -(-view[1] // stride), cells.dimension)
    for image in range(2):
        pools = (torch.mean, torch.amax) if maxima else (torch.mean,)
        parts = [pooled_on_a_fine_grid(one[image], view, stride, pool) for pool in pools for one in given]
        wanted = torch.cat(parts, -1)
        torch.testing.assert_close(found[image].double(), wanted, rtol=0, atol=1e-6)


def test_a_constant_map_is_constant_in_all_cells() -> None:
    cells = CellFeatures(lambda views: [torch.full((len(views), 1, 4, 9), 7.0)], 1, 6)
    torch.testing.assert_close(cells(torch.zeros(1, 3, 31, 65)), torch.full((1, 6, 11, 1), 7.0))


class Twice(nn.Module):
    """A map of the view's first band, scaled and normalised by statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.norm = nn.Parameter(torch.tensor(2.0)), nn.BatchNorm2d(1)

    def forward(self, views: Tensor) -> Sequence[Tensor]:
        return [self.norm(self.scale * views[:, :1])]


def test_a_frozen_backbone_stays_as_it_is_and_another_learns() -> None:
    views = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(2))
    frozen = CellFeatures(Twice(), 1, 2).train()
    before = copy.deepcopy(frozen.state_dict())
    assert not frozen(views).requires_grad
    assert not any(layer.training for layer in frozen.modules())
    assert not any(one.requires_grad for one in frozen.parameters())
    assert all(torch.equal(one, before[name]) for name, one in frozen.state_dict().items())
    learning = CellFeatures(Twice(), 1, 2, frozen=False).train()
    learning(views).square().sum().backward()
    assert learning.maps.scale.grad is not None
    assert all(layer.training for layer in learning.modules())
    with torch.no_grad():
        assert not learning(views).requires_grad


def head_of(questions: int = 3, members: int = 4, dropout: float = 0.0, seed: int = 5) -> EvidenceHead:
    head = EvidenceHead(6, 5, questions, members, dropout, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        head.bias.copy_(numbers(members, questions, seed=9))
    head.mean.copy_(numbers(6, seed=7))
    head.deviation.copy_(0.5 + numbers(6, seed=8).abs())
    return head.eval()


def test_members_are_networks_of_one_hidden_layer() -> None:
    head, cells = head_of(), numbers(2, 7, 6)
    standard = ((cells - head.mean) / head.deviation).clamp(-CLAMP, CLAMP)
    each = []
    for member in range(4):
        hidden = (standard @ head.first[member] + head.first_bias[member]).relu()
        each.append(hidden @ head.second[member])
    torch.testing.assert_close(head.each(cells), torch.stack(each), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head(cells), torch.stack(each).mean(0), rtol=1e-5, atol=1e-6)


def test_the_same_cells_for_all_members_and_cells_of_their_own_are_told_alike() -> None:
    head, cells = head_of(), numbers(4, 2, 7, 6)
    own = head.of_standardised(head.standardised(cells).flatten(1, 2)).view(4, 2, 7, 3)
    for member in range(4):
        torch.testing.assert_close(own[member], head.each(cells[member])[member], rtol=1e-5, atol=1e-6)


def test_members_begin_differently_and_a_seed_settles_them() -> None:
    state = torch.get_rng_state()
    first, again, other = head_of(), head_of(), head_of(seed=6)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in first.state_dict().items())
    assert not torch.equal(first.first, other.first)
    assert len({tuple(member.flatten().tolist()) for member in first.first}) == 4


def test_features_are_never_further_than_the_clamp_from_their_mean() -> None:
    head = head_of()
    far = head.mean + head.deviation * torch.tensor([100.0, -100.0, 6.5, -5.5, 0.0, 6.0])
    wanted = torch.tensor([CLAMP, -CLAMP, CLAMP, -5.5, 0.0, 6.0])
    torch.testing.assert_close(head.standardised(far), wanted, rtol=0, atol=1e-4)
    assert head.standardised(far.half()).dtype == torch.float32
    near = (head.mean + head.deviation * wanted)[None, None]
    torch.testing.assert_close(head(far[None, None]), head(near), rtol=1e-4, atol=1e-4)


def test_dropout_is_of_training_alone() -> None:
    head, cells = head_of(dropout=0.5), numbers(2, 7, 6)
    assert torch.equal(head.each(cells), head_of(dropout=0.0).each(cells))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(head.train().each(cells), head.each(cells))


def test_members_that_are_left_out_are_gone() -> None:
    head, cells = head_of(), numbers(2, 7, 6)
    before, bias = head.each(cells), head.bias.detach().clone()
    head.keep([3, 1])
    torch.testing.assert_close(head.each(cells), before[[3, 1]], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head(cells), before[[3, 1]].mean(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(head.bias, bias[[3, 1]])
    assert all(one.requires_grad for one in head.parameters())
    assert head.load_state_dict(EvidenceHead(6, 5, 3, members=2).state_dict())


def pooled_in_a_loop(logits: Tensor, allowed: Tensor, top: float) -> Tensor:
    rows = []
    for one, where in zip(logits, allowed, strict=True):
        count = int(where.sum())
        k = max(1, min(count, round(top if top >= 1 else top * count)))
        rows.append([sum(sorted(column[where].tolist(), reverse=True)[:k]) / k for column in one.T])
    return torch.tensor(rows)


@pytest.mark.parametrize("top", [1.0, 3.0, 40.0, 0.1, 0.5, 0.01])
def test_evidence_of_an_image_is_the_mean_of_its_best_cells(top: float) -> None:
    logits = numbers(4, 30, 2)
    allowed = torch.rand(4, 30, generator=torch.Generator().manual_seed(4)) < 0.6
    allowed[2], allowed[3] = torch.arange(30) == 17, True
    found = pooled_evidence(logits, allowed, top)
    torch.testing.assert_close(found, pooled_in_a_loop(logits, allowed, top), rtol=1e-5, atol=1e-6)
    huge = logits.masked_fill(~allowed[..., None], 1e6)
    assert torch.equal(pooled_evidence(huge, allowed, top), found), "masked cells never count"


def test_the_gradient_of_pooled_evidence_goes_to_the_best_cells_alone() -> None:
    logits = numbers(2, 9, 2).requires_grad_()
    allowed = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    pooled_evidence(logits, allowed, 0.5).sum().backward()
    assert logits.grad is not None
    assert (logits.grad != 0).sum(1).tolist() == [[4, 4], [2, 2]]
    assert sorted(set(logits.grad.flatten().tolist())) == [0, 0.25, 0.5]
    assert not logits.grad[1, 4:].any()


def test_a_number_of_cells_or_a_share_of_them() -> None:
    assert [cells_of_top(top, 200) for top in (1.0, 3.0, 0.1, 0.004, 0.001, 500.0, 2.6)] == [1, 3, 20, 1, 1, 200, 3]
    assert [cells_of_top(3.0, cells) for cells in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_attention_logits_are_the_evidence_or_its_smooth_maximum() -> None:
    evidence = numbers(2, 5, 3)
    assert torch.equal(attention_logits(evidence[..., :1], 3.0), evidence[..., 0])
    wanted = evidence.double().exp().sum(-1).log()
    torch.testing.assert_close(attention_logits(evidence, 0.1).double(), wanted, rtol=0, atol=1e-5)
    assert attention_logits(torch.full((1, 2), 300.0), 3.0).isfinite().all()
    assert torch.equal(attention_logits(evidence, ALL_CELLS), torch.zeros(evidence.shape[:-1]))


def test_a_backbone_is_told_by_its_name() -> None:
    assert has_backbone(AttentionSettings(name="timm:test_resnet"))
    assert not has_backbone(AttentionSettings())
