"""Evidence: what speaks for something in each cell of a view, read off the frozen maps of a pretrained backbone."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.settings import AttentionSettings
from foveate.devices import keeping_large_blocks
from foveate.networks.features import standardised
from foveate.networks.runtime import CompiledMaps, missing_packages
from foveate.networks.stages import StageMaps
from foveate.networks.timm import PREFIX, BackboneChoice, stage_maps
from foveate.types import Size

ALL_CELLS = 1e9
"""k of evidence that all cells of an image give alike, more of them than any view has."""


def has_backbone(settings: AttentionSettings) -> bool:
    """Whether the attention network is evidence read off a backbone."""
    return settings.name.startswith(PREFIX)


class CellFeatures(nn.Module):
    r"""Cell features: maps of a backbone over the view, averaged over the area of every cell, and their maxima there.

    .. math:: g_i = \Bigl( \frac{1}{|i|} \sum_p |p \cap i| \, m_p, \; \max_{p \cap i \ne \emptyset} m_p \Bigr)

    A map pixel p stands for the part of the view that it is the p-th of; a last cell is as small as the view leaves it.
    What is much smaller than a cell is lost in its average, but not in its maximum.
    They are computed in evaluation mode and take no gradient where the backbone is frozen.

    Arguments:
        maps: (B, C, h, w) views in the unit range → maps (B, D_s, h_s, w_s), one of each stage.
        dimension: the sum of D_s.
        stride: view pixels per cell.
        frozen: whether the backbone stays as it is.
        maxima: whether the maxima follow the averages.
        compiled: whether the maps of a frozen backbone are computed by onnxruntime on a CPU, if it is installed.

    Attributes:
        dimension: D, features of a cell.

    Example:
        >>> mean = CellFeatures(lambda views: [views], dimension=1, stride=2)
        >>> mean(torch.tensor([[[[1.0, 3.0, 5.0], [1.0, 3.0, 7.0]]]]))
        tensor([[[[2.],
                  [6.]]]])
    """

    def __init__(
        self,
        maps: Callable[[Tensor], Sequence[Tensor]],
        dimension: int,
        stride: int,
        frozen: bool = True,
        maxima: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.maps, self.stride, self.frozen, self.maxima = maps, stride, frozen, maxima
        self._graph: CompiledMaps | None = None
        if compiled and frozen and isinstance(maps, StageMaps) and not missing_packages():
            self._graph = CompiledMaps(maps)
            self.register_load_state_dict_post_hook(_forget_graph)  # type: ignore[no-untyped-call]  # it is torch's
        self.dimension = 2 * dimension if maxima else dimension
        if isinstance(maps, nn.Module) and frozen:
            maps.requires_grad_(False).eval()

    @property
    def compiled(self) -> bool:
        """Whether the maps are computed by onnxruntime here."""
        return self._graph is not None

    def train(self, mode: bool = True) -> "CellFeatures":
        """Training or evaluation mode; a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, views: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch row column feature"]:
        """Average the maps of views that are nowhere padded."""
        # In a training step the whole step keeps them.
        memory = nullcontext() if torch.is_grad_enabled() else keeping_large_blocks()
        with memory, torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            size = (views.shape[2], views.shape[3])
            maps = [one.float() for one in self._maps_of(views)]
            pools = (_cell_averages, _cell_maxima) if self.maxima else (_cell_averages,)
            return torch.cat([pool(one, size, self.stride) for pool in pools for one in maps], -1)

    def _maps_of(self, views: Tensor) -> Sequence[Tensor]:
        if self._graph is None or views.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return self.maps(views)
        return self._graph(views)


def _forget_graph(cells: nn.Module, _: object) -> None:
    assert isinstance(cells, CellFeatures)
    assert cells._graph is not None
    cells._graph.forget()


def _cell_averages(
    maps: Float[Tensor, "batch feature down along"], view: Size, stride: int
) -> Float[Tensor, "batch row column feature"]:
    down, along = (_overlaps(pixels, side, stride).to(maps) for pixels, side in zip(maps.shape[2:], view, strict=True))
    return torch.einsum("rh,bdhw,cw->brcd", down, maps, along)


def _cell_maxima(
    maps: Float[Tensor, "batch feature down along"], view: Size, stride: int
) -> Float[Tensor, "batch row column feature"]:
    for axis, side in ((2, view[0]), (3, view[1])):
        touched = _overlaps(maps.shape[axis], side, stride) > 1e-9  # 0, but for rounding
        # Each cell's map pixels are neighbours: from its first on, and the last one again where another has more.
        first, count = touched.int().argmax(1), touched.sum(1)
        steps = torch.minimum(torch.arange(int(count.max())), count[:, None] - 1)
        index = (first[:, None] + steps).to(maps.device)
        shape = (*maps.shape[:axis], *index.shape, *maps.shape[axis + 1 :])
        maps = maps.index_select(axis, index.flatten()).view(shape).amax(axis + 1)
    return maps.permute(0, 2, 3, 1)


def _overlaps(pixels: int, side: int, stride: int) -> Float[Tensor, "cell pixel"]:
    """Shares of each cell's extent along one side that its map pixels take."""
    cells = torch.arange(-(-side // stride), dtype=torch.float64)[:, None] * stride
    edges = torch.arange(pixels + 1, dtype=torch.float64) * side / pixels
    shared = torch.minimum(cells + stride, edges[1:]) - torch.maximum(cells, edges[:-1])
    shared = shared.clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


class EvidenceHead(nn.Module):
    r"""Evidence of cells: a small network of one hidden layer on standardised features, several of them at once.

    .. math:: z_{ij} = \frac1M \sum_m \bigl( W'_m \, \mathrm{relu}(W_m (g_i - \mu) / \sigma + b_m) \bigr)_j

    Members are independent of each other and begin differently; those that have failed to learn are left out.

    Arguments:
        dimension: D, features of a cell.
        hidden: H, width of the hidden layer.
        questions: E, logits per cell: what is asked of it.
        members: M.
        dropout: of the inputs and of the hidden layer, in training.
        generator: of the initial weights; torch's own if None.

    Attributes:
        mean, deviation: (D,) μ and σ; 0 and 1 until they are measured.
        bias: (M, E) b″: an image's logit is that of its cells, pooled, and this.

    Example:
        >>> head = EvidenceHead(dimension=5, hidden=4, questions=1, members=3)
        >>> head(torch.zeros(2, 6, 5)).shape, head.each(torch.zeros(2, 6, 5)).shape
        (torch.Size([2, 6, 1]), torch.Size([3, 2, 6, 1]))
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        dimension: int,
        hidden: int,
        questions: int,
        members: int = 1,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dropout = dropout

        def uniform(*shape: int, inputs: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(inputs))

        self.first = uniform(members, dimension, hidden, inputs=dimension)
        self.first_bias = uniform(members, 1, hidden, inputs=dimension)
        self.second = uniform(members, hidden, questions, inputs=hidden)
        self.bias = nn.Parameter(torch.zeros(members, questions))
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("deviation", torch.ones(dimension))

    def standardised(self, cells: Float[Tensor, "*any feature"]) -> Float[Tensor, "*any feature"]:
        """Features as the network takes them, none further than `features.CLAMP` deviations from its mean."""
        return standardised(cells.float(), self.mean, self.deviation)

    def each(self, cells: Float[Tensor, "batch cell feature"]) -> Float[Tensor, "member batch cell question"]:
        """Logits of every member, of the same cells (B, K, D), whose inputs are dropped alike for all."""
        # All members in one product, which is several times faster than one for each.
        members, _, hidden = self.first.shape
        weights = self.first.permute(1, 0, 2).flatten(1)
        shared = functional.dropout(self.standardised(cells), self.dropout, self.training)
        own = (shared @ weights + self.first_bias.flatten()).relu().view(*cells.shape[:2], members, hidden)
        own = functional.dropout(own, self.dropout, self.training)
        return torch.einsum("bkmh,mhq->mbkq", own, self.second)

    def of_standardised(self, own: Float[Tensor, "member cell feature"]) -> Float[Tensor, "member cell question"]:
        """Logits of every member, each of cells of its own, which are standardised already."""
        hidden = torch.baddbmm(self.first_bias, functional.dropout(own, self.dropout, self.training), self.first)
        return functional.dropout(hidden.relu(), self.dropout, self.training) @ self.second

    def forward(self, cells: Float[Tensor, "batch cell feature"]) -> Float[Tensor, "batch cell question"]:
        """Mean logits of the members."""
        return self.each(cells).mean(0)

    def keep(self, members: Sequence[int]) -> None:
        """Leave all members out but these."""
        chosen = torch.tensor(list(members), device=self.first.device)
        for name in ("first", "first_bias", "second", "bias"):
            parameter = getattr(self, name)
            setattr(self, name, nn.Parameter(parameter.detach()[chosen], parameter.requires_grad))


def cells_of_top(top: float, cells: int) -> int:
    """Number of cells that `top` means: itself, or if less than 1 that share of all; at least one, at most all.

    Example:
        >>> cells_of_top(3.0, cells=680), cells_of_top(0.1, cells=680), cells_of_top(3.0, cells=2)
        (3, 68, 2)
    """
    return max(1, min(cells, round(top if top >= 1 else top * cells)))


def pooled_evidence(
    logits: Float[Tensor, "batch cell question"], allowed: Bool[Tensor, "batch cell"], top: float
) -> Float[Tensor, "batch question"]:
    r"""Evidence of an image: the mean of its k cells with the highest logits, for every question.

    .. math:: e_j = \frac1k \sum_{i \in \mathrm{top}_k(z_{\cdot j})} z_{ij}

    Arguments:
        logits: (B, K, E) z.
        allowed: (B, K) True where a cell may be looked at.
        top: k, or if less than 1 the share of an image's allowed cells.

    Returns:
        (B, E).

    Source: top-k pooling of a map as in Shen et al., "An interpretable classifier for high-resolution breast cancer
    screening images utilizing weakly supervised localization" (GMIC, Medical Image Analysis 2021), section 3.

    Example:
        >>> z = torch.tensor([[[1.0], [5.0], [3.0], [9.0]]])
        >>> pooled_evidence(z, torch.tensor([[True, True, True, False]]), top=2.0)
        tensor([[4.]])
    """
    counts = [cells_of_top(top, number) for number in allowed.sum(1).tolist()]
    most = max(counts)
    highest = logits.masked_fill(~allowed[..., None], -torch.inf).topk(most, 1).values
    wanted = torch.arange(most, device=logits.device) < torch.tensor(counts, device=logits.device)[:, None]
    return highest.masked_fill(~wanted[..., None], 0).sum(1) / wanted.sum(1, keepdim=True)


def attention_logits(evidence: Float[Tensor, "*any question"], top: float) -> Float[Tensor, "*any"]:
    r"""Attention logits: the evidence itself, or of several questions their smooth maximum.

    .. math:: z_i = \log \sum_j e^{z_{ij}}

    Where all cells give evidence alike, none is to be looked at before another: z_i = 0.

    Arguments:
        evidence: z_ij.
        top: k, as for `pooled_evidence`.

    Example:
        >>> z = torch.tensor([[2.0], [5.0]])
        >>> attention_logits(z, top=3.0), attention_logits(z, top=ALL_CELLS)
        (tensor([2., 5.]), tensor([0., 0.]))
    """
    logits = evidence[..., 0] if evidence.shape[-1] == 1 else evidence.logsumexp(-1)
    return logits if top < ALL_CELLS else 0 * logits


class EvidenceNetwork(nn.Module):
    """Attention network of a pretrained backbone: evidence in each cell of the view.

    Arguments:
        settings: backbone, stages, stride, hidden layer.
        channels: channels of the view.
        questions: E, logits per cell.
        load: whether to fetch pretrained weights.
        standardised: whether views come with mean 0 and deviation 1 per band.

    Attributes:
        cells: from views to features of cells.
        head: from features of cells to evidence.
        stride: view pixels per cell.
        field: 1, for every cell is inside the view.

    Raises:
        ConfigError: if there is no such backbone, or its weights cannot be had.
    """

    field = 1

    def __init__(
        self, settings: AttentionSettings, channels: int, questions: int, load: bool, standardised: bool
    ) -> None:
        super().__init__()
        choice = BackboneChoice(
            settings.name,
            channels,
            pretrained=True,
            weights=settings.weights,
            load=load,
            standardised=standardised,
            key="model.attention",
        )
        maps = stage_maps(choice, settings.stages).to(memory_format=torch.channels_last)
        self.stride = settings.stride or 1
        compiled = settings.runtime == "onnxruntime"
        self.cells = CellFeatures(maps, maps.dimension, self.stride, settings.frozen, settings.maxima, compiled)
        self.head = EvidenceHead(self.cells.dimension, settings.hidden, questions, settings.members, settings.dropout)

    def forward(self, cells: Float[Tensor, "batch row column feature"]) -> Float[Tensor, "batch row column question"]:
        """Evidence of cells."""
        batch, rows, columns, _ = cells.shape
        logits: Tensor = self.head(cells.flatten(1, 2))
        return logits.view(batch, rows, columns, -1)
