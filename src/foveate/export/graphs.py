"""Graphs of a model: what it computes between reading pixels, as functions of tensors that no longer need foveate.

A model of foveate reads images while it works; what travels is what it computes before (view), between (patch) and
after (head) reading. Each graph calls the model's own layers and weights, so that it cannot say anything else.
"""

import copy
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.settings import Method
from foveate.export.dynamic import (
    by_cell,
    cell_features,
    convolutional_logits,
    evidence_answer,
    first_answer,
    for_any_size,
    log_contrast,
    log_sum_exp,
    log_sum_exp_of_samples,
    smoothed_log_softmax,
)
from foveate.models.base import Model
from foveate.models.cnn import CNN
from foveate.models.deep_mil import DeepMil
from foveate.models.evidence import Evidence
from foveate.models.sampling import AttentionSampling, PatchModel
from foveate.networks.custom import OwnAttention
from foveate.networks.evidence import EvidenceNetwork, attention_logits
from foveate.networks.features import enlarged
from foveate.sampling.estimator import coefficients
from foveate.sampling.weights import importance_weights, thresholds, top_weights
from foveate.types import Draw, Size


def graphs_of(model: Model, method: Method) -> "dict[str, Graph]":
    """Graphs of a model, by their names, in the order in which they are run.

    Arguments:
        model: any; it is copied.
        method: how cells are drawn, which decides on the weights in the head.

    Returns:
        "view" for models that look at one, "patch" for those that read patches, "head" for what comes after.

    Example:
        >>> from foveate.models import build_model
        >>> from foveate.config.settings import ModelSettings
        >>> list(graphs_of(build_model(ModelSettings(patch=(24, 30)), ("cat", "dog"), 3), "top"))
        ['view', 'patch', 'head']
    """
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if isinstance(model, CNN):
        return {"view": WholeView(model)}
    if isinstance(model, Evidence):
        return {"view": EvidenceView(model)}
    if isinstance(model, DeepMil):
        return {"patch": Patches(model), "head": BagHead(model)}
    assert isinstance(model, PatchModel)
    return {"view": AttentionView(model), "patch": Patches(model), "head": DrawnHead(model, method)}


def random_inputs(model: Model, name: str, graph: "Graph", size: Size, images: int) -> tuple[Tensor, ...]:
    """Inputs of a graph to trace or to check it with: random, of images whose views have this size."""
    (rows, columns), samples, generator = size, images + 1, torch.Generator().manual_seed(images)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    if name == "patch":
        assert model.patch is not None
        return (random(samples, model.channels, *model.patch),)
    if name == "view":
        view, guide = random(images, model.channels, rows, columns), torch.zeros(images, rows, columns)
        guide[:, : rows // 2, : columns // 3] = -math.inf
        guide[-1, rows // 2 :] = -0.5
        every = {"view": view, "guide": guide, "footprint": torch.tensor([7, 9])}
        return tuple(every[one] for one in graph.inputs)
    if isinstance(model, DeepMil):
        return random(images, rows, model.features.dimension), random(images, rows) > 0.25
    assert isinstance(graph, DrawnHead)
    down, along, n = rows // 4, columns // 5, model.patches
    log_prob = (4 * random(images, down * along)).log_softmax(1).reshape(images, down, along)
    index = random(images, samples, down * along).argsort(2)[:, :, :n]
    index = torch.cat([index, index[:, :, :1].expand(-1, -1, n - index.shape[2])], 2)
    extra = {
        "threshold": torch.full((images, samples), -6.0).double(),
        "first": random(images, len(model.classes)),
        "foretold": random(images, down * along, model.features.dimension),
    }
    return log_prob, index, random(images, samples, n, model.features.dimension), *(extra[one] for one in graph.extra)


class Graph(nn.Module):
    """Graph: a function of tensors, with the names of what goes in and of what comes out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class WholeView(Graph):
    """View graph of a CNN: from views to probabilities."""

    inputs: tuple[str, ...] = ("view",)
    outputs: tuple[str, ...] = ("probabilities",)

    def __init__(self, model: CNN) -> None:
        super().__init__()
        self.model, self.features = model, for_any_size(model.features)

    def forward(self, view: Float[Tensor, "image channel height width"]) -> Tensor:
        """Map (B, C, h, w) views in the unit range, of one size, to (B, classes) probabilities."""
        smallest, view = self.model.features.smallest, _normalised(self.model, view)
        if smallest > 1:
            below, right = (torch.sym_max(smallest - side, 0) for side in view.shape[2:])
            view = functional.pad(view, (0, right, 0, below))  # type: ignore[arg-type]  # numbers, or sizes yet to be known
        logits = self.model.head(self.features(view))
        return self.model.probabilities(logits)


class Patches(Graph):
    """Patch graph: from patches to features."""

    inputs: tuple[str, ...] = ("patches",)
    outputs: tuple[str, ...] = ("features",)

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        features = model.features
        assert model.patch is not None
        sizes = enlarged(model.patch, features.enlarge)
        # Interpolation of patches of one size is two matrices, whatever a graph calls interpolation.
        for axis, (name, side) in enumerate(zip(("down", "along"), model.patch, strict=True)):
            unit = torch.eye(side)[:, None, :, None].repeat(1, 1, 1, 2)  # two columns: torch takes one for no picture
            wide = functional.interpolate(unit, (sizes[axis], 2), mode="bilinear", antialias=True)
            self.register_buffer(name, wide[:, 0, :, 0].contiguous())  # (side, enlarged side)
        self.enlarges = features.enlarge != 1

    down: Tensor
    along: Tensor

    def forward(self, patches: Float[Tensor, "patch channel height width"]) -> Float[Tensor, "patch feature"]:
        """Map (M, C, height, width) patches in the unit range to (M, D) features."""
        features = self.model.features
        patches = _normalised(self.model, patches)
        if self.enlarges:
            patches = self.down.T @ patches @ self.along
        result: Tensor = features.finished(features.layers(patches))
        return result


class AttentionView(Graph):
    """View graph of models that draw: from views to log attention."""

    inputs: tuple[str, ...] = ("view", "guide", "footprint")
    outputs: tuple[str, ...] = ("log_prob",)

    def __init__(self, model: PatchModel) -> None:
        super().__init__()
        self.model, self.stride, self.field = model, model.grid.strides[0], model.grid.field
        network = model.attention if isinstance(model, AttentionSampling) else None
        self.maps = for_any_size(network.cells.maps) if isinstance(network, EvidenceNetwork) else None  # type: ignore[arg-type]
        has = {"first": isinstance(model, AttentionSampling) and model.settings.evidence.share > 0}
        has["foretold"] = isinstance(model, AttentionSampling) and model.settings.control
        self.outputs += tuple(name for name, wanted in has.items() if wanted)

    def forward(
        self,
        view: Float[Tensor, "image channel height width"],
        guide: Float[Tensor, "image height width"],
        footprint: Int[Tensor, " 2"],
    ) -> tuple[Tensor, ...]:
        """Say where to look.

        Arguments:
            view: (B, C, h, w) views in the unit range, all of one size.
            guide: (B, h, w) 0 where anything may be looked at, −inf where nothing may, below 0 for less.
            footprint: (height, width) of a patch in view pixels, at least 1.

        Returns:
            (B, rows, columns) log attention, −inf where nothing is to be drawn; then (B, classes) logits of the first
            answer, if the model has one; then (B, K, D) features foretold of all cells, if it foretells them.
        """
        model = self.model
        middle, (rows, columns) = self.field // 2, (side - self.field + 1 for side in guide.shape[1:])
        seen = guide[:, middle : middle + rows, middle : middle + columns]
        allowed = seen > -math.inf
        cells = by_cell(allowed.to(guide.dtype), self.stride, 0.0)
        counts = cells.sum((2, 4))
        cell_mask = counts > 0
        if not isinstance(model, AttentionSampling):  # uniform: each cell like any other
            return (smoothed_log_softmax(torch.zeros_like(counts), cell_mask, 0.0),)
        view = _normalised(model, view)
        answers: tuple[Tensor, ...] = ()
        if isinstance(model.attention, EvidenceNetwork):
            assert self.maps is not None
            looked = cell_features(model.attention.cells, self.maps, view)
            logits = attention_logits(model.attention(looked), model.settings.evidence.top)
            answers = (first_answer(model.first, looked, cell_mask),) if model.settings.evidence.share else ()
            if model.settings.control:
                answers += (model.foreteller(model.attention.head.standardised(looked).flatten(1, 2)),)
        elif isinstance(model.attention, OwnAttention):
            logits = model.attention(view)
        else:
            logits = convolutional_logits(model.attention, view)
        if model.prior is not None:
            where = (guide > -math.inf, cell_mask, footprint, self.stride, self.field, model.prior.epsilon)
            logits = logits.float() + model.prior.strength * log_contrast(view, *where).float()
        means = by_cell(seen.masked_fill(~allowed, 0), self.stride, 0.0).sum((2, 4)) / counts.clamp(min=1)
        return (smoothed_log_softmax(logits.float() + means, cell_mask, model.settings.attention.smoothing), *answers)


class EvidenceView(Graph):
    """View graph of evidence: from views to probabilities and log attention."""

    inputs: tuple[str, ...] = ("view", "guide")
    outputs: tuple[str, ...] = ("probabilities", "log_prob")

    def __init__(self, model: Evidence) -> None:
        super().__init__()
        self.model, self.maps = model, for_any_size(model.attention.cells.maps)  # type: ignore[arg-type]

    def forward(
        self, view: Float[Tensor, "image channel height width"], guide: Float[Tensor, "image height width"]
    ) -> tuple[Tensor, Tensor]:
        """Map (B, C, h, w) views and (B, h, w) guides to (B, classes) probabilities, (B, rows, columns) log attention.

        Arguments: as `AttentionView`.
        """
        model, head = self.model, self.model.attention.head
        cells = cell_features(model.attention.cells, self.maps, _normalised(model, view))
        cell_mask = by_cell((guide > -math.inf).to(guide.dtype), model.grid.strides[0], 0.0).sum((2, 4)) > 0
        log_prob = smoothed_log_softmax(
            attention_logits(model.attention(cells), model.settings.evidence.top), cell_mask, 0.0
        )
        logits = evidence_answer(
            head, model.head, cells, cell_mask, log_prob, model.settings.evidence.top, model.background
        )
        return model.probabilities(logits), log_prob


class DrawnHead(Graph):
    """Head graph of models that draw: from the cells drawn and their features to probabilities, and to weights.

    Attributes:
        extra: names of the inputs that this model has besides: "threshold" (B, S), the (n+1)-th key, of which method
            "priority" makes its weights; "first" and "foretold" of the view graph.
    """

    inputs: tuple[str, ...] = ("log_prob", "index", "features")
    outputs: tuple[str, ...] = ("probabilities", "weights")

    def __init__(self, model: PatchModel, method: Method) -> None:
        super().__init__()
        self.model, self.method, settings = model, method, model.settings
        own = isinstance(model, AttentionSampling)
        self.share, self.control = (settings.evidence.share, settings.control) if own else (0.0, False)
        has = {"threshold": method == "priority", "first": bool(self.share), "foretold": self.control}
        self.extra = tuple(name for name, wanted in has.items() if wanted)
        self.inputs += self.extra

    def forward(
        self,
        log_prob: Float[Tensor, "image row column"],
        index: Int[Tensor, "image sample draw"],
        features: Float[Tensor, "image sample draw feature"],
        *extra: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Estimate each image's features from its draws, classify, average over the samples.

        Arguments:
            log_prob: (B, rows, columns) of the view graph.
            index: (B, S, n) cells drawn of each image S times, row-major, in order of draw; slots left over, where
                there are fewer than n cells, hold the first one again.
            features: (B, S, n, D) of the patch graph; of slots left over anything.
            extra: as `self.extra` names them.

        Returns:
            (B, classes) probabilities, and (B, S, n) weights, 0 for slots left over.
        """
        given, samples = dict(zip(self.extra, extra, strict=True)), index.shape[1]

        def repeated(values: Tensor) -> Tensor:
            return values[:, None].expand(-1, samples, *values.shape[1:]).flatten(0, 1)

        flat = repeated(log_prob.flatten(1))
        drawn = _described(flat, index.flatten(0, 1), self.method, given.get("threshold", index[:, :, 0]).flatten())
        estimate = self.model.estimate(drawn, features.flatten(0, 1))
        if self.control:  # as `expectation` has it, which repeats rows by numbers that a graph would keep
            missing = flat.double().exp().scatter_add(1, drawn.index, -coefficients(drawn))
            foretold = repeated(given["foretold"]).masked_fill((flat == -math.inf)[:, :, None], 0)
            estimate = estimate + (missing.to(foretold.dtype)[:, None, :] @ foretold)[:, 0]
        logits = self.model.head(estimate.to(self.model.head.weight.dtype)).reshape(index.shape[0], samples, -1)
        if self.model.multi_label:
            logits = log_sum_exp_of_samples(functional.logsigmoid(logits)) - log_sum_exp_of_samples(
                functional.logsigmoid(-logits)
            )
        else:
            logits = log_sum_exp_of_samples(logits.log_softmax(2))
        if self.share:
            logits = (1 - self.share) * logits + self.share * given["first"]
        return self.model.probabilities(logits), drawn.weight.reshape(index.shape)


class BagHead(Graph):
    """Head graph of deep MIL: from the features of all patches to probabilities and log attention."""

    inputs: tuple[str, ...] = ("features", "read")
    outputs: tuple[str, ...] = ("probabilities", "log_prob")

    def __init__(self, model: DeepMil) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Float[Tensor, "image patch feature"], read: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, K, D) features of patches, of which (B, K) were read, to probabilities and (B, K) log attention."""
        log_prob = smoothed_log_softmax(self.model.attention(features), read, 0.0)
        features = features.masked_fill(~read[:, :, None], 0)
        bag = (log_prob.exp().to(features.dtype)[:, None, :] @ features)[:, 0]
        return self.model.probabilities(self.model.head(bag)), log_prob


def _normalised(model: Model, pixels: Tensor) -> Tensor:
    return pixels if model.normalise is None else model.normalise(pixels)


def _described(log_prob: Tensor, index: Tensor, method: Method, threshold: Tensor) -> Draw:
    """Draw of given cells (rows, n), with their weights, as `foveate.sampling.draw` describes it."""
    source = log_prob.double()
    source = source - log_sum_exp(source)
    there = source > -math.inf
    count = there.sum(1)
    if method == "uniform":
        source = (-count.double().log())[:, None].expand_as(source).masked_fill(~there, -math.inf)
    valid = torch.arange(index.shape[1]) < (count[:, None] if method != "iid" else index.shape[1])
    valid = valid.expand(index.shape)
    drawn, log_proposal = log_prob.gather(1, index), source.gather(1, index)
    log_rest = log_sum_exp(source.scatter(1, index, -math.inf))[:, 0]
    if method == "top":
        weight = top_weights(drawn, log_rest, valid)
    else:
        nodes = thresholds(log_proposal, log_rest, valid) if method == "murthy" else None
        weight = importance_weights(method, log_proposal, log_rest, threshold.double(), count, valid, nodes)
    return Draw(index, drawn, weight, valid, log_rest, None, method, log_proposal)
