"""Evaluation of a model that answers with numbers (regression): mean absolute and root mean squared error, R²."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError
from foveate.evaluation.coverage import Coverage
from foveate.evaluation.evaluate import Evaluation, evaluate
from foveate.evaluation.intervals import BLOCK, interval, unit_names
from foveate.evaluation.rows import answer_images, seen_of
from foveate.evaluation.scores import group_means
from foveate.models.probabilities import OfNumbers
from foveate.models.types import ONE_DRAW, DrawOptions
from foveate.pipeline.loader import ALONE, LoadOptions
from foveate.sampling import AttentionHealth, common_warnings
from foveate.types import Size

if TYPE_CHECKING:
    from foveate.models import Model

Floats = NDArray[np.float64]

RESAMPLES = 4000
"""Bootstrap samples of an interval."""


class Figure(NamedTuple):
    """A figure and its 95 % interval, by bootstrap over images or, where there are any, groups."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class NumberEvaluation:
    r"""Evaluation of answers that are numbers, on n images or n groups of images.

    .. math::

        \mathrm{MAE} = \frac1n \sum_i |\hat y_i - y_i|, \qquad
        \mathrm{RMSE} = \sqrt{\frac1n \sum_i (\hat y_i - y_i)^2}, \qquad
        R^2 = 1 - \frac{\sum_i (\hat y_i - y_i)^2}{\sum_i (\mu - y_i)^2}

    with μ the mean of the labels that the model was trained on: R² is above 0 only where answers are better than that
    mean, which knows nothing of the images evaluated.

    Attributes:
        ids: n ids of the images; of groups their names.
        labels: (n,) float64 numbers by truth.
        answers: (n,) float64 numbers foretold; of a group, the mean over its images.
        centres: (n,) float64 μ of the model that answered.
        losses: (n,) what training minimises, in squared deviations of the training labels; of a group, the mean.
        groups: the group of each of the n, None for one of its own.
        indices: example numbers of the images, sorted by id.
        patches_per_image: mean number of full-resolution patches read.
        view_size: (height, width) of the low-resolution view, the commonest one; (1, 1) for a model without.
        by_group: whether the images of a group were taken together.
        coverage: how many of the objects in the images were covered by patches; None where the data set knows none.
        attention: figures of the attention map of each image; none of a model without attention.

    Example:
        >>> ids, labels, answers = ("a", "b", "c"), np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 6.0])
        >>> result = NumberEvaluation(ids, labels, answers, np.full(3, 3.0), np.zeros(3), (None,) * 3)
        >>> round(result.error, 4), round(result.r_squared.value, 4)
        (0.6667, 0.7143)
    """

    ids: tuple[str, ...]
    labels: Floats
    answers: Floats
    centres: Floats
    losses: Floats
    groups: tuple[str | None, ...]
    indices: tuple[int, ...] = ()
    patches_per_image: float = 0.0
    view_size: Size = (1, 1)
    by_group: bool = False
    coverage: Coverage | None = None
    attention: tuple[AttentionHealth, ...] = ()

    @property
    def n(self) -> int:
        """Number of images, or of groups."""
        return len(self.ids)

    @property
    def error(self) -> float:
        """Mean absolute error, in units of the labels."""
        return self.mean_absolute_error.value

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of it."""
        return self.mean_absolute_error.interval

    @property
    def loss(self) -> float:
        """Mean loss, in squared deviations of the training labels: about 1 of always answering their mean."""
        return float(self.losses.mean())

    @cached_property
    def mean_absolute_error(self) -> Figure:
        """How far off answers are."""
        return self._figure(lambda sums: sums[0] / sums[3])

    @cached_property
    def root_mean_squared_error(self) -> Figure:
        """Likewise, large errors counting more."""
        return self._figure(lambda sums: np.sqrt(sums[1] / sums[3]))

    @cached_property
    def r_squared(self) -> Figure | None:
        """Share of the squared distances from the mean of the training labels that answers explain; None without."""
        if not (self.labels != self.centres).any():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._figure(lambda sums: np.where(sums[2] > 0, 1 - sums[1] / sums[2], np.nan))

    @property
    def constant_error(self) -> float:
        """Mean absolute error of always answering the mean of the training labels."""
        return float(np.abs(self.centres - self.labels).mean())

    @property
    def constant(self) -> bool:
        """Whether the answer is the same for all images, though their labels are not."""
        return bool(np.ptp(self.answers) == 0 and np.ptp(self.labels) > 0)

    @property
    def attention_warnings(self) -> dict[str, str]:
        """What is wrong with the attention maps of most images; see `foveate.sampling.common_warnings`."""
        return common_warnings(self.attention)

    def figures(self) -> dict[str, Figure | None]:
        """The three figures by name; None for R² where all labels are the mean of the training labels."""
        names = ("mean_absolute_error", "root_mean_squared_error", "r_squared")
        return {name: getattr(self, name) for name in names}

    def of_groups(self) -> "NumberEvaluation":
        """The same of groups: the mean answer to the images of each; an image without a group is one of its own.

        Raises:
            ValueError: the images of a group differ in their labels; its argument is the group.
        """
        pairs = zip(self.ids, self.groups, strict=True)
        keys = [(name, False) if group is None else (group, True) for name, group in pairs]
        found, means, labels = group_means(keys, np.stack([self.answers, self.centres, self.losses], 1), self.labels)
        assert labels is not None
        order = sorted(range(len(found)), key=found.__getitem__)
        answers, centres, losses = means[order].T
        return replace(
            self,
            ids=tuple(found[place][0] for place in order),
            labels=labels[order],
            answers=answers,
            centres=centres,
            losses=losses,
            groups=(None,) * len(found),  # each is independent of the others now
            by_group=True,
        )

    def plain(self) -> dict[str, object]:
        """What `foveate evaluate` writes."""
        plain: dict[str, object] = {}
        for name, figure in self.figures().items():
            plain |= {name: None, f"{name}_interval": None}
            if figure is not None:
                plain |= {name: figure.value, f"{name}_interval": list(figure.interval)}
        plain |= {"mean_absolute_error_of_the_mean": self.constant_error, "n": self.n, "loss": self.loss}
        plain |= {"constant": self.constant, "patches_per_image": self.patches_per_image}
        plain |= {"view_size": list(self.view_size)}
        if self.coverage is not None:
            plain["coverage"] = asdict(self.coverage)
        return plain | {"by_group": True, "images": len(self.indices)} if self.by_group else plain

    def _figure(self, of: Callable[[Floats], Floats]) -> Figure:
        """Figure of the sums (absolute errors, their squares, those of the mean, 1), and of their resamples."""
        off, other = self.answers - self.labels, self.centres - self.labels
        sums = np.stack([np.abs(off), np.square(off), np.square(other), np.ones_like(off)])
        return Figure(float(of(sums.sum(1))), interval(of(_resampled(sums, unit_names(self.groups)))))


def _resampled(sums: Floats, units: Sequence[str], seed: int = 0) -> Floats:
    """(sums, resamples) with whole units drawn again, as many as there are."""
    names, member = np.unique(np.asarray(units), return_inverse=True)
    of_units = np.stack([np.bincount(member, weights=one, minlength=len(names)) for one in sums])
    generator, even, parts = np.random.default_rng(seed), np.full(len(names), 1 / len(names)), []
    step = max(1, BLOCK // len(names))
    for start in range(0, RESAMPLES, step):
        counts = generator.multinomial(len(names), even, size=min(step, RESAMPLES - start))
        parts.append(of_units @ counts.T.astype(np.float64))
    return np.concatenate(parts, 1)


def evaluate_numbers(
    model: "Model",
    dataset: ImageDataset,
    indices: Sequence[int],
    options: DrawOptions = ONE_DRAW,
    *,
    loading: LoadOptions = ALONE,
    by_group: bool = False,
    check: Callable[[], None] | None = None,
    told: Callable[[int], None] | None = None,
) -> NumberEvaluation:
    """Evaluate a model that answers with numbers; arguments and errors as of `evaluate`.

    Raises:
        ConfigError: it answers with classes.
    """
    if not isinstance(model.kind, OfNumbers):
        raise ConfigError(f"numbers are wanted of a model with the classes {', '.join(model.classes)}: use evaluate")
    rows = answer_images(model, dataset, indices, options, loading=loading, by_group=by_group, check=check, told=told)
    result = NumberEvaluation(
        ids=tuple(row.example.id for row in rows),
        labels=np.array([row.example.label for row in rows], dtype=np.float64),
        answers=np.array([row.answer[0] for row in rows], dtype=np.float64),
        centres=np.full(len(rows), float(model.kind.head.get_buffer("mean"))),
        losses=np.array([row.loss for row in rows], dtype=np.float64),
        groups=tuple(row.example.group for row in rows),
        indices=tuple(row.index for row in rows),
        **seen_of(dataset, rows),
    )
    return result.of_groups() if by_group else result


AnyEvaluation = Evaluation | NumberEvaluation
"""Evaluation of a model, whatever it answers with."""


def evaluate_any(
    model: "Model",
    dataset: ImageDataset,
    indices: Sequence[int],
    options: DrawOptions = ONE_DRAW,
    *,
    loading: LoadOptions = ALONE,
    by_group: bool = False,
    check: Callable[[], None] | None = None,
    told: Callable[[int], None] | None = None,
) -> AnyEvaluation:
    """Evaluate a model, whatever it answers with: by `evaluate` or `evaluate_numbers`, with arguments as theirs."""
    given = {"loading": loading, "by_group": by_group, "check": check, "told": told}
    if model.kind.numeric:
        return evaluate_numbers(model, dataset, indices, options, **given)  # type: ignore[arg-type]
    return evaluate(model, dataset, indices, options, **given)  # type: ignore[arg-type]
