"""Attention sampling of several scales: attention chooses how large a patch is, as well as where."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from foveate.config.settings import ModelSettings
from foveate.errors import ConfigError
from foveate.models.kept import KeptFeatures
from foveate.models.patch_reading import PatchReading
from foveate.models.preprocess import padded_extents
from foveate.models.receipts import Stages
from foveate.models.sampling import AttentionSampling
from foveate.models.scaled_reading import ScaledReading
from foveate.models.settle import Drawn, Looked
from foveate.models.types import PLAIN, Batch, BuildOptions, Output, Started
from foveate.networks import AttentionNetwork, ForetoldFeatures
from foveate.networks.evidence import EvidenceNetwork
from foveate.networks.features import FeatureNetwork, build_features
from foveate.types import Size

MOST_FACTOR = 64.0
"""How many times as large as a patch what it shows may be."""

FIRST = 0.01
"""What the first weights of the network of scales are multiplied with."""


def check_scales(settings: ModelSettings) -> None:
    """Scale settings check: those that make no sense are refused.

    Arguments:
        settings: of a model of the name "multi-scale".

    Raises:
        ConfigError: they are.
    """
    factors = settings.scales.factors
    ascending = all(one < other for one, other in itertools.pairwise(factors))
    if factors in ((), (1,)) or not ascending or not (factors[0] >= 1 and factors[-1] <= MOST_FACTOR):
        raise ConfigError(
            f"model.scales.factors must ascend from 1 to {MOST_FACTOR:g} at most, got {list(factors)}: patches as they "
            "are, and no others, are those of model.name attention-sampling"
        )
    if not settings.scales.shared and settings.features.project:
        raise ConfigError(
            "model.scales.shared false is for feature networks without model.features.project, got "
            f"{settings.features.project}: set one of the two otherwise"
        )


@dataclass(frozen=True)
class ScaledLook(Looked):
    """What an attention said of a batch, and of how large to look.

    Attributes:
        log_scale: (B, K, S) log probability of every scale, given the cell.
    """

    log_scale: Float[Tensor, "batch cell scale"]

    def rows(self, rows: Sequence[int]) -> "ScaledLook":
        """Of some images, each as often as it is named."""
        of = super().rows(rows)
        index = torch.tensor(rows, device=self.log_scale.device)
        return ScaledLook(of.log_prob, of.cell_mask, of.foretold, self.log_scale[index])


class MultiScale(AttentionSampling):
    r"""Multi-scale attention sampling: one distribution over (cell, scale), patches of every scale drawn from it.

    .. math:: a_{iz} = a_i \, a_{z \mid i}, \qquad \Phi = \sum_i \sum_z a_{iz} f_{iz}, \qquad
              \hat\Phi = \sum_s a_s w_s f_s

    A patch of scale z shows `scales.factors[z]` times as much a side, averaged down to `model.patch` pixels. The draw
    is that of attention sampling over K · S places, without replacement: a cell may be drawn at several scales. Value
    and gradient are unbiased as there. The map shown is a_i, which the prior, guides and evidence speak of; the scales
    begin almost equally likely.

    Arguments:
        settings: resolved settings.
        classes, channels, options: as `Model`.

    Attributes:
        sizes: (height, width) of what patches show, scale by scale, in full-resolution pixels.
        scales: what says how large to look, given the cell.
        further_features: feature networks of the scales after the first; empty where all share one.
    """

    unexported: ClassVar[str] = "a multi-scale model reads boxes of several sizes, which no graph does"

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        self.sizes = settings.scales.sizes(settings.patch)
        self.scales: AttentionNetwork | ForetoldFeatures
        if isinstance(self.attention, EvidenceNetwork):
            self.scales = ForetoldFeatures(self.attention.cells.dimension, len(self.sizes), settings.attention.hidden)
        else:
            own = AttentionNetwork(channels, replace(settings.attention, name="convolutional"), len(self.sizes))
            with torch.no_grad():
                own.layers[-1].get_parameter("weight").mul_(FIRST)
            self.scales = own.to(memory_format=torch.channels_last)

    def _networks(self, options: BuildOptions) -> int:
        dimension = super()._networks(options)
        settings, own = self.settings, 0 if self.settings.scales.shared else len(self.settings.scales.factors) - 1
        if own and options.features is not None:
            raise ConfigError("layers of your own serve all scales: set model.scales.shared to true")
        standardised = settings.input.normalise != "none"
        self.further_features = nn.ModuleList(
            build_features(settings.features, self.channels, self.patch, None, options.pretrained, standardised)
            for _ in range(own)
        )
        return dimension

    @property
    def feature_networks(self) -> Sequence[FeatureNetwork]:
        """All feature networks among its parts: one, or one of each scale."""
        return (self.features, *self.further_features)

    def keep_features(self, kept: KeptFeatures | None) -> None:
        """Keep features of patches, where one network computes all; see `Model.keep_features`."""
        super().keep_features(None if self.further_features else kept)

    def _look(self, batch: Batch, stages: Stages) -> tuple[Batch, ScaledLook]:
        batch, looked = super()._look(batch, stages)
        with stages("attention"):
            scores = self._scores(batch).float()
            share, count = self.settings.attention.smoothing, len(self.sizes)
            log_scale = torch.log((1 - share) * scores.softmax(-1) + share / count)
        return batch, ScaledLook(looked.log_prob, looked.cell_mask, looked.foretold, log_scale.to(looked.log_prob))

    def _scores(self, batch: Batch) -> Float[Tensor, "batch cell scale"]:
        if isinstance(self.attention, EvidenceNetwork):
            assert batch.cells is not None
            of_cells: Tensor = self.scales(self.attention.head.standardised(batch.cells).flatten(1, 2))
            return of_cells
        assert isinstance(self.scales, AttentionNetwork)
        return self.scales.scores(batch.views, padded_extents(batch)).flatten(2).transpose(1, 2)

    def distribution(self, looked: Looked) -> tuple[Float[Tensor, "batch place"], Bool[Tensor, "batch place"]]:
        """Log probability of every cell at every scale, cell by cell, and what of it is allowed."""
        assert isinstance(looked, ScaledLook)
        joint = (looked.log_prob[:, :, None] + looked.log_scale).flatten(1)
        return joint, looked.cell_mask.flatten(1).repeat_interleave(len(self.sizes), 1)

    def boxes(
        self, index: Int[Tensor, "rows draw"], columns: int, view_sizes: Sequence[Size], image_sizes: Sequence[Size]
    ) -> Int64[Tensor, "rows draw 4"]:
        """Patches behind what was drawn, in level-0 pixels, each as large as its scale."""
        cell, scale = index // len(self.sizes), index % len(self.sizes)
        of_scales = [self.grid.boxes(cell, columns, view_sizes, image_sizes, size) for size in self.sizes]
        return torch.stack(of_scales, 2).take_along_dim(scale[:, :, None, None].long(), 2)[:, :, 0]

    def _reading(self, *given: Any) -> PatchReading:
        return ScaledReading(self.settings.patch, self.sizes, tuple(self.further_features), *given)

    def finish(self, started: Started) -> Output:
        """Read, compute features, estimate, classify; see `Model.finish`."""
        assert isinstance(started, Drawn)
        assert isinstance(started.looked, ScaledLook)
        output = super().finish(started)
        assert output.attention is not None
        cells, log_scale = output.attention.flatten(1), started.looked.log_scale
        of_cells = torch.special.entr(torch.where(cells > 0, cells, 1.0)).sum(1)
        of_scales = (cells * -(log_scale.exp() * log_scale).sum(2)).sum(1)
        return replace(output, entropy=of_cells + of_scales)
