"""Explanation (saliency) of one look at an image: where a model looked, what it saw there, what that was worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import nn

from foveate.explain.omission import adds_up, omissions
from foveate.images import Georeference
from foveate.models import Look, Model, PatchModel
from foveate.models.ips import Selected
from foveate.models.probabilities import OfNumbers
from foveate.models.types import Output, Prediction
from foveate.sampling import AttentionHealth, coefficients, diagnose
from foveate.types import Affine, Box, Size

LISTED, MOST_CLASSES = 24, 20
"""Patches that are listed of a model which reads them all, the most attended; classes that pages show, the most
probable."""


@dataclass(frozen=True)
class SeenPatch:
    """Patch that the model read.

    Attributes:
        draw: number of the draw it belongs to, from 0.
        box: where it lies, in level-0 pixels of the file; may hang over the border.
        attention: probability of its cell.
        weight: its importance weight; 1 where every patch is read.
        contributions: what it adds to the logit of each class, in nats; where patches do not add up, by leaving it out.
        regions: what a model that zooms looked at on the way to it, the coarsest first, in level-0 pixels of the file.
    """

    draw: int
    box: Box
    attention: float
    weight: float
    contributions: tuple[float, ...]
    regions: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Explanation: what a model saw in an image; all places are in level-0 pixels of the file.

    Attributes:
        path: what the image is called.
        prediction: the very prediction that `Model.predict` makes with the same seed.
        classes: names of the classes, in the order of all columns here.
        multi_label: whether the image may have several labels.
        size: (height, width) of the image.
        attention: (rows, columns) probability of each cell; None where the model has no attention of its own.
        cell_mask: (rows, columns) True for cells that may be looked at; None as the attention.
        affine: from cells to pixels; None as the attention.
        patches: what was read, draw by draw in order of draw; of a model that reads all, the most attended.
        logits: (draws, classes) of each draw by itself.
        probabilities: (draws, classes) likewise; their mean over the draws is the prediction's (not of an ensemble, of
            which one member is shown, nor of several draws of a model with a temperature).
        bias: (classes,) what the logits are without any patch; None where no patch is read, or they do not add up.
        rest: (draws, classes) what the patches that are not listed add; None as the bias.
        health: of the attention map; None as the attention.
        drawn: whether patches were drawn; False where all are read, or none.
        note: what is not shown, and why; "" where nothing is to be said.
        georeference: where on earth the image lies, or None.
        others: what other seeds would have given, seed by seed.
        truth: names of the classes that it shows in truth; None where that is not known.
        numeric: whether the answer is a number: all columns are one then, "number", and in its unit, not in nats.
    """

    path: str
    prediction: Prediction
    classes: tuple[str, ...]
    multi_label: bool
    size: Size
    attention: Float32[np.ndarray, "row column"] | None
    cell_mask: Bool[np.ndarray, "row column"] | None
    affine: Affine | None
    patches: tuple[SeenPatch, ...]
    logits: Float64[np.ndarray, "draw class"]
    probabilities: Float64[np.ndarray, "draw class"]
    bias: Float64[np.ndarray, " class"] | None
    rest: Float64[np.ndarray, "draw class"] | None
    health: AttentionHealth | None
    drawn: bool
    note: str
    georeference: Georeference | None
    others: tuple[tuple[int, Prediction], ...] = ()
    truth: tuple[str, ...] | None = None
    numeric: bool = False

    def _repr_html_(self) -> str:
        """Picture, map, patches and probabilities, which a notebook shows."""
        return self.prediction._repr_html_()

    @property
    def regions(self) -> tuple[Box, ...]:
        """What a model that zooms looked at on the way to its patches, each region once, the coarsest first."""
        deepest = max((len(patch.regions) for patch in self.patches), default=0)
        ways = [patch.regions for patch in self.patches if patch.regions]
        return tuple(dict.fromkeys(way[level] for level in range(deepest) for way in ways))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the attention map, a line each with its remedy."""
        return () if self.health is None else tuple(self.health.warnings().values())

    @property
    def extent(self) -> tuple[float, float, float, float] | None:
        """(top, left, bottom, right) of the attention map, in level-0 pixels of the file; None as the attention."""
        if self.attention is None or self.affine is None:
            return None
        a, _, c, _, e, f = self.affine
        rows, columns = self.attention.shape
        return f, c, f + e * rows, c + a * columns

    @property
    def relative(self) -> bool:
        """Whether only differences between classes count, as they do in a softmax."""
        return not self.multi_label and len(self.classes) > 1

    @property
    def answers(self) -> tuple[str, ...]:
        """The class that was predicted; with several labels, all that were; the one column of a number."""
        if self.numeric:
            return self.classes
        return tuple(self.prediction.predicted.split("|")) if self.multi_label else (self.prediction.predicted,)

    @property
    def right(self) -> bool | None:
        """Whether the answer is the truth; None where that is not known, or the answer is a number."""
        return (
            None if self.truth is None or self.numeric else {name for name in self.answers if name} == set(self.truth)
        )

    @property
    def _answer(self) -> Float64[np.ndarray, " class"]:
        if self.numeric:
            return np.array([self.prediction.value])
        return np.array([self.prediction.probabilities[name] for name in self.classes])

    @property
    def shown_class(self) -> int:
        """The class that contributions are shown of first: the most probable one."""
        return int(self._answer.argmax())

    @property
    def shown_classes(self) -> list[int]:
        """Numbers of the most probable classes, which pages show, in their own order."""
        return sorted(np.argsort(-self._answer, kind="stable")[:MOST_CLASSES].tolist())

    @property
    def shown_contributions(self) -> Float64[np.ndarray, "patch shown"]:
        """What the patches add to the logits of the shown classes, in nats; see `shown_share`."""
        parts = np.array([patch.contributions for patch in self.patches]).reshape(-1, len(self.classes))
        return self.shown_share(parts)

    def shown_share(self, values: Float64[np.ndarray, "row class"]) -> Float64[np.ndarray, "row shown"]:
        """Of parts of logits, the shown classes'; where only differences count, beyond what all get on average."""
        mean = values.mean(1, keepdims=True) if self.relative else 0.0
        return np.asarray((values - mean)[:, self.shown_classes])


def explain(
    model: Model,
    look: Look,
    path: str | None = None,
    others: Sequence[tuple[int, Prediction]] = (),
    truth: Sequence[str] | None = None,
) -> Explanation:
    """Explanation of a look: what was seen; nothing is computed again but sums.

    Arguments:
        model: the one that looked.
        look: of `Model.look`.
        path: what to call the image; the look's own name if None.
        others: seeds and predictions of other draws.
        truth: names of what the image shows, None where nobody knows; what is no class of the model counts as unknown.

    Example:
        >>> import numpy as np
        >>> from foveate.models import build_model
        >>> from foveate.config.settings import ModelSettings
        >>> model = build_model(ModelSettings(patch=(24, 30), patches=4), classes=("cat", "dog"), channels=3)
        >>> seen = explain(model, model.look(np.zeros((20, 30, 3), np.uint8)))
        >>> len(seen.patches), seen.attention.shape
        (4, (20, 30))
    """
    output, seer = look.output, model.seer
    unit = float(seer.kind.head.get_buffer("deviation")) if isinstance(seer.kind, OfNumbers) else 1.0
    patches: tuple[SeenPatch, ...] = ()
    rest = bias = None
    if output.features is None:
        logits = output.logits.detach().double().cpu().numpy()
    elif adds_up(seer):
        parts = contributions(output, seer.head)
        patches, rest = _patches(look, unit * parts)
        bias = seer.head.bias.detach().double().cpu().numpy()
        logits = bias + parts.sum(1)
    else:
        parts, logits = omissions(output, seer)
        patches, _ = _patches(look, unit * parts)
    answers, classes = model.answers(torch.from_numpy(logits)).numpy(), model.classes
    if model.kind.numeric:  # in units of the number: μ + σ z
        logits, classes = answers, ("number",)
        bias = None if bias is None else model.answers(torch.from_numpy(bias)[None]).numpy()[0]
    shown = seer.attends and output.attention is not None
    attention, mask = (output.attention, output.cell_mask) if shown else (None, None)
    health = None if attention is None or mask is None else diagnose(attention, mask, seer.patches)[0]
    return Explanation(
        path=look.prediction.path if path is None else path,
        prediction=look.prediction,
        classes=classes,
        multi_label=model.multi_label,
        size=look.opened.size,
        attention=None if attention is None else attention[0].detach().float().cpu().numpy(),
        cell_mask=None if mask is None else mask[0].cpu().numpy(),
        affine=seer.grid.affine(look.grid_size, look.opened.size) if shown and seer.grid is not None else None,
        patches=patches,
        logits=logits,
        probabilities=answers,
        bias=bias,
        rest=rest,
        health=health,
        drawn=output.draw is not None,
        note=" ".join(filter(None, (model.seer_note, _note(seer, look, len(patches)), _omitted(seer, output)))),
        georeference=look.opened.header.georeference,
        others=tuple(others),
        truth=None if truth is None or not (model.kind.numeric or {*truth} <= {*classes}) else tuple(truth),
        numeric=model.kind.numeric,
    )


@torch.no_grad()
def contributions(output: Output, head: nn.Linear) -> Float64[np.ndarray, "draw patch class"]:
    r"""Contributions of each patch to each logit (attribution); with the head's bias, they sum to the logits of a draw.

    .. math:: c_s = a_s w_s W f_s, \qquad z = b + \sum_s c_s

    With every patch read (Deep MIL) w is 1 and s runs over all cells. A logit is a matter of differences between
    classes: what is added to all of them alike changes no probability.

    Arguments:
        output: of one image; it must have features.
        head: from features to logits, W and b.

    Returns:
        (draws, n, classes) in nats; 0 for patches that were not read.

    Example:
        >>> head = nn.Linear(2, 3)
        >>> attention, features = torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[4.0, 0.0], [4.0, 0.0]]])
        >>> output = Output(torch.zeros(1, 3), attention, features=features)
        >>> torch.allclose(torch.from_numpy(contributions(output, head)).sum((0, 1)), 4.0 * head.weight[:, 0].double())
        True
    """
    assert output.features is not None
    if output.draw is not None:
        shares = coefficients(output.draw)
    else:
        assert output.attention is not None
        shares = output.attention.flatten(1).double()
    parts = output.features.double() @ head.weight.double().T
    if output.read is not None:
        shares = shares.where(output.read.to(shares.device), 0.0)
    return np.asarray((shares[:, :, None] * parts).cpu().numpy())


def _patches(
    look: Look, parts: Float64[np.ndarray, "draw patch class"]
) -> tuple[tuple[SeenPatch, ...], Float64[np.ndarray, "draw class"]]:
    """The patches to list, and what all others add."""
    output = look.output
    assert output.boxes is not None
    assert output.read is not None
    if output.draw is not None:
        attention, weight = output.draw.log_prob.exp().cpu(), output.draw.weight.cpu()
    else:
        assert output.attention is not None
        attention = output.attention.flatten(1).cpu()
        if isinstance(output, Selected) and output.chosen is not None:
            attention = attention.gather(1, output.chosen)
        weight = torch.ones_like(attention)
    listed = output.read.cpu().clone()
    if output.draw is None and int(listed.sum()) > LISTED:
        most = attention.where(listed, -1.0).topk(LISTED, 1).indices
        listed = torch.zeros_like(listed).scatter(1, most, True)
    patches = []
    for draw in range(len(listed)):
        order = listed[draw].nonzero()[:, 0]
        if output.draw is None:
            order = order[attention[draw, order].argsort(descending=True, stable=True)]
        for slot in order.tolist():
            box = look.source.to_file(Box(*output.boxes[draw, slot].tolist()))
            share, importance = float(attention[draw, slot]), float(weight[draw, slot])
            way = () if output.regions is None else output.regions[draw, slot].tolist()
            regions = tuple(look.source.to_file(Box(*region)) for region in way)
            patches.append(SeenPatch(draw, box, share, importance, tuple(parts[draw, slot].tolist()), regions))
    return tuple(patches), np.where(listed.numpy()[:, :, None], 0.0, parts).sum(1)


def _omitted(model: Model, output: Output) -> str:
    if output.features is None or adds_up(model):
        return ""
    whole = "the number" if model.kind.numeric else "the logits"
    return (
        f"What this model makes of its patches is no sum over them: what a patch adds is what {whole} would lose "
        f"without it, and all of these together are not {whole}."
    )


def _note(model: Model, look: Look, listed: int) -> str:
    name, draw = model.settings.name, look.output.draw
    patches = 0 if look.output.read is None else int(look.output.read.sum())
    if not patches:
        once = f"A{'n' * (name[0] in 'aeiou')} {name} model looks at the whole image once, at low resolution"
        if look.output.attention is None:
            return f"{once}: it has no map, reads no patches, and does not say which parts decided, only its answer."
        return f"{once}, and reads no patches: the map shows which of its cells have evidence for the answer it gives."
    if not model.attends:
        return (
            f"A {name} model draws its patches anywhere: it has no attention map to show. The boxes are the patches "
            "it read by chance, and what each added to the answer."
        )
    if isinstance(look.output, Selected):
        return (
            f"An {name} model reads every patch and draws none: the answer is the same whatever the seed. It rests on "
            f"the {patches:,} patches that it has chosen; the map shows how it scored all of them."
        )
    if draw is None:
        return (
            f"A {name} model reads every patch and draws none: the answer is the same whatever the seed. Of the "
            f"{patches:,} patches it read, the {listed} most attended are listed; the map shows the attention of all."
        )
    if look.output.regions is not None:
        return (
            "A zoom model attends level by level: the map is that of the whole image, dashed frames are the regions "
            "that it then looked into, and a patch's attention is the product of those on its way."
        )
    if draw.method == "top":
        if isinstance(model, PatchModel) and model.fixed_method is None:
            return (
                "The most attended cells were taken, not drawn: the answer is biased, and the same whatever the seed."
            )
        return f"A {name} model takes the patches that it scores highest and draws none, so no seed changes its answer."
    return ""
