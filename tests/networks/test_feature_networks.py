import math
import subprocess
import sys

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional

from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError
from foveate.networks import ConstantNorm, ForetoldFeatures, build_features
from foveate.networks.cnn import SameConvolution
from foveate.networks.features import BODIES

PAPER = {"megapixel-mnist-paper", "speed-limits-paper", "colon-cancer-paper"}


def multiply_adds(network: nn.Module, channels: int, patch: tuple[int, int]) -> int:
    total = 0

    def count(layer: nn.Module, _: object, result: torch.Tensor) -> None:
        nonlocal total
        total += result[0].numel() * layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.weight.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(torch.zeros(1, channels, *patch))
    return total


@pytest.mark.parametrize(
    ("name", "channels", "patch", "parameters", "millions"),
    [
        # 7×7 and three 3×3 convolutions of 32 channels with biases, on maps of 44², 42², 40², 38²
        ("megapixel-mnist-paper", 1, (50, 50), (49 * 32 + 32) + 3 * (9 * 32 * 32 + 32),
         (44**2 * 49 * 32 + (42**2 + 40**2 + 38**2) * 9 * 32 * 32) / 1e6),
        # stem, three blocks of (norm, shortcut, 3×3, norm, 3×3), norm; no biases; norms have two numbers a channel
        ("speed-limits-paper", 3, (50, 50), 9 * 3 * 32 + 3 * (64 + 32 * 32 + 9 * 32 * 32 + 64 + 9 * 32 * 32) + 64,
         (50**2 * 27 * 32 + (25**2 + 13**2 + 7**2) * (32 * 32 + 2 * 9 * 32 * 32)) / 1e6),
        ("colon-cancer-paper", 3, (27, 27), (75 * 20 + 20) + (25 * 20 * 50 + 50) + (450 * 500 + 500),
         (23**2 * 75 * 20 + 7**2 * 500 * 50 + 450 * 500) / 1e6),
        ("convolutional", 1, (50, 50), 23_552, 3.8),
        ("residual", 1, (50, 50), 59_104, 17.1),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds(
    name: str, channels: int, patch: tuple[int, int], parameters: int, millions: float
) -> None:
    network = build_features(FeatureSettings(name), channels, patch)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert multiply_adds(network, channels, patch) / 1e6 == pytest.approx(millions, abs=0.05)
    documented = f"{parameters:,}"
    assert documented in (build_features.__doc__ or "")


@pytest.mark.parametrize("name", sorted(BODIES))
def test_features_have_constant_norm_and_reach_every_parameter(name: str) -> None:
    network = build_features(FeatureSettings(name, norm=5.0), channels=3, patch=(31, 40))
    features = network(torch.rand(6, 3, 31, 40, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (6, network.dimension)
    torch.testing.assert_close(features.norm(dim=1), torch.full((6,), 5.0), rtol=1e-4, atol=0)
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", sorted(BODIES))
def test_patches_do_not_see_each_other(name: str) -> None:
    network = build_features(FeatureSettings(name), channels=2, patch=(29, 35))
    network.eval()
    patches = torch.rand(5, 2, 29, 35)
    together = network(patches)
    alone = torch.cat([network(patch[None]) for patch in patches])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(BODIES) - PAPER))
def test_defaults_use_no_batch_statistics_and_heed_their_width(name: str) -> None:
    network = build_features(FeatureSettings(name, width=12), channels=2, patch=(40, 50))
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    assert network.dimension == 12
    patches = torch.rand(3, 2, 40, 50)
    torch.testing.assert_close(network.train()(patches), network.eval()(patches), rtol=0, atol=0)


def test_speed_limits_batch_norm_has_kerass_constants() -> None:
    network = build_features(FeatureSettings("speed-limits-paper"), 3, (100, 100))
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 7
    assert {(layer.eps, layer.momentum) for layer in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_papers_networks_begin_as_keras_begins(name: str) -> None:
    network = build_features(FeatureSettings(name), 3, (27, 27))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            outputs, inputs = layer.weight.shape[:2]
            area = layer.weight[0, 0].numel()
            limit = math.sqrt(6 / (area * (inputs + outputs)))
            assert float(layer.weight.detach().abs().max()) <= limit * (1 + 2**-23)  # a float32 rounds the limit
            assert float(layer.weight.detach().abs().max()) > 0.9 * limit
            assert layer.bias is None or not layer.bias.any()


@settings(max_examples=25, deadline=None)
@given(side=st.tuples(st.integers(1, 12), st.integers(1, 12)), kernel=st.sampled_from([1, 3]), stride=st.integers(1, 2))
def test_same_convolution_pads_as_keras_does(side: tuple[int, int], kernel: int, stride: int) -> None:
    layer = SameConvolution(2, 3, kernel, stride)
    values = torch.rand(1, 2, *side)
    # Keras: output i looks at inputs from i · stride − total // 2, total = (outputs − 1) · stride + kernel − side
    outputs = [-(-length // stride) for length in side]
    before = [max((o - 1) * stride + kernel - length, 0) // 2 for o, length in zip(outputs, side, strict=True)]
    padded = functional.pad(values, (before[1], kernel + stride, before[0], kernel + stride))
    expected = functional.conv2d(padded, layer.weight, None, stride)[:, :, : outputs[0], : outputs[1]]
    torch.testing.assert_close(layer(values), expected, rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(0, 30), norm=st.sampled_from([1.0, 16.0]))
def test_constant_norm_law(exponent: int, norm: float) -> None:
    vectors = torch.randn(4, 7, generator=torch.Generator().manual_seed(exponent)) * 10.0**exponent
    scaled = ConstantNorm(norm)(vectors)
    torch.testing.assert_close(scaled.norm(dim=1), torch.full((4,), norm), rtol=1e-4, atol=0)
    torch.testing.assert_close(functional.cosine_similarity(scaled.double(), vectors.double()), torch.ones(4).double())


def test_constant_norm_equals_its_formula_and_is_computed_in_float32() -> None:
    vectors = torch.tensor([[3e-3, 4e-3], [3.0, 4.0], [30.0, 40.0]], dtype=torch.float64, requires_grad=True)
    layer = ConstantNorm(16.0, epsilon=1e-2)
    formula = 16 * vectors / (vectors.square().sum(1, keepdim=True) + 1e-4).sqrt()
    torch.testing.assert_close(layer(vectors), formula, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(layer, (vectors,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(vectors.detach().bfloat16()).dtype == torch.float32


def test_constant_norm_of_nothing_is_nothing_with_a_finite_gradient() -> None:
    vectors = torch.zeros(2, 3, requires_grad=True)
    scaled = ConstantNorm(16.0)(vectors)
    scaled.sum().backward()
    assert not scaled.any()
    torch.testing.assert_close(vectors.grad, torch.full((2, 3), 16.0 / 1e-3))


@pytest.mark.parametrize(
    ("given", "patch", "message"),
    [
        (
            FeatureSettings("convolutionl"),
            (50, 50),
            "no feature network 'convolutionl', there are colon-cancer-paper, convolutional, megapixel-mnist-paper, "
            "residual, speed-limits-paper: did you mean convolutional?",
        ),
        (
            FeatureSettings("convolutional"),
            (50, 18),
            "the feature network convolutional needs patches of at least 21×21 pixels, got 50×18: enlarge model.patch",
        ),
        (FeatureSettings(width=0), (50, 50), "model.features.width must be positive, got 0: set it to e.g. 32"),
        (FeatureSettings(norm=0.0), (50, 50), "model.features.norm must be positive, got 0.0: set it to e.g. 16"),
        (
            FeatureSettings("colon-cancer-paper"),
            None,
            "the feature network colon-cancer-paper takes patches of one size, not whole views: "
            "choose another model.features.name",
        ),
    ],
)
def test_errors_say_what_to_do(given: FeatureSettings, patch: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_features(given, 3, patch)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", sorted(BODIES))
def test_smallest_patch_is_the_smallest(name: str) -> None:
    smallest = build_features(FeatureSettings(name), 1, (64, 64)).smallest
    network = build_features(FeatureSettings(name), 1, (smallest, smallest + 3)).eval()
    assert network(torch.rand(2, 1, smallest, smallest + 3)).isfinite().all()


@pytest.mark.parametrize("hidden", [0, 7])
def test_foretold_features_are_nothing_at_first_and_every_parameter_comes_to_learn(hidden: int) -> None:
    network = ForetoldFeatures(5, 3, hidden)
    seen = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    assert network(seen).shape == (2, 6, 3)
    assert not network(seen).any()
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(2):  # what lies before a last layer of zeros learns one step later
        optimiser.zero_grad()
        (network(seen) - seen[:, :, :3]).square().sum().backward()
        optimiser.step()
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("numbers", [(0, 3, 0), (5, 0, 0), (5, 3, -1)])
def test_foretold_features_of_no_size_are_refused(numbers: tuple[int, int, int]) -> None:
    inputs, dimension, hidden = numbers
    with pytest.raises(ConfigError, match=f"got {inputs}, {dimension} and {hidden}: set hidden to 0 for a linear map$"):
        ForetoldFeatures(*numbers)


def test_narrow_strided_shortcuts_do_not_corrupt_memory() -> None:
    """Of a strided 1×1 convolution with few channels, oneDNN's weight gradient writes where it may not: issue 6035."""
    code = (
        "import torch\nfrom foveate.networks.cnn import SameConvolution\n"
        "values = torch.rand(5, 6, 22, 26).contiguous(memory_format=torch.channels_last)\n"
        "layer = SameConvolution(6, 6, 1, 2)\n"
        "for _ in range(50): layer(values).sum().backward()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
