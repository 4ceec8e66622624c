"""What a trained layer makes of a network's own features, and patches that are enlarged before it sees them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError
from foveate.networks import build_features
from foveate.networks.features import CLAMP, Projection, enlarged


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def settings(**changes: object) -> FeatureSettings:
    return FeatureSettings("convolutional", width=6, **changes)  # type: ignore[arg-type]


def measured(projection: Projection) -> Projection:
    projection.mean.copy_(numbers(len(projection.mean), seed=2))
    projection.deviation.copy_(0.1 + numbers(len(projection.mean), seed=3).abs())
    return projection


def test_a_projection_is_a_linear_map_of_clamped_standardised_features() -> None:
    projection, features = measured(Projection(7, 4, dropout=0.5)).eval(), 20 * numbers(2, 3, 7)
    standard = (features.double() - projection.mean.double()) / projection.deviation.double()
    assert (standard.abs() > CLAMP).any()
    wanted = standard.clamp(-6, 6) @ projection.linear.weight.double().T + projection.linear.bias.double()
    torch.testing.assert_close(projection(features).double(), wanted, rtol=1e-4, atol=1e-4)


def test_dropout_is_of_training_alone() -> None:
    projection, features = measured(Projection(7, 4, dropout=0.5)), numbers(3, 7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(projection.train()(features), projection(features))
    assert torch.equal(projection.eval()(features), projection(features))


@pytest.mark.parametrize("frozen", [False, True])
def test_features_are_raw_ones_finished_and_a_frozen_network_leaves_the_projection_to_learn(frozen: bool) -> None:
    network = build_features(settings(project=5, dropout=0.3, norm=4.0, frozen=frozen), 3, (24, 30)).train()
    assert network.dimension == 5
    assert network.projection is not None
    assert network.projection.training
    assert network.layers.training is not frozen
    patches = torch.rand(4, 3, 24, 30, generator=torch.Generator().manual_seed(1))
    network.eval()
    raw = network.raw(patches)
    assert raw.shape == (4, 6)
    assert raw.requires_grad is not frozen
    assert torch.equal(network(patches), network.finished(raw))
    torch.testing.assert_close(network(patches).norm(dim=1), torch.full((4,), 4.0), rtol=1e-3, atol=0)
    (network(patches) * numbers(4, 5)).sum().backward()
    assert all((one.grad is None) is frozen for one in network.layers.parameters())
    assert network.projection.linear.weight.grad is not None


def test_a_frozen_network_without_a_projection_stays_in_evaluation_mode() -> None:
    network = build_features(settings(frozen=True), 3, (24, 30)).train()
    assert not any(layer.training for layer in network.modules())


@pytest.mark.parametrize(("factor", "size"), [(2.0, (48, 60)), (0.9, (22, 27)), (1.3, (31, 39))])
def test_a_network_sees_enlarged_patches(factor: float, size: tuple[int, int]) -> None:
    seen: list[Tensor] = []
    network = build_features(settings(enlarge=factor), 3, (24, 30))
    network.layers.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    patches = torch.rand(2, 3, 24, 30, generator=torch.Generator().manual_seed(1))
    network(patches)
    assert enlarged((24, 30), factor) == size
    wanted = functional.interpolate(patches, size, mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[0].mean((2, 3)), patches.mean((2, 3)), rtol=0, atol=0.02)


def test_enlarged_sides_are_rounded_and_at_least_one_pixel() -> None:
    assert [enlarged((3, 101), factor) for factor in (1.0, 0.1, 2.5)] == [(3, 101), (1, 10), (8, 252)]


def test_a_network_of_ones_own_is_enlarged_and_projected_like_any_other() -> None:
    network = build_features(FeatureSettings(enlarge=2.0, project=3), 2, (6, 9), nn.Conv2d(2, 8, (12, 18)))
    assert network.layers(torch.zeros(1, 2, 12, 18)).shape == (1, 8)
    assert network(torch.zeros(5, 2, 6, 9)).shape == (5, 3)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_a_factor_that_makes_no_sense_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError) as caught:
        build_features(settings(enlarge=factor), 3, (24, 30))
    assert str(caught.value) == f"model.features.enlarge must be positive, got {factor}: set it to e.g. 2"
