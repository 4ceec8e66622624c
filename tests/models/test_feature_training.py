"""Feature networks that are frozen, that learn at their own rate, and that a user brings along."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.heads import MilSettings
from foveate.config.settings import FeatureSettings
from foveate.errors import RunError
from foveate.images import ArraySource
from foveate.models import Model, load_model, make_batch, save_model

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]
NAMES = ["attention-sampling", "uniform", "cnn", "deep-mil"]


class Own(nn.Module):
    """Someone's layers: batch statistics and all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        for number, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(number))

    def forward(self, patches: Tensor) -> Tensor:
        return self.norm(self.first(patches)).relu().mean((2, 3))


def one_step(model: Model, make_source: Sources) -> None:
    batch = make_batch([make_source((60, 70)), make_source((44, 80), seed=1)], model.view, [0, 1])
    groups = model.parameter_groups()
    optimizer = torch.optim.SGD([{"params": group["params"]} for group in groups], lr=0.5)
    functional.cross_entropy(model.train()(batch).logits, torch.tensor([0, 2])).backward()
    optimizer.step()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("own", [True, False])
def test_frozen_features_stay_as_they_are(name: str, own: bool, make_model: Models, make_source: Sources) -> None:
    features = FeatureSettings("speed-limits-paper", frozen=True)
    extras = {"features": Own()} if own else {}
    for memory in ("plain", "chunked") if name == "deep-mil" else ("plain",):
        mil = MilSettings(hidden=5, memory=memory, chunk=3)  # type: ignore[arg-type]
        model = make_model(name, features=features, extras=extras, mil=mil)
        assert any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.features.modules())
        before = {key: value.clone() for key, value in model.state_dict().items()}
        one_step(model, make_source)
        assert model.training
        assert not any(layer.training for layer in model.features.modules())
        with model.evaluating():
            assert not model.training
        assert not model.features.training
        moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        assert not any(key.startswith("features.") for key in moved)
        assert {"head.weight", "head.bias"} <= moved
        assert all(parameter.grad is None for parameter in model.features.parameters())
        trained = [one for group in model.parameter_groups() for one in group["params"]]
        assert len(model.parameter_groups()) == 1
        assert model.parameter_count == sum(one.numel() for one in trained)
        assert model.parameter_count < sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_features_are_a_group_with_their_own_learning_rate(name: str, make_model: Models) -> None:
    model = make_model(name, features=FeatureSettings(width=6, learning_rate=3e-5))
    rest, features = model.parameter_groups()
    assert features["learning_rate"] == 3e-5
    assert "learning_rate" not in rest
    assert {id(one) for one in features["params"]} == {id(one) for one in model.features.parameters()}
    ids = [id(one) for group in (rest, features) for one in group["params"]]
    assert sorted(ids) == sorted(id(one) for one in model.parameters())
    assert make_model(name).parameter_groups()[1]["learning_rate"] is None


def test_a_partly_frozen_network_of_ones_own_is_trained_in_part(make_model: Models, make_source: Sources) -> None:
    own = Own()
    own.first.requires_grad_(False)
    model = make_model(extras={"features": own})
    kernel, scale = own.first.weight.clone(), own.norm.weight.clone()
    one_step(model, make_source)
    assert torch.equal(own.first.weight, kernel)
    assert not torch.equal(own.norm.weight, scale)
    assert len(model.parameter_groups()[1]["params"]) == 2


def test_a_tensor_under_two_names_is_saved(make_model: Models, tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        one, other = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
        other.weight = one.weight
        return nn.Sequential(one, other)

    model = make_model(extras={"features": tied()})
    save_model(model, tmp_path)
    again = load_model(tmp_path, features=tied())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_ones_own_network_is_saved_and_must_be_brought_again(
    name: str, make_model: Models, make_source: Sources, tmp_path: Path
) -> None:
    model = make_model(name, extras={"features": Own()})
    one_step(model, make_source)
    save_model(model, tmp_path)
    assert 'load_model("PATH", features=network)' in (tmp_path / "README.md").read_text()
    again = load_model(tmp_path, features=Own())
    batch = make_batch([make_source((60, 70))], model.view, [3])
    with torch.no_grad():
        assert torch.equal(again(batch).logits, model.eval()(batch).logits)
    with pytest.raises(RunError) as caught:
        load_model(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds a model with a feature network of its maker's own: load it in Python with "
        "load_model(folder, features=the same layers)"
    )
    with pytest.raises(RunError, match=r"does not match the config\.json beside it in .*features\.layers"):
        load_model(tmp_path, features=nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
