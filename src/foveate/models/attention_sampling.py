"""Attention sampling: a network over the low-resolution view decides where to look."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foveate.models.base import Extras
from foveate.models.batch import extents
from foveate.models.patches import PatchModel, footprints
from foveate.networks import AttentionNetwork, ContrastPrior, log_attention
from foveate.settings import ModelSettings
from foveate.types import Batch

__all__ = ["AttentionSampling"]


class AttentionSampling(PatchModel):
    r"""ATS-N: attention over the view, N patches drawn from it, trained end to end from image labels.

    .. math:: a = \mathrm{softmax}(z(\mathrm{view}) + \alpha p), \qquad \Phi = \sum_i a_i f_i = E_{I \sim a}[f_I]

    Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models" (ICML 2019), with an
    exact gradient, a baseline, a pooled map and a contrast prior: see docs/method.md. The expectation and, through
    plain autograd, its gradient are unbiased for every method but "top"; the loss, nonlinear in it, is not.

    Arguments:
        settings: resolved settings.
        classes: names of the classes.
        channels: channels of the images.
        extras: what else it is made with.
    """

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, extras: Extras | None = None
    ) -> None:
        super().__init__(settings, classes, channels, extras)
        self.attention = AttentionNetwork(channels, settings.attention).to(memory_format=torch.channels_last)
        contrast = settings.prior.contrast
        self.prior = ContrastPrior(contrast, settings.prior.epsilon) if contrast != 0 else None

    def anneal(self, prior: float | None = None, patches: int | None = None) -> None:
        """Set the strength of the prior and the patches drawn in training."""
        super().anneal(prior, patches)
        if prior is not None and self.prior is not None:
            self.prior.strength.fill_(prior)

    def log_attention(self, batch: Batch, cell_mask: Bool[Tensor, "batch row column"]) -> Float[Tensor, "batch cell"]:
        """Log attention over the valid cells: network, prior, smoothing."""
        inside = None if _same_size(batch) else extents(batch)
        logits = self.attention(batch.views, inside)
        if self.prior is not None:
            where = (batch.mask, cell_mask, batch.view_sizes, footprints(batch, self.settings.patch))
            logits = logits.float() + self.prior(batch.views, *where, self.attention.stride, self.grid.field)
        if batch.prior is not None:
            logits = logits.float() + self.grid.cell_means(batch.prior, batch.mask, batch.view_sizes)
        return log_attention(logits, cell_mask, self.settings.attention.smoothing, batch.ids)


def _same_size(batch: Batch) -> bool:
    return all(size == tuple(batch.views.shape[2:]) for size in batch.view_sizes)
