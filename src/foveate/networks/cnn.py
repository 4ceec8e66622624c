"""Convolutional feature networks, foveate's own and the paper's, with their layers and their initialisation.

A network is a function (channels, width, patch) → `Body`; its name in `model.features.name` stands in `features.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.errors import ConfigError
from foveate.types import Size

ONEDNN_BLOCK = 16
"""Channels in one block of oneDNN's convolutions with AVX-512; 8 with AVX2."""


@dataclass(frozen=True)
class Body:
    """Body of a feature network: layers from (M, C, h, w) to (M, D).

    Attributes:
        layers: the layers, initialised.
        dimension: D.
        smallest: least height and width of an input.
    """

    layers: nn.Module
    dimension: int
    smallest: int = 1


def convolutional(channels: int, width: int, patch: Size | None) -> Body:  # noqa: ARG001  one signature for all
    """Convolutional network: four unpadded convolutions, narrow while the patch is large, and a global maximum."""
    layers: list[nn.Module] = []
    before = channels
    for after, kernel, stride in ((max(width // 2, 1), 5, 2), (width, 3, 1), (width, 3, 2), (width, 3, 1)):
        layers += [nn.Conv2d(before, after, kernel, stride), nn.ReLU(inplace=True)]
        before = after
    body = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
    he_(body)
    return Body(body, before, smallest=5 + 2 * 2 + 2 * 2 + 4 * 2)


def megapixel_mnist_paper(channels: int, width: int, patch: Size | None) -> Body:  # noqa: ARG001
    """Megapixel MNIST network of the paper: conv 7×7×32, three conv 3×3×32, ReLUs, no padding, global maximum."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 32, 7), nn.ReLU(inplace=True)]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3), nn.ReLU(inplace=True)]
    body = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
    glorot_(body)
    return Body(body, 32, smallest=7 + 6)


def colon_cancer_paper(channels: int, width: int, patch: Size | None) -> Body:  # noqa: ARG001
    """Colon cancer network of the paper: conv 5×5×20, pool 2, conv 5×5×50, pool 2, linear to 500, ReLUs, no padding.

    It is made for one size of patch.
    """
    smallest = 16
    if patch is None:
        raise ConfigError(
            "the feature network colon-cancer-paper takes patches of one size, not whole views: "
            "choose another model.features.name"
        )
    sides = [((max(side, smallest) - 4) // 2 - 4) // 2 for side in patch]
    layers = nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * sides[0] * sides[1], 500),
        nn.ReLU(inplace=True),
    )
    glorot_(layers)
    return Body(layers, 500, smallest)


def speed_limits_paper(channels: int, width: int, patch: Size | None) -> Body:  # noqa: ARG001
    """Speed limits network of the paper: pre-activation ResNet, three blocks, Keras' BatchNorm, global average."""
    layers = _residual(channels, 32, lambda count: nn.BatchNorm2d(count, eps=1e-3, momentum=0.01))
    glorot_(layers)
    return Body(layers, 32)


def residual(channels: int, width: int, patch: Size | None) -> Body:  # noqa: ARG001
    """Residual network: pre-activation, conv 3×3, three blocks of stride 2, GroupNorm, global average."""
    layers = _residual(channels, width, lambda count: nn.GroupNorm(math.gcd(8, count), count))
    he_(layers)
    return Body(layers, width)


def _residual(channels: int, width: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        SameConvolution(channels, width, 3),
        *(ResidualBlock(width, stride=2, norm=norm) for _ in range(3)),
        norm(width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class ResidualBlock(nn.Module):
    """Residual block: norm, ReLU, conv 3×3, norm, ReLU, conv 3×3, plus a 1×1 convolution of the first ReLU; no biases.

    He et al., "Identity Mappings in Deep Residual Networks" (ECCV 2016), as used in the speed-limits task.

    Arguments:
        width: channels in and out.
        stride: of the first convolution and the shortcut.
        norm: channels → normalisation layer.
    """

    def __init__(self, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.before = nn.Sequential(norm(width), nn.ReLU(inplace=True))
        self.shortcut = SameConvolution(width, width, 1, stride)
        self.branch = nn.Sequential(
            SameConvolution(width, width, 3, stride),
            norm(width),
            nn.ReLU(inplace=True),
            SameConvolution(width, width, 3),
        )

    def forward(self, values: Float[Tensor, "patch channel height width"]) -> Float[Tensor, "patch channel rows cols"]:
        """Map (M, width, h, w) to (M, width, ⌈h / stride⌉, ⌈w / stride⌉)."""
        activated = self.before(values)
        result: Tensor = self.shortcut(activated) + self.branch(activated)
        return result


class SameConvolution(nn.Conv2d):
    """Convolution without bias, padded as Keras pads: ⌈side / stride⌉ outputs, an odd pixel more at the end.

    Torch's symmetric padding would shift a strided 3×3 window by one pixel against the 1×1 shortcut beside it.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__(before, after, kernel, stride, bias=False)

    def forward(self, input: Float[Tensor, "patch before height width"]) -> Float[Tensor, "patch after rows cols"]:  # noqa: A002
        """Convolve (M, before, h, w) to (M, after, ⌈h / stride⌉, ⌈w / stride⌉)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel == 1 and self.in_channels < ONEDNN_BLOCK:
            # oneDNN's weight gradient of a strided 1×1 convolution writes past its workspace here (oneDNN issue 6035);
            # without a stride, over every stride-th pixel, it is the same convolution and has no such workspace
            return functional.conv2d(input[:, :, ::stride, ::stride], self.weight)
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:]]
        top, left = (total // 2 for total in missing)
        if missing == [2 * top, 2 * left]:
            return functional.conv2d(input, self.weight, None, self.stride, (top, left))
        padded = functional.pad(input, (left, missing[1] - left, top, missing[0] - top))
        return functional.conv2d(padded, self.weight, None, self.stride)


def glorot_(module: nn.Module) -> None:
    """Glorot initialisation: uniform weights and zero bias in every convolution and linear layer, as Keras begins.

    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010).

    Arguments:
        module: changed in place; draws from torch's global generator, which `build_model` forks and seeds.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def he_(module: nn.Module) -> None:
    """He initialisation: uniform weights and zero bias in every convolution and linear layer, for networks of ReLUs.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015).

    Arguments:
        module: changed in place; draws from torch's global generator, which `build_model` forks and seeds.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
