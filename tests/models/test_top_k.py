"""Patches that attention chooses, and that are not drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from foveate.config.rivals import PerturbedSettings
from foveate.config.settings import AttentionSettings, InputSettings
from foveate.errors import ConfigError
from foveate.export import export_model
from foveate.images import ArraySource
from foveate.images.tensors import gather
from foveate.models import DrawOptions, Model, make_batch
from foveate.models.types import Batch
from foveate.networks import log_attention
from foveate.networks.normalise import BandStatistics
from foveate.sampling.perturbed import gaussian_noise, perturbed_top_k, unit_scores
from foveate.seeds import derive_seed

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


def naive(model: Model, batch: Batch, patches: int) -> list[torch.Tensor]:
    """Logits of each image from the patches of all its cells, each image alone."""
    found = []
    for row, (source, size) in enumerate(zip(batch.sources, batch.view_sizes, strict=True)):
        one, view = torch.ones(1, *size, dtype=torch.bool), batch.views[row : row + 1, :, : size[0], : size[1]]
        if model.normalise is not None:
            view = model.normalise(view)
        cells = model.grid.cell_mask(one, [size])
        logits = model.attention(view) + model.prior(view, one, cells, [size], [(6, 7)], 2)
        scores, mask = unit_scores(log_attention(logits, cells, 0.01), cells.flatten(1)), cells.flatten(1)
        generator = torch.Generator().manual_seed(derive_seed(batch.seeds[row], "perturbed"))
        noise = gaussian_noise(mask, model.settings.perturbed.samples, [generator])
        shares = perturbed_top_k(scores, patches, model.sigma, noise, mask)[0]
        index = torch.arange(scores.shape[1])[None]
        boxes = model.grid.boxes(index, cells.shape[2], [size], [source.size], model.settings.patch)
        pixels = gather([source], boxes)[0]
        pixels = pixels if model.normalise is None else model.normalise(pixels)
        mixed = torch.einsum("ri,ichw->rchw", shares[: min(patches, len(pixels))], pixels)
        found.append(model.head(model.features(mixed).mean(0)))
    return found


@pytest.mark.parametrize(("patches", "bands"), [(1, False), (3, True), (19, False)])
def test_perturbed_top_k_mixes_the_patches_that_noise_may_choose(
    patches: int, bands: bool, make_model: Models, make_source: Sources
) -> None:
    """Value and gradient from all patches; of 19 slots an image of 18 cells leaves one over, and one of 20 none."""
    extras = {"bands": BandStatistics((0.4, 0.6), (0.2, 0.3))} if bands else {}
    model = make_model(
        "perturbed-top-k",
        patches=patches,
        attention=SMOOTH,
        perturbed=PerturbedSettings(sigma=0.3, samples=12),
        input=InputSettings(normalise="bands" if bands else "none"),
        extras=extras,
    ).train()
    batch = batch_of(model, make_source)
    output, expected = model(batch), torch.stack(naive(model, batch, patches))
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=5e-5)
    found = torch.autograd.grad(output.logits.square().sum(), list(model.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    rounding = 1e-5 * max(float(gradient.abs().max()) for gradient in wanted)
    for (key, _), one, other in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=rounding, msg=key)
    assert patches == 19 or float(found[0].abs().max()) > 10 * rounding


def test_it_reads_what_has_a_share_and_the_noise_is_the_seeds(make_model: Models, make_source: Sources) -> None:
    model = make_model("perturbed-top-k", perturbed=PerturbedSettings(sigma=0.1, samples=9)).train()
    batch = batch_of(model, make_source)
    first, again, other = model(batch), model(batch), model(replace(batch, seeds=(3, 4)))
    assert torch.equal(first.logits, again.logits)
    assert not torch.equal(first.logits, other.logits)
    counts = first.patches_read
    assert torch.equal(counts, first.read.sum(1))
    assert counts.min() > 4
    assert counts.max() < 20


def test_prediction_takes_the_mean_of_the_highest(make_model: Models, make_source: Sources) -> None:
    """As the last step of training does, whose σ is 0; the attention has no part in the mean, and no gradient."""
    model = make_model("perturbed-top-k", patches=5)
    batch = batch_of(model, make_source)
    output = model.eval()(batch)
    flat = output.attention.flatten(1)
    assert torch.equal(output.draw.index.sort(1).values, flat.topk(5).indices.sort(1).values)
    torch.testing.assert_close(output.logits, model.head(output.features.mean(1)), rtol=0, atol=1e-5)
    model.train().progressed(0.5)
    assert model.sigma == 0.025
    model.progressed(1.0)
    last = model(batch)
    torch.testing.assert_close(last.logits, output.logits, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(last.logits.sum(), model.attention.layers[0].weight, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_what_is_masked_has_no_share(make_model: Models, make_source: Sources) -> None:
    model = make_model("perturbed-top-k", perturbed=PerturbedSettings(sigma=1.0, samples=50)).train()
    batch = batch_of(model, make_source)
    tissue = torch.zeros_like(batch.mask)
    tissue[0, :4, :6], tissue[1, 2:] = batch.mask[0, :4, :6], batch.mask[1, 2:]
    output = model(replace(batch, mask=tissue))
    assert output.patches_read.tolist() == [6, 15]
    output.logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": -0.1}, "model.perturbed.sigma must be 0 or more, got -0.1: set it to e.g. 0.05"),
        ({"samples": 0}, "model.perturbed.samples must be at least 1, got 0: set it to e.g. 500"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PerturbedSettings(**given)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_no_graph_weighs_patches_alike(make_model: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export_model(make_model("perturbed-top-k"), tmp_path / "out")
    assert str(caught.value) == (
        "perturbed top-k weighs its patches alike, which no graph of ours does: export another model"
    )
