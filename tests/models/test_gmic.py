"""GMIC: its answer and its loss, written out image by image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from seeing import seeing_settings
from torch import Tensor
from torch.nn import functional

from foveate.config.rivals import GmicSettings
from foveate.config.settings import AttentionSettings, EvidenceSettings
from foveate.errors import ConfigError
from foveate.export import export_model
from foveate.images import ArraySource
from foveate.images.tensors import gather
from foveate.models import Model, build_model, make_batch
from foveate.models.types import Batch
from foveate.networks.saliency import greedy_regions
from foveate.sampling import coefficients
from foveate.sampling.perturbed import unit_scores
from foveate.training.objective import TermWeights, image_losses

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]
SMALL = GmicSettings(top=0.2, sparsity=1e-2, width=5)


def batch_of(model: Model, make_source: Sources) -> Batch:
    """Maps of 4×5 and 6×3 cells, windows of 3×4 of them, so 3×5."""
    return make_batch([make_source((28, 40)), make_source((48, 24), seed=1)], model.view, [1, 2])


def naive(model: Model, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Of each image alone: its answer, the global and the local one, the sum of saliency, and the patches' boxes."""
    found = []
    for row, (source, size) in enumerate(zip(batch.sources, batch.view_sizes, strict=True)):
        maps = model.attention.scores(batch.views[row : row + 1, :, : size[0], : size[1]])[0]
        hidden = maps.tanh()
        logits = torch.einsum("mg,grc->mrc", model.saliency.weight, hidden) + model.saliency.bias[:, None, None]
        saliency = logits.sigmoid()
        every = torch.ones(saliency.shape[1:], dtype=torch.bool)
        parts = [unit_scores(one.flatten()[None], every.flatten()[None])[0] for one in saliency]
        index = greedy_regions(torch.stack(parts).sum(0).view(every.shape), every, 4, (3, 4))
        boxes = model.grid.boxes(index[None], every.shape[1], [size], [source.size], model.settings.patch)
        features = model.features(gather([source], boxes)[0])
        share = model.gate(features).softmax(0)
        pooled = share @ features
        answer = model.head(torch.cat((hidden.flatten(1).amax(1), pooled)))
        count = round(0.2 * every.numel())
        mean = saliency.flatten(1).sort(1, descending=True).values[:, :count].mean(1)
        found.append((answer, mean.logit(), model.local(pooled), saliency.sum(), boxes[0]))
    return found


@pytest.mark.parametrize(("background", "several"), [(None, False), ("dog", False), (None, True)])
def test_answer_and_loss_are_those_of_the_paper(
    background: str | None, several: bool, make_model: Models, make_source: Sources
) -> None:
    model = make_model(
        "gmic", gmic=SMALL, evidence=EvidenceSettings(background=background), extras={"multi_label": several}
    ).train()
    batch = batch_of(model, make_source)
    output, wanted = model(batch), naive(model, batch)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0]]) if several else torch.tensor([2, 1])
    losses, _ = image_losses(output, labels, TermWeights())
    for row, (answer, overall, local, saliency, boxes) in enumerate(wanted):
        torch.testing.assert_close(output.logits[row], answer, rtol=0, atol=2e-5)
        assert torch.equal(output.boxes[row], boxes)
        if background:
            overall = torch.stack((overall[0], torch.zeros(()), overall[1]))
        truth = labels[row : row + 1]
        entropy = functional.binary_cross_entropy_with_logits if several else functional.cross_entropy
        parts = [entropy(one[None], truth.to(one) if several else truth) for one in (answer, overall, local)]
        torch.testing.assert_close(losses[row], sum(parts) + 1e-2 * saliency, rtol=1e-5, atol=1e-5)


def test_the_answer_moves_no_map_but_the_global_answer_does(make_model: Models, make_source: Sources) -> None:
    model = make_model("gmic", gmic=SMALL).train()
    output = model(batch_of(model, make_source))
    own = torch.autograd.grad(output.logits.sum(), model.saliency.weight, retain_graph=True, allow_unused=True)
    assert own == (None,)
    (pooled, _), penalty = output.terms
    assert all(torch.autograd.grad(one.sum(), model.saliency.weight, retain_graph=True) for one in (pooled, penalty))
    assert not output.attention.requires_grad


def test_prediction_says_what_each_patch_is_worth(make_model: Models, make_source: Sources) -> None:
    """Eighteen cells and more patches than those: the slots left over are not read."""
    model = make_model("gmic", gmic=SMALL, patches=19).eval()
    with torch.no_grad():
        output = model(batch_of(model, make_source))
    assert output.terms is None
    assert output.patches_read.tolist() == [19, 18]
    share = coefficients(output.draw)
    torch.testing.assert_close(share.sum(1), torch.ones(2).double(), rtol=0, atol=1e-6)
    seen = (share[:, :, None].float() * output.features).sum(1)
    torch.testing.assert_close(model.head(seen), output.logits, rtol=0, atol=2e-5)
    torch.testing.assert_close(output.attention.sum((1, 2)), torch.ones(2))
    cells = [set(row[valid].tolist()) for row, valid in zip(output.draw.index, output.draw.valid, strict=True)]
    assert [len(one) for one in cells] == [19, 18]


def test_what_is_masked_is_neither_read_nor_pooled(make_model: Models, make_source: Sources) -> None:
    model = make_model("gmic", gmic=SMALL).train()
    batch = batch_of(model, make_source)
    batch.mask[0, :, 4:] = False
    batch.mask[1, 4:] = False
    output = model(batch)
    assert not output.attention[0, :, 2:].any()
    assert not output.attention[1, 2:].any()
    assert output.boxes[0, :, 1].max() < 20
    losses, _ = image_losses(output, torch.tensor([0, 1]), TermWeights())
    losses.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_maps_are_the_evidence_of_a_backbone(make_source: Sources) -> None:
    settings = seeing_settings("gmic")
    model = build_model(settings, ("cat", "dog", "owl"), channels=3, pretrained=False).train()
    sources = [make_source((128, 160), channels=3), make_source((96, 128), channels=3, seed=1)]
    output = model(make_batch(sources, model.view, [1, 2]))
    assert output.terms.logits[0].shape == (2, 3)
    losses, _ = image_losses(output, torch.tensor([0, 1]), TermWeights())
    losses.sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters() if one.requires_grad)
    assert not any(one.requires_grad for one in model.attention.cells.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top": 0.0}, "model.gmic.top must be positive, got 0.0: set it to e.g. 0.05, a share of all"),
        ({"sparsity": -1.0}, "model.gmic.sparsity must be 0 or more, got -1.0: set it to e.g. 3e-5"),
        ({"width": 0}, "model.gmic.width must be at least 1, got 0: set it to e.g. 32"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GmicSettings(**given)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_an_attention_network_of_the_users_own_has_no_features_of_cells(make_model: Models) -> None:
    with pytest.raises(ConfigError) as caught:
        make_model("gmic", attention=AttentionSettings(name="mine:network", stride=2))
    assert str(caught.value) == (
        "the model gmic needs features of cells, of which model.attention.name mine:network says nothing: set it to "
        "convolutional, or to e.g. timm:tf_efficientnet_lite0"
    )


def test_no_graph_chooses_one_after_the_other(make_model: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export_model(make_model("gmic"), tmp_path / "out")
    assert (
        str(caught.value) == "gmic chooses its patches one after the other, which no graph does: export another model"
    )
