"""Several scales: one distribution over where and how large, and patches that show what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyramid_files import values, write_pyramid
from seeing import seeing_model
from tiny import batch_of, sharp

from foveate.config.resolutions import ScaleSettings
from foveate.config.settings import AttentionSettings, FeatureSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource, Source, open_image
from foveate.models import Model, load_model, save_model
from foveate.models.kept import KeptFeatures
from foveate.models.scaled_reading import shrunk
from foveate.types import Box

Models = Callable[..., Model]
Sources = Callable[..., ArraySource]
FACTORS = (1.0, 2.5, 4.0)
SETTINGS: dict[str, Any] = {
    "scales": ScaleSettings(FACTORS),
    "attention": AttentionSettings(widths=(4,), stride=5, smoothing=1e-3),
}


def every_place(
    model: Model, source: Source, factors: tuple[float, ...] = FACTORS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log probability of every cell at every scale, and the features of what lies there: by formula and by hand."""
    batch = model.seen(batch_of(model, [source]))
    mask = model.grid.cell_mask(batch.mask, batch.view_sizes)
    of_cells = model.log_attention(batch, mask)[0]
    share = model.settings.attention.smoothing
    of_scales = model.scales.scores(batch.views)[0].flatten(1).T.softmax(-1)
    of_scales = ((1 - share) * of_scales + share / len(factors)).log()
    features = []
    for cell in range(len(of_cells)):
        for number, factor in enumerate(factors):
            size = tuple(int(side * factor + 0.5) for side in model.patch)
            view, columns = batch.view_sizes, mask.shape[2]
            box = model.grid.boxes(torch.tensor([[cell]]), columns, view, [source.size], size)[0, 0].tolist()
            assert box[2:] == list(size)
            shown = source.view(model.patch, (box[0], box[1], box[0] + box[2], box[1] + box[3]))
            network = model.feature_networks[number if len(model.feature_networks) > 1 else 0]
            features.append(network(torch.from_numpy(shown).permute(2, 0, 1)[None])[0])
    return (of_cells[:, None] + of_scales).flatten(), torch.stack(features)


@pytest.mark.parametrize(("factors", "shared"), [(FACTORS, True), (FACTORS, False), ((2.5, 4.0), True), ((2.5,), True)])
def test_all_places_together_are_the_sum_over_cells_and_scales(
    factors: tuple[float, ...], shared: bool, make_model: Models, make_source: Sources
) -> None:
    """Value, and gradient to all networks; that of features sees `model.patch` pixels, whatever a patch shows."""
    changes = SETTINGS | {"scales": ScaleSettings(factors, shared)}
    model = sharp(make_model("multi-scale", **changes, patches=100)).eval()
    source = make_source((61, 90))
    output = model(batch_of(model, [source]))
    log_prob, features = every_place(model, source, factors)
    assert output.draw.valid.sum() == len(log_prob) == 3 * 5 * len(factors)
    assert sorted(output.draw.index[output.draw.valid].tolist()) == list(range(len(log_prob)))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)
    mean = (log_prob.exp()[:, None] * features).sum(0)
    logits = model.head(mean)
    torch.testing.assert_close(output.logits[0].softmax(-1), logits.softmax(-1), rtol=1e-4, atol=1e-5)
    parameters = [one for one in model.parameters() if one.requires_grad]
    found, expected = (
        torch.autograd.grad(one.softmax(-1)[0], parameters, retain_graph=True) for one in (output.logits[0], logits)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    entropy = torch.special.entr(log_prob.exp()).sum()
    assert output.entropy.item() == pytest.approx(entropy.item(), abs=1e-4)
    assert output.attention.sum().item() == pytest.approx(1, abs=1e-5)


def test_scales_begin_almost_equally_likely(make_model: Models, make_source: Sources) -> None:
    model = make_model("multi-scale", **SETTINGS, patches=100).eval()
    output = model(batch_of(model, [make_source((61, 90))]))
    there = output.draw.valid[0]
    shares = output.draw.log_prob[0][there].exp().detach()
    of_places = torch.zeros(45).scatter(0, output.draw.index[0][there], shares)
    equal = output.attention.detach().flatten()[:, None].expand(15, 3) / 3
    torch.testing.assert_close(of_places.view(15, 3), equal, rtol=0.03, atol=0)


def test_what_is_larger_is_read_from_a_coarser_level(make_model: Models, tmp_path: Path) -> None:
    """The levels of this file show different things: a patch of four times the side shows the third one."""
    levels = [values((256, 192), seed=1), values((128, 96), seed=2), values((64, 48), seed=3)]
    write_pyramid(tmp_path / "a.tif", levels)
    source = open_image(tmp_path / "a.tif")
    shown = shrunk(source, (32, 64, 64, 48), (16, 12))
    expected = source.read(Box(8, 16, 16, 12), 2)
    torch.testing.assert_close(shown, torch.from_numpy(expected / np.float32(255)).permute(2, 0, 1).float())


def test_patches_of_a_batch_of_images_are_those_of_each(make_model: Models, make_source: Sources) -> None:
    """With images of two sizes, kept rows and masked draws beside each other."""
    model = sharp(make_model("multi-scale", **SETTINGS | {"scales": ScaleSettings(FACTORS, False)}, patches=9)).eval()
    sources = [make_source((61, 90), seed=1), make_source((30, 22), seed=2)]
    with torch.no_grad():
        together = model(batch_of(model, sources), samples=2)
        alone = [model(batch_of(model, [source], 5 + row), samples=2) for row, source in enumerate(sources)]
    for row, one in enumerate(alone):
        own = slice(2 * row, 2 * row + 2)
        assert torch.equal(together.boxes[own], one.boxes)
        torch.testing.assert_close(together.features[own], one.features, rtol=1e-4, atol=1e-5)
    assert {tuple(box[2:]) for box in together.boxes.flatten(0, 1).tolist()} == {(22, 26), (55, 65), (88, 104)}


def test_features_are_kept_where_one_network_computes_them(make_model: Models) -> None:
    for shared in (True, False):
        model = make_model("multi-scale", **SETTINGS | {"scales": ScaleSettings(FACTORS, shared)})
        model.keep_features(KeptFeatures(10**6))
        assert (model.kept is not None) == shared


def test_every_scale_has_a_network_that_is_trained_and_saved(make_model: Models, tmp_path: Path) -> None:
    scales = ScaleSettings(FACTORS, shared=False)
    features = FeatureSettings(width=6, learning_rate=0.25)
    model = make_model("multi-scale", **SETTINGS | {"scales": scales, "features": features})
    networks = model.feature_networks
    assert len(networks) == 3
    slow = [group for group in model.parameter_groups() if group.get("learning_rate") == 0.25]
    assert sum(len(group["params"]) for group in slow) == sum(len([*one.layers.parameters()]) for one in networks)
    assert sum(len(group["params"]) for group in model.parameter_groups()) == len([*model.parameters()])
    save_model(model, tmp_path / "model", None)
    again = load_model(tmp_path / "model")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_evidence_says_where_and_a_network_on_its_cells_how_large(make_source: Sources) -> None:
    model = seeing_model("multi-scale", scales=ScaleSettings((1.0, 2.0)), patches=6)
    source = make_source((96, 128), channels=3)
    output = model.train()(batch_of(model, [source]))
    assert {tuple(box[2:]) for box in output.boxes[0].tolist()} <= {(side[0], side[1]) for side in model.sizes}
    output.logits[0, 0].backward()
    assert model.scales.last.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"scales": ScaleSettings((1.0,))},
            r"model.scales.factors must ascend from 1 to 64 at most, got \[1",
        ),
        ({"scales": ScaleSettings((2.0, 1.0))}, r"model.scales.factors must ascend from 1 to 64"),
        ({"scales": ScaleSettings(())}, r"model.scales.factors must ascend from 1 to 64"),
        ({"scales": ScaleSettings((0.5, 1.0))}, r"model.scales.factors must ascend from 1 to 64"),
        ({"scales": ScaleSettings((1.0, float("nan")))}, r"model.scales.factors must ascend from 1 to 64"),
        (
            {"scales": ScaleSettings(FACTORS, False), "features": FeatureSettings(project=4)},
            r"model.scales.shared false is for feature networks without model.features.project, got 4",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], told: str, make_model: Models) -> None:
    with pytest.raises(ConfigError, match=told):
        make_model("multi-scale", **SETTINGS | changes)


def test_layers_of_ones_own_serve_all_scales(make_model: Models) -> None:
    own = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3), torch.nn.ReLU())
    model = make_model("multi-scale", **SETTINGS, extras={"features": own})
    assert model.features.dimension == 5
    with pytest.raises(ConfigError, match=r"layers of your own serve all scales: set model.scales.shared to true"):
        make_model("multi-scale", **SETTINGS | {"scales": ScaleSettings(FACTORS, False)}, extras={"features": own})
