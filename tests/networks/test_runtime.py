"""A frozen backbone computed by onnxruntime: the maps that torch computes, of images of any size."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foveate.disk_cache import cache_folder
from foveate.networks import runtime
from foveate.networks.evidence import CellFeatures
from foveate.networks.runtime import CompiledMaps
from foveate.networks.stages import StageMaps
from foveate.networks.timm import BackboneChoice, stage_maps

BUNDLED = BackboneChoice("timm:tf_efficientnet_lite0", 3, weights="bundled")


def maps_of(choice: BackboneChoice, stages: tuple[int, ...]) -> StageMaps:
    return stage_maps(choice, stages).eval().requires_grad_(False)


def small() -> StageMaps:
    """A few layers, of which a graph is soon made."""
    return maps_of(BackboneChoice("timm:resnet10t", 3, pretrained=False), (1,))


@pytest.fixture(scope="module", params=[(1,), pytest.param((3, 4), marks=pytest.mark.slow), "resnet of four bands"])
def maps(request: pytest.FixtureRequest) -> StageMaps:
    """One network pads as TensorFlow does, the other as torch."""
    if request.param == "resnet of four bands":
        return maps_of(BackboneChoice("timm:resnet10t", 4, pretrained=False), (2, 1))
    return maps_of(BUNDLED, request.param)


@pytest.fixture(scope="module")
def graphs(maps: StageMaps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StageMaps, CompiledMaps]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        compiled = CompiledMaps(maps)
        compiled(torch.zeros(1, next(maps.parameters()).shape[1], 64, 64))
        yield maps, compiled


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", [(1, 33, 70), (2, 97, 163), (3, 64, 301), (1, 401, 128)])
def test_images_of_any_size_have_the_maps_of_torch(
    graphs: tuple[StageMaps, CompiledMaps], size: tuple[int, int, int], generator: torch.Generator
) -> None:
    maps, compiled = graphs
    batch, height, width = size
    images = torch.rand(batch, next(maps.parameters()).shape[1], height, width, generator=generator)
    for found, own in zip(compiled(images), maps(images), strict=True):
        assert found.shape == own.shape
        assert float((found - own).abs().max()) <= 1e-5 * float(own.abs().max())


def test_a_graph_is_made_once_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, images = small(), torch.rand(1, 3, 50, 70)
    (first,) = CompiledMaps(maps)(images)
    assert [*Path(cache_folder() / "graphs").rglob("*.npy")]
    monkeypatch.setattr(runtime, "_made", None)  # is not called
    (second,) = CompiledMaps(maps)(images)
    assert torch.equal(first, second)
    (copied,) = copy.deepcopy(CompiledMaps(maps))(images)
    assert torch.equal(first, copied)


def test_a_network_that_a_graph_does_not_reproduce_is_computed_by_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    maps, images = small(), torch.rand(1, 3, 50, 70)
    own_run = runtime._run

    def slightly_wrong(session: object, images: Tensor) -> list[Tensor]:
        return [1.001 * one for one in own_run(session, images)]

    monkeypatch.setattr(runtime, "_run", slightly_wrong)
    compiled = CompiledMaps(maps)
    with caplog.at_level(logging.WARNING):
        (found,) = compiled(images)
        compiled(images)
    assert torch.equal(found, maps(images)[0])
    (told,) = caplog.messages
    assert "maps differ by" in told
    assert "model.attention.runtime" in told


def test_cells_change_with_the_weights_that_are_loaded() -> None:
    maps = small()
    cells = CellFeatures(maps, maps.dimension, stride=16, compiled=True)
    assert cells.compiled
    view = torch.rand(1, 3, 50, 70)
    before = cells(view)
    plain = CellFeatures(maps, maps.dimension, stride=16)
    torch.testing.assert_close(before, plain(view), rtol=1e-4, atol=1e-4)
    cells.load_state_dict(
        {name: 0.9 * one if one.is_floating_point() else one for name, one in cells.state_dict().items()}
    )
    after = cells(view)
    assert not torch.allclose(before, after, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(after, plain(view), rtol=1e-4, atol=1e-4)


def test_nothing_is_compiled_that_learns() -> None:
    maps = small()
    assert not CellFeatures(maps, maps.dimension, stride=16, frozen=False, compiled=True).compiled
