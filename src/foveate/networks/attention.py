"""Attention network: from a low-resolution view to a distribution over the cells of a map."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.settings import AttentionSettings
from foveate.errors import ImageError
from foveate.networks.cnn import glorot_

KERNEL = 3
"""Side of every convolution of the attention network."""


def receptive_field(settings: AttentionSettings) -> int:
    r"""Receptive field: the side, in view pixels, of what one unpooled position of the map needs inside the view.

    .. math:: r = 1 + 2 (L + 1) \text{ for "valid" padding with } L \text{ hidden layers, else } 1

    Arguments:
        settings: the attention network's settings.

    Returns:
        The `field` of the map's `foveate.sampling.geometry.Grid`; odd.

    Example:
        >>> receptive_field(AttentionSettings(widths=(8, 16, 32), padding="valid"))
        9
        >>> receptive_field(AttentionSettings(widths=(8, 8), padding="same"))
        1
    """
    if settings.padding == "same" or settings.name != "convolutional":
        return 1
    return 1 + (KERNEL - 1) * (len(settings.widths) + 1)


class AttentionNetwork(nn.Module):
    """Attention network: 3×3 convolutions give every cell of a map one logit, the same whether padded or not.

    Hidden layers of `settings.widths` channels, then one logit per position, then the positions of every
    `stride` × `stride` window are pooled into a cell (a last partial window is a cell too). With `settings.pool`
    "strided" the first convolution is of `stride` + 2 pixels a side and takes strides instead, so that it sees a cell
    and one pixel around it, and the others see 3×3 cells: they cost a `stride`²-th, and tell an object in this cell
    from one in the next. What lies outside an image is set to zero after every layer and left out of the pooling, so
    an image padded to fit into a batch has the logits it has alone. Initialised as Keras does: Glorot uniform weights,
    zero bias.

    The networks of Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models"
    (ICML 2019), are instances, their stride counted in view pixels:

    ================  ============  ==========  =======  ==============
    task              widths        activation  padding  stride
    ================  ============  ==========  =======  ==============
    Megapixel MNIST   (8, 8)        tanh        same     1
    speed limits      (8, 16, 32)   relu        valid    8, max-pooled
    colon cancer      (8, 8)        relu        same     1
    ================  ============  ==========  =======  ==============

    The speed-limits network drops a last partial window where this one keeps it; at 288×384 there is none.

    Arguments:
        channels: channels of the view.
        settings: widths, activation, padding, stride and pooling. A stride of None pools nothing: only a model, which
            knows its patch, can choose one.
        outputs: numbers that `scores` gives of every cell.

    Attributes:
        stride: view pixels per cell.
        field: side of the receptive field a position needs inside the view; 1 with "same" padding.

    Example:
        >>> network = AttentionNetwork(1, AttentionSettings(widths=(4,), stride=3))
        >>> network(torch.zeros(2, 1, 10, 7)).shape
        torch.Size([2, 4, 3])
    """

    def __init__(self, channels: int, settings: AttentionSettings, outputs: int = 1) -> None:
        super().__init__()
        self.stride = settings.stride or 1
        self.field = receptive_field(settings)
        self.pool = settings.pool
        self.activation = nn.Tanh() if settings.activation == "tanh" else nn.ReLU()
        widths = (channels, *settings.widths, outputs)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, KERNEL, padding=settings.padding) for before, after in itertools.pairwise(widths)
        )
        if self.pool == "strided":
            self.layers[0] = nn.Conv2d(channels, widths[1], self.stride + KERNEL - 1, self.stride)
        glorot_(self)

    def forward(
        self,
        views: Float[Tensor, "batch channel height width"],
        inside: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch row column"]:
        """Score every cell.

        Arguments:
            views: (B, C, h, w) views in the unit range, padded with zeros below and to the right.
            inside: (B, h, w) True inside an image's own extent; None if no image is padded. Not the mask of where
                attention may look: what must not be looked at may still be seen.

        Returns:
            (B, rows, columns) logits; rows = ⌈(h − field + 1) / stride⌉, likewise columns. A cell wholly outside its
            image holds the lowest finite number.

        Raises:
            ImageError: if the view is smaller than the receptive field of a "valid" convolution.
        """
        return self.scores(views, inside)[:, 0]

    def scores(
        self,
        views: Float[Tensor, "batch channel height width"],
        inside: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch output row column"]:
        """Logits of every cell, if there are several; as `forward` otherwise."""
        if min(views.shape[2:]) < self.field:
            raise ImageError(
                f"a view of {views.shape[2]}×{views.shape[3]} pixels is smaller than the attention's receptive field "
                f"of {self.field}×{self.field}: enlarge model.view or set model.attention.padding to same"
            )
        here = None if inside is None else inside.unsqueeze(1)
        hidden = views
        for number, layer in enumerate(self.layers):
            if here is not None and self.field == 1:
                hidden = hidden.masked_fill(~here, 0)
            if number == 0 and self.pool == "strided":
                hidden = functional.pad(hidden, self._around(views))
                if here is not None:  # a cell is inside if any of its pixels is
                    here = functional.max_pool2d(here.float(), self.stride, ceil_mode=True) > 0
            hidden = layer(hidden)
            if number + 1 < len(self.layers):
                hidden = self.activation(hidden)
        if here is not None and self.field > 1:
            # A position belongs to an image if its whole field does: the extent starts at the top left corner.
            here = here[:, :, self.field - 1 :, self.field - 1 :]
        return self._pooled(hidden, here)

    def _around(self, views: Tensor) -> tuple[int, int, int, int]:
        """Zeros left, right, above and below, for a window of the strided convolution around every cell."""
        below, right = (-side % self.stride for side in views.shape[2:])
        return (1, 1 + right, 1, 1 + below)

    def _pooled(self, logits: Tensor, here: Tensor | None) -> Tensor:
        lowest = torch.finfo(logits.dtype).min
        if self.pool != "mean":
            if here is not None:
                logits = logits.masked_fill(~here, lowest)
            pooled = self.stride == 1 or self.pool == "strided"
            return logits if pooled else functional.max_pool2d(logits, self.stride, ceil_mode=True)
        counted = torch.ones_like(logits) if here is None else here.expand_as(logits).to(logits.dtype)
        count = _window_sums(counted, self.stride)
        mean = _window_sums(logits * counted, self.stride) / count.clamp(min=1)
        return mean.masked_fill(count == 0, lowest)


def _window_sums(values: Tensor, stride: int) -> Tensor:
    return functional.avg_pool2d(values, stride, ceil_mode=True, divisor_override=1)


def log_attention(
    logits: Float[Tensor, "batch row column"],
    cell_mask: Bool[Tensor, "batch row column"],
    smoothing: float = 0.0,
    names: Sequence[str] = (),
) -> Float[Tensor, "batch cell"]:
    r"""Log attention: logits as a smoothed log distribution over the valid cells of each image.

    .. math:: \log a_i = \log\bigl((1 - s)\,\mathrm{softmax}(z)_i + s / K_\mathrm{valid}\bigr)

    Katharopoulos & Fleuret (2019) mix in s = 1e-5 so that no weight 1/a is unbounded; their K counts every position,
    ours the valid ones of the image, so padding changes nothing.

    Arguments:
        logits: (B, rows, columns); computed on in float64, also under autocast.
        cell_mask: (B, rows, columns) True where the attention may look.
        smoothing: s, the share of uniform probability, in [0, 1).
        names: B image ids for error messages; may be empty.

    Returns:
        (B, rows · columns) log probabilities, row-major, in float32 or better; −inf where masked, with gradient zero.

    Raises:
        FoveateError: if a row of the mask has no valid cell. On an accelerator, which a look at the mask would have to
            wait for, its row is −inf instead, and refused by `foveate.sampling.fetch`.

    Example:
        >>> logits = torch.zeros(1, 2, 2)
        >>> allowed = torch.tensor([[[True, True], [False, False]]])
        >>> log_attention(logits, allowed, 1e-5).exp()
        tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    allowed = cell_mask.flatten(1)
    counts = count_cells(cell_mask, names) if cell_mask.device.type == "cpu" else allowed.sum(1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    # In float64: log_softmax in float32 is off by 7e-5 at a million cells, and draws divide by these numbers.
    log_prob = logits.flatten(1).double().masked_fill(~allowed, -math.inf).log_softmax(1)
    if smoothing > 0:
        uniform = math.log(smoothing) - counts.double().log().unsqueeze(1)
        log_prob = torch.logaddexp(log_prob + math.log1p(-smoothing), uniform)
    return log_prob.to(dtype).masked_fill(~allowed, -math.inf)


def count_cells(cell_mask: Bool[Tensor, "batch row column"], names: Sequence[str] = ()) -> Int[Tensor, " batch"]:
    """Number of cells of each image that may be looked at; see `log_attention` for the arguments.

    Raises:
        ImageError: if a row of the mask has no valid cell.
    """
    counts: Tensor = cell_mask.flatten(1).sum(1)
    if not bool(counts.all()):
        row = int((counts == 0).nonzero()[0])
        name = f" ({names[row]})" if names else ""
        raise ImageError(
            f"image {row} of the batch{name} has no cell to look at, all {cell_mask[row].numel()} are masked: "
            "check its mask, or enlarge the view"
        )
    return counts
