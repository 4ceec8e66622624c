"""Zoom: attention sampling level by level, so that no map is ever made of all the cells that patches are drawn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.settings import GuideSettings, Method, ModelSettings
from foveate.errors import ConfigError
from foveate.images import Source
from foveate.images.area import Region
from foveate.images.header import Reading
from foveate.models.preprocess import check_finite
from foveate.models.receipts import Stages
from foveate.models.sampling import AttentionSampling
from foveate.models.settle import Drawn, Looked
from foveate.models.types import PLAIN, Batch, BuildOptions, Output, Started
from foveate.networks import AttentionNetwork, log_attention
from foveate.networks.evidence import EvidenceNetwork, attention_logits, has_backbone
from foveate.sampling import Children, draw_tree
from foveate.sampling.geometry import Grid, footprint
from foveate.sampling.nested import NestedGrid
from foveate.sampling.tree import METHODS
from foveate.seeds import derive_seed
from foveate.threads import in_threads, reading_threads
from foveate.types import Size

TOGETHER = 2_000_000
"""Pixels of regions that an attention network sees at a time where nothing is trained: some 60 MB a layer."""

SLACK = 2.0
"""How much finer than a typical image the last level may be, where views are of one size and images are not."""

MOST_LEVELS, MOST_CHILDREN = 4, 64
"""Limits: levels; the factor between two, whose square is the number of cells of a region."""


def check_zoom(settings: ModelSettings, scale: float | None) -> None:
    """Zoom settings check: those that make no sense are refused.

    Arguments:
        settings: of a model of the name "zoom".
        scale: view pixels per pixel of a typical image; None if it is not known.

    Raises:
        ConfigError: they are.
    """
    zoom = settings.zoom
    if not 2 <= zoom.levels <= MOST_LEVELS:
        raise ConfigError(
            f"model.zoom.levels must be 2 to {MOST_LEVELS}, got {zoom.levels}: of one level is model.name "
            "attention-sampling"
        )
    if len(zoom.factors) != zoom.levels - 1 or not all(2 <= one <= MOST_CHILDREN for one in zoom.factors):
        raise ConfigError(
            f"model.zoom.scale must be one number from 2 to {MOST_CHILDREN}, or {zoom.levels - 1}, one for each step "
            f"between {zoom.levels} levels, got {list(zoom.scale)}: set it to e.g. 4"
        )
    if zoom.margin < 0:
        raise ConfigError(f"model.zoom.margin must be at least 0 cells, got {zoom.margin}: 1 is usual")
    if settings.method not in METHODS:
        raise ConfigError(
            f"the model zoom cannot draw by model.method {settings.method}: set it to one of {', '.join(METHODS)}"
        )
    if settings.attention.padding == "valid" and not has_backbone(settings.attention):
        raise ConfigError("the model zoom needs model.attention.padding same, got valid: set it to same")
    finest = (scale or 0) * math.prod(zoom.factors)
    if finest > (1.0001 if settings.view.scale else SLACK):
        raise ConfigError(
            f"the last level of model.zoom would be {finest:.3g} times as fine as the images: lower model.zoom.levels, "
            "model.zoom.scale or model.view"
        )


@dataclass(frozen=True)
class ZoomDrawn(Drawn):
    """Forward pass under way, of which the patches are drawn.

    Attributes:
        regions: (rows, n, levels − 1, 4) what was looked at on the way to each patch.
        entropy: (rows,) of the attention within the regions, in nats.
        looked_at: how many regions of every level were looked at, over all images.
    """

    regions: Int64[Tensor, "rows draw region 4"] | None = None
    entropy: Float[Tensor, " rows"] | None = None
    looked_at: tuple[int, ...] = ()


class Zoom(AttentionSampling):
    r"""Zoom: attention over the view, then within the regions drawn, level by level; patches drawn from the product.

    .. math:: a(\text{cell}_L) = \prod_{l=0}^{L} a_l(\text{cell}_l \mid \text{cell}_{l-1}), \qquad
              \hat\Phi = \sum_s a_s w_s f_s

    The cells of the last level, which patches are read for, may be billions: `foveate.sampling.draw_tree` draws N of
    them without replacement, from their exact distribution, and looks at no more than N + 1 regions a level. So view,
    regions and patches are all that is read, and value and gradient of Φ̂, to the attention networks of every level,
    are unbiased as those of attention sampling are.

    A region is read at the resolution of its level, from the best level of the file's pyramid, with a margin, and its
    network sees nothing else. The contrast prior is that of the view, and within each region that of the region.

    Source: Kool, van Hoof & Welling, "Ancestral Gumbel-Top-k Sampling for Sampling Without Replacement" (JMLR 2020),
    for the draw; Kong & Henao, "Efficient Classification of Very Large Images with Tiny Objects" (CVPR 2022), for two
    levels of attention, which are drawn from one after the other there, with replacement.

    Arguments:
        settings: resolved settings.
        classes, channels, options: as `Model`.

    Attributes:
        nested: where the cells of every level lie.
        further: attention networks of the levels after the view; empty where all share that of the view.
    """

    unexported: ClassVar[str] = "a zoom model reads regions between its levels, which no graph does"

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        zoom = settings.zoom
        self.nested = NestedGrid(self.grid.strides[0], zoom.factors)
        own = 0 if zoom.shared else zoom.levels - 1
        self.further = nn.ModuleList(self.attention_network(options) for _ in range(own))

    @property
    def attention_names(self) -> tuple[str, ...]:
        """Names of the attention networks among its parts: of the view, and of the levels after it."""
        return (*super().attention_names, *(f"further.{number}" for number in range(len(self.further))))

    def drawn(
        self, batch: Batch, samples: int, looked: Looked, stages: Stages, patches: int, method: Method
    ) -> ZoomDrawn:
        """Draw patches, level by level, and read none."""
        image = torch.arange(len(batch)).repeat_interleave(samples)
        log_prob, allowed = (
            one.repeat_interleave(samples, 0) for one in (looked.log_prob, looked.cell_mask.flatten(1))
        )
        with stages("attention"):
            descent = draw_tree(
                log_prob,
                partial(self._children, batch, image, looked.cell_mask.shape[2]),
                self.nested.levels,
                patches,
                method,
                allowed,
                [torch.Generator().manual_seed(derive_seed(seed, t)) for seed in batch.seeds for t in range(samples)],
            )
        with stages("draw"):
            path, valid = descent.path, descent.draw.valid.cpu()
            boxes = self._boxes(batch, image, path[:, :, -1])
            regions = self._regions(batch, image, path, looked.cell_mask.shape[2])
        counts = tuple(nodes.shape[1] for nodes in descent.looked_at)
        lot = (descent.draw, boxes, None, stages, path[:, :, -1], valid)
        return ZoomDrawn(batch, samples, looked, *lot, regions, descent.entropy, counts)

    def finish(self, started: Started) -> Output:
        """Read, compute features, estimate, classify; see `Model.finish`."""
        assert isinstance(started, ZoomDrawn)
        assert started.entropy is not None
        output = super().finish(started)
        assert output.attention is not None
        top = torch.special.entr(torch.where(output.attention > 0, output.attention, 1.0)).sum((1, 2))
        below = started.entropy.view(len(started.batch), -1).mean(1)
        return replace(output, regions=started.regions, entropy=top + below)

    def _children(
        self,
        batch: Batch,
        image: Int64[Tensor, " rows"],
        columns: int,
        level: int,
        rows: Int64[Tensor, " node"],
        numbers: Int64[Tensor, " node"],
    ) -> Children:
        """Attention within regions, each looked at once however many samples have reached it."""
        pairs, which = torch.unique(torch.stack((image[rows], numbers)), dim=1, return_inverse=True)
        images = pairs[0]
        views, sizes = _pairs(batch.view_sizes)[images], _pairs([one.size for one in batch.sources])[images]
        cells = self._cells(level, pairs[1], views, columns)
        log_prob = self._within(batch, level, images.tolist(), cells, views, sizes)
        children, _ = self.nested.children(level, cells, views)
        across = self._columns(level + 1, views)
        numbered = children[:, :, 0] * across[:, None] + children[:, :, 1]
        return Children(log_prob[which.to(log_prob.device)], numbered[which])

    def _within(
        self,
        batch: Batch,
        level: int,
        images: Sequence[int],
        cells: Int64[Tensor, "node 2"],
        views: Int64[Tensor, "node 2"],
        sizes: Int64[Tensor, "node 2"],
    ) -> Float[Tensor, "node child"]:
        """Log attention over the cells of regions, read at the resolution of the next level."""
        margin, side = self.settings.zoom.margin, self.nested.side(level, self.settings.zoom.margin)
        extents = self.nested.extents(level, cells, views, sizes, margin).tolist()
        wanted = [(batch.sources[row], tuple(extent)) for row, extent in zip(images, extents, strict=True)]
        threads = reading_threads() if any(source.threaded for source in batch.sources) else 1
        seen = in_threads(partial(_see_region, side=side, settings=self.settings.input.guide), wanted, threads)
        inside = self.nested.inside(level, cells, views, margin)
        shown, device = torch.stack([view for view, _ in seen]), self.device
        together = len(seen) if torch.is_grad_enabled() else max(1, TOGETHER // side**2)
        parts = zip(torch.split(shown, together), torch.split(inside, together), strict=True)
        logits = torch.cat([self._logits(level + 1, *part) for part in parts])
        allowed, prior = self._guided(inside, [guide for _, guide in seen])
        own = slice(margin, margin + self.nested.factors[level])
        prior = prior.to(device)
        if self.prior is not None:
            prior = prior + self._contrast(level + 1, shown, inside, allowed, views, sizes)
        logits = (logits.float() + prior)[:, own, own]
        there = self.nested.children(level, cells, views)[1].view(logits.shape)
        mask = there & allowed[:, own, own]
        mask = torch.where(mask.any((1, 2), keepdim=True), mask, there)  # the view allowed it, and knew no better
        return log_attention(logits, mask.to(device), self.settings.attention.smoothing)

    def _contrast(
        self,
        level: int,
        shown: Float[Tensor, "node channel side side"],
        inside: Bool[Tensor, "node side side"],
        allowed: Bool[Tensor, "node row column"],
        views: Int64[Tensor, "node 2"],
        sizes: Int64[Tensor, "node 2"],
    ) -> Float[Tensor, "node row column"]:
        """Contrast prior of the cells of regions: without it attention goes, within a region, to what is blank."""
        assert self.prior is not None
        fine, device = self.nested.fineness(level), self.device
        pairs = zip(views.tolist(), sizes.tolist(), strict=True)
        marks = [
            footprint(self.settings.patch, (fine * view[0], fine * view[1]), (size[0], size[1])) for view, size in pairs
        ]
        every = [(inside.shape[1], inside.shape[2])] * len(inside)
        on_device = (one.to(device) for one in (shown, inside, allowed))
        prior: Tensor = self.prior(*on_device, every, marks, self.nested.stride)
        return prior

    def _logits(
        self, level: int, regions: Float[Tensor, "node channel side side"], inside: Bool[Tensor, "node side side"]
    ) -> Float[Tensor, "node row column"]:
        """Logits of the cells of regions, those of their margins included."""
        network = self.further[level - 1] if self.further else self.attention
        regions = regions.to(self.device)
        within = None if bool(inside.all()) else inside.to(self.device)
        if self.normalise is not None:
            regions = self.normalise(regions)
            regions = regions if within is None else regions.masked_fill(~within[:, None], 0)
        regions = regions.contiguous(memory_format=torch.channels_last)
        if isinstance(network, EvidenceNetwork):
            return attention_logits(network(network.cells(regions)), self.settings.evidence.top)
        # a network of the user's own sees zeros outside the image
        logits: Tensor = network(regions, within if isinstance(network, AttentionNetwork) else None)
        return logits

    def _guided(
        self, inside: Bool[Tensor, "node side side"], guides: Sequence[Float[Tensor, "side side"] | None]
    ) -> tuple[Bool[Tensor, "node row column"], Float[Tensor, "node row column"]]:
        """Which cells of regions the guides of their images allow, and what else they say of these."""
        stride, shape = self.nested.stride, (len(inside), inside.shape[1] // self.nested.stride)
        if all(guide is None for guide in guides):
            cells = functional.max_pool2d(inside[:, None].float(), stride)[:, 0] > 0
            return cells, torch.zeros(*shape, shape[1])
        nothing = torch.zeros(inside.shape[1:])
        weights = torch.stack([nothing if guide is None else guide for guide in guides])
        allowed, grid = inside & (weights > -math.inf), Grid(stride)
        every = [(inside.shape[1], inside.shape[2])] * len(inside)
        return grid.cell_mask(allowed, every), grid.cell_means(weights.masked_fill(~allowed, 0), allowed, every)

    def _cells(
        self, level: int, numbers: Int64[Tensor, " node"], views: Int64[Tensor, "node 2"], columns: int
    ) -> Int64[Tensor, "node 2"]:
        """Rows and columns of cells by their numbers: those of the view count in a map of so many columns."""
        across = torch.full_like(numbers, columns) if level == 0 else self._columns(level, views)
        return torch.stack((numbers // across, numbers % across), 1)

    def _columns(self, level: int, views: Int64[Tensor, "node 2"]) -> Int64[Tensor, " node"]:
        """Columns of the maps of a level."""
        return -(-views[:, 1] * self.nested.fineness(level) // self.nested.stride)

    def _boxes(
        self, batch: Batch, image: Int64[Tensor, " rows"], leaves: Int64[Tensor, "rows draw"]
    ) -> Int64[Tensor, "rows draw 4"]:
        """Patches behind cells of the last level, which are numbered in each image's own map."""
        last, rows = self.nested.levels - 1, image.tolist()
        sizes = [self.nested.size(last, batch.view_sizes[row]) for row in rows]
        across = self._columns(last, _pairs(batch.view_sizes)[image])[:, None]
        widest = int(across.max())
        index = leaves // across * widest + leaves % across
        images = [batch.sources[row].size for row in rows]
        return Grid(self.nested.stride).boxes(index, widest, sizes, images, self.settings.patch)

    def _regions(
        self, batch: Batch, image: Int64[Tensor, " rows"], path: Int64[Tensor, "rows draw level"], columns: int
    ) -> Int64[Tensor, "rows draw region 4"]:
        """Boxes of the regions on the way to each patch, of what of them lies in the image."""
        rows, draws, levels = path.shape
        of_image = image[:, None].expand(rows, draws).flatten()
        views, sizes = (_pairs(every)[of_image] for every in (batch.view_sizes, [one.size for one in batch.sources]))
        boxes = []
        for level in range(levels - 1):
            cells = self._cells(level, path[:, :, level].flatten(), views, columns)
            extent = self.nested.extents(level, cells, views, sizes)
            first = extent[:, :2].floor().long()
            last = torch.minimum(extent[:, 2:].ceil().long(), sizes)
            boxes.append(torch.cat((first, last - first), 1).view(rows, draws, 4))
        return torch.stack(boxes, 2)


def _see_region(
    wanted: tuple[Source, Region], side: int, settings: GuideSettings
) -> tuple[Float[Tensor, "channel side side"], Float[Tensor, "side side"] | None]:
    """View of a region of an image, and its guide: but for tissue, which a view of the whole image alone can tell."""
    source, region = wanted
    size = (side, side)
    with Reading(source.name or "image in memory"):
        shown = torch.from_numpy(source.view(size, region)).permute(2, 0, 1)
        check_finite(source, shown)
        if settings.tissue == "ignore":
            guide = source.guide(size, region)
            return shown, None if guide is None else torch.from_numpy(guide)
        valid = None if settings.given == "ignore" else source.valid(size, region)
    weight = -math.inf if settings.given == "mask" else -settings.strength
    return shown, None if valid is None else torch.where(torch.from_numpy(valid), 0.0, weight)


def _pairs(sizes: Sequence[Size]) -> Int64[Tensor, "size 2"]:
    return torch.tensor(list(sizes), dtype=torch.int64)
