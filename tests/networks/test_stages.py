"""Stages of a backbone: their maps, their features, and layers that are left as they are up to one."""

import pytest
import torch
from torch import Tensor, nn

from foveate.errors import ConfigError
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
