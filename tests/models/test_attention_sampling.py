from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from foveate.config.settings import AttentionSettings, PriorSettings
from foveate.images import ArraySource
from foveate.images.tensors import gather
from foveate.models import Model, make_batch
from foveate.models.types import Batch
from foveate.networks import contrast_prior, log_attention

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


def small_batch(model: Model, make_source: Sources) -> Batch:
    """Views of 7×10 and 12×6 pixels: maps of 4×5 and 6×3 cells of stride 2."""
    return make_batch([make_source((28, 40)), make_source((48, 24), seed=1)], model.view, [1, 2])


def everything(model: Model, batch: Batch) -> list[torch.Tensor]:
    """Φ of each image from all of its cells, none drawn, each image alone."""
    totals = []
    for row, (source, size) in enumerate(zip(batch.sources, batch.view_sizes, strict=True)):
        view = batch.views[row : row + 1, :, : size[0], : size[1]]
        mask = torch.ones(1, *size, dtype=torch.bool)
        cells = model.grid.cell_mask(mask, [size])
        footprint = (int(22 * size[0] / source.size[0] + 0.5), int(26 * size[1] / source.size[1] + 0.5))
        prior = contrast_prior(view, mask, cells, [size], [footprint], model.grid.stride, model.grid.field)
        logits = model.attention(view) + model.settings.prior.contrast * prior
        attention = log_attention(logits, cells, model.settings.attention.smoothing).exp()
        index = torch.arange(attention.shape[1])[None]
        boxes = model.grid.boxes(index, cells.shape[2], [size], [source.size], model.settings.patch)
        features = model.features(gather([source], boxes)[0])
        totals.append(attention[0] @ features)
    return totals


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", ["des_raj", "murthy", "priority", "uniform", "top"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("training", [True, False])
def test_exact_where_every_cell_is_drawn(
    method: str, padding: str, training: bool, make_model: Models, make_source: Sources
) -> None:
    attention = AttentionSettings(widths=(4,), stride=2, padding=padding, smoothing=0.01)  # type: ignore[arg-type]
    model = make_model(method=method, patches=25, attention=attention).train(training)
    batch = small_batch(model, make_source)
    output = model(batch)
    whole = everything(model, batch)
    expected = torch.stack([model.head(phi) for phi in whole])
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=2e-5)
    found = torch.autograd.grad(output.logits.square().sum(), list(model.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    # The last bias of the attention shifts all logits: its gradient is 0 but for the rounding of the largest ones.
    rounding = 1e-5 * max(float(gradient.abs().max()) for gradient in wanted)
    for (key, _), one, other in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=rounding, msg=key)


def test_estimate_is_unbiased_over_seeds(make_model: Models, make_source: Sources) -> None:
    """1,500 draws; a mean 5 standard errors off in any of at most 32 features happens by chance twice in 100,000."""
    model = make_model(patches=3, prior=PriorSettings(contrast=3.0)).eval()
    batch = make_batch([make_source((28, 40))], model.view, [5])
    with torch.no_grad():
        output = model(batch, samples=1500)
        coefficient = (output.draw.log_prob.double().exp() * output.draw.weight).float()
        estimates = torch.einsum("rn,rnd->rd", coefficient, output.features)
        (whole,) = everything(model, batch)
    error = estimates.mean(0) - whole
    spread = estimates.std(0) / 1500**0.5
    assert spread.max() > 0
    assert (error.abs() <= 5 * spread + 1e-6).all()


def test_prior_pulls_the_first_looks_to_contrast_and_is_stored(make_model: Models) -> None:
    pixels = torch.zeros(120, 160, 2, dtype=torch.uint8).numpy()
    pixels[40:60, 100:120] = 255

    def attention_of(model: Model) -> torch.Tensor:
        return model.eval()(make_batch([ArraySource(pixels)], model.view, [0])).attention[0].detach()

    mass = {}
    for strength in (0.0, 2.0):
        model = make_model(prior=PriorSettings(contrast=strength))
        mass[strength] = float(attention_of(model)[4:9, 11:16].sum())
        assert ("prior.strength" in model.state_dict()) == (strength != 0)
    assert mass[2.0] > 0.5
    assert mass[2.0] > 2 * mass[0.0]
    model.prior.strength.zero_()  # annealed away
    torch.testing.assert_close(attention_of(model), attention_of(make_model(prior=PriorSettings())))


def test_method_can_be_overridden_for_prediction(make_model: Models, make_source: Sources) -> None:
    model = make_model().eval()
    batch = small_batch(model, make_source)
    model.method = "top"
    output = model(batch)
    assert output.draw.method == "top"
    flat = output.attention.flatten(1)
    assert torch.equal(output.draw.index.sort(1).values, flat.topk(4, dim=1).indices.sort(1).values)
    reseeded = model(replace(batch, seeds=(8, 9)))
    assert torch.equal(reseeded.logits, output.logits)


def test_baseline_changes_the_attentions_gradient_in_training_and_nothing_else(
    make_model: Models, make_source: Sources
) -> None:
    found = {}
    for baseline in ("none", "leave-one-out"):
        model = make_model(baseline=baseline).train()
        output = model(small_batch(model, make_source))
        output.logits.square().sum().backward()
        found[baseline] = (
            output.logits,
            model.head.weight.grad,
            model.features.layers[0].weight.grad,
            model.attention.layers[0].weight.grad,
        )
    for one, other in zip(*(values[:3] for values in found.values()), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    plain, compared = (values[3] for values in found.values())
    assert not torch.allclose(plain, compared, rtol=0.1)


def test_draws_depend_on_the_seed_alone(make_model: Models, make_source: Sources) -> None:
    model = make_model()
    batch = small_batch(model, make_source)
    assert torch.equal(model(batch).boxes, model(batch).boxes)
    other = model(replace(batch, seeds=(1, 7))).boxes
    assert torch.equal(other[0], model(batch).boxes[0])
    assert not torch.equal(other[1], model(batch).boxes[1])


def test_boxes_lie_behind_their_cells_by_hand(make_model: Models) -> None:
    """A 100×60 image in a 25×15 view: 13×8 cells of 2 view pixels, 8 pixels of the image."""
    source = ArraySource(torch.zeros(100, 60, 2, dtype=torch.uint8).numpy())
    model = make_model(patches=104).eval()
    output = model(make_batch([source], model.view, [0]))
    boxes = {int(index): box.tolist() for index, box in zip(output.draw.index[0], output.boxes[0], strict=True)}
    # centre of cell (0, 0): view (1, 1), image (4, 4); of cell (12, 7), one view pixel wide: view (24.5, 14.5)
    assert boxes[0] == [4 - 11, 4 - 13, 22, 26]
    assert boxes[12 * 8 + 7] == [98 - 11, 58 - 13, 22, 26]


def test_cost_does_not_grow_with_the_number_of_cells_never_read(make_model: Models) -> None:
    model = make_model(patches=3).eval()
    reads = []
    for side in (200, 800):
        source = ArraySource(torch.zeros(side, side, 2, dtype=torch.uint8).numpy())
        batch = make_batch([source], model.view, [0])
        before = source.bytes_read
        model(batch)
        reads.append(source.bytes_read - before)
    assert max(reads) <= 3 * 22 * 26 * 2
