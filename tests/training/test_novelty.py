"""Novelty of cells by a plain formula; starts that begin with it find what is small and rare."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from foveate.config.training import FindSettings
from foveate.errors import ConfigError
from foveate.networks.evidence import EvidenceHead
from foveate.training.bags import Bags
from foveate.training.novelty import RIDGE, Novelty
from foveate.training.shortlist import LISTED, Shortlist
from foveate.training.teacher import Question, Teacher, kept_starts

CPU = torch.device("cpu")
CLASSES = ("none", "spot")
CELLS, FEATURES = 800, 12


def bags_of(images: int, seed: int = 0) -> tuple[Bags, list[int]]:
    """Images of cells, every other one with a rare cell, far off where cells differ least; which one that is."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(FEATURES, FEATURES)))[0]
    mixing = np.geomspace(1, 0.15, FEATURES)[:, None] * turn
    bags, places = Bags(10**8), []
    for number in range(images):
        cells = random.normal(size=(CELLS, FEATURES))
        places.append(int(random.integers(CELLS)))
        if number % 2:
            cells[places[-1], -1] += 7
        bags.add(torch.from_numpy(cells @ mixing))
    bags.labels = tuple(number % 2 for number in range(images))
    return bags, places


def test_it_is_the_distance_by_the_covariance_of_background_cells() -> None:
    bags, _ = bags_of(9)
    background = [0, 2, 4, 6, 8]
    cells = np.concatenate([bags.batch([row])[0][0].double().numpy() for row in background])
    covariance = np.cov(cells.T, bias=True)
    inverse = np.linalg.inv(covariance + RIDGE * np.trace(covariance) / FEATURES * np.eye(FEATURES))
    away = bags.batch([3])[0][0].double().numpy() - cells.mean(0)
    wanted = np.einsum("kd,de,ke->k", away, inverse, away)
    novelty = Novelty(bags, background)
    np.testing.assert_allclose(novelty.of(bags, 3).numpy(), wanted, rtol=1e-8)
    assert novelty.most(bags, 3, 5).tolist() == np.argsort(-wanted)[:5].tolist()
    assert len(novelty.most(bags, 3, 10**6)) == CELLS


def test_features_that_never_change_are_no_novelty() -> None:
    bags = Bags(10**6)
    for _ in range(2):
        bags.add(torch.cat([torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.ones(50, 2)], 1))
    assert torch.isfinite(Novelty(bags, [0]).of(bags, 1)).all()


def test_the_first_starts_choose_among_ever_more_of_the_most_novel_cells() -> None:
    bags, _ = bags_of(4)
    head, novelty = EvidenceHead(FEATURES, 4, 1, 3, generator=torch.Generator().manual_seed(0)), Novelty(bags, [0, 2])
    shortlist = Shortlist(head, bags, 3.0, CPU, novelty=novelty, beginning=2)
    own = Shortlist(head, bags, 3.0, CPU)
    novel = bags.batch([1])[0][0][novelty.most(bags, 1, LISTED)]

    def rank(cells: torch.Tensor) -> list[list[int]]:
        """Places among the novel cells of those that are found."""
        given = head.standardised(novel)
        return [[given.eq(cell).all(1).nonzero()[0, 0].item() for cell in one[0, 0]] for one in cells[:2]]

    for share, reach in ((0.0, 3), (0.5, round(LISTED**0.5)), (0.99, LISTED)):
        shortlist.widen(share)
        for anew in (True, False):
            cells, _ = shortlist.best([1], anew)
            assert max(max(places) for places in rank(cells)) < reach
            torch.testing.assert_close(cells[2], own.best([1], anew)[0][2])
    shortlist.widen(1.0)
    torch.testing.assert_close(shortlist.best([1], False)[0], own.best([1], True)[0])


def taught(novel: float, bags: Bags, background: str | None = "none") -> tuple[EvidenceHead, list[float]]:
    attention = SimpleNamespace(hidden=16, dropout=0.1)
    model: Any = SimpleNamespace(settings=SimpleNamespace(attention=attention), device=CPU)
    find = FindSettings(epochs=30, least_steps=0, novel=novel, learning_rate=1e-2)
    teacher = Teacher(find, model, bags.moments(), 0, CLASSES, multi_label=False)
    head, losses = teacher.taught(Question(background, 1.0), bags, 4)
    return head, losses.tolist()


def test_starts_that_begin_with_novelty_find_what_is_small_and_rare() -> None:
    bags, places = bags_of(160)
    head, losses = taught(0.5, bags)
    assert max(losses[:2]) < 0.5 < min(losses[2:])  # the first two began with it
    head.keep(kept_starts(losses))
    with torch.no_grad():
        best = [int(head(bags.batch([row])[0])[0, :, 0].argmax()) for row in range(160)]
    assert np.mean([best[row] == places[row] for row in range(1, 160, 2)]) > 0.9


def test_without_a_background_nothing_is_novel() -> None:
    bags, _ = bags_of(8)
    assert taught(1.0, bags, background=None)[1] == taught(0.0, bags, background=None)[1]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_the_share_of_novel_starts_is_one(share: float) -> None:
    with pytest.raises(ConfigError, match=r"training\.find\.novel must be in \[0, 1\]"):
        FindSettings(novel=share)
