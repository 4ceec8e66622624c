"""Settled predictions: patches are drawn in rounds, and no more once an image's answer would not change."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate.images import Source
from foveate.models.patch_reading import Network, PatchReading
from foveate.models.receipts import Stages
from foveate.models.types import Batch, DrawOptions, Output, Started
from foveate.sampling import ControlVariate, beginning, expectation, variance
from foveate.types import Draw


@dataclass(frozen=True)
class Looked:
    """What an attention said of a batch.

    Attributes:
        log_prob: (B, K) log attention over the cells of the map.
        cell_mask: (B, rows, columns) True where it may look.
        foretold: (B, K, D) features foretold of the patches behind all cells; or None.
    """

    log_prob: Float[Tensor, "batch cell"]
    cell_mask: Bool[Tensor, "batch row column"]
    foretold: Float[Tensor, "batch cell feature"] | None

    def rows(self, rows: Sequence[int]) -> "Looked":
        """Of some images, each as often as it is named."""
        index = torch.tensor(rows, device=self.log_prob.device)
        foretold = None if self.foretold is None else self.foretold[index]
        return Looked(self.log_prob[index], self.cell_mask[index], foretold)

    @property
    def control(self) -> ControlVariate | None:
        """The control variate, where features are foretold."""
        return None if self.foretold is None else ControlVariate(self.log_prob, self.foretold)


@dataclass(frozen=True)
class Drawn(Started):
    """Forward pass under way, of which the cells are drawn.

    Attributes:
        looked: what the attention said.
        drawn: the cells drawn, of B · samples rows.
        boxes: (B · samples, n, 4) of their patches, in level-0 pixels.
        reading: of the patches; None until it begins.
        stages: seconds so far.
        index: (B · samples, n) cells drawn; on the CPU.
        unread: (B · samples, n) those whose features are not kept; on the CPU.
    """

    looked: Looked
    drawn: Draw
    boxes: Int[Tensor, "rows draw 4"]
    reading: PatchReading | None
    stages: Stages
    index: Int[Tensor, "rows draw"]
    unread: Bool[Tensor, "rows draw"]

    @property
    def keys(self) -> list[Hashable | None]:
        """Keys of the images, row by row."""
        return [key for key in self.batch.keys for _ in range(self.samples)]


@runtime_checkable
class Settler(Protocol):
    """What is asked of a model here; see `foveate.models.PatchModel`."""

    head: nn.Linear
    multi_label: bool
    patches: int

    @property
    def normalise(self) -> nn.Module | None: ...  # noqa: D102
    @property
    def features(self) -> Network: ...  # noqa: D102
    def calibrated(self, logits: Tensor) -> Tensor: ...  # noqa: D102
    def probabilities(self, logits: Tensor) -> Tensor: ...  # noqa: D102
    def read_patches(  # noqa: D102
        self, sources: Sequence[Source], boxes: Tensor, read: Tensor | None, stages: Stages, samples: int = 1
    ) -> PatchReading: ...


def round_sizes(first: int, most: int) -> list[int]:
    """Patches after each round: as many as the model draws, then twice as many each time.

    Example:
        >>> round_sizes(10, 200), round_sizes(10, 5)
        ([10, 20, 40, 80, 160, 200], [5])
    """
    sizes = [min(first, most)]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


def settle(
    model: Settler,
    batch: Batch,
    looked: Looked,
    options: DrawOptions,
    lot: Drawn,
    first: tuple[Float[Tensor, "batch class"], float],
    stages: Stages,
) -> Output:
    r"""Draw in rounds until an image's predicted class is settled, or `options.max_patches` are drawn.

    All rounds are the beginning of one order without replacement, and the estimate after n of its cells has Murthy's
    weights for these n: for every n that does not depend on what was seen it is unbiased, and what a prediction of n
    patches gives with the same seed. With the margin m_k of the predicted class over class k after a round, and its
    variance v_k, which the same draws estimate without bias, the class is settled when

    .. math:: \sum_{k} \mathrm{\Phi}(-m_k / \sqrt{v_k}) \le (1 - \text{confidence}) / \text{rounds}

    By the normal approximation the chance that the sum over all cells of the map names another class is then below 1 −
    confidence, over all rounds together (Bonferroni). That the number of patches depends on what was seen makes the
    stopped estimate itself slightly biased: towards what was clear early. With several labels m_k is the distance of a
    logit from 0.

    Arguments:
        model: on its device, in evaluation mode.
        batch: as the attention sees it.
        looked: what it said.
        options: the most patches and the confidence.
        lot: as many patches as `options.max_patches`, drawn by "murthy" and not read.
        first: what is added to the logits of the patches and what they are multiplied with, of a first answer.
        stages: where to note the time.

    Returns:
        Logits, boxes, which of them were read, and for each image the spread and whether it was settled.

    Source: Murthy, "Ordered and Unordered Estimators in Sampling without Replacement" (1957), for the variance.
    """
    assert options.max_patches is not None
    sizes, device = round_sizes(model.patches, options.max_patches), looked.log_prob.device
    allowed_risk = (1 - options.confidence) / len(sizes)
    drawn, boxes, valid = lot.drawn, lot.boxes, lot.unread
    count, classes = len(batch), model.head.out_features
    features = torch.zeros(count, sizes[-1], model.head.in_features, device=device)
    logits, spread = torch.zeros(count, classes, device=device), torch.zeros(count, dtype=torch.float64)
    settled, read = torch.zeros(count, dtype=torch.bool), torch.zeros_like(valid)
    active, before = list(range(count)), 0
    for size in sizes:
        new = slice(before, size)
        read[active, new] = valid[active, new]
        reading = model.read_patches(
            [batch.sources[row] for row in active], boxes[active, new], valid[active, new], stages
        )
        features[active, new] = reading.features(model.features, model.normalise).float()
        with stages("classify"):
            own = looked.rows(active)
            part = beginning(drawn, active, size)
            seen = features[active, :size]
            estimate = expectation(part, seen, control=own.control)
            added, share = first[0][active], first[1]
            logits[active] = share * model.head(estimate.to(model.head.weight.dtype)) + added
            risk, deviation = _risk(model, part, seen, own, logits[active], share)
        spread[active], settled[active] = deviation.cpu(), (risk <= allowed_risk).cpu()
        active = [row for row in active if not settled[row]]
        before = size
        if not active:
            break
    attention = looked.log_prob.exp().masked_fill(~looked.cell_mask.flatten(1), 0).view(looked.cell_mask.shape)
    return Output(
        logits, attention, boxes=boxes, read=read, cell_mask=looked.cell_mask, spread=spread, settled=settled,
        seconds=stages.seconds,
    )  # fmt: skip


def _risk(
    model: Settler,
    drawn: Draw,
    features: Float[Tensor, "batch draw feature"],
    looked: Looked,
    logits: Float[Tensor, "batch class"],
    share: float,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Chance that the answer of all cells is another, and standard deviation of the predicted class' probability."""
    weight = share * model.head.weight.double()
    if looked.foretold is not None:
        index = drawn.index[:, :, None].expand(-1, -1, looked.foretold.shape[2])
        features = features - looked.foretold.gather(1, index)
    values, logits = features.double() @ weight.T, logits.double()
    p = model.probabilities(logits)
    scale = model.calibrated(torch.ones_like(logits[:1, :1]))
    if model.multi_label:
        error = variance(drawn, values).sqrt()
        risk = torch.special.ndtr(-logits.abs() / error).nan_to_num(0.5).sum(1)
        return risk, (p * (1 - p) * scale * error).amax(1)
    top = logits.argmax(1, keepdim=True)
    at_top = values.gather(2, top[:, None].expand(-1, values.shape[1], -1))
    margins = logits.gather(1, top) - logits
    risks = torch.special.ndtr(-margins / variance(drawn, at_top - values).sqrt())
    risk = risks.nan_to_num(0.5).scatter(1, top, 0.0).sum(1)  # 0/0: two classes that are equal for certain
    moved = p.gather(1, top)[:, None] * (at_top - (p[:, None] * values).sum(2, keepdim=True)) * scale
    return risk, variance(drawn, moved)[:, 0].sqrt()
