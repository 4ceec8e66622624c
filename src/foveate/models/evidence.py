"""Evidence: a classifier that reads the view's cells off a frozen backbone, says which speak for what, and no patch."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from foveate.config.settings import ModelSettings
from foveate.models.base import Model
from foveate.models.preprocess import by_size, pad_cells
from foveate.models.receipts import Stages
from foveate.models.types import PLAIN, Batch, BuildOptions, Output, Started
from foveate.networks import log_attention
from foveate.networks.evidence import CellFeatures, EvidenceHead, EvidenceNetwork, attention_logits, pooled_evidence
from foveate.sampling.geometry import Grid

BACKGROUNDS = (
    *("none", "no", "nothing", "normal", "negative", "neg", "ok", "good", "pass", "background", "healthy", "clean"),
    *("empty", "absent", "intact", "benign", "control", "defect free", "no defect", "without"),
)
"""Names by which a class of images that show nothing is known."""


def guess_background(classes: Sequence[str]) -> str | None:
    """Background class by its name; None if no class, or more than one, is called like one.

    Arguments:
        classes: names.

    Example:
        >>> guess_background(["20", "50", "None"]), guess_background(["cat", "dog"]), guess_background(["0", "1"])
        ('None', None, '0')
    """
    if sorted(classes) == ["0", "1"]:
        return "0"
    called = [name for name in classes if name.strip().lower().replace("_", " ").replace("-", " ") in BACKGROUNDS]
    return called[0] if len(called) == 1 else None


def questions_of(settings: ModelSettings, classes: Sequence[str]) -> int:
    """Logits per cell: one against a background class or for a number, else one for every class."""
    return max(1, len(classes)) if settings.evidence.background is None else 1


def seen_cells(network: EvidenceNetwork, batch: Batch) -> Float[Tensor, "batch row column feature"]:
    """Features of the cells of each view of a batch, padded with 0: those it brings, or computed now.

    What a frozen backbone says is rounded to half precision whether it is kept or not, and on a CPU computed image by
    image, so that neither the one nor the batch changes any result.
    """
    if batch.cells is not None:
        return batch.cells.float()
    frozen = network.cells.frozen
    seen: dict[int, Tensor] = {}
    for rows, views in by_size(batch):
        one_by_one = frozen and views.device.type == "cpu"
        cells = torch.cat([network.cells(one[None]) for one in views]) if one_by_one else network.cells(views)
        seen |= zip(rows, cells.half().float() if frozen else cells, strict=True)
    return pad_cells([seen[row] for row in range(len(batch))])


class FirstAnswer(nn.Module):
    """First answer of a model that goes on: evidence as it was found, which nothing that is learnt later changes.

    Arguments:
        model: whose it is.
        network: its attention.

    Attributes:
        head: from features of cells to evidence.
        kinds: from what the evidence attends to, to the kinds that are no background.
    """

    def __init__(self, model: Model, network: EvidenceNetwork) -> None:
        super().__init__()
        own, evidence = model.settings.attention, model.settings.evidence
        self.background = None if evidence.background is None else model.classes.index(evidence.background)
        self.top, dimension = evidence.top, network.cells.dimension
        questions = questions_of(model.settings, model.classes)
        self.head = EvidenceHead(dimension, own.hidden, questions, own.members)
        self.kinds = nn.Linear(dimension, len(model.classes))
        self.requires_grad_(False)

    def take(self, found: "Evidence") -> None:
        """Take on what was found."""
        self.head.load_state_dict(found.attention.head.state_dict())
        self.kinds.load_state_dict(found.head.state_dict())

    def forward(
        self, cells: Float[Tensor, "batch row column feature"], cell_mask: Bool[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch class"]:
        """Logits of the classes, by the cells of the view."""
        flat, allowed = cells.float().flatten(1, 2), cell_mask.flatten(1)
        evidence = self.head(flat)
        log_prob = attention_logits(evidence, self.top).masked_fill(~allowed, -torch.inf).log_softmax(1)
        pooled = pooled_evidence(evidence, allowed, self.top) + self.head.bias.mean(0)
        return _answer(pooled, self.kinds, attended(self.head, flat, log_prob), self.background)


class Evidence(Model):
    r"""Evidence: each cell of the view is asked whether it shows anything, and the k most certain answer for the image.

    .. math:: e = \frac1k \sum_{i \in \mathrm{top}_k} z_i, \qquad p(\text{background}) = 1 - \sigma(e), \qquad
              p(c) = \sigma(e) \, \mathrm{softmax}_c\Bigl(V \sum_i \mathrm{softmax}_i(z) \, g_i\Bigr)

    with a background class, against which all others are one kind; its kinds are told apart by what the cells with
    evidence look like. Without one there is evidence for every class, pooled likewise, and the softmax of that, or with
    several labels its sigmoid. It reads the view and nothing else, so it answers in the time of one small network.

    Arguments:
        settings: resolved settings; patch, patches and features have no effect.
        classes, channels, options: as `Model`.

    Source: none as it is; class evidence in cells, pooled over the top, is that of Shen et al. (GMIC, Medical Image
    Analysis 2021), the order of questions was found by experiment (docs/method.md, "Find first").
    """

    grid: Grid

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        self.grid = Grid(stride=settings.attention.stride or 1)

    def _networks(self, options: BuildOptions) -> int:
        background = self.settings.evidence.background
        self.background = None if background is None else self.classes.index(background)
        questions = questions_of(self.settings, self.classes)
        standardised = self.settings.input.normalise != "none"
        self.attention = EvidenceNetwork(
            self.settings.attention, self.channels, questions, options.pretrained, standardised
        )
        return self.attention.cells.dimension

    @property
    def reads_patches(self) -> bool:
        """False."""
        return False

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What an optimiser trains: everything that is not frozen, at one learning rate."""
        return [{"params": [one for one in self.parameters() if one.requires_grad]}]

    @property
    def eyes(self) -> CellFeatures | None:
        """Frozen network that sees the view's cells."""
        return self.attention.cells if self.settings.attention.frozen else None

    def finish(self, started: Started) -> Output:
        """Classify the views.

        Arguments:
            started: views on the model's device; nothing is drawn, however many samples are asked for.

        Returns:
            Logits, and the attention that evidence is: its softmax over the cells.
        """
        stages = Stages()
        with stages("attention"):
            batch = self.normalised(started.batch)
            cell_mask = self.grid.cell_mask(batch.mask, batch.view_sizes)
            cells = seen_cells(self.attention, batch)
            evidence = self.attention(cells)
            top = self.settings.evidence.top
            log_prob = log_attention(attention_logits(evidence, top), cell_mask, names=batch.ids)
        with stages("classify"):
            allowed = cell_mask.flatten(1)
            head = self.attention.head
            pooled = pooled_evidence(evidence.flatten(1, 2), allowed, top) + head.bias.mean(0)
            logits = _answer(pooled, self.head, attended(head, cells.flatten(1, 2), log_prob), self.background)
        return Output(
            logits=logits,
            attention=log_prob.exp().masked_fill(~allowed, 0).view(cell_mask.shape),
            cell_mask=cell_mask,
            seconds=stages.seconds,
        )


def attended(
    head: EvidenceHead, cells: Float[Tensor, "batch cell feature"], log_prob: Float[Tensor, "batch cell"]
) -> Float[Tensor, "batch feature"]:
    """(B, D) standardised features of what an attention sees; no gradient moves the attention through them."""
    return torch.einsum("bk,bkd->bd", log_prob.detach().exp(), head.standardised(cells))


def _answer(
    evidence: Float[Tensor, "batch question"],
    kinds: nn.Linear,
    attended: Float[Tensor, "batch feature"],
    background: int | None,
) -> Float[Tensor, "batch class"]:
    """Logits of the classes, from the evidence of the images and what their attention sees."""
    if background is None:
        return evidence
    return kinds_of_evidence(evidence[:, 0], kinds(attended.to(kinds.weight.dtype)), background)


def kinds_of_evidence(
    evidence: Float[Tensor, " batch"], kinds: Float[Tensor, "batch class"], background: int
) -> Float[Tensor, "batch class"]:
    r"""Logits whose softmax says σ(e) of all classes but the background, shared out among them by another softmax.

    .. math:: y_\text{background} = 0, \qquad y_c = e + \log \mathrm{softmax}_{c' \ne \text{background}}(v)_c

    Example:
        >>> kinds_of_evidence(torch.tensor([0.0]), torch.tensor([[7.0, 1.0, 1.0]]), background=0).softmax(1)
        tensor([[0.5000, 0.2500, 0.2500]])
    """
    apart: Bool[Tensor, " class"] = torch.arange(kinds.shape[1], device=kinds.device) == background
    shared = kinds.masked_fill(apart, -torch.inf).log_softmax(1)
    return torch.where(apart, 0.0, evidence[:, None] + shared)
