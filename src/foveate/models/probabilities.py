"""Kinds of labels: softmax and sigmoid probabilities of one class and of several, a number; and decisions in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional

from foveate.errors import ConfigError, ImageError
from foveate.models.losses import cross_entropies, image_errors
from foveate.networks.number import NumberHead

SEPARATOR = "|"
"""Between the names of several labels, in manifests and in predictions."""

UNSURE = "unsure"
"""Decision of a model that abstains."""


@dataclass(frozen=True)
class Decision:
    r"""Decision rule of a model: the temperature of its probabilities, and thresholds, costs or abstention.

    .. math:: p = \mathrm{softmax}(z / T), \qquad
              \hat y = \operatorname{argmin}_k \sum_j \mathrm{cost}_{kj}\, p_j \quad \text{or} \quad
              \hat y \in P \iff \sum_{j \in P} p_j \ge t

    and within the chosen side the most probable class. It abstains where the probability of what it would decide is
    below `abstain`. With several labels there is a threshold for each, ½ unless it is set.

    Source: Elkan, "The Foundations of Cost-Sensitive Learning" (IJCAI 2001), for costs; Chow, "On Optimum Recognition
    Error and Reject Tradeoff" (IEEE Transactions on Information Theory 1970), for abstention.

    Attributes:
        temperature: T of all probabilities; 1 leaves them as the network has them. It changes no order of classes.
        positive: classes P counted as positive; empty without a threshold.
        thresholds: t alone; with several labels one for each class.
        costs: (classes, classes) of saying the row's class of an image of the column's; empty without.
        abstain: least probability of a decision, in (0, 1]; None never abstains.

    Raises:
        ConfigError: a value is out of its range, or both costs and thresholds are given.

    Example:
        >>> rule = Decision(positive=("sign",), thresholds=(0.2,), abstain=0.6)
        >>> [rule.decide(("none", "sign"), (1 - p, p)) for p in (0.1, 0.3, 0.7)]
        ['none', 'unsure', 'sign']
    """

    temperature: float = 1.0
    positive: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    costs: tuple[tuple[float, ...], ...] = ()
    abstain: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"a temperature must be positive, got {self.temperature}: 1 leaves probabilities alone")
        if self.abstain is not None and not 0 < self.abstain <= 1:
            raise ConfigError(
                f"abstain must be a probability above 0, got {self.abstain}: 0.9 decides where it is that sure"
            )
        if self.costs and self.thresholds:
            raise ConfigError("costs and thresholds decide the same thing: give one of them")
        if not all(0 <= one <= 1 for one in self.thresholds):
            raise ConfigError(f"thresholds must lie in [0, 1], got {list(self.thresholds)}: they are probabilities")
        if any(one < 0 or not math.isfinite(one) for row in self.costs for one in row):
            raise ConfigError("costs must be at least 0: what is right costs nothing")

    @property
    def decides(self) -> bool:
        """Whether it decides otherwise than for the most probable class."""
        return bool(self.thresholds or self.costs or self.abstain is not None)

    def abstaining(self, below: float | None) -> "Decision":
        """The same rule with another least probability; None leaves it."""
        return self if below is None else replace(self, abstain=below)

    def fits(self, classes: Sequence[str], multi_label: bool) -> bool:
        """Whether the rule is one for these classes; for numbers, which have none, it must decide nothing."""
        if not classes:
            return self == UNDECIDED
        square = all(len(row) == len(classes) for row in self.costs) and len(self.costs) in (0, len(classes))
        known = set(self.positive) <= set(classes)
        if multi_label:
            return not self.costs and not self.positive and len(self.thresholds) in (0, len(classes))
        single = len(self.thresholds) == bool(self.positive) and len(set(self.positive)) < len(classes)
        return square and known and single

    def decided(
        self, classes: Sequence[str], values: Float64[np.ndarray, "image class"], multi_label: bool = False
    ) -> tuple[Int64[np.ndarray, " image"] | Int64[np.ndarray, "image class"], Bool[np.ndarray, " image"]]:
        """Decisions on images.

        Arguments:
            classes: names.
            values: probabilities of each.
            multi_label: whether an image may have several labels.

        Returns:
            (n,) class numbers, with several labels (n, classes) of 0 and 1; and (n,) True where it abstains, whatever
            the number beside it.
        """
        if multi_label:
            said = (values >= (np.array(self.thresholds) if self.thresholds else 0.5)).astype(np.int64)
            sure = np.where(said == 1, values, 1 - values).min(1)
        else:
            if self.costs:
                said = (values @ np.array(self.costs).T).argmin(1)
            elif self.thresholds:
                side = np.isin(np.array(classes), self.positive)
                yes = values[:, side].sum(1) >= self.thresholds[0]
                said = np.where(side == yes[:, None], values, -1.0).argmax(1)
            else:
                said = values.argmax(1)
            sure = values[np.arange(len(values)), said]
        return said, np.zeros(len(values), bool) if self.abstain is None else sure < self.abstain

    def decide(self, classes: Sequence[str], values: Sequence[float], multi_label: bool = False) -> str:
        """The decision on one image in words: a class, or several joined by |, or "unsure"."""
        (said,), (unsure,) = self.decided(classes, np.array([values], dtype=np.float64), multi_label)
        if unsure:
            return UNSURE
        return SEPARATOR.join(classes[int(k)] for k in np.flatnonzero(said)) if multi_label else classes[int(said)]


UNDECIDED = Decision()
"""Probabilities as the network has them, and the most probable class."""


def probabilities(logits: Float[Tensor, "batch class"], multi_label: bool = False) -> Float[Tensor, "batch class"]:
    r"""Probabilities of each class: softmax, or sigmoid with several labels.

    .. math:: p_c = \frac{e^{z_c}}{\sum_k e^{z_k}} \qquad \text{or, with several labels,} \qquad p_c = \sigma(z_c)

    Arguments:
        logits: (B, classes).
        multi_label: whether an image may have any number of labels.

    Returns:
        (B, classes) in [0, 1]; rows sum to 1 unless there are several labels.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 0.0]])
        >>> probabilities(logits).tolist(), probabilities(logits - 100, multi_label=True).round().tolist()
        ([[0.5, 0.5]], [[0.0, 0.0]])
    """
    return logits.sigmoid() if multi_label else logits.softmax(1)


def average_samples(
    logits: Float[Tensor, "rows class"], samples: int, multi_label: bool = False
) -> Float[Tensor, "batch class"]:
    r"""Averaging over draws: logits of the mean probabilities over the samples of each image.

    .. math:: \log \frac1s \sum_t \mathrm{softmax}(z_t) \qquad \text{or} \qquad
              \mathrm{logit}\, \frac1s \sum_t \sigma(z_t)

    Arguments:
        logits: (B·s, classes), the samples of an image side by side.
        samples: s; at 1 the logits come back as they are.
        multi_label: whether an image may have any number of labels.

    Returns:
        (B, classes) logits whose `probabilities` are the mean of those of the samples.

    Example:
        >>> import torch
        >>> average_samples(torch.tensor([[0.25], [0.75]]).logit(), 2, multi_label=True).sigmoid()
        tensor([[0.5000]])
    """
    if samples == 1:
        return logits
    each = logits.reshape(-1, samples, logits.shape[1])
    if multi_label:
        return functional.logsigmoid(each).logsumexp(1) - functional.logsigmoid(-each).logsumexp(1)
    return each.log_softmax(2).logsumexp(1) - math.log(samples)


def check_answers(names: Sequence[str], values: Float64[np.ndarray, "image class"], suspects: str) -> None:
    """Non-finite check: name the first image whose probabilities are no numbers.

    Arguments:
        names: what to call each image.
        values: probabilities of its classes.
        suspects: where to look for the fault, e.g. "in the weights".

    Raises:
        ImageError: if a probability is nan or infinite.

    Example:
        >>> check_answers(["scan.png"], np.array([[float("nan"), 0.5]]), "in the weights")
        Traceback (most recent call last):
        ...
        foveate.errors.ImageError: the answer to scan.png is not a number: look for nan in the weights
    """
    for name, finite in zip(names, np.isfinite(values).all(1), strict=True):
        if not finite:
            raise ImageError(f"the answer to {name} is not a number: look for nan {suspects}")


def too_large(name: str) -> ImageError:
    """Error of an image whose answer is not a number though its pixels and the weights are."""
    return ImageError(f"the answer to {name} is not a number: look for values too large among its pixels")


def name_predicted(classes: Sequence[str], values: Sequence[float], multi_label: bool = False) -> str:
    """The prediction in words.

    Arguments:
        classes: names of the classes.
        values: their probabilities.
        multi_label: whether an image may have any number of labels.

    Returns:
        The most probable class; with several labels, all of probability ½ or more, joined by |, "" if there is none.

    Example:
        >>> name_predicted(("cat", "dog", "owl"), (0.7, 0.1, 0.5), multi_label=True)
        'cat|owl'
    """
    if multi_label:
        return SEPARATOR.join(name for name, value in zip(classes, values, strict=True) if value >= 0.5)
    return classes[max(range(len(values)), key=values.__getitem__)]


@dataclass(frozen=True)
class OfClasses:
    """Kind of label of an image that has one of several classes or, if `several`, any number of them.

    Example:
        >>> OfClasses().named(("cat", "dog"), (0.25, 0.75)), OfClasses(several=True).named(("cat", "dog"), (0.5, 0.5))
        ('dog', 'cat|dog')
    """

    several: bool = False
    numeric: ClassVar[bool] = False

    def answers(self, logits: Tensor) -> Tensor:
        """See `probabilities`."""
        return probabilities(logits, self.several)

    def averaged(self, logits: Tensor, samples: int) -> Tensor:
        """See `average_samples`."""
        return average_samples(logits, samples, self.several)

    def losses(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `foveate.models.losses.cross_entropies`."""
        return cross_entropies(logits, labels, weights)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `foveate.models.losses.image_errors`."""
        return image_errors(logits, labels)

    def named(self, classes: Sequence[str], values: Sequence[float]) -> str:
        """See `name_predicted`."""
        return name_predicted(classes, values, self.several)


@dataclass(frozen=True)
class OfNumbers:
    """Kind of label of an image that has a number, which a `NumberHead` foretells."""

    head: NumberHead
    numeric: ClassVar[bool] = True

    def answers(self, logits: Tensor) -> Tensor:
        """(B, 1) numbers, in units of the labels."""
        return self.head.numbers(logits)

    def averaged(self, logits: Tensor, samples: int) -> Tensor:
        """The mean over the samples."""
        return logits if samples == 1 else logits.reshape(-1, samples, 1).mean(1)

    def losses(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `NumberHead`; there are no classes that could have weights."""
        assert weights is None
        return self.head.losses(logits, labels)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Absolute error, in units of the labels."""
        return self.head.errors(logits, labels)

    def named(self, classes: Sequence[str], values: Sequence[float]) -> str:  # noqa: ARG002  it has none
        """The number, in nine digits."""
        return format(values[0], ".9g")


LabelKind = OfClasses | OfNumbers
"""Kind of label: what the logits of a model say, and what is lost where they are wrong; `Model.kind`."""


def kind_of(head: object, several: bool) -> LabelKind:
    """Kind of label of a model, by its head and whether an image may have several labels."""
    return OfNumbers(head) if isinstance(head, NumberHead) else OfClasses(several)


def refuse_numbers(kind: LabelKind, what: str) -> None:
    """Refuse of a model that answers with a number what is there for classes alone.

    Arguments:
        kind: of the model's labels.
        what: is asked for, with its verb: "a temperature is".

    Raises:
        ConfigError: it does.

    Example:
        >>> refuse_numbers(OfNumbers(NumberHead(3)), "--max-patches is")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        foveate.errors.ConfigError: --max-patches is for classes, and model.head.kind number answers with a number: ...
    """
    if kind.numeric:
        raise ConfigError(f"{what} for classes, and model.head.kind number answers with a number: leave it out")
