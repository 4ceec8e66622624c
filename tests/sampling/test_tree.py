"""Leaves of a tree, drawn from the top down: exactly as if all of them were drawn from, by enumeration."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from oracles import every_draw
from scipy import stats
from torch import Tensor

from foveate import sampling
from foveate.errors import FoveateError
from foveate.sampling import expectation, weigh
from foveate.sampling.tree import Children, Descent, conditional_keys, draw_tree
from foveate.types import Draw

EXACT = {"rtol": 0.0, "atol": 1e-10}
FAILURE_RATE = 1e-6
"""Chance, for one seed, that a statistical test below fails though the code is right; the seeds are fixed."""
TREES: dict[str, tuple[tuple[int, ...], ...]] = {
    "two levels": ((3,), (2, 3, 1)),
    "three levels": ((2,), (2, 1), (1, 3, 2)),
    "four levels": ((2,), (1, 2), (2, 1, 1), (1, 2, 1, 2)),
    "one node a level": ((1,), (1,), (4,)),
}
"""How many children every node of a level has; the first is of the root."""


class Tree:
    """A tree with logits of its own: each level's nodes are numbered one after the other.

    Arguments:
        branching: how many children the nodes of each level have.
        logits: of the children of every level's nodes, side by side.
        rows: (rows,) which of several sets of logits a row of the batch has; the only one if None.
        wide: children there is room for beyond the most that a node has.
    """

    def __init__(self, branching: Sequence[Sequence[int]], seed: int = 0, scale: float = 1.5, wide: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.branching = branching
        self.logits, self.numbers, self.asked = [], [], []
        for counts in branching:
            values = scale * torch.randn(sum(counts), generator=generator, dtype=torch.float64)
            self.logits.append(values.requires_grad_())
            numbers = torch.full((len(counts), max(counts) + wide), -1)
            starts = [0, *itertools.accumulate(counts)]
            for node, count in enumerate(counts):
                numbers[node, wide : wide + count] = torch.arange(starts[node], starts[node] + count)
            self.numbers.append(numbers)

    @property
    def levels(self) -> int:
        return len(self.branching)

    def conditional(self, level: int) -> Tensor:
        """(nodes, children) log probabilities given the parent, −inf where there is no child."""
        numbers = self.numbers[level]
        values = torch.where(numbers >= 0, self.logits[level][numbers.clamp(min=0)], -math.inf)
        return values.log_softmax(1)

    def children(self, level: int, rows: Tensor, numbers: Tensor) -> Children:
        self.asked.append((level, rows, numbers))
        return Children(self.conditional(level + 1)[numbers], self.numbers[level + 1][numbers].clamp(min=0))

    def log_prob(self, level: int) -> Tensor:
        """Log probabilities of all nodes of a level, multiplied out."""
        above = torch.zeros(1, dtype=torch.float64) if level == 0 else self.log_prob(level - 1)
        numbers = self.numbers[level]
        every = (above[:, None] + self.conditional(level))[numbers >= 0]
        return every[numbers[numbers >= 0].argsort()]

    def ancestors(self, level: int) -> Tensor:
        """(leaves,) number of each leaf's ancestor of a level."""
        found = torch.arange(len(self.logits[-1]))
        for deeper in range(self.levels - 1, level, -1):
            numbers = self.numbers[deeper]
            parent = torch.empty(len(self.logits[deeper]), dtype=torch.int64)
            node, place = (numbers >= 0).nonzero(as_tuple=True)
            parent[numbers[node, place]] = node
            found = parent[found]
        return found

    def draw(self, n: int, method: str, rows: int = 1, generator: object = None) -> Descent:
        top = self.log_prob(0).expand(rows, -1)
        return draw_tree(top, self.children, self.levels, n, method, generator=generator)  # type: ignore[arg-type]


@contextmanager
def forced(tree: Tree, leaf_keys: Tensor) -> Iterator[None]:
    """Make the noise such that the leaves of each row have these keys: a node's is the largest below it."""
    calls = iter(range(tree.levels))

    def keys(log_prob: Tensor, counts: Sequence[int], generator: object) -> Tensor:
        level = next(calls)
        ancestors = tree.ancestors(level).expand_as(leaf_keys)
        own = torch.full((len(leaf_keys), len(tree.logits[level])), -math.inf, dtype=torch.float64)
        own = own.scatter_reduce(1, ancestors, leaf_keys, "amax")
        known = tree.log_prob(level).detach()  # all different: a node is known by its probability
        which = (log_prob[:, :, None] - known).abs().argmin(2)
        return own.gather(1, which).masked_fill(log_prob == -math.inf, -math.inf)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(import_module("foveate.sampling.tree"), "gumbel_keys", keys)
        yield


def every_tree_draw(tree: Tree, n: int, method: str) -> tuple[Descent, Tensor]:
    """Every draw of n leaves that can happen, each made by `draw_tree`, and how probable it is."""
    leaves = tree.log_prob(tree.levels - 1).detach()
    index, probability, threshold = every_draw(leaves, n, method, None)
    kappa = torch.zeros(len(index), 1, dtype=torch.float64) if threshold is None else threshold[:, None]
    order = torch.arange(n, 0, -1, dtype=torch.float64)
    others = torch.arange(0, -len(leaves), -1, dtype=torch.float64)  # the first that is not drawn has κ, the next less
    drawn = torch.zeros(len(index), len(leaves), dtype=torch.bool).scatter(1, index, True)
    keys = kappa + others[((~drawn).cumsum(1) - 1).clamp(min=0)]
    some = min(n, len(leaves))
    keys = keys.scatter(1, index[:, :some], (kappa + order)[:, :some])
    with forced(tree, keys):
        descent = tree.draw(n, method, len(index))
    assert torch.equal(descent.draw.index, index)
    if some < len(leaves):
        torch.testing.assert_close(descent.draw.threshold, kappa[:, 0], rtol=1e-12, atol=1e-12)
    return descent, probability


@pytest.mark.parametrize(
    ("name", "n"), [("two levels", 1), ("two levels", 3), ("three levels", 2), ("three levels", 6)]
)
@pytest.mark.parametrize("method", ["des_raj", "murthy", "priority"])
def test_value_and_gradients_are_those_of_the_sum_over_all_leaves(name: str, method: str, n: int) -> None:
    tree = Tree(TREES[name])
    count = len(tree.logits[-1])
    features = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    wanted = (*tree.logits, features)
    truth = tree.log_prob(tree.levels - 1).exp() @ features
    expected = torch.autograd.grad(truth @ direction, wanted)

    descent, probability = every_tree_draw(tree, n, method)
    for baseline in (None, "leave-one-out"):
        mean = probability @ expectation(descent.draw, features[descent.draw.index], baseline)
        torch.testing.assert_close(mean, truth, **EXACT)
        got = torch.autograd.grad(mean @ direction, wanted, retain_graph=True)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("name", "n"), [("two levels", 2), ("three levels", 1), ("three levels", 3), ("four levels", 2)]
)
@pytest.mark.parametrize("method", ["des_raj", "murthy", "priority"])
def test_every_leaf_counts_once_on_average(name: str, method: str, n: int) -> None:
    """Σ P(draw) w 1{i drawn} is 1: the weights are the inverse inclusion probabilities they claim to be."""
    tree = Tree(TREES[name], seed=2)
    descent, probability = every_tree_draw(tree, n, method)
    count = len(tree.logits[-1])
    times = torch.zeros(len(probability), count, dtype=torch.float64)
    times = times.scatter_add(1, descent.draw.index, descent.draw.weight)
    torch.testing.assert_close(probability @ times, torch.ones(count, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(("name", "n"), [("two levels", 3), ("three levels", 1), ("three levels", 6)])
def test_the_entropy_is_that_of_all_leaves(name: str, n: int) -> None:
    tree = Tree(TREES[name], seed=3)
    descent, probability = every_tree_draw(tree, n, "murthy")
    top, leaves = tree.log_prob(0).exp(), tree.log_prob(tree.levels - 1).exp()
    mean = torch.special.entr(top).sum() + probability @ descent.entropy
    truth = torch.special.entr(leaves).sum()
    torch.testing.assert_close(mean, truth, **EXACT)
    for one, other in zip(
        torch.autograd.grad(mean, tree.logits, retain_graph=True), torch.autograd.grad(truth, tree.logits), strict=True
    ):
        torch.testing.assert_close(one, other, **EXACT)


def same(found: Draw, expected: Draw) -> None:
    for name in ("index", "valid"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("log_prob", "weight", "log_rest", "log_proposal"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-10)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", ["iid", "des_raj", "priority", "murthy", "top"])
@pytest.mark.parametrize("name", list(TREES))
def test_weights_are_those_of_a_draw_from_the_product(name: str, method: str) -> None:
    for n, scale in ((1, 1.5), (3, 0.0), (3, 12.0), (8, 1.5)):
        tree = Tree(TREES[name], seed=4, scale=scale, wide=1)
        leaves = tree.log_prob(tree.levels - 1)
        descent = tree.draw(n, method, 5, torch.Generator().manual_seed(n))
        found = descent.draw
        index = found.index
        flat = weigh(leaves.expand(5, -1), index, method, threshold=found.threshold)
        same(found, flat)
        for level in range(tree.levels):
            assert torch.equal(descent.path[:, :, level], tree.ancestors(level)[index])
        value = torch.arange(len(leaves), dtype=torch.float64)[index][:, :, None]
        gradients = [torch.autograd.grad(expectation(one, value).sum(), tree.logits) for one in (found, flat)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("method", ["iid", "des_raj", "priority", "murthy", "top"])
def test_a_tree_of_one_level_is_a_map(method: str) -> None:
    log_prob = torch.randn(3, 12, generator=torch.Generator().manual_seed(5)).mul(2).requires_grad_().log_softmax(1)
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1, 3:] = False
    log_prob = log_prob.masked_fill(~mask, -math.inf).log_softmax(1)
    generators = [[torch.Generator().manual_seed(seed) for seed in (1, 2, 3)] for _ in range(2)]
    descent = draw_tree(log_prob, Tree(((2,),)).children, 1, 5, method, mask, generators[0])
    flat = sampling.draw(log_prob, 5, method, mask, generators[1])
    same(descent.draw, flat)
    assert torch.equal(descent.draw.weight, flat.weight)
    assert (flat.threshold is None) == (descent.draw.threshold is None)
    assert flat.threshold is None or torch.equal(descent.draw.threshold, flat.threshold)
    assert descent.looked_at == ()
    assert not descent.entropy.any()


@pytest.mark.parametrize("method", ["iid", "murthy"])
@pytest.mark.parametrize("name", ["two levels", "four levels"])
def test_ordered_pairs_have_the_right_frequencies(name: str, method: str) -> None:
    draws, tree = 700 if method == "iid" else 4_000, Tree(TREES[name], seed=6, scale=1.0)
    index = tree.draw(2, method, draws, torch.Generator().manual_seed(7)).draw.index
    leaves = tree.log_prob(tree.levels - 1).detach()
    count = len(leaves)
    observed = torch.bincount(index[:, 0] * count + index[:, 1], minlength=count**2).double()
    pairs, probability, _ = every_draw(leaves, 2, method, None)
    expected = torch.zeros(count**2, dtype=torch.float64).index_add(0, pairs[:, 0] * count + pairs[:, 1], probability)
    possible = expected > 0
    assert not observed[~possible].any()
    statistic = ((observed - draws * expected).square() / (draws * expected))[possible].sum().item()
    assert stats.chi2.sf(statistic, int(possible.sum()) - 1) > FAILURE_RATE


def test_thresholds_have_the_law_of_the_next_key() -> None:
    """With "priority" the weights are made of κ: were its law another, leaves would not count once on average."""
    draws, tree = 4_000, Tree(TREES["three levels"], seed=8)
    drawn = tree.draw(2, "priority", draws, torch.Generator().manual_seed(9)).draw
    counts = torch.zeros(draws, 6, dtype=torch.float64).scatter_add(1, drawn.index, drawn.weight)
    deviation = (counts.mean(0) - 1).abs() / (counts.std(0) / math.sqrt(draws))
    assert deviation.max().item() < stats.norm.isf(FAILURE_RATE / 2 / 6)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_no_more_than_a_few_nodes_of_a_level_are_looked_at(levels: int) -> None:
    """Of 64 children a node, up to 16 million leaves: N + 1 nodes a level, however many there are."""
    n, rows, asked = 7, 3, []

    def children(level: int, row: Tensor, number: Tensor) -> Children:
        asked.append((level, row))
        below = 64 * number[:, None] + torch.arange(64)
        return Children((0.01 * (below % 97).double()).log_softmax(1), below)

    top = torch.zeros(rows, 64).log_softmax(1)
    descent = draw_tree(top, children, levels, n, generator=torch.Generator().manual_seed(1))
    assert [level for level, _ in asked] == list(range(levels - 1))
    for (_, row), nodes in zip(asked, descent.looked_at, strict=True):
        assert torch.equal(nodes[0], row)
        assert torch.bincount(row, minlength=rows).max() <= n + 1
        assert len(torch.unique(nodes, dim=1)[0]) == nodes.shape[1]
    assert sum(len(row) for _, row in asked) <= (levels - 1) * (n + 1) * rows
    assert descent.draw.index.max() > 64
    assert descent.draw.valid.all()


@pytest.mark.parametrize("method", ["iid", "murthy", "top"])
def test_neither_company_nor_room_for_children_changes_a_draw(method: str) -> None:
    tree, wide = Tree(TREES["four levels"], seed=10), Tree(TREES["four levels"], seed=10, wide=3)
    seeds = (4, 5, 6)
    together = wide.draw(3, method, 3, [torch.Generator().manual_seed(seed) for seed in seeds]).draw
    for row, seed in enumerate(seeds):
        alone = tree.draw(3, method, 1, torch.Generator().manual_seed(seed)).draw
        assert torch.equal(alone.index[0], together.index[row])
        torch.testing.assert_close(alone.weight[0], together.weight[row], rtol=1e-12, atol=0.0)


def test_top_is_the_same_every_time_and_goes_where_most_is() -> None:
    tree = Tree(TREES["three levels"], seed=11)
    first, again = tree.draw(2, "top").draw, tree.draw(2, "top", generator=torch.Generator().manual_seed(3)).draw
    assert torch.equal(first.index, again.index)
    assert first.log_prob[0, 0] >= first.log_prob[0, 1]
    torch.testing.assert_close(first.weight, again.weight)


def test_conditional_keys_lose_no_digits() -> None:
    import mpmath

    generator = torch.Generator().manual_seed(12)
    for parent, scale in ((-3.0, 1.0), (40.0, 0.1), (-800.0, 300.0), (0.0, 1e-9), (2.0, 30.0)):
        keys = scale * torch.randn(9, generator=generator, dtype=torch.float64) + 1.25
        found = conditional_keys(keys, torch.tensor(parent, dtype=torch.float64))
        assert found.max().item() == parent
        with mpmath.workdps(600):
            largest = mpmath.mpf(keys.max().item())
            for key, got in zip(keys.tolist(), found.tolist(), strict=True):
                time = mpmath.exp(-mpmath.mpf(parent)) + mpmath.exp(-mpmath.mpf(key)) - mpmath.exp(-largest)
                assert got == pytest.approx(float(-mpmath.log(time)), rel=1e-12, abs=1e-12)


def test_improbable_nodes_and_lone_children_are_finite_forward_and_backward() -> None:
    top = torch.tensor([[0.0, -900.0, -3000.0]], dtype=torch.float64, requires_grad=True)
    below = torch.tensor([[-math.inf, 0.0], [0.0, -700.0], [5.0, -math.inf]], dtype=torch.float64, requires_grad=True)

    def children(level: int, rows: Tensor, numbers: Tensor) -> Children:
        return Children(below[numbers].log_softmax(1), 2 * numbers[:, None] + torch.arange(2))

    for method in ("iid", "des_raj", "priority", "murthy", "top"):
        generator = torch.Generator().manual_seed(1)
        descent = draw_tree(top.log_softmax(1), children, 2, 3, method, generator=generator)
        (expectation(descent.draw, torch.ones(1, 3, 2)).sum() + descent.entropy.sum()).backward()
        assert descent.draw.weight.isfinite().all()
        assert top.grad is not None
        assert top.grad.isfinite().all()
        assert below.grad is not None
        assert below.grad.isfinite().all()
    drawn = draw_tree(top.log_softmax(1), children, 2, 4).draw
    assert drawn.valid.all()
    assert drawn.log_rest.item() == -math.inf
    assert drawn.weight.tolist() == [[1.0] * 4]
    assert draw_tree(top.log_softmax(1), children, 2, 6).draw.valid.tolist() == [[True] * 4 + [False] * 2]


def test_errors_say_what_to_do() -> None:
    tree, log_prob = Tree(TREES["two levels"]), torch.tensor([[0.5, 0.25, 0.25]]).log()
    with pytest.raises(FoveateError, match=r"^n and levels must be at least 1, got 0 and 2: ask for one leaf or more$"):
        draw_tree(log_prob, tree.children, 2, 0)
    with pytest.raises(FoveateError, match=r"^method 'uniform' draws no leaves of a tree: choose one of iid, "):
        draw_tree(log_prob, tree.children, 2, 2, "uniform")

    def wrong(level: int, rows: Tensor, numbers: Tensor) -> Children:
        found = tree.children(level, rows, numbers)
        return replace(found, log_prob=found.log_prob + 1)

    with pytest.raises(FoveateError, match=r"^log_prob must be normalised over the valid cells, but region 0 sums to "):
        draw_tree(log_prob, wrong, 2, 2)

    def none(level: int, rows: Tensor, numbers: Tensor) -> Children:
        found = tree.children(level, rows, numbers)
        return replace(found, log_prob=torch.full_like(found.log_prob, -math.inf))

    with pytest.raises(FoveateError, match=r"^region 0 has no valid cell to draw from"):
        draw_tree(log_prob, none, 2, 2)
