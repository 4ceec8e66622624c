"""Cells of many images, in memory or in a file: nobody sees the difference."""

import gc
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from foveate.networks.evidence import EvidenceHead
from foveate.training.bags import Bags
from foveate.training.shortlist import LISTED, Shortlist

CPU = torch.device("cpu")
COUNTS = (70, 1, 130, 9)


def images(counts: Sequence[int] = COUNTS, width: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    return [torch.randn(count, width, generator=generator).half() for count in counts]


def bags_of(memory: int, given: Sequence[Tensor]) -> Bags:
    bags = Bags(memory)
    for one in given:
        bags.add(one)
    bags.labels = tuple(range(len(given)))
    return bags


@pytest.mark.parametrize("memory", [0, 500, 850, 10**6], ids=["file", "small ones in memory", "some", "memory"])
def test_bags_in_a_file_are_those_in_memory(memory: int) -> None:
    given = images()
    bags = bags_of(memory, given)
    assert len(bags) == 4
    mapped = sum(isinstance(one, np.memmap) for one in bags._images)
    assert mapped == {0: 4, 500: 2, 850: 1, 10**6: 0}[memory]
    assert [bags.cells(row) for row in range(4)] == list(COUNTS)
    cells, allowed = bags.batch([3, 0, 3])
    assert cells.dtype == torch.float32
    assert allowed.sum(1).tolist() == [9, 70, 9]
    for place, row in enumerate([3, 0, 3]):
        count = COUNTS[row]
        assert torch.equal(cells[place, :count], given[row].float())
        assert allowed[place, :count].all()
        assert not cells[place, count:].any()
    index = torch.tensor([[[0, 0]], [[129, 4]]])
    found = bags.some([1, 2], index)
    assert torch.equal(found, torch.stack([given[1][[0, 0]], given[2][[129, 4]]])[:, None].float())


def test_a_part_stays_readable_when_the_whole_is_gone() -> None:
    given = images()
    whole = bags_of(0, given)
    part = whole.part(torch.tensor([False, True, True, False]))
    del whole
    gc.collect()
    assert part.labels == (1, 2)
    assert torch.equal(part.batch([1])[0][0], given[2].float())


def test_moments_are_those_of_all_cells() -> None:
    given = images()
    given[0][:, 3], given[1][:, 3], given[2][:, 3], given[3][:, 3] = (torch.tensor(0.5, dtype=torch.half),) * 4
    together = torch.cat(given).double()
    wanted = torch.stack([together.mean(0), together.std(0, correction=0)])
    wanted[1, 3] = 1  # a constant is left as it is
    torch.testing.assert_close(bags_of(200, given).moments().double(), wanted, rtol=1e-6, atol=1e-6)


def test_moments_of_many_cells_are_those_of_evenly_spaced_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    given = images()
    monkeypatch.setattr("foveate.training.bags.MOMENT_CELLS", 105)  # every second one, and of each image one at least
    together = torch.cat([one[:: min(2, len(one))] for one in given]).double()
    wanted = torch.stack([together.mean(0), together.std(0, correction=0)])
    torch.testing.assert_close(bags_of(10**6, given).moments().double(), wanted, rtol=1e-6, atol=1e-6)


def head_of(members: int, questions: int, seed: int = 1) -> EvidenceHead:
    head = EvidenceHead(5, 7, questions, members, 0.5, torch.Generator().manual_seed(seed))
    head.mean.fill_(0.1)
    head.deviation.fill_(1.5)
    return head


def best_by_sorting(head: EvidenceHead, cells: Tensor, top: float) -> list[list[list[int]]]:
    """The best cells of one image for every member and question."""
    with torch.no_grad():
        logits = head.each(cells.float()[None])[:, 0]
    k = max(1, min(len(cells), round(top if top >= 1 else top * len(cells))))
    return [[sorted(range(len(cells)), key=column.tolist().__getitem__)[-k:] for column in one.T] for one in logits]


@pytest.mark.parametrize("top", [1.0, 3.0, 0.1, 60.0, 0.9])
@pytest.mark.parametrize(("members", "questions"), [(1, 1), (3, 1), (2, 3)])
def test_the_best_of_all_cells(top: float, members: int, questions: int) -> None:
    given, head, rows = images(), head_of(members, questions).train(), [2, 1, 0]
    cells, share = Shortlist(head, bags_of(500, given), top, CPU).best(rows, anew=True)
    assert head.training
    assert not cells.requires_grad
    torch.testing.assert_close(share.sum(1), torch.ones(3))
    head.eval()
    for place, row in enumerate(rows):
        count = round(1 / float(share[place, 0]))
        assert share[place].nonzero()[:, 0].tolist() == list(range(count))
        best = best_by_sorting(head, given[row], top)
        for member in range(members):
            for question in range(questions):
                found = cells[member, place, question, :count]
                wanted = head.standardised(given[row][best[member][question]])
                assert count == min(len(wanted), LISTED)
                # each of them is one of the best, and none is taken twice
                apart = torch.cdist(found.double(), wanted.double()) < 1e-5
                assert apart.any(1).all()
                assert (apart.sum(0) <= 1).all()


def test_a_list_is_asked_anew_by_what_the_head_says_now() -> None:
    given, head, other = images([300]), head_of(2, 1).eval(), head_of(2, 1, seed=2).eval()
    shortlist = Shortlist(head, bags_of(10**6, given), 4.0, CPU)
    shortlist.best([0], anew=False)  # looks at all, for nothing is known yet
    with torch.no_grad():
        logits = head.each(given[0].float()[None])[:, 0, :, 0]
    listed = logits.topk(LISTED, 1).indices
    head.load_state_dict(other.state_dict())
    cells, _ = shortlist.best([0], anew=False)
    for member in range(2):
        some = given[0][listed[member]]
        wanted = head.standardised(some[best_by_sorting(head, some, 4.0)[member][0]])
        assert sorted(cells[member, 0, 0].tolist()) == pytest.approx(np.array(sorted(wanted.tolist())), abs=1e-6)
    anew, _ = shortlist.best([0], anew=True)
    whole = head.standardised(given[0][best_by_sorting(head, given[0], 4.0)[0][0]])
    assert sorted(anew[0, 0, 0].tolist()) == pytest.approx(np.array(sorted(whole.tolist())), abs=1e-6)


def test_pooled_evidence_is_what_a_model_says() -> None:
    given, head = images(), head_of(3, 2).eval()
    with torch.no_grad():
        head.bias.copy_(torch.arange(6.0).view(3, 2))
        found = bags_of(500, given).pooled(head, [2, 3], 0.1, CPU)
        for place, row in enumerate([2, 3]):
            mean = head.each(given[row].float()[None]).mean(0)[0]
            k = max(1, round(0.1 * len(mean)))
            wanted = mean.sort(0, descending=True).values[:k].mean(0) + torch.tensor([2.0, 3.0])
            torch.testing.assert_close(found[place], wanted, rtol=1e-5, atol=1e-5)
    assert math.isfinite(float(found.sum()))
