import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError
from foveate.networks import build_features

CODE = """
from torch import nn

HIDDEN = 6


def small(channels):
    return nn.Sequential(nn.Conv2d(channels, HIDDEN, 3), nn.BatchNorm2d(HIDDEN), nn.ReLU())


def wants_two(channels, more):
    return nn.Identity()


def gives_words(channels):
    return "resnet"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a module of somebody's networks, and one that cannot be imported."""
    package = tmp_path / "somebodys"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "networks.py").write_text(CODE)
    (package / "broken.py").write_text("import torch\nraise RuntimeError('no\\nlicence.')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package / "networks.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
        del sys.modules[name]


class Lambda(nn.Module):
    """A module that is one function."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, patches: Tensor) -> object:
        return self.function(patches)


def test_a_function_by_its_name_is_called_with_the_channels_and_averaged(installed: Path) -> None:
    network = build_features(FeatureSettings("somebodys.networks:small", norm=3.0, width=-1), 2, (20, 30)).eval()
    assert network.dimension == 6
    patches = torch.rand(4, 2, 20, 30, generator=torch.Generator().manual_seed(0))
    features = network(patches)
    own = network.layers.network(patches).mean((2, 3))
    torch.testing.assert_close(features, network.constant_norm(own), rtol=0, atol=1e-6)
    torch.testing.assert_close(features.norm(dim=1), torch.full((4,), 3.0), rtol=1e-4, atol=0)


def test_a_seed_settles_a_function_s_weights(installed: Path) -> None:
    def weights(seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build_features(FeatureSettings("somebodys.networks:small"), 2, (20, 30)).layers.network[0].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_module_is_used_as_it_is_and_the_name_is_not_looked_at() -> None:
    mine = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 8 * 10, 9))
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    network = build_features(FeatureSettings("no such network"), 3, (10, 12), module=mine)
    assert network.dimension == 9
    assert network.layers.network is mine
    assert all(torch.equal(value, before[key]) for key, value in mine.state_dict().items())
    patches = torch.rand(5, 3, 10, 12)
    torch.testing.assert_close(network(patches), network.constant_norm(mine(patches)), rtol=0, atol=1e-6)


def test_a_module_may_view_its_input() -> None:
    network = build_features(
        FeatureSettings(), 3, (4, 5), module=Lambda(lambda patches: patches.view(len(patches), -1))
    )
    patches = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(network.layers(patches), patches.flatten(1), rtol=0, atol=0)


def test_measuring_leaves_no_trace() -> None:
    mine = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3).eval())
    buffers = {key: value.clone() for key, value in mine.named_buffers()}
    state = torch.default_generator.get_state()
    build_features(FeatureSettings(), 2, (9, 7), module=mine)
    build_features(FeatureSettings(), 2, None, module=mine)
    build_features(FeatureSettings(), 2, (9, 7), module=Lambda(lambda patches: patches + torch.rand(1)))
    assert torch.equal(torch.default_generator.get_state(), state)
    assert [layer.training for layer in mine] == [True, True, True, False]
    assert mine.training
    assert all(torch.equal(value, buffers[key]) for key, value in mine.named_buffers())


def test_whole_views_of_any_size_and_the_smallest() -> None:
    mine = nn.Sequential(nn.Conv2d(1, 4, 7), nn.MaxPool2d(4), nn.Conv2d(4, 5, 3))
    network = build_features(FeatureSettings(), 1, None, module=mine)
    # 3 positions after pooling by 4 need 12 before, and the first convolution 6 pixels more
    assert network.smallest == 18
    assert network(torch.rand(1, 1, 18, 33)).shape == (1, 5)


def test_it_survives_pickling() -> None:
    network = build_features(FeatureSettings(), 1, (6, 7), module=nn.Conv2d(1, 4, 3))
    patches = torch.rand(2, 1, 6, 7)
    assert torch.equal(pickle.loads(pickle.dumps(network))(patches), network(patches))


@pytest.mark.parametrize(
    ("module", "patch", "message"),
    [
        (
            nn.Conv2d(4, 8, 3),
            (9, 12),
            "the feature network Conv2d (yours) cannot take patches of 9×12 pixels and 3 channels (RuntimeError Given "
            "groups=1, weight of size [8, 4, 3, 3], expected input[1, 3, 9, 12] to have 4 channels, but got 3 channels "
            "instead): set model.patch to a size it takes or choose another model.features.name",
        ),
        (
            nn.Flatten(2),
            (9, 12),
            "the feature network Flatten (yours) gives (1, 3, 108) for one patch and (2, 3, 108) for two, not one "
            "vector each: let it map (M, C, h, w) to (M, D) or (M, D, rows, columns)",
        ),
        (
            Lambda(lambda patches: patches.mean((2, 3)).squeeze(0)),
            (9, 12),
            "the feature network Lambda (yours) gives (3,) for one patch and (2, 3) for two, not one vector "
            "each: let it map (M, C, h, w) to (M, D) or (M, D, rows, columns)",
        ),
        (
            Lambda(lambda patches: {"features": patches}),
            None,
            "the feature network Lambda (yours) gives dict, not a tensor of floating-point numbers: "
            "let it map (M, C, h, w) to (M, D) or (M, D, rows, columns)",
        ),
        (
            Lambda(lambda patches: patches.mean((2, 3)).argmax(1)),
            (9, 12),
            "the feature network Lambda (yours) gives a tensor of torch.int64, not a tensor of floating-point numbers: "
            "let it map (M, C, h, w) to (M, D) or (M, D, rows, columns)",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)),
            None,
            "the feature network Sequential (yours) takes patches of one size, not whole views: "
            "choose another model.features.name",
        ),
    ],
)
def test_a_module_that_does_not_fit(module: nn.Module, patch: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_features(FeatureSettings(), 3, patch, module=module)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "somebodys.absent:small",
            "the module somebodys.absent of model.features.name somebodys.absent:small cannot be imported "
            "(ModuleNotFoundError No module named 'somebodys.absent'): install it, or name the folder it lies in in "
            "PYTHONPATH",
        ),
        (
            "somebodys.broken:small",
            "the module somebodys.broken of model.features.name somebodys.broken:small cannot be imported "
            "(RuntimeError no licence): install it, or name the folder it lies in in PYTHONPATH",
        ),
        (
            "somebodys.networks:smal",
            "the module somebodys.networks (FILE) has no function smal: write model.features.name as "
            "package.module:function",
        ),
        (
            "somebodys.networks:HIDDEN",
            "the module somebodys.networks (FILE) has no function HIDDEN: write model.features.name as "
            "package.module:function",
        ),
        (
            "somebodys.networks:wants_two",
            "somebodys.networks:wants_two, called with 3 channels, failed (TypeError wants_two() missing 1 required "
            "positional argument: 'more'): let it take the number of channels and give an nn.Module",
        ),
        (
            "somebodys.networks:gives_words",
            "somebodys.networks:gives_words, called with 3 channels, gave str: let it give an nn.Module",
        ),
        (
            "networks.py:small()",
            "model.features.name 'networks.py:small()' names no function of yours: write it as package.module:function",
        ),
        (
            ":small",
            "model.features.name ':small' names no function of yours: write it as package.module:function",
        ),
    ],
)
def test_a_function_that_cannot_be_had(installed: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_features(FeatureSettings(name), 3, (9, 12))
    assert str(caught.value) == message.replace("FILE", str(installed))
