"""GMIC: saliency maps of classes over a view, patches where they are highest, and both together for the answer."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from foveate.config.settings import ModelSettings
from foveate.errors import ConfigError
from foveate.images.augment.patches import shift_boxes
from foveate.models.base import Model
from foveate.models.evidence import seen_cells
from foveate.models.losses import LossTerms
from foveate.models.preprocess import footprints, padded_extents
from foveate.models.receipts import Stages
from foveate.models.types import PLAIN, Batch, BuildOptions, Output, Started
from foveate.networks import AttentionNetwork, count_cells, receptive_field
from foveate.networks.cnn import glorot_
from foveate.networks.evidence import CellFeatures, EvidenceNetwork, has_backbone
from foveate.networks.mil import MilAttention
from foveate.networks.saliency import greedy_regions, pooled_saliency
from foveate.sampling.geometry import Grid
from foveate.sampling.perturbed import unit_scores
from foveate.types import Draw

FAINT = 1e-6
"""Saliency that every cell has beside its own on the map that is shown, which so is a distribution without zeros."""


class Gmic(Model):
    r"""GMIC: a global network says where, a local one looks at N patches there, and the two are fused.

    .. math:: A = \sigma(W_A h_i), \qquad z = \sum_k \alpha_k f_k, \qquad y = W [\max_i h_i ;\ z] + b, \qquad
              L = L(y) + L(y_\mathrm{global}) + L(y_\mathrm{local}) + \beta \sum_{c,i} A_{ci}

    h_i are features of the view's cells: of the attention network with `gmic.width` numbers a cell in the place of one,
    or of its backbone. A are saliency maps, one for each class but `evidence.background`, which shows nothing;
    y_global pools the highest share of each (`gmic.top`), the background's logit being 0. Of their sum, each brought to
    0 … 1, the N windows of the most saliency are taken one after the other, without overlap but by half a window; α is
    the gated attention over their patches (Ilse et al., 2018), y_local = V z + c. Prediction is y alone.

    Where to look is learnt from L(y_global) and the sparsity alone, and is chosen without chance: no gradient comes
    from the patches to the maps. With several labels all L are binary cross-entropies, as published; with one label
    they are softmax cross-entropies of the same logits.

    Source: Shen, Wu, Phang, Park, Liu, Tyagi, Heacock, Kim, Moy, Cho & Geras, "An interpretable classifier for
    high-resolution breast cancer screening images utilizing weakly supervised localization" (GMIC, Medical Image
    Analysis 2021). Its global network is a ResNet-22 on the whole image, its local one a ResNet-18.

    Arguments:
        settings: resolved settings; method, baseline, prior and the share of a first answer have no effect.
        classes, channels, options: as `Model`.

    Attributes:
        attention: from views to features of cells.
        saliency: from these to maps; None where the attention network's evidence is the maps.
        gate: attention over patches.
        local: from features of patches to logits.

    Raises:
        ConfigError: the attention network gives no more than one number a cell.
    """

    grid: Grid
    attention: AttentionNetwork | EvidenceNetwork
    unexported: ClassVar[str] = "gmic chooses its patches one after the other, which no graph does"

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        self.grid = Grid(stride=settings.attention.stride or 1, field=receptive_field(settings.attention))
        self.gate = MilAttention(self.features.dimension, settings.mil.hidden, gated=True)
        self.local = nn.Linear(self.features.dimension, len(self.classes))
        glorot_(self.local)

    def _networks(self, options: BuildOptions) -> int:
        settings, name = self.settings, self.settings.attention.name
        background = settings.evidence.background
        maps = len(self.classes) - (background is not None)
        self.background = None if background is None else self.classes.index(background)
        self.saliency = None
        if has_backbone(settings.attention):
            standardised = settings.input.normalise != "none"
            self.attention = EvidenceNetwork(settings.attention, self.channels, maps, options.pretrained, standardised)
            return super()._networks(options) + self.attention.cells.dimension
        if name != "convolutional":
            raise ConfigError(
                f"the model gmic needs features of cells, of which model.attention.name {name} says nothing: set it to "
                "convolutional, or to e.g. timm:tf_efficientnet_lite0"
            )
        self.attention = AttentionNetwork(self.channels, settings.attention, settings.gmic.width)
        self.attention.to(memory_format=torch.channels_last)
        self.saliency = nn.Linear(settings.gmic.width, maps)
        glorot_(self.saliency)
        return super()._networks(options) + settings.gmic.width

    @property
    def reads_patches(self) -> bool:
        """True."""
        return True

    @property
    def eyes(self) -> CellFeatures | None:
        """Frozen network that sees the view's cells, where there is one."""
        attention = self.attention
        return attention.cells if isinstance(attention, EvidenceNetwork) and self.settings.attention.frozen else None

    def finish(self, started: Started) -> Output:
        """Look, choose, read, fuse; see `Model.finish`.

        Raises:
            FoveateError: an image has no cell to look at.
            ImageError: a patch cannot be read.
        """
        batch, stages, patches = started.batch, Stages(), self.training_patches if self.training else self.patches
        with stages("attention"):
            batch = self.normalised(batch)
            cell_mask = self.grid.cell_mask(batch.mask, batch.view_sizes)
            count_cells(cell_mask, batch.ids)
            allowed = cell_mask.flatten(1)
            hidden, logits = self._maps(batch)
        with stages("draw"):
            shown = torch.stack([unit_scores(one, allowed) for one in logits.detach().sigmoid().unbind(2)]).sum(0)
            index, valid = self._regions(batch, shown.view(cell_mask.shape).cpu(), cell_mask.cpu(), patches)
            images = [source.size for source in batch.sources]
            boxes = self.grid.boxes(index, cell_mask.shape[2], batch.view_sizes, images, self.settings.patch)
            changes = [source.patch_change for source in batch.sources]
            boxes = shift_boxes(boxes, changes) if any(changes) else boxes
        reading = self.read_patches(batch.sources, boxes, valid, stages)
        features = reading.features(self.features, self.normalise)
        with stages("classify"):
            there = valid.to(features.device)
            share = self.gate(features).float().masked_fill(~there, -math.inf).log_softmax(1)
            whole = hidden.masked_fill(~allowed[:, :, None], -math.inf).amax(1)
            # The view's features beside those of each patch: the shares sum to 1, so that it is there once.
            both = torch.cat((whole[:, None].expand(-1, features.shape[1], -1), features.to(whole.dtype)), 2)
            seen = (share.exp()[:, :, None] * both).sum(1)
            answer = self.head(seen.to(self.head.weight.dtype))
            local = self.local(seen[:, hidden.shape[2] :].to(self.local.weight.dtype))
        shown = (shown + FAINT).masked_fill(~allowed, 0)
        log_prob = (shown / shown.sum(1, keepdim=True)).log()
        return Output(
            logits=answer,
            attention=log_prob.exp().view(cell_mask.shape),
            draw=None if self.training else _chosen(log_prob, index.to(log_prob.device), share, there),
            boxes=boxes,
            features=both,
            read=valid,
            cell_mask=cell_mask,
            terms=self._terms(logits, allowed, local) if self.training else None,
            seconds=stages.seconds,
        )

    def _maps(self, batch: Batch) -> tuple[Float[Tensor, "batch cell feature"], Float[Tensor, "batch cell map"]]:
        """Features of all cells, and logits of their saliency."""
        if isinstance(self.attention, EvidenceNetwork):
            cells, head = seen_cells(self.attention, batch), self.attention.head
            return head.standardised(cells).flatten(1, 2), self.attention(cells).flatten(1, 2) + head.bias.mean(0)
        views = batch.views.contiguous(memory_format=torch.channels_last)
        hidden = self.attention.activation(self.attention.scores(views, padded_extents(batch)))
        flat = hidden.flatten(2).transpose(1, 2).float()
        assert self.saliency is not None
        return flat, self.saliency(flat).float()

    def _regions(
        self,
        batch: Batch,
        saliency: Float[Tensor, "batch row column"],
        cell_mask: Bool[Tensor, "batch row column"],
        patches: int,
    ) -> tuple[Int64[Tensor, "batch region"], Bool[Tensor, "batch region"]]:
        """Cells that patches are read around, and which slots hold any."""
        index = torch.zeros(len(batch), patches, dtype=torch.int64)
        valid, stride = torch.zeros(len(batch), patches, dtype=torch.bool), self.grid.strides[0]
        for row, pixels in enumerate(footprints(batch, self.settings.patch)):
            high, wide = (max(1, round(side / stride)) for side in pixels)
            found = greedy_regions(saliency[row], cell_mask[row], patches, (high, wide))
            index[row] = found[0]
            index[row, : len(found)], valid[row, : len(found)] = found, True
        return index, valid

    def _terms(
        self,
        logits: Float[Tensor, "batch cell map"],
        allowed: Bool[Tensor, "batch cell"],
        local: Float[Tensor, "batch class"],
    ) -> LossTerms:
        pooled = pooled_saliency(logits, allowed, self.settings.gmic.top)
        if self.background is not None:
            parts = (pooled[:, : self.background], torch.zeros_like(pooled[:, :1]), pooled[:, self.background :])
            pooled = torch.cat(parts, 1)
        maps = logits.sigmoid().masked_fill(~allowed[:, :, None], 0).sum((1, 2))
        return LossTerms((pooled, local.float()), self.settings.gmic.sparsity * maps)


def _chosen(
    log_prob: Float[Tensor, "batch cell"],
    index: Int64[Tensor, "batch region"],
    share: Float[Tensor, "batch region"],
    valid: Bool[Tensor, "batch region"],
) -> Draw:
    """Draw of cells that were chosen, whose weights make of their attention the shares of their patches."""
    own = log_prob.gather(1, index)
    weight = (share - own).double().exp().where(valid, 0.0)
    rest = log_prob.double().scatter(1, index, -math.inf).logsumexp(1)
    return Draw(index, own, weight, valid, rest, None, "top", own.double())
