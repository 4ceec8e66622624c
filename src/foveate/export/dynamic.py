"""Networks over views of any size, and sums over windows of any length, in operations that a graph can hold.

What models do in Python where a size is a number (parts of a padding, windows of a prior, largest numbers of map pixels
a cell) is done here by tensors, with the same results: `tests/export/` compares them with the models' own.
"""

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from foveate.models.evidence import FirstAnswer, attended, kinds_of_evidence
from foveate.networks import AttentionNetwork
from foveate.networks.cnn import SameConvolution
from foveate.networks.evidence import CellFeatures, EvidenceHead, attention_logits


def ceil_div(side: int, stride: int) -> int:
    """Quotient, rounded up; of what is not negative, for the division of a graph rounds to 0.

    Example:
        >>> ceil_div(7, 3)
        3
    """
    return (side + stride - 1) // stride


class PaddedConvolution(nn.Module):
    """Convolution padded as TensorFlow pads, ⌈side / stride⌉ outputs, whatever the side.

    Arguments:
        layer: a `SameConvolution`, or timm's layer of that kind.

    Example:
        >>> layer = SameConvolution(2, 3, kernel=3, stride=2)
        >>> pixels = torch.rand(1, 2, 6, 9)
        >>> torch.equal(PaddedConvolution(layer)(pixels), layer(pixels))
        True
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, pixels: Float[Tensor, "image before height width"]) -> Float[Tensor, "image after rows columns"]:
        """Convolve (M, before, h, w) to (M, after, ⌈h / stride⌉, ⌈w / stride⌉)."""
        layer = self.layer
        for axis in (0, 1):
            reach = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
            pixels = _windowed(pixels, 2 + axis, reach, layer.stride[axis])
        return functional.conv2d(pixels, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def _windowed(pixels: Tensor, axis: int, reach: int, stride: int) -> Tensor:
    """What the windows of a convolution see along an axis, from the first pixel of the first to the last of the last.

    A size that is a plain quotient of the side is what keeps the export of fifty layers, one after the other, short.
    """
    side = pixels.shape[axis]
    around = [0, 0] * (pixels.ndim - 1 - axis)
    if stride == 1:
        left = (reach - 1) // 2
        return functional.pad(pixels, (*around, left, reach - 1 - left)) if reach > 1 else pixels
    windows = (torch.arange(side, device=pixels.device) % stride == 0).nonzero().shape[0]
    torch._check(windows >= 2)
    torch._check(windows <= side)
    length = (windows - 1) * stride + reach
    before = torch.sym_max(length - side, 0) // 2
    padded = functional.pad(pixels, (*around, reach - 1, reach - 1)) if reach > 1 else pixels
    return padded.index_select(axis, torch.arange(length, device=pixels.device) + (reach - 1 - before))


def for_any_size(network: nn.Module) -> nn.Module:
    """Copy of a network whose paddings are computed for whatever size an image has."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, SameConvolution) or type(layer).__name__ == "Conv2dSame":
                assert isinstance(layer, nn.Conv2d)
                setattr(parent, name, PaddedConvolution(layer))
    return network


def by_cell(
    values: Float[Tensor, "*batch height width"], stride: int, fill: float
) -> Float[Tensor, "*batch row down column along"]:
    """View pixels cell by cell; those that a last cell lacks are `fill`.

    Example:
        >>> by_cell(torch.ones(3, 4), 2, 0.0).sum((1, 3))
        tensor([[4., 4.],
                [2., 2.]])
    """
    height, width = values.shape[-2:]
    rows, columns = ceil_div(height, stride), ceil_div(width, stride)
    padded = functional.pad(values, (0, columns * stride - width, 0, rows * stride - height), value=fill)
    return padded.reshape(*values.shape[:-2], rows, stride, columns, stride)


def window_sums(
    values: Float[Tensor, "*batch height width"],
    starts: tuple[Int[Tensor, " row"], Int[Tensor, " column"]],
    lengths: tuple[Int[Tensor, ""], Int[Tensor, ""]],
) -> Float[Tensor, "*batch row column"]:
    """Sums over windows, each a start and a length down and along; what hangs over the border is 0.

    As products with matrices of 0 and 1, which add what is in a window and nothing else: differences of cumulative sums
    would lose the digits that a variance needs.

    Example:
        >>> start, length = torch.tensor([-1, 1]), torch.tensor(2)
        >>> window_sums(torch.ones(3, 3), (start, start), (length, length))
        tensor([[1., 2.],
                [2., 4.]])
    """

    def inside(start: Tensor, length: Tensor, extent: int) -> Tensor:
        pixel = torch.arange(extent, device=values.device)
        return ((pixel >= start[:, None]) & (pixel < start[:, None] + length)).to(values.dtype)

    down = inside(starts[0], lengths[0], values.shape[-2])
    along = inside(starts[1], lengths[1], values.shape[-1])
    return down @ values @ along.T


def log_contrast(
    views: Float[Tensor, "batch channel height width"],
    allowed: Bool[Tensor, "batch height width"],
    cells: Bool[Tensor, "batch row column"],
    footprint: Int[Tensor, " 2"],
    stride: int,
    field: int,
    epsilon: float,
) -> Float[Tensor, "batch row column"]:
    """Contrast of every cell, as `foveate.networks.prior.contrast_prior` has it, of patches of any size.

    Arguments:
        views: (B, C, h, w) views of one size, nowhere padded.
        allowed: (B, h, w) True where the attention may look.
        cells: (B, rows, columns) True for valid cells.
        footprint: (height, width) of a patch in view pixels.
        stride: view pixels per cell.
        field: receptive field of an unpooled position, in view pixels.
        epsilon: of the spread, which every contrast has.
    """
    there = allowed.unsqueeze(1)
    highest = views.masked_fill(~there, -math.inf).amax((2, 3), keepdim=True)
    lowest = views.masked_fill(~there, math.inf).amin((2, 3), keepdim=True)
    spread = (highest - lowest).amax(1)
    centred = (views - (highest + lowest) / 2).masked_fill(~there, 0).double()
    lengths = footprint.clamp(min=max(stride, 3))
    offsets = (stride + field - lengths).div(2, rounding_mode="floor")
    starts = [offsets[axis] + stride * torch.arange(cells.shape[1 + axis], device=views.device) for axis in (0, 1)]
    windows = (starts[0], starts[1]), (lengths[0], lengths[1])
    sums = window_sums(centred, *windows)
    squares = window_sums(centred.square().sum(1), *windows)
    count = window_sums(allowed.double(), *windows).clamp(min=1)
    variance = (squares - sums.square().sum(1) / count) / (count * views.shape[1])
    variance = variance.masked_fill(variance <= torch.finfo(torch.float64).eps * spread.double().square(), 0)
    contrast = variance.sqrt() + epsilon * spread.double()
    mean = contrast.masked_fill(~cells, 0).sum((1, 2), keepdim=True) / cells.sum((1, 2), keepdim=True).clamp(min=1)
    nothing = (spread <= 0) | (mean <= 0) | ~cells
    return (contrast / mean).masked_fill(nothing, 1).log()


def cell_features(
    network: CellFeatures, maps: Callable[[Tensor], list[Tensor]], views: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch row column feature"]:
    """Cell features of views of any size, rounded as a frozen backbone's are; see `CellFeatures`.

    Arguments:
        network: whose they are.
        maps: its maps, `for_any_size`.
        views: (B, C, h, w), nowhere padded.
    """
    found = [one.float() for one in maps(views)]
    pools = (_averages, _maxima) if network.maxima else (_averages,)
    sizes = views.shape[2], views.shape[3]
    cells = torch.cat([pool(one, sizes, network.stride) for pool in pools for one in found], -1)
    return cells.half().float() if network.frozen else cells


def _overlaps(pixels: int, side: int, stride: int) -> Float[Tensor, "cell pixel"]:
    """Shares of each cell's extent along one side that its map pixels take; as in `foveate.networks.evidence`."""
    cells = torch.arange(ceil_div(side, stride), dtype=torch.float64)[:, None] * stride
    edges = torch.arange(pixels + 1, dtype=torch.float64) * side / pixels
    shared = (torch.minimum(cells + stride, edges[1:]) - torch.maximum(cells, edges[:-1])).clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


def _averages(maps: Tensor, view: tuple[int, int], stride: int) -> Tensor:
    down, along = (_overlaps(pixels, side, stride).to(maps) for pixels, side in zip(maps.shape[2:], view, strict=True))
    return (down @ maps @ along.T).permute(0, 2, 3, 1)


def _maxima(maps: Tensor, view: tuple[int, int], stride: int) -> Tensor:
    """Maxima, of as many map pixels as a cell can touch: the last one again where a cell touches fewer."""
    for axis, side in ((2, view[0]), (3, view[1])):
        pixels = maps.shape[axis]
        touched = _overlaps(pixels, side, stride) > 1e-9
        first, count = touched.int().argmax(1), touched.sum(1)
        steps = torch.arange(ceil_div(stride * pixels, side) + 1)
        index = first[:, None] + torch.minimum(steps, count[:, None] - 1)
        chosen = maps.index_select(axis, index.flatten())
        maps = chosen.reshape(*maps.shape[:axis], *index.shape, *maps.shape[axis + 1 :]).amax(axis + 1)
    return maps.permute(0, 2, 3, 1)


def convolutional_logits(network: AttentionNetwork, view: Tensor) -> Tensor:
    """Logits of foveate's own attention network, its strides taken and its cells pooled for views of any size."""
    stride, hidden = network.stride, view
    if network.pool == "strided":
        below, right = (ceil_div(side, stride) * stride - side for side in view.shape[2:])
        hidden = functional.pad(view, (1, 1 + right, 1, 1 + below))
    for number, layer in enumerate(network.layers):
        hidden = layer(hidden)
        if number + 1 < len(network.layers):
            hidden = network.activation(hidden)
    logits = hidden[:, 0]
    if network.pool == "strided" or stride == 1:
        return logits
    if network.pool == "max":
        return by_cell(logits, stride, torch.finfo(logits.dtype).min).amax((2, 4))
    return by_cell(logits, stride, 0.0).sum((2, 4)) / by_cell(torch.ones_like(logits), stride, 0.0).sum((2, 4))


def smoothed_log_softmax(logits: Tensor, allowed: Tensor, smoothing: float) -> Tensor:
    """Log attention (B, …) of logits (B, …), as `foveate.networks.log_attention` says."""
    flat, there = logits.flatten(1).double(), allowed.flatten(1)
    log_prob = flat.masked_fill(~there, -math.inf)
    log_prob = log_prob - log_sum_exp(log_prob)
    if smoothing > 0:
        uniform = math.log(smoothing) - there.sum(1, keepdim=True).double().log()
        own = log_prob + math.log1p(-smoothing)
        larger = torch.maximum(own, uniform)
        log_prob = larger + ((own - larger).exp() + (uniform - larger).exp()).log()
    return log_prob.float().masked_fill(~there, -math.inf).reshape(allowed.shape)


def log_sum_exp(values: Tensor) -> Tensor:
    """Logarithm of the sum of the exponentials of each row, kept as a column; −inf of a row of −inf."""
    largest = values.amax(1, keepdim=True)
    largest = largest.masked_fill(largest == -math.inf, 0)
    return (values - largest).exp().sum(1, keepdim=True).log() + largest


def log_sum_exp_of_samples(values: Tensor) -> Tensor:
    """Logarithm of the sum of the exponentials over the samples (B, S, classes): their mean, but for a constant."""
    largest = values.amax(1, keepdim=True)
    return ((values - largest).exp().sum(1, keepdim=True).log() + largest)[:, 0]


def _pooled(evidence: Tensor, allowed: Tensor, top: float) -> Tensor:
    """Evidence (B, questions) of images, as `foveate.networks.evidence` pools that of cells (B, K, questions)."""
    counts = allowed.sum(1)
    wanted = torch.full_like(counts, round(top)) if top >= 1 else (top * counts.double()).round().long()
    wanted = torch.minimum(wanted, counts).clamp(min=1)
    ranked = evidence.masked_fill(~allowed[..., None], -math.inf).sort(1, descending=True).values
    taken = torch.arange(evidence.shape[1])[:, None] < wanted[:, None, None]
    return ranked.masked_fill(~taken, 0).sum(1) / wanted[:, None]


def evidence_answer(
    head: EvidenceHead,
    kinds: nn.Linear,
    cells: Tensor,
    allowed: Tensor,
    log_prob: Tensor,
    top: float,
    background: int | None,
) -> Tensor:
    """Logits (B, classes) of evidence, from the features of the cells (B, rows, columns, D)."""
    flat = cells.flatten(1, 2)
    evidence = _pooled(head(flat), allowed.flatten(1), top) + head.bias.mean(0)
    if background is None:
        return evidence
    return kinds_of_evidence(evidence[:, 0], kinds(attended(head, flat, log_prob.flatten(1))), background)


def first_answer(first: FirstAnswer, cells: Tensor, allowed: Tensor) -> Tensor:
    """Logits (B, classes) of the first answer."""
    logits = attention_logits(first.head(cells.flatten(1, 2)), first.top).masked_fill(~allowed.flatten(1), -math.inf)
    log_prob = logits - log_sum_exp(logits)
    return evidence_answer(first.head, first.kinds, cells, allowed, log_prob, first.top, first.background)
