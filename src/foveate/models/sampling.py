"""Attention sampling: look at a view, draw cells, read the patches behind them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from foveate.config.settings import Method, ModelSettings
from foveate.errors import ConfigError
from foveate.images.augment.patches import shift_boxes
from foveate.models.base import Model
from foveate.models.evidence import FirstAnswer, questions_of, seen_cells
from foveate.models.heads import build_pool, check_settling, pooled
from foveate.models.kept import KeptFeatures
from foveate.models.preprocess import footprints, padded_extents
from foveate.models.receipts import Stages
from foveate.models.settle import Drawn, Looked, settle
from foveate.models.types import PLAIN, Batch, BuildOptions, DrawOptions, Output, Started
from foveate.networks import AttentionNetwork, ContrastPrior, ForetoldFeatures, log_attention, receptive_field
from foveate.networks.custom import OwnAttention, import_network
from foveate.networks.evidence import CellFeatures, EvidenceNetwork, attention_logits, has_backbone
from foveate.sampling import ControlVariate, draw, expectation, fetch, noise_left
from foveate.sampling.estimator import BASELINED
from foveate.sampling.geometry import Grid
from foveate.seeds import derive_seed
from foveate.types import Draw, Size


class PatchModel(Model):
    r"""Draw N cells of a map over the view, read the patches behind them, estimate the image's features, classify.

    .. math:: \hat\Phi = \sum_s a_s w_s f_s, \qquad y = \mathrm{softmax}(W \hat\Phi + b)

    A subclass says what the distribution a is. See docs/method.md.

    Arguments:
        settings: resolved settings; `attention.stride` of None counts as 1.
        classes, channels, options: as `Model`.

    Attributes:
        grid: where the cells of the map lie in the view and in the image.
        kept: features of a frozen network, where whoever trains it keeps them; None keeps none.
        pool: cross-attention over the patches; None estimates Φ, of which alone the equation above speaks.
        fixed_method: how cells are drawn, whatever the settings say; None as they say.
    """

    fixed_method: ClassVar[Method | None] = None
    grid: Grid
    kept: KeptFeatures | None = None

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        self.method = self.draw_method
        self.grid = Grid(stride=settings.attention.stride or 1, field=receptive_field(settings.attention))
        self.pool = build_pool(settings.head, self.features.dimension)

    @property
    def reads_patches(self) -> bool:
        """True."""
        return True

    def keep_features(self, kept: KeptFeatures | None) -> None:
        """Keep features of patches; see `Model.keep_features`."""
        self.kept = kept

    @property
    def draw_method(self) -> Method:
        """How cells are drawn now."""
        return self.fixed_method or self.method

    @abstractmethod
    def log_attention(self, batch: Batch, cell_mask: Bool[Tensor, "batch row column"]) -> Float[Tensor, "batch cell"]:
        """Log probability of every cell of the map, normalised over the valid ones, −inf elsewhere."""

    def start(self, batch: Batch, samples: int = 1) -> Drawn:
        """Look, draw, and begin to read; see `Model.start`.

        Arguments:
            batch: views and mask on the model's device, sources and seeds. The t-th draw of image b comes from
                `derive_seed(batch.seeds[b], t)`, whatever else is in the batch.
            samples: draws per image; attention is computed once, patches are read for each.

        Raises:
            FoveateError: if an image has no cell to look at.
        """
        stages = Stages()
        batch, looked = self._look(batch, stages)
        return self._draw(batch, samples, looked, stages)

    def _look(self, batch: Batch, stages: Stages) -> tuple[Batch, Looked]:
        with stages("attention"):
            batch = self.seen(batch)
            cell_mask = self.grid.cell_mask(batch.mask, batch.view_sizes)
            return batch, Looked(self.log_attention(batch, cell_mask), cell_mask, self.foretold(batch))

    def settle(self, batch: Batch, options: DrawOptions) -> Output:
        """Draw until the answer is settled; see `foveate.models.settle.settle`."""
        check_settling(self.pool, self.head)
        if (method := options.method or self.draw_method) not in ("murthy", "uniform"):
            raise ConfigError(f"max_patches draws by method murthy, got {method}: leave out one of them")
        stages = Stages()
        batch, looked = self._look(batch, stages)
        nothing = looked.log_prob.new_zeros(len(batch), len(self.classes))
        added = self.answer(nothing, batch, looked.cell_mask)
        share = float((self.answer(nothing + 1, batch, looked.cell_mask) - added).mean())
        assert options.max_patches is not None
        lot = self.drawn(batch, 1, looked, stages, options.max_patches, "murthy")
        return settle(self, batch, looked, options, lot, (added, share), stages)

    def seen(self, batch: Batch) -> Batch:
        """The batch as the attention sees it: normalised."""
        batch = self.normalised(batch)
        return replace(batch, views=batch.views.contiguous(memory_format=torch.channels_last))

    def foretold(self, batch: Batch) -> Float[Tensor, "batch cell feature"] | None:  # noqa: ARG002  for subclasses
        """Features foretold of the patches behind all cells, for a control variate; None if there is none."""
        return None

    def draw_again(self, started: Started, row: int, seeds: Sequence[int]) -> Drawn:
        """Same look, other draws; see `Model.draw_again`."""
        assert isinstance(started, Drawn)
        looked = started.looked.rows([row] * len(seeds))
        return self._draw(started.batch.repeat(row, seeds), started.samples, looked, Stages())

    def _draw(self, batch: Batch, samples: int, looked: Looked, stages: Stages) -> Drawn:
        patches = self.training_patches if self.training else self.patches
        return self._read_drawn(self.drawn(batch, samples, looked, stages, patches, self.draw_method))

    def drawn(self, batch: Batch, samples: int, looked: Looked, stages: Stages, patches: int, method: Method) -> Drawn:
        """Draw patches of what was looked at, and read none."""
        with stages("draw"):
            log_prob, allowed = self.distribution(looked)
            drawn = draw(
                log_prob.repeat_interleave(samples, 0) if samples > 1 else log_prob,
                patches,
                method,
                mask=allowed.repeat_interleave(samples, 0) if samples > 1 else allowed,
                generator=[_generator(seed, t) for seed in batch.seeds for t in range(samples)],
            )
            index, valid = fetch(drawn, batch.ids)
            view_sizes = [size for size in batch.view_sizes for _ in range(samples)]
            image_sizes = [source.size for source in batch.sources for _ in range(samples)]
            boxes = self.boxes(index, looked.cell_mask.shape[2], view_sizes, image_sizes)
        return Drawn(batch, samples, looked, drawn, boxes, None, stages, index, valid)

    def distribution(self, looked: Looked) -> tuple[Float[Tensor, "batch place"], Bool[Tensor, "batch place"]]:
        """Log probability of everything that a patch can be drawn for, here cells, and what of it is allowed."""
        return looked.log_prob, looked.cell_mask.flatten(1)

    def boxes(
        self, index: Int[Tensor, "rows draw"], columns: int, view_sizes: Sequence[Size], image_sizes: Sequence[Size]
    ) -> Int64[Tensor, "rows draw 4"]:
        """Patches behind what was drawn, in level-0 pixels; see `Grid.boxes`."""
        return self.grid.boxes(index, columns, view_sizes, image_sizes, self.settings.patch)

    def _read_drawn(self, drawn: Drawn) -> Drawn:
        """Begin to read the patches of what was drawn, but for those whose features are kept."""
        batch, samples, unread = drawn.batch, drawn.samples, drawn.unread
        sources = [source for source in batch.sources for _ in range(samples)]
        changes = [source.patch_change for source in sources]
        boxes = shift_boxes(drawn.boxes, changes) if any(changes) else drawn.boxes
        if self.kept is not None and batch.keys:
            unread = unread & ~self.kept.known(drawn.keys, drawn.index)
        reading = self.read_patches(sources, boxes, unread, drawn.stages, samples)
        return replace(drawn, boxes=boxes, unread=unread, reading=reading)

    def finish(self, started: Started) -> Output:
        """Read, compute features, estimate, classify; see `Model.finish`.

        Raises:
            ImageError: if a patch cannot be read.
        """
        assert isinstance(started, Drawn)
        looked, drawn, stages = started.looked, started.drawn, started.stages
        log_prob, features = looked.log_prob, self._features(started)
        # A baseline has value zero: it serves the gradient of an attention alone, where draws make it noisy.
        noisy = self.training and log_prob.requires_grad and drawn.method in BASELINED
        baseline = "leave-one-out" if noisy and self.settings.baseline == "leave-one-out" else None
        control = None if looked.foretold is None else ControlVariate(log_prob, looked.foretold)
        with stages("classify"):
            estimate = self.estimate(drawn, features, baseline, control)
            logits = self.head(estimate.to(self.head.weight.dtype))
        cell_mask = looked.cell_mask
        return Output(
            logits=self.answer(self.kind.averaged(logits, started.samples), started.batch, cell_mask),
            # Masked once more: the entropy of an exact 0 has an infinite slope.
            attention=log_prob.exp().masked_fill(~cell_mask.flatten(1), 0).view(cell_mask.shape),
            draw=drawn,
            boxes=started.boxes,
            features=features,
            read=drawn.valid,
            cell_mask=cell_mask,
            noise_left=None if control is None or not self.training else noise_left(drawn, features, control),
            kept=self._kept_patches(started),
            seconds=stages.seconds,
        )

    def estimate(
        self,
        drawn: Draw,
        features: Float[Tensor, "rows draw feature"],
        baseline: str | None = None,
        control: ControlVariate | None = None,
    ) -> Float[Tensor, "rows feature"]:
        """Vector that is classified: the estimate of Φ, or what cross-attention sees in the patches drawn."""
        if self.pool is None:
            return expectation(drawn, features, baseline, control)
        return pooled(self.pool, drawn, features)

    def _kept_patches(self, started: Drawn) -> Int[Tensor, " batch"] | None:
        if self.kept is None or not started.batch.keys:
            return None
        not_read = started.drawn.valid.cpu() & ~started.unread
        return not_read.reshape(len(started.batch), -1).sum(1)

    def answer(
        self,
        logits: Float[Tensor, "batch class"],
        batch: Batch,  # noqa: ARG002  for subclasses
        cell_mask: Bool[Tensor, "batch row column"],  # noqa: ARG002
    ) -> Float[Tensor, "batch class"]:
        """Logits of the classes, from those of the patches."""
        return logits

    def _features(self, started: Drawn) -> Float[Tensor, "rows draw feature"]:
        """Features of the patches drawn: computed, or as they are kept of a frozen network."""
        batch, kept, reading = started.batch, self.kept, started.reading
        assert reading is not None
        if kept is None or not batch.keys:
            return reading.features(self.features, self.normalise)
        raw = reading.features(self.features.raw, self.normalise)
        return self.features.finished(kept.completed(started.keys, started.index, started.unread, raw))


def _generator(seed: int, sample: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, sample))


class AttentionSampling(PatchModel):
    r"""ATS-N: attention over the view, N patches drawn from it, trained end to end from image labels.

    .. math:: a = \mathrm{softmax}(z(\mathrm{view}) + \alpha p), \qquad \Phi = \sum_i a_i f_i = E_{I \sim a}[f_I]

    Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models" (ICML 2019), with an
    exact gradient, a baseline, a pooled map and a contrast prior: see docs/method.md. The expectation and, through
    plain autograd, its gradient are unbiased for every method but "top"; the loss, nonlinear in it, is not.

    Arguments:
        settings: resolved settings.
        classes, channels, options: as `Model`.
    """

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        self.attention = self.attention_network(options)
        if isinstance(self.attention, EvidenceNetwork):
            if settings.evidence.share:
                self.first = FirstAnswer(self, self.attention)
            if settings.control:
                self.foreteller = ForetoldFeatures(self.attention.cells.dimension, self.features.dimension)
        contrast = settings.prior.contrast
        self.prior = ContrastPrior(contrast, settings.prior.epsilon) if contrast != 0 else None

    def attention_network(self, options: BuildOptions) -> AttentionNetwork | EvidenceNetwork | OwnAttention:
        """Attention network as the settings want it, with weights of its own."""
        settings, name = self.settings, self.settings.attention.name
        if has_backbone(settings.attention):
            questions, standardised = questions_of(settings, self.classes), settings.input.normalise != "none"
            return EvidenceNetwork(settings.attention, self.channels, questions, options.pretrained, standardised)
        if name != "convolutional":
            network = import_network(name, self.channels, "attention", "model.attention.name")
            return OwnAttention(network, self.grid.strides[0], settings.attention.pool, name)
        return AttentionNetwork(self.channels, settings.attention).to(memory_format=torch.channels_last)

    @property
    def attention_names(self) -> tuple[str, ...]:
        """Names of the attention networks among its parts."""
        return ("attention",)

    @property
    def eyes(self) -> CellFeatures | None:
        """Frozen network that sees the view's cells, where the attention has one, and nothing else needs the view."""
        seen = self.settings.attention.frozen and self.prior is None
        return self.attention.cells if isinstance(self.attention, EvidenceNetwork) and seen else None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What an optimiser trains; the attention by itself where it has a learning rate of its own."""
        groups = super().parameter_groups()
        if self.settings.attention.learning_rate is None:
            return groups
        attends = tuple(f"{name}." for name in self.attention_names)
        own = [one for name, one in self.named_parameters() if name.startswith(attends) and one.requires_grad]
        known = {id(one) for one in own}
        groups[0]["params"] = [one for one in groups[0]["params"] if id(one) not in known]
        return [*groups, {"params": own, "learning_rate": self.settings.attention.learning_rate}]

    def anneal(self, prior: float | None = None, patches: int | None = None) -> None:
        """Set the strength of the prior and the patches drawn in training."""
        super().anneal(prior, patches)
        if prior is not None and self.prior is not None:
            self.prior.strength.fill_(prior)

    def answer(
        self, logits: Float[Tensor, "batch class"], batch: Batch, cell_mask: Bool[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch class"]:
        """Logits of the classes: those of the patches and, but in training, their share of the first answer."""
        cells, share = batch.cells, self.settings.evidence.share
        if self.training or cells is None or not share:
            return logits
        first: Tensor = self.first(cells, cell_mask)
        return (1 - share) * logits + share * first

    def seen(self, batch: Batch) -> Batch:
        """The batch as the attention sees it: normalised, and with features of its cells, if it reads these."""
        batch = super().seen(batch)
        attention = self.attention
        return replace(batch, cells=seen_cells(attention, batch)) if isinstance(attention, EvidenceNetwork) else batch

    def foretold(self, batch: Batch) -> Float[Tensor, "batch cell feature"] | None:
        """Features foretold of the patches behind all cells, from those of the cells, which do not learn from it."""
        if not self.settings.control or batch.cells is None or not isinstance(self.attention, EvidenceNetwork):
            return None
        foretold: Tensor = self.foreteller(self.attention.head.standardised(batch.cells).flatten(1, 2).detach())
        return foretold

    def log_attention(self, batch: Batch, cell_mask: Bool[Tensor, "batch row column"]) -> Float[Tensor, "batch cell"]:
        """Log attention over the valid cells: network, prior, smoothing."""
        if isinstance(self.attention, EvidenceNetwork):
            assert batch.cells is not None
            logits = attention_logits(self.attention(batch.cells), self.settings.evidence.top)
        else:
            logits = self.attention(batch.views, padded_extents(batch))
        if self.prior is not None:
            where = (batch.mask, cell_mask, batch.view_sizes, footprints(batch, self.settings.patch))
            logits = logits.float() + self.prior(batch.views, *where, self.attention.stride, self.grid.field)
        if batch.prior is not None:
            logits = logits.float() + self.grid.cell_means(batch.prior, batch.mask, batch.view_sizes)
        return log_attention(logits, cell_mask, self.settings.attention.smoothing, batch.ids)
