"""Top-k: the most attended patches, taken and not drawn: what attention sampling is to be better than."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from foveate.config.settings import Method, ModelSettings
from foveate.models.base import Model
from foveate.models.kept import KeptFeatures
from foveate.models.receipts import Stages
from foveate.models.sampling import AttentionSampling
from foveate.models.settle import Drawn, Looked
from foveate.models.types import PLAIN, Batch, BuildOptions, DrawOptions, Output, Started
from foveate.sampling.perturbed import gaussian_noise, perturbed_top_k, unit_scores
from foveate.seeds import derive_seed


class TopK(AttentionSampling):
    r"""Top-k: the N most attended patches, and of these alone the attention-weighted mean.

    .. math:: \hat\Phi = \frac{\sum_{i \in \mathrm{top}_N(a)} a_i f_i}{\sum_{i \in \mathrm{top}_N(a)} a_i}

    The honest baseline of whoever would not draw: nothing is corrected, so the attention learns through the weights of
    the patches that it has chosen, which to prefer among them, and of a cell that was not chosen nothing at all. With
    N = 1 it learns nothing. The answer depends on no seed, neither in training nor in prediction.

    Source: none by itself; it is what is left of Katharopoulos & Fleuret, "Processing Megapixel Images with Deep
    Attention-Sampling Models" (2019), section 3, without draws, and of Cordonnier et al., "Differentiable Patch
    Selection for Image Recognition" (2021), section 3, without perturbations.

    Arguments:
        settings: resolved settings; method and baseline have no effect.
        classes, channels, options: as `Model`.

    Example:
        >>> import numpy as np
        >>> from foveate.config.settings import ModelSettings
        >>> from foveate.models import build_model
        >>> model = build_model(ModelSettings(name="top-k", patch=(24, 30), patches=4), ("cat", "dog"), channels=3)
        >>> first, second = (model.predict(np.zeros((200, 300, 3), np.uint8), seed=seed) for seed in (1, 2))
        >>> first.boxes == second.boxes
        True
    """

    fixed_method: ClassVar[Method | None] = "top"

    def settle(self, batch: Batch, options: DrawOptions) -> Output:
        """Refusal; see `Model.settle`."""
        return Model.settle(self, batch, options)


@dataclass(frozen=True)
class Mixed(Drawn):
    """Forward pass under way in which patches are mixed: `boxes`, `index` and `unread` are of all cells with a share.

    Attributes:
        mixture: (B, k, n) shares of the patches in each of the k mixtures; carries the gradient of the scores.
    """

    mixture: Float[Tensor, "batch slot draw"] | None = None


class PerturbedTopK(TopK):
    r"""Perturbed top-k: in training, mixtures of the patches that noise on the scores may choose; else the k highest.

    .. math:: X_r = \sum_i \bar Y_{ri} x_i, \qquad \hat\Phi = \frac1k \sum_r f(X_r)

    x_i are the pixels of the patch behind cell i, Ȳ the averaged indicators of `foveate.sampling.perturbed_top_k` on
    scores between 0 and 1, whose gradient the attention learns from. σ falls to 0 in the course of training, and with
    it the mixtures become the patches that prediction reads. In training all patches with a share are read, up to all
    of the map, while the network sees k: it takes memory for their pixels, and for `perturbed.samples` numbers a cell.

    The scores are the log attention, smoothing and prior included: normalised, they are those of the attention network
    but for its smoothing. The network of the paper is another, a few layers of a ResNet; its regularisation of the
    attention's entropy is `training.entropy`.

    Source: Cordonnier, Mahendran, Dosovitskiy, Weissenborn, Uszkoreit & Unterthiner, "Differentiable Patch Selection
    for Image Recognition" (CVPR 2021). Its released code had the transpose of this gradient's Jacobian, and a product
    of elements where one of vectors belongs, as its README says since.

    Arguments:
        settings: resolved settings; method and baseline have no effect.
        classes, channels, options: as `Model`.

    Attributes:
        sigma: σ of the next step.
    """

    unexported: ClassVar[str] = "perturbed top-k weighs its patches alike, which no graph of ours does"

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        self.sigma = settings.perturbed.sigma

    def progressed(self, share: float) -> None:
        """Lower σ; see `Model.progressed`."""
        self.sigma = self.settings.perturbed.sigma * (1 - share)

    def keep_features(self, kept: KeptFeatures | None) -> None:
        """Nothing, for mixtures are no patches; see `Model.keep_features`."""

    def drawn(self, batch: Batch, samples: int, looked: Looked, stages: Stages, patches: int, method: Method) -> Drawn:
        """Choose patches, and in training what may be chosen; read none."""
        chosen = super().drawn(batch, samples, looked, stages, patches, method)
        count = chosen.drawn.valid.sum(1, keepdim=True)
        log_prob = chosen.drawn.log_prob.detach()
        # In logs, and bounded, so that a product with an attention of 0 is a number.
        alike = (-log_prob.double()).clamp(max=700.0).exp() / count * chosen.drawn.valid
        chosen = replace(chosen, drawn=replace(chosen.drawn, log_prob=log_prob, weight=alike))
        if not self.training or self.sigma == 0:
            return chosen
        with stages("draw"):
            allowed = looked.cell_mask.flatten(1)
            generators = [torch.Generator().manual_seed(derive_seed(seed, "perturbed")) for seed in batch.seeds]
            noise = gaussian_noise(allowed, self.settings.perturbed.samples, generators)
            scores = unit_scores(looked.log_prob, allowed)
            shares = perturbed_top_k(scores, patches, self.sigma, noise, allowed)
            wanted = shares.detach().amax(1) > 0
            most = int(wanted.sum(1).max())
            index = wanted.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
            read = wanted.gather(1, index).cpu()
            mixture = shares.gather(2, index[:, None].expand(-1, patches, -1))
            images = [source.size for source in batch.sources]
            boxes = self.boxes(index.cpu(), looked.cell_mask.shape[2], batch.view_sizes, images)
        return Mixed(batch, 1, looked, chosen.drawn, boxes, None, stages, index.cpu(), read, mixture)

    def finish(self, started: Started) -> Output:
        """Read, mix, compute features, classify; see `Model.finish`."""
        if not isinstance(started, Mixed):
            return super().finish(started)
        looked, stages, reading, mixture = started.looked, started.stages, started.reading, started.mixture
        assert reading is not None
        assert mixture is not None
        pixels = reading.features(torch.nn.Flatten(), self.normalise)
        with stages("features"):
            mixed = torch.bmm(mixture.to(pixels.dtype), pixels)
            shape = (self.channels, *self.settings.patch)
            features = self.features(mixed.view(-1, *shape)).view(*mixed.shape[:2], -1)
        with stages("classify"):
            estimate = self.estimate(started.drawn, features)  # slots are as many as cells that were chosen
            logits = self.head(estimate.to(self.head.weight.dtype))
        attention = looked.log_prob.exp().masked_fill(~looked.cell_mask.flatten(1), 0).view(looked.cell_mask.shape)
        return Output(
            logits=logits,
            attention=attention,
            boxes=started.boxes,
            read=started.unread,
            cell_mask=looked.cell_mask,
            seconds=stages.seconds,
        )
