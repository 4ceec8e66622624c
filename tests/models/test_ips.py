"""Iterative patch selection against a loop over patches, against the paper's buffer, and in chunks of any size."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from squares import unchecked
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.heads import HeadSettings, MilSettings
from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError, FoveateError
from foveate.images import ArraySource
from foveate.models import Model, make_batch
from foveate.models.ips import best
from foveate.models.receipts import Stages
from foveate.models.types import Batch
from foveate.networks.cross_attention import CrossAttention, grid_positions

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]

__all__ = ["unchecked"]

SIZES = [(66, 104), (50, 182), (21, 27)]
"""Images of 3×4, 3×7 and 1×2 patches of 22×26."""


def batch_of(model: Model, make_source: Sources, rows: tuple[int, ...] = (0, 1, 2)) -> Batch:
    sources = [make_source(SIZES[row], seed=row) for row in rows]
    return make_batch(sources, model.view, [0] * len(rows), ids=[str(row) for row in rows])


def exact(make_model: Models, **changes: Any) -> Any:
    """In float64, with weights that tell patches apart."""
    given = {"patches": 5, "head": HeadSettings(heads=3), "mil": MilSettings(chunk=4)} | changes
    model: Any = make_model("ips", **given).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    model.features.register_forward_pre_hook(lambda _, patches: patches[0].double())
    return model


def every_feature(model: Any, source: ArraySource) -> Tensor:
    """(rows, columns, D) features of all patches, one by one; images of `SIZES` but the last are whole patches high."""
    rows, columns = -(-source.size[0] // 22), -(-source.size[1] // 26)
    boxes = model.grid.boxes(torch.arange(rows * columns)[None], columns, [source.size], [source.size], (22, 26))[0]
    with torch.no_grad():
        every = [
            model.read_patches([source], box[None, None], None, Stages()).features(model.features) for box in boxes
        ]
    return torch.cat(every)[:, 0].view(rows, columns, -1)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_cross_attention_over_the_best_of_all_patches(
    positions: bool, training: bool, make_model: Models, make_source: Sources
) -> None:
    """Written from the paper, image by image; one of which has fewer patches than are to be chosen."""
    features = FeatureSettings(width=8)
    model = exact(make_model, features=features, mil=MilSettings(chunk=4, positions=positions)).train(training)
    batch = batch_of(model, make_source)
    output = model(batch)
    for row, source in enumerate(batch.sources):
        every = every_feature(model, source)
        rows, columns = every.shape[:2]
        if positions:
            every = every + torch.stack([torch.stack([by_hand(i, j, 8) for j in range(columns)]) for i in range(rows)])
        flat = every.flatten(0, 1)
        scores = model.pool.scores(flat).softmax(1).mean(0)
        chosen = scores.argsort(descending=True)[:5]
        expected = model.head(model.pool(flat[chosen][None]))[0]
        torch.testing.assert_close(output.logits[row], expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(output.attention[row, :rows, :columns].flatten(), scores, rtol=0, atol=1e-10)
        assert output.attention[row].sum().item() == pytest.approx(1, abs=1e-10)
        read = output.read[row]
        assert int(read.sum()) == len(chosen)
        wide = output.attention.shape[2]
        assert output.chosen[row][read].tolist() == [int(k) // columns * wide + int(k) % columns for k in chosen]
    assert output.patches_read.tolist() == [12 + 5, 21 + 5, 2 + 2]


def by_hand(row: int, column: int, dimension: int) -> Tensor:
    values = []
    for place in (row, column):
        for k in range(dimension // 4):
            angle = place / 10000 ** (4 * k / dimension)
            values += [math.sin(angle), math.cos(angle)]
    return torch.tensor(values, dtype=torch.float64)


def buffered(pool: CrossAttention, features: Tensor, most: int, chunk: int) -> set[int]:
    """The paper's algorithm 1: a buffer of M patches, compared with one chunk after the other."""
    kept = list(range(min(most, len(features))))
    for begin in range(most, len(features), chunk):
        kept += range(begin, min(begin + chunk, len(features)))
        shares = pool.scores(features[kept]).softmax(1).mean(0)
        kept = [kept[place] for place in shares.argsort(descending=True)[:most].tolist()]
    return set(kept)


def pool_of(heads: int, seed: int = 2) -> tuple[CrossAttention, Tensor]:
    """With scores that are far apart, and the features of 40 patches."""
    generator = torch.Generator().manual_seed(seed)
    pool = CrossAttention(6, heads).double()
    for parameter in pool.parameters():
        nn.init.normal_(parameter, generator=generator)
    return pool, torch.randn(40, 6, generator=generator, dtype=torch.float64)


def exact_top(pool: CrossAttention, features: Tensor, most: int) -> set[int]:
    shares = pool.scores(features).softmax(1).mean(0)
    return set(best(shares[None], torch.ones(1, len(features), dtype=torch.bool), most)[0][0].tolist())


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("seed", range(5))
def test_with_one_head_the_papers_buffer_ends_as_the_best_of_all(chunk: int, seed: int) -> None:
    """However scores are normalised, they have one order."""
    pool, features = pool_of(1, seed)
    with torch.no_grad():
        assert buffered(pool, features, 6, chunk) == exact_top(pool, features, 6)


@pytest.mark.parametrize("seed", range(5))
def test_with_several_heads_it_does_for_a_single_chunk(seed: int) -> None:
    pool, features = pool_of(4, seed)
    with torch.no_grad():
        assert buffered(pool, features, 6, 100) == exact_top(pool, features, 6)


def test_with_several_heads_and_chunks_the_papers_buffer_depends_on_their_size() -> None:
    """Why the scores of all patches are kept here. M = 1, two heads: of the first two patches the first is better.

    Ten others, each worse than it, have much of what the first head gives; against all of them the second is the best.
    """
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.9], *[[1.5, -5.0]] * 10], dtype=torch.float64)
    pool: Any = SimpleNamespace(scores=lambda patches: patches.T)
    assert buffered(pool, scores, 1, chunk=1) == {0}
    assert buffered(pool, scores, 1, chunk=100) == exact_top(pool, scores, 1) == {1}


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_change_nothing(chunk: int, make_model: Models, make_source: Sources) -> None:
    one, other = exact(make_model), exact(make_model, mil=MilSettings(chunk=chunk))
    batch = batch_of(one, make_source)
    first, second = one(batch), other(batch)
    assert torch.equal(first.chosen, second.chosen)
    torch.testing.assert_close(first.logits, second.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(first.attention, second.attention, rtol=0, atol=1e-12)


def test_company_changes_nothing(make_model: Models, make_source: Sources) -> None:
    model = exact(make_model)
    together = model(batch_of(model, make_source))
    for row in range(3):
        alone = model(batch_of(model, make_source, (row,)))
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=0, atol=1e-12)
        assert torch.equal(alone.boxes[0][alone.read[0]], together.boxes[row][together.read[row]])


def test_of_equal_scores_the_first_patches_are_chosen(make_model: Models) -> None:
    model = exact(make_model)
    black = ArraySource(np.zeros((66, 104, 2), np.uint8))
    output = model(make_batch([black], model.view, [0]))
    assert output.chosen.tolist() == [[0, 1, 2, 3, 4]]


def test_gradient_goes_through_the_chosen_patches_alone(make_model: Models, make_source: Sources) -> None:
    """As if the others were not there; and activations of a training step are those of M patches."""
    model = exact(make_model).train()
    batch = batch_of(model, make_source, (1,))
    output = model(batch)
    output.logits.square().sum().backward()
    found = {key: one.grad.clone() for key, one in model.named_parameters()}
    model.zero_grad()
    again = model.read_patches(batch.sources, output.boxes, None, Stages()).features(model.features)
    model.head(model.pool(again)).square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad, rtol=0, atol=1e-10, msg=key)
    assert not output.attention.requires_grad


def test_layers_with_statistics_of_batches_are_only_taught_by_the_chosen(
    make_source: Sources, make_model: Models
) -> None:
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(8))
    model = make_model("ips", extras={"features": layers}, head=HeadSettings(heads=1), patches=5).train()
    model(batch_of(model, make_source, (0,)))
    assert int(layers[2].num_batches_tracked) == 1
    assert layers.training


def test_memory_of_a_step_is_that_of_the_chosen(make_model: Models, make_source: Sources) -> None:
    """What is saved for the backward pass: the same of 12 and of 48 patches."""
    saved = []
    for size in ((66, 104), (132, 208)):
        model = make_model("ips", patches=5, mil=MilSettings(chunk=4)).train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1],
            lambda tensor: tensor,  # type: ignore[misc]
        ):
            model(make_batch([make_source(size)], model.view, [0]))
        saved.append(sum(sizes))
    assert saved[0] == saved[1]


def test_only_what_a_mask_allows_is_read(make_model: Models, make_source: Sources) -> None:
    model = exact(make_model)
    batch = batch_of(model, make_source, (0, 1))
    tissue = torch.zeros(2, 6, 8, dtype=torch.bool)
    tissue[0, 2:4, 2:6] = True  # of 3×4 cells the second and third of the second row
    tissue[1] = True
    output = model(replace(batch, mask=tissue, view_sizes=((6, 8), (6, 8))))
    assert sorted(output.chosen[0][output.read[0]].tolist()) == [7 + 1, 7 + 2]
    assert batch.sources[0].bytes_read == 4 * 22 * 26 * 2  # each twice
    functional.cross_entropy(output.logits, torch.tensor([0, 1])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_image_without_a_cell_is_refused_before_anything_is_read(make_model: Models, make_source: Sources) -> None:
    model = make_model("ips")
    batch = batch_of(model, make_source)
    mask = batch.mask.clone()
    mask[2] = False
    with pytest.raises(FoveateError, match=r"^image 2 of the batch \(2\) has no cell to look at"):
        model(replace(batch, mask=mask))
    assert all(source.bytes_read == 0 for source in batch.sources)


def test_a_prediction_counts_all_that_was_read(make_model: Models, make_source: Sources) -> None:
    model = make_model("ips", patches=5)
    prediction = model.predict(make_source((66, 104)))
    assert prediction.patches == prediction.receipt.patches == 12 + 5
    assert prediction.receipt.patches_of == 12
    assert len(prediction.boxes) == 5
    assert prediction.bytes_read == 17 * 22 * 26 * 2


def test_positions_need_a_number_of_features_that_four_divides(make_model: Models) -> None:
    message = (
        "model.mil.positions needs a number of features that 4 divides, got 6: set it to false, or change "
        "model.features"
    )
    with pytest.raises(ConfigError, match=f"^{message}$"):
        make_model("ips", mil=MilSettings(positions=True))
    assert torch.equal(grid_positions(torch.tensor([[3.0, 0.0]]), 4)[0, 2:], torch.tensor([0.0, 1.0]))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_it_learns_the_colour_of_a_square(make_model: Models) -> None:
    """Of 12 images with a red or a blue square: one answer for all errs on 6."""
    model = make_model("ips", head=HeadSettings(heads=2), patches=3, patch=(21, 23), channels=3)
    sources = []
    for number in range(12):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 60, (42, 69, 3), dtype=np.uint8)
        top, left = random.integers(0, 26), random.integers(0, 53)
        pixels[top : top + 16, left : left + 16, 2 * (number % 2)] = 250
        sources.append(ArraySource(pixels, name=str(number)))
    labels, batch = torch.arange(12) % 2, make_batch(sources, model.view, [0] * 12)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(model.train()(batch).logits, labels).backward()
        optimizer.step()
    with model.evaluating():
        assert torch.equal(model(batch).logits.argmax(1), labels)
