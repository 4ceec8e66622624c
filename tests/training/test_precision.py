"""In what precision a run computes, and with whose statistics: steps in theirs, all that judges a model in float32."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from foveate.errors import ConfigError
from foveate.evaluation.evaluate import evaluate
from foveate.models import build_model, load_model
from foveate.models.types import DrawOptions
from foveate.pipeline.distributed import synchronised_statistics
from foveate.pipeline.loader import Loader, LoadOptions, shares, split_indices
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics
from foveate.training.step import Stepper

Settings = Callable[..., Any]


def batch_of(dataset: Any, model: Any, count: int) -> Any:
    (share,) = shares(split_indices(dataset, "train")[:count], count)
    (batch,) = Loader(dataset, model.view, 3, model.intake).training(1, [share])
    return batch


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_run_is_validated_as_its_model_is_evaluated(
    precision: str, squares: Any, settings_of: Settings, tmp_path: Path
) -> None:
    settings = settings_of(training={"mixed_precision": precision, "epochs": 2})
    train(settings, tmp_path / "run", dataset=squares, progress=SilentProgress())
    best = [one for one in read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch") if one["best"]][-1]
    validation = split_indices(squares, "validation")
    again = evaluate(load_model(tmp_path / "run"), squares, validation, DrawOptions(seed=settings.seed))
    assert again.loss == best["validation_loss"]
    assert again.error == best["validation_error"]


def test_a_step_computes_in_the_precision_asked_for_and_nothing_else_does(squares: Any, settings_of: Settings) -> None:
    settings = settings_of(training={"mixed_precision": "bf16"})
    model = build_model(settings.model, squares.classes, channels=3, seed=1)
    seen: list[torch.dtype] = []
    first = next(one for one in model.features.modules() if isinstance(one, nn.Conv2d))
    first.register_forward_hook(lambda *told: seen.append(told[2].dtype))
    stepper = Stepper(settings.training, model)
    batch = batch_of(squares, model, 4)
    stepper(batch)
    assert seen.pop() == torch.bfloat16
    assert all(one.dtype == torch.float32 for one in model.parameters())
    with model.evaluating():
        model(batch)
    assert seen == [torch.float32]


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts: int, squares: Any, settings_of: Settings) -> None:
    gradients = []
    for count in (1, parts):
        settings = settings_of(training={"parts": count, "clip_norm": 0.0})
        model = build_model(settings.model, squares.classes, channels=3, seed=1)
        stepper = Stepper(settings.training, model)
        sums = stepper.backward(batch_of(squares, model, 7))
        gradients.append((sums, [one.grad.clone() for one in model.parameters() if one.grad is not None]))
    (whole_sums, whole), (part_sums, part) = gradients
    torch.testing.assert_close(whole_sums, part_sums)
    for one, other in zip(whole, part, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class Counted(nn.Sequential):
    """Features with batch statistics, which counts how often it is called."""

    calls = 0

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(patches)


def with_statistics() -> Counted:
    layers = [nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Counted(*layers)


def test_statistics_of_a_batch_are_those_of_all_of_it(squares: Any, settings_of: Settings) -> None:
    settings = settings_of(training={"parts": 3})
    model = build_model(settings.model, squares.classes, channels=3, seed=1, features=with_statistics())
    network = next(one for one in model.modules() if isinstance(one, Counted))
    network.calls = 0
    Stepper(settings.training, model)(batch_of(squares, model, 6))
    assert network.calls == 1


def test_processes_that_cannot_share_statistics_are_refused(squares: Any, settings_of: Settings) -> None:
    def model_of(**features: Any) -> Any:
        settings = settings_of(model={"features": features})
        return build_model(settings.model, squares.classes, channels=3, seed=1, features=with_statistics())

    two: Any = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"^a network with BatchNorm2d trained by 2 processes needs CUDA devices"):
        synchronised_statistics(model_of(), two)
    synchronised_statistics(model_of(frozen=True), two)
    one: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    synchronised_statistics(model_of(), one)
    gpus: Any = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
    changed = synchronised_statistics(model_of(), gpus)
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in changed.modules())
    assert changed.state_dict().keys() == model_of().state_dict().keys()


def test_networks_of_timm_keep_their_activations_where_statistics_are_shared(
    squares: Any, settings_of: Settings
) -> None:
    try:
        import timm  # noqa: F401
    except Exception as error:  # a torchvision that does not match torch raises RuntimeError
        pytest.skip(f"timm cannot be imported: {error}")
    features = {"name": "timm:test_efficientnet", "pretrained": False, "frozen_stages": 1}
    model = build_model(settings_of(model={"features": features}).model, squares.classes, channels=3, seed=1)
    patches = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    before = model.eval().features(patches)
    gpus: Any = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
    changed = synchronised_statistics(model.train(), gpus)
    norms = [layer for layer in changed.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert norms
    assert any(layer.training for layer in norms)
    assert not all(layer.training for layer in changed.train().modules() if isinstance(layer, nn.SyncBatchNorm))
    torch.testing.assert_close(changed.eval().features(patches), before, rtol=1e-5, atol=1e-5)


def test_batches_of_any_size_evaluate_alike(squares: Any, settings_of: Settings) -> None:
    model = build_model(settings_of().model, squares.classes, channels=3, seed=1).eval()
    indices = split_indices(squares, None)
    first, *others = (evaluate(model, squares, indices, loading=LoadOptions(batch)).loss for batch in (1, 5, 64))
    assert all(one == pytest.approx(first, rel=1e-6) for one in others)
