"""Patches that attention chooses, and that are not drawn."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from foveate.config.settings import AttentionSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.images.tensors import gather
from foveate.models import DrawOptions, Model, make_batch
from foveate.models.types import Batch
from foveate.networks import log_attention

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]
SMOOTH = AttentionSettings(widths=(4,), stride=2, smoothing=0.01)


def batch_of(model: Model, make_source: Sources) -> Batch:
    """Maps of 4×5 and 6×3 cells."""
    return make_batch([make_source((28, 40)), make_source((48, 24), seed=1)], model.view, [1, 2])


@pytest.mark.parametrize("patches", [1, 3, 25])
def test_top_k_is_the_renormalised_mean_of_the_most_attended(
    patches: int, make_model: Models, make_source: Sources
) -> None:
    """Value, and plain autograd's gradient of the formula; 25 are more than there are cells: then it is exact."""
    model = make_model("top-k", patches=patches, attention=SMOOTH).train()
    batch = batch_of(model, make_source)
    output = model(batch)
    expected = []
    for row, (source, size) in enumerate(zip(batch.sources, batch.view_sizes, strict=True)):
        cells = model.grid.cell_mask(torch.ones(1, *size, dtype=torch.bool), [size])
        view = batch.views[row : row + 1, :, : size[0], : size[1]]
        logits = model.attention(view) + model.prior(view, torch.ones(1, *size).bool(), cells, [size], [(6, 7)], 2)
        attention = log_attention(logits, cells, 0.01)[0].exp()
        index = attention.topk(min(patches, len(attention))).indices
        boxes = model.grid.boxes(index[None], cells.shape[2], [size], [source.size], model.settings.patch)
        features = model.features(gather([source], boxes)[0])
        expected.append(model.head(attention[index] @ features / attention[index].sum()))
    torch.testing.assert_close(output.logits, torch.stack(expected), rtol=0, atol=2e-5)
    found = torch.autograd.grad(output.logits.square().sum(), list(model.parameters()))
    wanted = torch.autograd.grad(torch.stack(expected).square().sum(), list(model.parameters()))
    rounding = 1e-5 * max(float(gradient.abs().max()) for gradient in wanted)
    for (key, _), one, other in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=rounding, msg=key)
        assert not key.startswith("attention") or patches > 1 or one.abs().max() < rounding  # one alone teaches nothing


def test_a_cell_that_was_not_chosen_teaches_nothing(make_model: Models, make_source: Sources) -> None:
    model = make_model("top-k").train()
    output = model(batch_of(model, make_source))
    loss = functional.cross_entropy(output.logits, torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(loss, output.attention, allow_unused=True)
    assert gradient is None  # all that counts are the weights of those chosen
    (chosen,) = torch.autograd.grad(
        functional.cross_entropy(model(batch_of(model, make_source)).logits, torch.tensor([0, 1])),
        model.attention.layers[0].weight,
    )
    assert chosen.abs().max() > 0


def test_neither_seed_nor_method_change_the_choice(make_model: Models, make_source: Sources) -> None:
    model = make_model("top-k").train()
    batch = batch_of(model, make_source)
    output = model(batch)
    assert output.draw.method == "top"
    with model.in_evaluation_mode("murthy"):
        again = model(replace(batch, seeds=(8, 9)), samples=3)
    assert all(torch.equal(again.boxes[number::3], output.boxes) for number in range(3))
    flat = output.attention.flatten(1)
    assert torch.equal(output.draw.index.sort(1).values, flat.topk(4, dim=1).indices.sort(1).values)


def test_nothing_is_drawn_until_it_is_settled(make_model: Models, make_source: Sources) -> None:
    model = make_model("top-k")
    with pytest.raises(ConfigError, match=r"^max_patches is for a single model that draws patches, and this is none: "):
        model.look(make_source((60, 80)), DrawOptions(method="murthy", max_patches=9))
