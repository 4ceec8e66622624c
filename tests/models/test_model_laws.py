"""What holds for every model, whatever its name."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from foveate.config.rivals import PerturbedSettings
from foveate.config.settings import AttentionSettings, FeatureSettings, PriorSettings, ViewSettings
from foveate.errors import FoveateError
from foveate.images import ArraySource
from foveate.models import Model, build_model, make_batch
from foveate.models.types import Batch
from foveate.training.objective import TermWeights, image_losses

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]

NAMES = [
    *("attention-sampling", "uniform", "cnn", "deep-mil", "ips", "multi-scale", "zoom", "top-k"),
    *("perturbed-top-k", "gmic"),
    *("attention-sampling + cross-attention", "attention-sampling + ordinal"),
]
SIZES = [(160, 100), (90, 210), (160, 100), (81, 127)]
SEEDS = [11, 12, 13, 14]


def batch_of(model: Model, make_source: Sources, rows: list[int]) -> Batch:
    sources = [make_source(SIZES[row], seed=row) for row in rows]
    return make_batch(sources, model.view, [SEEDS[row] for row in rows], ids=[str(row) for row in rows])


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_answers(name: str, make_model: Models) -> None:
    model = make_model(name)
    assert model.view == (None if name in ("deep-mil", "ips") else ViewSettings(scale=0.25))
    assert model.reads_patches == (name != "cnn")
    assert model.patch == ((22, 26) if model.reads_patches else None)
    assert model.patches == (0 if name in ("cnn", "deep-mil", "ips") else 4)
    assert model.device == torch.device("cpu")
    assert model.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    assert model.classes == ("cat", "dog", "owl")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("name", "padding"),
    [(name, "same") for name in NAMES] + [("attention-sampling", "valid"), ("uniform", "valid")],
)
@pytest.mark.parametrize("training", [True, False])
def test_company_order_and_padding_change_nothing(
    name: str, padding: str, training: bool, make_model: Models, make_source: Sources
) -> None:
    attention = AttentionSettings(widths=(4,), stride=2, padding=padding)  # type: ignore[arg-type]
    model = make_model(name, attention=attention).train(training)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases, and attention that differs
    together = model(batch_of(model, make_source, [0, 1, 2, 3]))
    probabilities = together.logits.softmax(1)
    for rows in ([1], [3], [3, 2], [1, 0, 3]):
        other = model(batch_of(model, make_source, rows))
        torch.testing.assert_close(other.logits.softmax(1), probabilities[rows], rtol=0, atol=1e-5)
        if model.reads_patches:
            for row, place in enumerate(rows):
                assert torch.equal(other.boxes[row][other.read[row]], together.boxes[place][together.read[place]])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("features", ["convolutional", "residual"])
def test_default_networks_have_no_batch_statistics(name: str, features: str, make_model: Models) -> None:
    model = make_model(name, features=FeatureSettings(features, width=6))
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation_are_one_path(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name, perturbed=PerturbedSettings(sigma=0.0))
    batch = batch_of(model, make_source, [0, 1])
    torch.testing.assert_close(model.train()(batch).logits, model.eval()(batch).logits, rtol=0, atol=1e-6)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name).train()
    output = model(batch_of(model, make_source, [0, 1, 3]))
    losses, _ = image_losses(output, torch.tensor([0, 1, 2]), TermWeights(entropy=1e-3))
    losses.sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # Softmax does not see a constant, so the bias of the last attention layer has gradient 0.
        constant = ("attention.layers.1.bias", "attention.score.bias", "further.0.layers.1.bias")
        assert parameter.grad.abs().max() > 0 or key in constant, key


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "multi-scale", "zoom"])
def test_samples_average_probabilities_and_share_the_attention(
    name: str, make_model: Models, make_source: Sources
) -> None:
    model = make_model(name).eval()
    batch = batch_of(model, make_source, [0, 1])
    output = model(batch, samples=3)
    assert output.attention.shape[0] == 2
    assert output.boxes.shape == (6, 4, 4)
    assert output.features.shape == (6, 4, 6)
    phi = torch.stack([
        (output.draw.log_prob.double().exp() * output.draw.weight)[row].float() @ output.features[row]
        for row in range(6)
    ])  # fmt: skip
    mean = model.head(phi).softmax(1).view(2, 3, 3).mean(1)
    torch.testing.assert_close(output.logits.softmax(1), mean, rtol=0, atol=1e-5)
    first = model(batch)
    assert torch.equal(first.boxes, output.boxes[::3])
    assert not torch.equal(output.boxes[0], output.boxes[1])


@pytest.mark.parametrize("name", ["cnn", "deep-mil", "ips", "gmic"])
def test_samples_change_nothing_without_draws(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name).eval()
    batch = batch_of(model, make_source, [0, 1])
    assert torch.equal(model(batch).logits, model(batch, samples=3).logits)


@pytest.mark.parametrize("name", NAMES)
def test_seeded_weights_leave_the_global_generator_alone(name: str, make_model: Models) -> None:
    model = make_model(name)
    state = torch.get_rng_state()
    again, other = build_model(model.settings, model.classes, 2), build_model(model.settings, model.classes, 2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    third = build_model(model.settings, model.classes, 2)
    tensors = model.state_dict()
    assert all(torch.equal(tensors[key], value) for key, value in again.state_dict().items())
    assert all(torch.equal(tensors[key], value) for key, value in third.state_dict().items())
    assert not torch.equal(tensors["head.weight"], other.state_dict()["head.weight"])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", NAMES)
def test_works_under_autocast(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name, prior=PriorSettings(contrast=0.0)).train()
    batch = batch_of(model, make_source, [0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch)
        losses, _ = image_losses(output, torch.tensor([0, 1]), TermWeights())
    losses.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    if output.attention is not None:
        assert output.attention.dtype == torch.float32
        torch.testing.assert_close(output.attention.double().sum((1, 2)), torch.ones(2).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "top-k"])
def test_only_what_the_mask_allows_is_drawn(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name, patches=9)
    batch = batch_of(model, make_source, [0, 1])
    tissue = torch.zeros_like(batch.mask)
    tissue[0, 4:10, 2:8] = True  # 3×3 cells of stride 2
    tissue[1, :8, 10:40] = True
    output = model(replace(batch, mask=tissue))
    assert output.attention[0, 2:5, 1:4].sum().item() == pytest.approx(1, abs=1e-6)
    assert sorted(output.draw.index[0].tolist()) == [
        row * output.attention.shape[2] + column for row in (2, 3, 4) for column in (1, 2, 3)
    ]
    functional.cross_entropy(output.logits, torch.tensor([0, 1])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("cnn", "attention-sampling + cross-attention")]
)
def test_an_image_without_a_cell_is_named(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name)
    batch = batch_of(model, make_source, [0, 3])
    empty = batch.mask.clone()
    empty[1] = False
    with pytest.raises(FoveateError, match=r"^image 1 of the batch \(3\) has no cell to look at, all \d+ are masked: "):
        model(replace(batch, mask=empty))
