"""Contrast prior: what attention knows before it has learnt anything, that detail is where the contrast is."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.errors import ConfigError
from foveate.types import Size


def contrast_prior(
    views: Float[Tensor, "batch channel height width"],
    mask: Bool[Tensor, "batch height width"],
    cell_mask: Bool[Tensor, "batch row column"],
    view_sizes: Sequence[Size],
    footprints: Sequence[Size],
    stride: int = 1,
    field: int = 1,
    epsilon: float = 1e-2,
) -> Float[Tensor, "batch row column"]:
    r"""Contrast of every cell, its logarithm, relative to its image's mean.

    .. math:: p_i = \log \frac{\sigma_i + \varepsilon}{\mathrm{mean}_\mathrm{valid}(\sigma + \varepsilon)}

    σ_i is the standard deviation of the view (variance averaged over channels) over the footprint of cell i: the
    patch it stands for, in view pixels, centred on the cell (a last partial cell's as if it were a full one), at least
    3×3 and at least the stride. ε is a share
    `epsilon` of the view's valid range. So p is zero on a constant image, unchanged by the view's gain and offset,
    and each image's depends on nothing but its own allowed pixels. See docs/method.md.

    Arguments:
        views: (B, C, h, w) views.
        mask: (B, h, w) True where the attention may look; other pixels count for nothing.
        cell_mask: (B, rows, columns) True for valid cells.
        view_sizes: B (height, width) of the views without padding.
        footprints: B (height, width) of a patch in view pixels.
        stride: view pixels per cell.
        field: receptive field of an unpooled position, in view pixels; odd.
        epsilon: ε as a share of the view's valid range.

    Returns:
        (B, rows, columns) float32, without gradient; 0 where a cell is masked.

    Example:
        >>> view = torch.zeros(1, 1, 4, 6)
        >>> view[..., 4] = 1.0
        >>> cells = torch.ones(1, 2, 3, dtype=torch.bool)
        >>> p = contrast_prior(view, torch.ones(1, 4, 6, dtype=torch.bool), cells, [(4, 6)], [(2, 2)], stride=2)
        >>> p.argmax().item() % 3
        2
    """
    prior = torch.zeros(cell_mask.shape, dtype=torch.float32, device=views.device)
    with torch.no_grad(), torch.autocast(views.device.type, enabled=False):
        for ((height, width), footprint), rows in _alike(view_sizes, footprints).items():
            own = views[rows, :, :height, :width]
            allowed = mask[rows, :height, :width]
            extent = tuple(-((field - 1 - side) // stride) for side in (height, width))
            if min(extent) < 1:
                continue
            cells = cell_mask[rows, : extent[0], : extent[1]]
            size = (max(footprint[0], stride, 3), max(footprint[1], stride, 3))
            values = _log_contrast(own, allowed, cells, size, stride, field, epsilon)
            prior[rows, : extent[0], : extent[1]] = values.float()
    return prior


def _alike(view_sizes: Sequence[Size], footprints: Sequence[Size]) -> dict[tuple[Size, Size], list[int]]:
    """Groups of the images of a batch that can be worked on together: those of one view size and footprint."""
    groups: dict[tuple[Size, Size], list[int]] = {}
    for row, key in enumerate(zip(view_sizes, footprints, strict=True)):
        groups.setdefault(key, []).append(row)
    return groups


def _log_contrast(
    views: Tensor, allowed: Tensor, cells: Tensor, footprint: Size, stride: int, field: int, epsilon: float
) -> Tensor:
    there = allowed.unsqueeze(1)
    pixels = views.to(torch.promote_types(views.dtype, torch.float32))
    highest = pixels.masked_fill(~there, -torch.inf).amax((2, 3), keepdim=True)
    lowest = pixels.masked_fill(~there, torch.inf).amin((2, 3), keepdim=True)
    spread = (highest - lowest).amax(1)
    # A variance is a difference of two means: float64 keeps a flat, bright background flat. Apple's GPUs have none.
    working = torch.float32 if views.device.type == "mps" else torch.float64
    centred = (pixels - (highest + lowest) / 2).masked_fill_(~there, 0).to(working)
    rows, columns = cells.shape[1:]
    sums = partial(_window_sums, cells=(rows, columns), side=footprint, stride=stride, field=field)
    count = sums(there.to(torch.float32)).clamp(min=1)
    variance = sums(centred.square()) / count - (sums(centred) / count).square()
    contrast = variance.clamp(min=0).mean(1).sqrt() + epsilon * spread
    mean = contrast.masked_fill(~cells, 0).sum((1, 2), keepdim=True) / cells.sum((1, 2), keepdim=True).clamp(min=1)
    nothing = (spread <= 0) | (mean <= 0) | ~cells
    return (contrast / mean).masked_fill(nothing, 1).log()


def _window_sums(values: Tensor, cells: Size, side: Size, stride: int, field: int) -> Tensor:
    """Sums over the footprints of all cells of a map: the windows of one strided pooling of the padded view."""
    starts = [(stride + field - length) // 2 for length in side]
    ends = [
        start + (count - 1) * stride + length - extent
        for start, count, length, extent in zip(starts, cells, side, values.shape[2:], strict=True)
    ]
    padded = functional.pad(values, (-starts[1], ends[1], -starts[0], ends[0]))
    # windows that overlap share the sums of the squares they are made of
    shared = [math.gcd(length, stride) for length in side]
    squares = functional.avg_pool2d(padded, shared, shared, divisor_override=1)
    sides = [length // part for length, part in zip(side, shared, strict=True)]
    return functional.avg_pool2d(squares, sides, [stride // part for part in shared], divisor_override=1)


class ContrastPrior(nn.Module):
    r"""Contrast prior at a strength α that is stored with the model and may be annealed.

    .. math:: \alpha \, p_i

    Arguments:
        strength: α; 0 adds nothing.
        epsilon: ε as a share of the view's valid range; positive.

    Raises:
        ConfigError: if ε is not positive.

    Example:
        >>> prior = ContrastPrior(2.0)
        >>> prior.strength
        tensor(2.)
    """

    strength: Tensor

    def __init__(self, strength: float, epsilon: float = 1e-2) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ConfigError(f"model.prior.epsilon must be positive, got {epsilon}: set it to e.g. 0.01")
        self.epsilon = epsilon
        self.register_buffer("strength", torch.tensor(float(strength)))

    def forward(
        self,
        views: Float[Tensor, "batch channel height width"],
        mask: Bool[Tensor, "batch height width"],
        cell_mask: Bool[Tensor, "batch row column"],
        view_sizes: Sequence[Size],
        footprints: Sequence[Size],
        stride: int = 1,
        field: int = 1,
    ) -> Float[Tensor, "batch row column"]:
        """Return (B, rows, columns) what to add to the logits; see `contrast_prior` for the arguments."""
        values = contrast_prior(views, mask, cell_mask, view_sizes, footprints, stride, field, self.epsilon)
        return self.strength * values
