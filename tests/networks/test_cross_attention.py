"""Cross-attention over patches: what it is of them, whatever their order, and where it is a mean."""

import math

import pytest
import torch
from torch import nn

from foveate.networks.cross_attention import CrossAttention


def cross_attention(dimension: int = 6, heads: int = 4, **settings: float) -> CrossAttention:
    """In float64, with weights that are not those it begins with."""
    generator = torch.Generator().manual_seed(3)
    pool = CrossAttention(dimension, heads, **settings).double()  # type: ignore[arg-type]
    for parameter in pool.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return pool


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("dimension", "heads"), [(6, 1), (6, 4), (5, 8)])
def test_is_the_papers_layer_one_patch_at_a_time(dimension: int, heads: int) -> None:
    """Loops over images, heads and patches, written from section 3."""
    pool = cross_attention(dimension, heads)
    features, log_weight = random(2, 5, dimension), random(2, 5, seed=1)
    width = math.ceil(dimension / heads)

    def norm(values: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
        centred = values - values.mean()
        return centred / (centred.square().mean() + 1e-6).sqrt() * layer.weight + layer.bias

    expected = []
    for image, known in zip(features, log_weight, strict=True):
        seen = []
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            query = pool.queries.weight[rows] @ pool.query
            scores = [query @ (pool.keys.weight[rows] @ patch) / math.sqrt(width) for patch in image]
            shares = torch.stack([(score + own).exp() for score, own in zip(scores, known, strict=True)])
            shares = shares / shares.sum()
            seen.append(
                sum(share * (pool.values.weight[rows] @ patch) for share, patch in zip(shares, image, strict=True))
            )
        first = norm(pool.query + pool.out.weight @ torch.cat(seen), pool.norm)  # type: ignore[arg-type]
        hidden = (pool.widen.weight @ first + pool.widen.bias).relu()
        expected.append(norm(first + pool.narrow.weight @ hidden + pool.narrow.bias, pool.last_norm))
    torch.testing.assert_close(pool(features, log_weight), torch.stack(expected), rtol=0, atol=1e-12)


def test_patches_have_no_order() -> None:
    pool, order = cross_attention(), torch.tensor([3, 0, 4, 1, 2])
    features, log_weight = random(2, 5, 6), random(2, 5, seed=1)
    moved = pool(features[:, order], log_weight[:, order])
    torch.testing.assert_close(moved, pool(features, log_weight), rtol=0, atol=1e-12)


def test_a_patch_that_does_not_count_is_as_if_it_were_not_there() -> None:
    """In value and gradient, whatever its features are."""
    pool, features = cross_attention(), random(2, 5, 6)
    log_weight = random(2, 5, seed=1)
    log_weight[:, [1, 4]] = -math.inf
    features[:, 1] = 1e6
    features.requires_grad_(True)
    log_weight.requires_grad_(True)
    together = pool(features, log_weight)
    there = [0, 2, 3]
    torch.testing.assert_close(together, pool(features[:, there], log_weight[:, there]), rtol=0, atol=1e-12)
    together.square().sum().backward()
    assert features.grad is not None
    assert log_weight.grad is not None
    assert features.grad[:, [1, 4]].abs().max() == 0
    assert log_weight.grad[:, [1, 4]].abs().max() == 0
    assert features.grad[:, there].abs().min() > 0


def test_two_alike_are_one_that_counts_twice() -> None:
    pool, features = cross_attention(), random(1, 3, 6)
    twice = features[:, [0, 1, 1, 2]]
    weights = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(pool(twice), pool(features, weights.log()), rtol=0, atol=1e-12)


def test_constant_scores_one_head_and_identities_leave_the_weighted_mean() -> None:
    pool, features = cross_attention(heads=1), random(2, 5, 6)
    weights = random(2, 5, seed=1).softmax(1)
    with torch.no_grad():
        pool.query.zero_()
        pool.values.weight.copy_(torch.eye(6))
        pool.out.weight.copy_(torch.eye(6))
    mean = torch.einsum("bn,bnd->bd", weights, features)
    torch.testing.assert_close(pool.attended(features, weights.log()), mean, rtol=0, atol=1e-12)


def test_scores_are_each_of_its_own_patch() -> None:
    pool, features = cross_attention(), random(2, 5, 6)
    scores = pool.scores(features)
    assert scores.shape == (2, 4, 5)
    for patch in range(5):
        alone = pool.scores(features[1, patch : patch + 1])
        torch.testing.assert_close(alone[:, 0], scores[1, :, patch], rtol=0, atol=1e-12)


def test_dropout_is_for_training_alone() -> None:
    pool, features = cross_attention(dropout=0.5), random(2, 5, 6)
    plain = cross_attention()
    torch.testing.assert_close(pool.eval()(features), plain(features), rtol=0, atol=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(pool.train()(features), plain(features))
