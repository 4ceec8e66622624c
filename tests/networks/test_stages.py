"""Stages of a backbone: their maps, their features, and layers that are left as they are up to one."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.errors import ConfigError, MissingExtra
from foveate.models import build_model, load_model, save_model
from foveate.networks import FeatureNetwork, build_features
from foveate.networks.stages import stage_indices

try:
    import timm
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

from foveate.networks.timm import BackboneChoice, stage_maps

LITE = "timm:tf_efficientnet_lite0"
CHANNELS = {1: 16, 2: 24, 3: 40, 4: 112, 5: 320}
TINY = ["test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet", "test_resnet"]
"""Small networks of several families."""


def pixels(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def whole(name: str) -> nn.Module:
    """The same network by timm alone; with the same weights for the same seed."""
    torch.default_generator.manual_seed(0)
    return timm.create_model(name, num_classes=0).eval()


@pytest.fixture(autouse=True)
def seeded() -> object:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def test_stages_of_the_bundled_network() -> None:
    maps = stage_maps(BackboneChoice(LITE, 3, weights="bundled"), tuple(CHANNELS)).eval()
    assert maps.dimensions == tuple(CHANNELS.values())
    assert (maps.dimension, maps.strides) == (512, (2, 4, 8, 16, 32))
    with torch.no_grad():
        found = maps(pixels(2, 3, 90, 150))
    assert [tuple(one.shape) for one in found] == [
        (2, width, -(-90 // 2**stage), -(-150 // 2**stage)) for stage, width in CHANNELS.items()
    ]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("stages", [(4, 3), (3,)])
def test_maps_are_those_of_the_whole_network(name: str, stages: tuple[int, ...]) -> None:
    network = whole(name)
    torch.default_generator.manual_seed(0)
    maps = stage_maps(BackboneChoice(f"timm:{name}", 3, pretrained=False), stages).eval()
    images = pixels(2, 3, 96, 160)
    with torch.no_grad():
        reductions = [one["reduction"] for one in network.feature_info]
        every = network.forward_intermediates(images, intermediates_only=True)
        found = maps(images)
    for stage, own, dimension in zip(stages, found, maps.dimensions, strict=True):
        last = max(number for number, reduction in enumerate(reductions) if reduction == 2**stage)
        torch.testing.assert_close(own, every[last], rtol=1e-5, atol=1e-5)
        assert tuple(own.shape[1:]) == (dimension, 96 // 2**stage, 160 // 2**stage)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("stages", [(3,), (4, 3)])
def test_no_layer_is_kept_that_no_stage_needs(name: str, stages: tuple[int, ...]) -> None:
    maps = stage_maps(BackboneChoice(f"timm:{name}", 3, pretrained=False), stages)
    sum((one.square().mean() for one in maps(pixels(2, 3, 96, 160))), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in maps.parameters())


@pytest.mark.parametrize("channels", [1, 4])
def test_stages_of_other_channels(channels: int) -> None:
    maps = stage_maps(BackboneChoice(LITE, channels, weights="bundled"), (3, 4)).eval()
    rgb = stage_maps(BackboneChoice(LITE, 3, weights="bundled"), (3, 4)).eval()
    grey = pixels(2, 1, 70, 90)
    with torch.no_grad():
        assert [one.shape[1] for one in maps(grey.expand(-1, channels, -1, -1))] == [40, 112]
        # A grey picture means the same to both: summed over channels, or repeated and scaled.
        for own, theirs in zip(maps(grey.expand(-1, channels, -1, -1)), rgb(grey.expand(-1, 3, -1, -1)), strict=True):
            if channels == 1:
                torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "stages", "message"),
    [
        (
            LITE,
            (3, 6),
            "model.attention.stages 3 6: timm:tf_efficientnet_lite0 has no stage 6, a feature map of stride 2^s: "
            "choose among its stages 1, 2, 3, 4, 5",
        ),
        (
            "timm:test_convnext",
            (1,),
            "model.attention.stages 1: timm:test_convnext has no stage 1, a feature map of stride 2^s: choose among "
            "its stages 2, 3, 4, 5",
        ),
        (LITE, (3, 4, 3), "model.attention.stages 3 4 3 names a stage twice: leave one of them out"),
        (
            LITE,
            (),
            "model.attention.stages is empty: name one stage of timm:tf_efficientnet_lite0 or more, e.g. 3 4",
        ),
    ],
)
def test_stages_that_a_network_has_not(name: str, stages: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stage_maps(BackboneChoice(name, 3, pretrained=False, key="model.attention"), stages)
    assert str(caught.value) == message


def test_a_network_without_feature_maps() -> None:
    with pytest.raises(ConfigError) as caught:
        stage_indices(nn.Flatten(), [3], "model.features.stages", "timm:flat")
    assert str(caught.value) == (
        "model.features.stages 3: timm:flat has no stage 3, a feature map of stride 2^s: choose another network"
    )


def test_maps_of_a_network_made_for_one_size() -> None:
    with pytest.raises(ConfigError) as caught:
        stage_maps(BackboneChoice("timm:test_vit", 3, pretrained=False, key="model.attention"), (4,))
    message = str(caught.value)
    assert message.startswith("timm:test_vit takes images of one size, not whole views (")
    assert message.endswith("): choose another model.attention.name")


def features(name: str = LITE, channels: int = 3, load: bool = True, **given: object) -> FeatureNetwork:
    settings = FeatureSettings(name, norm=4.0, **given)  # type: ignore[arg-type]
    return build_features(settings, channels, (70, 90), pretrained=load)


def bundled(channels: int = 3, **given: object) -> FeatureNetwork:
    return features(channels=channels, weights="bundled", **given)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("stages", "pool", "dimension"),
    [
        ((3, 4), "mean", 152),
        ((4, 3), "max", 152),
        ((4,), "both", 224),
        ((0, 4), "max", 1392),
        ((3, 0, 2), "both", 1408),
    ],
)
def test_features_are_pooled_maps_side_by_side(stages: tuple[int, ...], pool: str, dimension: int) -> None:
    network = bundled(stages=stages, pool=pool).eval()
    assert network.dimension == dimension
    patches = pixels(2, 3, 70, 90)
    whole_network = bundled().eval()
    with torch.no_grad():
        found = network.layers(patches)
        expected = []
        for stage in stages:
            if stage == 0:
                expected.append(whole_network.layers(patches))
                continue
            (map_,) = stage_maps(BackboneChoice(LITE, 3, weights="bundled"), (stage,)).eval()(patches)
            flat = map_.flatten(2)
            expected += [flat.mean(2)] if pool != "max" else []
            expected += [flat.max(2).values] if pool != "mean" else []
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_stage_0_is_what_the_network_itself_gives(name: str) -> None:
    network = whole(name)
    torch.default_generator.manual_seed(0)
    both = build_features(FeatureSettings(f"timm:{name}", pretrained=False, stages=(0, 3)), 3, (96, 160)).eval()
    patches = pixels(2, 3, 96, 160)
    with torch.no_grad():
        own = network(patches)
        torch.testing.assert_close(both.layers(patches)[:, : own.shape[1]], own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stages", [(), (0,), (0, 3), (2, 4)])
def test_every_parameter_is_trained(stages: tuple[int, ...]) -> None:
    network = bundled(stages=stages)
    vectors = network(pixels(4, 3, 70, 90))
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("name", TINY)
def test_what_is_frozen_is_what_the_stages_map_is_made_by(name: str) -> None:
    network = whole(name)
    last = max(number for number, one in enumerate(network.feature_info) if one["reduction"] == 8)
    network.forward_intermediates(pixels(1, 3, 96, 160), intermediates_only=True)[last].sum().backward()
    made_by = {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    built = build_features(FeatureSettings(f"timm:{name}", pretrained=False, frozen_stages=3), 3, (96, 160))
    parameters = dict(built.layers.network.named_parameters())
    assert {key for key, parameter in parameters.items() if not parameter.requires_grad} == made_by
    assert 0 < len(made_by) < len(parameters)


@pytest.mark.parametrize("stages", [(), (4,), (0, 3)])
def test_frozen_stages_change_nothing_in_training_and_the_rest_does(stages: tuple[int, ...]) -> None:
    network = bundled(stages=stages, frozen_stages=2)
    inner = network.layers.network if not stages else network.layers.maps.backbone.network
    before = {key: tensor.clone() for key, tensor in inner.state_dict().items()}
    for mode in (False, True):  # there and back, as a run goes
        network.train(mode)
    optimiser = torch.optim.SGD([one for one in network.parameters() if one.requires_grad], lr=1.0)
    vectors = network(pixels(4, 3, 70, 90))
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    optimiser.step()
    for key, tensor in inner.state_dict().items():
        frozen = key.startswith(("conv_stem", "bn1", "blocks.0", "blocks.1"))
        assert torch.equal(tensor, before[key]) == frozen, key


def test_frozen_as_deep_as_its_features_is_frozen_altogether() -> None:
    network = bundled(stages=(3,), frozen_stages=5).train()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(layer.training for layer in network.layers.maps.backbone.network.blocks.modules())


def test_frozen_stages_that_there_are_not() -> None:
    with pytest.raises(ConfigError) as caught:
        bundled(frozen_stages=6)
    assert str(caught.value) == (
        "model.features.frozen_stages 6: timm:tf_efficientnet_lite0 has no stage 6, a feature map of stride 2^s: "
        "choose among its stages 1, 2, 3, 4, 5"
    )


def test_a_frozen_network_stays_in_evaluation_mode() -> None:
    network = bundled(stages=(3,), frozen=True)
    before = copy.deepcopy(network.state_dict())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    alone = network.eval()(pixels(2, 3, 70, 90))
    assert torch.equal(network.train()(pixels(2, 3, 70, 90)), alone)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", [LITE, "speed-limits-paper"])
def test_running_statistics_do_not_know_what_else_is_in_a_batch(name: str) -> None:
    network = features(name, pretrained=False, batch_norm="running").train()
    before = {key: tensor.clone() for key, tensor in network.named_buffers()}
    patches = pixels(4, 3, 70, 90)
    together = network(patches)
    torch.testing.assert_close(together[:1], network(patches[:1]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.named_buffers())
    (together * torch.randn(together.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(layer.weight.grad is not None for layer in norms)
    assert not any(layer.training for layer in norms)
    assert network.training
    batch = features(name, pretrained=False).train()
    batch.load_state_dict(network.state_dict())
    assert not torch.allclose(batch(patches)[:1], batch(patches[:1]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 4])
def test_features_of_other_channels(channels: int) -> None:
    network = bundled(channels, stages=(3, 4))
    assert network(pixels(2, channels, 70, 90)).shape == (2, 152)
    assert network.layers.maps.backbone.mean.tolist() == [0.5] * channels


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"weights": "bundled", "pretrained": False},
            "model.features.weights bundled are pretrained ones, and model.features.pretrained is false: set "
            "model.features.weights to null, or model.features.pretrained to true",
        ),
        (
            {"stages": (3, 0, 0), "pretrained": False},
            "model.features.stages 3 0 0 names a stage twice: leave one of them out",
        ),
    ],
)
def test_contradictions(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        features(**given)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["residual", "torch.nn:InstanceNorm2d"])
@pytest.mark.parametrize("given", [{"weights": "bundled"}, {"stages": (3,)}, {"frozen_stages": 2}])
def test_what_only_networks_of_timm_have(name: str, given: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        features(name, **given)
    assert str(caught.value) == (
        "model.features.weights, stages and frozen_stages are for networks of timm, and model.features.name is "
        f"{name}: set them to null, [] and 0, or the name to e.g. timm:tf_efficientnet_lite0"
    )


@pytest.mark.parametrize(
    "channels", [4, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_saved_model_never_needs_the_file(channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = FeatureSettings(LITE, weights="bundled", stages=(4, 0), pool="both", frozen_stages=3, batch_norm="running")
    settings = ModelSettings(name="cnn", view=ViewSettings(scale=1.0), features=chosen)
    model = build_model(settings, classes=("cat", "dog"), channels=channels)
    save_model(model, tmp_path / "model")
    monkeypatch.setattr("foveate.networks.weights.PACKAGE", "no-such-package-of-weights")
    again = load_model(tmp_path / "model")
    kept = model.state_dict()
    assert all(torch.equal(tensor, kept[key]) for key, tensor in again.state_dict().items())
    image = (255 * pixels(70, 90, channels)).to(torch.uint8).numpy()
    assert again.predict(image).probabilities == model.predict(image).probabilities
    with pytest.raises(MissingExtra):
        build_model(settings, classes=("cat", "dog"), channels=channels)
