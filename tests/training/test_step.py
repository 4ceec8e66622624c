"""One step is what it says: the gradient of the batch's mean loss, whoever takes which part of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from foveate.models import Model, build_model
from foveate.models.types import Batch
from foveate.pipeline.loader import Loader, Share, shares, split_indices
from foveate.training.objective import TermWeights, image_losses
from foveate.training.step import Stepper

PLAIN = {"optimizer": "sgd", "clip_norm": 0.0, "learning_rate": 0.5}


def model_of(settings: Any, classes: tuple[str, ...] = ("blue", "red"), **options: Any) -> Model:
    return build_model(settings.model, classes, channels=3, seed=1, **options)


def batch_of(dataset: Any, model: Model, count: int) -> Batch:
    (share,) = shares(split_indices(dataset, "train")[:count], count)
    (batch,) = Loader(dataset, model.view, 3, model.intake).training(1, [share])
    return batch


def gradients(model: Model, batch: Batch, weight: float, rows: slice) -> list[Tensor]:
    assert batch.labels is not None
    losses, _ = image_losses(model.train()(batch), batch.labels, TermWeights(entropy=weight))
    return list(torch.autograd.grad(losses[rows].sum(), list(model.parameters())))


def test_a_step_follows_the_gradient_of_the_mean_loss(squares: Any, settings_of: Callable[..., Any]) -> None:
    settings = settings_of(training=PLAIN | {"entropy": 0.01})
    model = model_of(settings)
    batch = batch_of(squares, model, 5)
    before = [one.detach().clone() for one in model.parameters()]
    expected = gradients(model, batch, 0.01, slice(None))
    sums = Stepper(settings.training, model)(batch, rate=0.25)
    assert (sums["images"], sums["patches"]) == (5, 15)
    assert sums["loss"] == pytest.approx(sums["cross_entropy"] - 0.01 * sums["entropy"], rel=1e-5)
    for old, new, gradient in zip(before, model.parameters(), expected, strict=True):
        # Nesterov's first step is 1.9 gradients
        assert torch.allclose(new.detach(), old - 0.25 * 1.9 * gradient / 5, atol=1e-6)


def test_images_that_do_not_count_change_nothing(squares: Any, settings_of: Callable[..., Any]) -> None:
    settings = settings_of(training=PLAIN)
    model = model_of(settings)
    batch = batch_of(squares, model, 5)
    expected = gradients(model, batch, settings.training.entropy, slice(0, 2))
    stepper = Stepper(settings.training, model)
    sums = stepper.backward(batch, Share((0, 1, 2, 3, 4), counted=2, whole=7))
    assert sums[-4:].tolist() == [2, 6, 0, 0], "images, patches read and kept, gradients that are not finite"
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient / 7, atol=1e-6)


def test_features_move_at_their_own_rate_or_not_at_all(squares: Any, settings_of: Callable[..., Any]) -> None:
    moved: dict[str, dict[str, Tensor]] = {}
    for name, features in (("alike", {}), ("slow", {"learning_rate": 0.05}), ("frozen", {"frozen": True})):
        settings = settings_of(training=PLAIN, model={"features": features})
        model = model_of(settings)
        before = {key: one.detach().clone() for key, one in model.named_parameters()}
        Stepper(settings.training, model)(batch_of(squares, model, 4))
        moved[name] = {key: one.detach() - before[key] for key, one in model.named_parameters()}
    for key, full in moved["alike"].items():
        share = {"slow": 0.1, "frozen": 0.0} if key.startswith("features.") else {"slow": 1.0, "frozen": 1.0}
        for name, factor in share.items():
            assert torch.allclose(moved[name][key], factor * full, atol=1e-6), (name, key)
    assert any(one.abs().max() > 1e-4 for key, one in moved["slow"].items() if key.startswith("features."))


def test_gradients_are_clipped_to_the_norm(squares: Any, settings_of: Callable[..., Any]) -> None:
    settings = settings_of(training={"clip_norm": 1e-3})
    model = model_of(settings)
    stepper = Stepper(settings.training, model)
    sums = stepper.backward(batch_of(squares, model, 4))
    norm = torch.stack([one.grad.norm() for one in model.parameters() if one.grad is not None]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert sums[-1] == 0
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    assert stepper.backward(batch_of(squares, model, 4))[-1] == 1


def test_several_labels_are_counted_by_the_class(colours: Any, settings_of: Callable[..., Any]) -> None:
    settings = settings_of(training=PLAIN)
    model = model_of(settings, colours.classes, multi_label=True)
    batch = batch_of(colours, model, 6)
    with torch.no_grad():
        wrong = (model.train()(batch).logits >= 0).float() != batch.labels
    sums = Stepper(settings.training, model)(batch)
    assert sums["errors"] == pytest.approx(wrong.sum().item() / 3, abs=1e-5)
