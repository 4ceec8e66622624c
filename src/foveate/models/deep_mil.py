"""Deep multiple-instance learning (MIL): attention over all patches of a grid, at full resolution."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from foveate.config.settings import ModelSettings
from foveate.images import Source
from foveate.models.base import Model
from foveate.models.receipts import Stages
from foveate.models.types import PLAIN, Batch, BuildOptions, Output, Started
from foveate.networks import count_cells, log_attention
from foveate.networks.mil import MilAttention
from foveate.networks.normalise import BATCH_NORMS
from foveate.sampling.geometry import Grid
from foveate.threads import one_ahead
from foveate.types import Size


def all_boxes(grid: Grid, image_sizes: Sequence[Size], patch: Size) -> Int64[Tensor, "batch cell 4"]:
    """Patch grid: the patches of all cells of some images.

    A cell at the lower or right border may be smaller than the others, and its patch is centred on what there is of it:
    patches laid side by side cover every pixel, and those of the border hang over it or overlap their neighbours.

    Arguments:
        grid: over the images, in level-0 pixels.
        image_sizes: B (height, width), in level-0 pixels.
        patch: (height, width), in level-0 pixels.

    Returns:
        (B, K, 4) top, left, height, width in level-0 pixels, row-major over a map as large as the largest of the
        images needs; cells an image does not have stand for the nearest one it has.

    Example:
        >>> all_boxes(Grid((50, 100)), [(120, 200)], (50, 100))[0, ::2].tolist()
        [[0, 0, 50, 100], [50, 0, 50, 100], [85, 0, 50, 100]]
    """
    rows, columns = _largest(grid, image_sizes)
    index = torch.arange(rows * columns).expand(len(image_sizes), -1)
    return grid.boxes(index, columns, image_sizes, image_sizes, patch)


def allowed_cells(
    grid: Grid, mask: Bool[Tensor, "batch height width"], view_sizes: Sequence[Size], image_sizes: Sequence[Size]
) -> Bool[Tensor, "batch row column"]:
    """Cell mask: cells that are there and may be looked at; unlike `Grid.cell_mask`, of a mask at any resolution.

    Arguments:
        grid: over the images, in level-0 pixels.
        mask: (B, h, w) True where the attention may look, at any resolution.
        view_sizes: B (height, width), the part of the mask that an image fills.
        image_sizes: B (height, width), in level-0 pixels.

    Returns:
        (B, rows, columns) True where an image has the cell and the mask allows its centre.
    """
    rows, columns = _largest(grid, image_sizes)
    allowed = torch.zeros(len(image_sizes), rows, columns, dtype=torch.bool)
    for image, (view, size) in enumerate(zip(view_sizes, image_sizes, strict=True)):
        own = grid.shape(size)
        cells = torch.cartesian_prod(torch.arange(own[0]), torch.arange(own[1])).reshape(-1, 2)
        places = grid.centres(cells, size, size) * torch.tensor(view) / torch.tensor(size)
        seen = places.floor().long().to(mask.device)
        allowed[image, : own[0], : own[1]] = mask[image, seen[:, 0], seen[:, 1]].reshape(own).to(allowed.device)
    return allowed


def whole_grid(
    grid: Grid, batch: Batch, patch: Size
) -> tuple[Bool[Tensor, "batch row column"], Int64[Tensor, "batch cell 4"]]:
    """Cell mask of a batch of images, and the patches of all cells.

    Raises:
        FoveateError: if an image has no cell to look at: before any reading.
    """
    sizes = [source.size for source in batch.sources]
    cells = allowed_cells(grid, batch.mask, batch.view_sizes, sizes)
    count_cells(cells, batch.ids)
    return cells, all_boxes(grid, sizes, patch)


def _largest(grid: Grid, image_sizes: Sequence[Size]) -> Size:
    shapes = [grid.shape(size) for size in image_sizes]
    return max(rows for rows, _ in shapes), max(columns for _, columns in shapes)


def in_chunks(
    model: Model, source: Source, boxes: Int[Tensor, "patch 4"], chunk: int, stages: Stages
) -> Iterator[Float[Tensor, "chunk feature"]]:
    """Features of the patches of an image, some at a time, while the next are read.

    Arguments:
        model: whose feature network it is.
        source: the image.
        boxes: (K, 4) in level-0 pixels.
        chunk: patches at a time, the last ones fewer.
        stages: where to note the time.
    """
    readings = (model.read_patches([source], part[None], None, stages) for part in torch.split(boxes, chunk))
    for reading in one_ahead(readings):
        yield reading.features(model.features, model.normalise)[0]


class DeepMil(Model):
    r"""Read every patch of a grid, weigh their features by an attention over them, classify.

    .. math:: \Phi = \sum_k a_k h_k, \qquad a = \mathrm{softmax}_k\, z(h_k), \qquad y = \mathrm{softmax}(W \Phi + b)

    Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning" (ICML 2018), section 2.4, with the
    feature network of the other models, its constant norm included. There is no low-resolution view and nothing is
    drawn; time grows with the number of patches.

    In training memory does too, where `mil.memory` is "plain", as published. "chunked" computes the same in chunks of
    `mil.chunk` patches of one image, forgets their pixels and activations, and reads and computes them again in the
    backward pass; of a chunk it keeps one vector and its logits. Where no gradient is asked for, chunks are all that is
    ever in memory at once. A network with batch statistics (`-paper` presets, some of timm's) sees those of a chunk.

    Arguments:
        settings: resolved settings; view, patches, method, attention and prior have no effect.
        classes, channels, options: as `Model`.

    Attributes:
        grid: the grid of patches over the image itself.
    """

    grid: Grid
    wants_view = False

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        mil = settings.mil
        self.patches = 0
        self.grid = Grid(settings.patch if mil.stride is None else mil.stride)
        self.attention = MilAttention(self.features.dimension, mil.hidden, mil.pooling == "gated")

    @property
    def reads_patches(self) -> bool:
        """True."""
        return True

    def finish(self, started: Started) -> Output:
        """Read, weigh, classify.

        Arguments:
            started: sources, and a mask at any resolution; cells whose centre it does not allow are not read. Nothing
                is drawn, however many samples are asked for.

        Returns:
            Logits; attention over the grid; boxes of its cells, and which of them were read. Features, 0 for cells
            that were not read, unless they were computed in chunks to be computed again.

        Raises:
            FoveateError: if an image has no cell to look at.
            ImageError: if a patch cannot be read.
        """
        batch = started.batch
        cells, boxes = whole_grid(self.grid, batch, self.settings.patch)
        read = cells.flatten(1)
        stages, features, bags = Stages(), None, []
        if torch.is_grad_enabled() and self.settings.mil.memory == "chunked":
            bags = [self._bag(*bag, stages) for bag in zip(batch.sources, boxes, read, strict=True)]
            flat = torch.cat([bag_logits for _, bag_logits in bags])
            logits = flat.new_zeros(read.shape).masked_scatter(read.to(self.device), flat)
        else:
            features = self._all(batch.sources, boxes, read, stages)
            logits = self.attention(features)
        allowed = read.to(self.device)
        log_prob = log_attention(logits.view(cells.shape), cells.to(self.device), names=batch.ids)
        attention = log_prob.exp().masked_fill(~allowed, 0)
        with torch.autocast(self.device.type, enabled=False):
            if features is not None:
                pooled = torch.bmm(attention.to(features.dtype).unsqueeze(1), features)[:, 0]
            else:
                shares = [self._shares(one[where]) for one, where in zip(attention, allowed, strict=True)]
                pooled = torch.stack([share @ parts for share, (parts, _) in zip(shares, bags, strict=True)])
        return Output(
            logits=self.head(pooled.to(self.head.weight.dtype)),
            attention=attention.view(cells.shape),
            boxes=boxes,
            features=features,
            read=read,
            cell_mask=allowed.view(cells.shape),
            seconds=stages.seconds,
        )

    def _all(
        self,
        sources: Sequence[Source],
        boxes: Int[Tensor, "batch cell 4"],
        read: Bool[Tensor, "batch cell"],
        stages: Stages,
    ) -> Float[Tensor, "batch cell feature"]:
        """Features of all cells, in chunks if without gradient; those of cells not read mean nothing."""
        if torch.is_grad_enabled():
            return self._features(sources, boxes, read, stages)
        images = []
        for source, own, wanted in zip(sources, boxes, read, strict=True):
            features = torch.cat(list(in_chunks(self, source, own[wanted], self.settings.mil.chunk, stages)))
            whole = features.new_zeros(len(own), features.shape[1])
            images.append(whole.index_put((wanted.nonzero()[:, 0].to(features.device),), features))
        return torch.stack(images)

    def _features(
        self,
        sources: Sequence[Source],
        boxes: Int[Tensor, "rows patch 4"],
        read: Bool[Tensor, "rows patch"] | None,
        stages: Stages,
    ) -> Float[Tensor, "rows patch feature"]:
        return self.read_patches(sources, boxes, read, stages).features(self.features, self.normalise)

    def _bag(
        self, source: Source, boxes: Int[Tensor, "cell 4"], read: Bool[Tensor, " cell"], stages: Stages
    ) -> tuple[Float[Tensor, "chunk feature"], Float[Tensor, " patch"]]:
        """Of one image, what each chunk amounts to by itself, and the logits of all patches; all else is forgotten."""
        vectors, logits = [], []
        for wanted in torch.split(boxes[read], self.settings.mil.chunk):

            def look(anchor: Tensor, wanted: Tensor = wanted) -> tuple[Tensor, Tensor]:  # noqa: ARG001
                features = self._features([source], wanted[None], None, stages)[0]
                scores = self.attention(features)
                with torch.autocast(scores.device.type, enabled=False):
                    return scores.to(features.dtype).softmax(0) @ features, scores

            # The anchor is on the model's device: checkpoint restores the random state of its arguments' devices.
            vector, scores = checkpoint(
                look,
                self.head.bias,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), _statistics_kept(self.features)),
            )
            vectors.append(vector)
            logits.append(scores)
        return torch.stack(vectors), torch.cat(logits)

    def _shares(self, attention: Float[Tensor, " patch"]) -> Float[Tensor, " chunk"]:
        """Attention of each chunk: Σ a_k over its patches."""
        chunk = self.settings.mil.chunk
        missing = math.ceil(len(attention) / chunk) * chunk - len(attention)
        return functional.pad(attention, (0, missing)).view(-1, chunk).sum(1)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Running statistics of batches as they are: what is computed again was counted the first time."""
    layers = [layer for layer in network.modules() if isinstance(layer, BATCH_NORMS)]
    kept = [
        (layer, layer.momentum, None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone())
        for layer in layers
    ]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in kept:
            layer.momentum = momentum
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
