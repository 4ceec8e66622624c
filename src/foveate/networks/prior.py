"""Contrast prior: what attention knows before it has learnt anything, that detail is where the contrast is."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
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
        for (height, width), footprint, rows in _alike(views, view_sizes, footprints):
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


def _alike(
    views: Tensor, view_sizes: Sequence[Size], footprints: Sequence[Size]
) -> list[tuple[Size, Size, slice | Tensor]]:
    """Groups of the images of a batch that are worked on together: those of one view size and footprint.

    A CPU takes one at a time, whose planes stay in its cache.
    """
    keys = list(zip(view_sizes, footprints, strict=True))
    if views.device.type == "cpu":
        return [(*key, slice(row, row + 1)) for row, key in enumerate(keys)]
    groups = dict.fromkeys(keys)
    if len(groups) == 1:
        return [(*key, slice(None)) for key in groups]
    rows = {key: torch.tensor([row for row, other in enumerate(keys) if other == key]) for key in groups}
    # non-blocking: an index that is a list is sent only when the device has done all that it was told before
    return [(*key, some.to(views.device, non_blocking=True)) for key, some in rows.items()]


def _log_contrast(
    views: Tensor, allowed: Tensor, cells: Tensor, footprint: Size, stride: int, field: int, epsilon: float
) -> Tensor:
    # plane by plane: over channels that lie side by side, extremes take forty times as long
    pixels = views.to(torch.promote_types(views.dtype, torch.float32)).contiguous()
    # asking a GPU whether all are allowed would make the program wait for it
    masked = views.device.type != "cpu" or not bool(allowed.all())
    there = allowed.unsqueeze(1)
    highest = (pixels.masked_fill(~there, -torch.inf) if masked else pixels).amax((2, 3), keepdim=True)
    lowest = (pixels.masked_fill(~there, torch.inf) if masked else pixels).amin((2, 3), keepdim=True)
    spread = (highest - lowest).amax(1)
    centred = pixels - (highest + lowest) / 2
    if masked:
        centred.masked_fill_(~there, 0)
    down, along = (
        _Windows((stride + field - length) // 2, count, length, stride)
        for length, count in zip(footprint, cells.shape[1:], strict=True)
    )
    around = (*along.padding(views.shape[3]), *down.padding(views.shape[2]))
    sums = along.sums(down.sums(_with_squares(functional.pad(centred, around)), 2), 3)
    if masked:
        count = along.sums(down.sums(functional.pad(allowed, around).to(sums.dtype), 1), 2)
    else:  # as many as rows times columns
        count = torch.outer(down.inside(views.shape[2]), along.inside(views.shape[3])).to(sums)
    count = count.clamp(min=1)
    variance = (sums[:, -1] - sums[:, :-1].square().sum(1) / count) / (count * pixels.shape[1])
    # what is no more than the rounding of its sums is none, or a flat background would not be flat to the last digit
    variance = variance.masked_fill(variance <= torch.finfo(variance.dtype).eps * spread.square(), 0)
    contrast = variance.sqrt() + epsilon * spread
    mean = contrast.masked_fill(~cells, 0).sum((1, 2), keepdim=True) / cells.sum((1, 2), keepdim=True).clamp(min=1)
    nothing = (spread <= 0) | (mean <= 0) | ~cells
    return (contrast / mean).masked_fill(nothing, 1).log()


def _with_squares(
    centred: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch plane height width"]:
    """The channels, and one plane more: their squares, summed over the channels."""
    channels = centred.shape[1]
    # A variance is a difference of two means: float64 keeps a flat, bright background flat. Apple's GPUs have none.
    working = torch.float32 if centred.device.type == "mps" else torch.float64
    planes = centred.new_empty((len(centred), channels + 1, *centred.shape[2:]), dtype=working)
    first, *others = planes[:, :channels].copy_(centred).unbind(1)
    squares = torch.mul(first, first, out=planes[:, channels])
    for channel in others:
        squares.addcmul_(channel, channel)
    return planes


class _Windows(NamedTuple):
    """Windows along an axis: where the first starts, how many there are, how long each is, and how far apart."""

    start: int
    number: int
    length: int
    stride: int

    def padding(self, extent: int) -> tuple[int, int]:
        """What to add before and after, for an axis to start with the first window and end a whole stride later."""
        parts = self.number - 1 + -(-self.length // self.stride)
        return -self.start, self.start + parts * self.stride - extent

    def inside(self, extent: int) -> Int[Tensor, " window"]:
        """How much of every window lies inside an axis."""
        starts = self.start + self.stride * torch.arange(self.number)
        return ((starts + self.length).clamp(max=extent) - starts.clamp(min=0)).clamp(min=0)

    def sums(self, padded: Tensor, axis: int) -> Tensor:
        """Sums over the windows of a padded axis.

        They share the sums of whole strides, and those of 2, 4, 8 … of them: a value is added log₂(length / stride)
        times or so. Differences of cumulative sums would take fewer additions, and lose digits that a variance needs.
        """
        shape = padded.shape
        split = padded.reshape(*shape[:axis], -1, self.stride, *shape[axis + 1 :])
        whole, rest = divmod(self.length, self.stride)
        parts = [split.narrow(axis + 1, 0, rest).sum(axis + 1).narrow(axis, whole, self.number)] if rest else []
        power = split.sum(axis + 1) if self.stride > 1 else padded
        for bit in range(whole.bit_length()):
            if bit:
                half = 2 ** (bit - 1)
                left = power.shape[axis] - half
                power = power.narrow(axis, 0, left) + power.narrow(axis, half, left)
            if whole >> bit & 1:
                parts.append(power.narrow(axis, whole % 2**bit, self.number))
        total: Tensor = functools.reduce(torch.add, parts)
        return total


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
