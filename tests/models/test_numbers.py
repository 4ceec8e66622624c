"""Models that answer with a number: every kind of model, samples, ensembles, folders, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from squares import unchecked
from torch import nn

from foveate.config.heads import HeadSettings
from foveate.config.settings import AttentionSettings, EvidenceSettings, FeatureSettings, ViewSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.models import Model, load_model, make_batch, save_model
from foveate.models.ensemble import Ensemble
from foveate.networks.number import NumberHead

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]

__all__ = ["unchecked"]

NUMBER = HeadSettings(kind="number")
LABELS = [3.0, -1.5, 12.25]


@pytest.fixture
def make_numeric(make_model: Models) -> Models:
    """Small models of every name, or of a name and a pool, that answer with a number."""

    def make(name: str = "attention-sampling", **changes: Any) -> Model:
        name, _, pool = name.partition(" + ")
        head = HeadSettings(kind="number", pool="cross-attention", heads=2) if pool else NUMBER
        model = make_model(name, classes=(), **({"head": head} | changes))
        for number, parameter in enumerate(model.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))
        assert isinstance(model.head, NumberHead)
        model.head.measure(LABELS)
        return model

    return make


NAMES = [
    *("attention-sampling", "uniform", "cnn", "deep-mil", "ips", "multi-scale", "zoom", "top-k", "perturbed-top-k"),
    *("attention-sampling + cross-attention", "uniform + cross-attention", "top-k + cross-attention"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_answers_with_a_number_whatever_the_company(
    name: str, make_numeric: Models, make_source: Sources
) -> None:
    model = make_numeric(name).eval()
    sources = [make_source((160, 100)), make_source((90, 210), seed=1)]
    together = model.answers(model(make_batch(sources, model.view, [1, 2])).logits)
    alone = model.answers(model(make_batch(sources[1:], model.view, [2])).logits)
    assert together.shape == (2, 1)
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)
    prediction = model.predict(sources[0])
    assert prediction.value is not None
    assert (prediction.predicted, prediction.probabilities) == (format(prediction.value, ".9g"), {})


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_from_the_squared_error(name: str, make_numeric: Models, make_source: Sources) -> None:
    model = make_numeric(name).train()
    sources = [make_source((160, 100)), make_source((90, 210), seed=1)]
    labels = [5.0, -2.0]
    batch = make_batch(sources, model.view, [1, 2], labels=labels)
    assert batch.labels is not None
    assert batch.labels.dtype == torch.float64
    output = model(batch)
    losses = model.kind.losses(output.logits, batch.labels)
    answers = model.answers(output.logits)[:, 0]
    off = (answers - torch.tensor(labels)) / model.head.get_buffer("deviation")
    torch.testing.assert_close(losses.double(), off.square(), rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.abs().max() > 0
    if model.attends and hasattr(model, "attention"):
        assert any(one.grad.abs().max() > 0 for one in model.attention.parameters())


def test_samples_are_averaged_as_numbers(make_numeric: Models, make_source: Sources) -> None:
    model: Any = make_numeric().eval()
    output = model(make_batch([make_source((160, 100)), make_source((90, 210), seed=1)], model.view, [1, 2]), samples=3)
    weights = (output.draw.log_prob.double().exp() * output.draw.weight).float()
    each = model.answers(model.head((weights[:, None] @ output.features)[:, 0]))
    torch.testing.assert_close(model.answers(output.logits), each.view(2, 3, 1).mean(1), rtol=0, atol=1e-4)


def test_an_ensemble_averages_numbers_of_members_that_were_standardised_otherwise(
    make_numeric: Models, make_model: Models, make_source: Sources
) -> None:
    models = [make_numeric("cnn"), make_numeric("cnn")]
    assert isinstance(models[1].head, NumberHead)
    models[1].head.measure([100.0, 180.0])
    source = make_source((60, 90))
    alone = [model.predict(source).value for model in models]
    assert None not in alone
    assert abs(alone[0] - alone[1]) > 10
    assert Ensemble(models).predict(source).value == pytest.approx(sum(alone) / 2, rel=1e-6)
    with pytest.raises(ConfigError, match=r"^the members of an ensemble must not differ in classes, but member-2 has"):
        Ensemble([models[0], make_model("cnn")])


def test_mean_and_deviation_travel_with_the_model_to_the_bit(
    make_numeric: Models, make_source: Sources, tmp_path: Path
) -> None:
    model = make_numeric(head=HeadSettings(kind="number", huber=1.5))
    again = load_model(save_model(model, tmp_path / "model"))
    assert isinstance(again.head, NumberHead)
    assert again.head.delta == 1.5
    assert again.predict(make_source((60, 90))).value == model.predict(make_source((60, 90))).value
    for name in ("mean", "deviation"):
        assert torch.equal(again.head.get_buffer(name), model.head.get_buffer(name))
        assert again.head.get_buffer(name).dtype == torch.float64
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["classes"], config["settings"]["head"]["kind"]) == ([], "number")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "# attention-sampling for a number" in card
    assert "it answers with a number; those it was trained on are 4.583 in the mean, standard deviation 5.724" in card


def test_folders_from_before_there_were_numbers_load(make_model: Models, tmp_path: Path) -> None:
    folder = save_model(make_model("cnn"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for key in ("kind", "huber", "order"):
        del config["settings"]["head"][key]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder).settings.head == HeadSettings()


@pytest.mark.usefixtures("unchecked")
def test_it_learns_how_red_an_image_is(make_model: Models) -> None:
    """Of 12 images in 40 steps, to R² above 0.9: one answer for all has 0."""
    changes: dict[str, Any] = {"features": FeatureSettings(width=16), "view": ViewSettings(scale=1.0), "head": NUMBER}
    model = make_model("cnn", channels=3, classes=(), **changes)
    sources, labels = [], [5.0 + 3 * (number % 6) for number in range(12)]
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 40, (30, 45, 3), dtype=np.uint8)
        pixels[..., 0] += np.uint8(40 * (number % 6))
        pixels[..., 2] += np.uint8(40 * (5 - number % 6))
        sources.append(ArraySource(pixels, name=str(number)))
    batch = make_batch(sources, model.view, [0] * 12, labels=labels)
    assert isinstance(model.head, NumberHead)
    assert batch.labels is not None
    model.head.measure(labels)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.kind.losses(model.train()(batch).logits, batch.labels).mean().backward()
        optimizer.step()
    with model.evaluating():
        losses = model.kind.losses(model(batch).logits, batch.labels)
    assert 1 - float(losses.mean()) > 0.9  # in squared deviations, the mean costs 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("cat", "dog")}, r"got the classes cat, dog, of classes: leave it out, or set "),
        ({"extras": {"multi_label": True}}, r"got several labels, of classes: leave it out, or set "),
        ({"name": "gmic"}, r"got the model gmic, of classes: leave it out, or set model.head.kind to classes$"),
        (
            {"name": "evidence", "attention": AttentionSettings(name="timm:test_resnet", stages=(2, 3), stride=6)},
            r"got the model evidence, of classes: leave it out, or set ",
        ),
        ({"evidence": EvidenceSettings(background="none")}, r"got model.evidence.background, of classes: leave it out"),
    ],
)
def test_what_is_of_classes_is_refused(changes: dict[str, Any], message: str, make_model: Models) -> None:
    with pytest.raises(ConfigError, match=rf"^model.head.kind number answers with a number, {message}"):
        make_model(**({"head": NUMBER, "classes": ()} | changes))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            HeadSettings(kind="number", huber=0.0),
            r"model.head.huber must be positive, got 0.0: set it to e.g. 1.5, or ",
        ),
        (
            HeadSettings(huber=1.5),
            r"model.head.huber belongs to model.head.kind number, got 1.5 with classes: leave it o",
        ),
        (HeadSettings(kind="number", order=("a",)), r"model.head.order must name each of the classes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(head: HeadSettings, message: str, make_model: Models) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        make_model(head=head, classes=() if head.numeric else ("cat", "dog"))


def test_of_a_number_there_are_no_probabilities_and_nothing_is_settled(
    make_numeric: Models, make_source: Sources
) -> None:
    model = make_numeric()
    message = "probabilities are for classes, and model.head.kind number answers with a number: leave it out"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        model.probabilities(torch.zeros(1, 1))
    message = "max_patches draws until a class is settled, and a number is none: leave max_patches out"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        model.predict(make_source((60, 90)), max_patches=10)
