"""Evaluation of a model on labelled images: each counted exactly once, however many processes share the work."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveate.datasets.types import Example, ImageDataset
from foveate.evaluation import scores
from foveate.evaluation.coverage import Coverage
from foveate.evaluation.grades import GradeScores, grade_scores
from foveate.evaluation.intervals import area_interval, area_noise, error_interval, unit_names
from foveate.evaluation.rows import answer_images, seen_of
from foveate.models.heads import grade_order
from foveate.models.losses import mean_loss
from foveate.models.probabilities import refuse_numbers
from foveate.models.types import ONE_DRAW, DrawOptions
from foveate.pipeline.loader import ALONE, LoadOptions
from foveate.sampling import AttentionHealth, common_warnings
from foveate.types import Size

if TYPE_CHECKING:
    from foveate.models import Model


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a model on n images, or on n groups of images.

    Attributes:
        indices: example numbers of the images, sorted by id.
        labels: (n,) int64 class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes) float64; of a group, the mean over its images.
        error: share of images whose most probable class is wrong; with several labels, share of all answers "has it"
            (from probability ½ on) and "has it not" that are wrong, over images and classes (the Hamming loss).
        loss: mean cross-entropy in nats; with several labels binary, and the mean over the classes.
        interval: 95 % interval of the error (Wilson; bootstrap, by group where groups have several images, and where
            there are several labels).
        patches_per_image: mean number of full-resolution patches read.
        view_size: (height, width) of the low-resolution view, the commonest one; (1, 1) for a model without.
        ids: n ids of the images; of groups their names.
        classes: names of the classes.
        by_group: whether the images of a group were taken together.
        coverage: how many of the objects in the images were covered by patches; None where the data set knows none.
        attention: figures of the attention map of each image; none of a model without attention.
        groups: the group of each of the n that are counted, None for one of its own; or empty, if all are.
        order: numbers of the classes, the lowest first, where these are grades; else empty.
    """

    indices: tuple[int, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    error: float
    loss: float
    interval: tuple[float, float]
    patches_per_image: float
    view_size: Size
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    by_group: bool = False
    coverage: Coverage | None = None
    attention: tuple[AttentionHealth, ...] = ()
    groups: tuple[str | None, ...] = ()
    order: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Number of images, or of groups."""
        return len(self.ids)

    @property
    def attention_warnings(self) -> dict[str, str]:
        """What is wrong with the attention maps of most images; see `foveate.sampling.common_warnings`."""
        return common_warnings(self.attention)

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    @property
    def confusion(self) -> NDArray[np.int64] | None:
        """(classes, classes) images by true (row) and predicted class; None with several labels."""
        return None if self.several else self._table

    @property
    def balanced_error(self) -> float:
        """1 − mean recall over the classes present; see `foveate.evaluation.scores.balanced_error`."""
        return scores.balanced_error(self._table)

    @property
    def constant_error(self) -> float | None:
        """Error of an answer that is the same for all: the most frequent class; None with several labels."""
        return None if self.several else scores.constant_error(self.labels.tolist())

    @property
    def recalls(self) -> dict[str, float | None]:
        """Class → share of its images that are recognised; None for a class without an image."""
        return dict(zip(self.classes, scores.recalls(self._table), strict=True))

    @cached_property
    def auc(self) -> float | None:
        """Area under the receiver operating characteristic; see `foveate.evaluation.scores.auc`."""
        return scores.auc(self.labels, self.probabilities)

    @cached_property
    def auc_interval(self) -> tuple[float, float] | None:
        """95 % interval of it: DeLong's, by group where there are any (`area_interval`); None where there is no AUC."""
        noise = area_noise(self.labels, self.probabilities, unit_names(self.groups or (None,) * self.n))
        return None if noise is None else area_interval([noise])

    @property
    def unequal(self) -> bool:
        """Whether the classes are so unequal that the error says little; see `foveate.evaluation.scores.unequal`."""
        return scores.unequal(self.labels)

    @property
    def constant(self) -> bool:
        """Whether the answer is the same for all images, of which there are several kinds."""
        return scores.is_constant(self.labels, self.probabilities)

    @property
    def exact_match_error(self) -> float | None:
        """Share of images not all of whose labels are right; None unless there are several."""
        return float((scores.wrong_shares(self.labels, self.probabilities) > 0).mean()) if self.several else None

    @cached_property
    def mean_average_precision(self) -> float | None:
        """See `foveate.evaluation.scores.average_precision`; None unless there are several labels."""
        return scores.average_precision(self.labels, self.probabilities) if self.several else None

    @cached_property
    def grades(self) -> GradeScores | None:
        """How far answers are off; None where classes have no order."""
        return grade_scores(self.labels, self.probabilities, self.order, self.groups)

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        return scores.answer_table(self.labels, self.probabilities)

    def plain(self) -> dict[str, object]:
        """What `foveate evaluate` writes."""
        plain: dict[str, object] = {
            "error": self.error,
            "n": self.n,
            "interval": list(self.interval),
            "loss": self.loss,
            "balanced_error": self.balanced_error,
            "auc": self.auc,
            "auc_interval": None if self.auc_interval is None else list(self.auc_interval),
            "constant": self.constant,
            "recalls": self.recalls,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "patches_per_image": self.patches_per_image,
            "view_size": list(self.view_size),
        }
        if self.several:
            plain |= {name: getattr(self, name) for name in ("exact_match_error", "mean_average_precision")}
        plain |= {} if self.grades is None else self.grades.plain()
        if self.coverage is not None:
            plain["coverage"] = asdict(self.coverage)
        return plain | {"by_group": True, "images": len(self.indices)} if self.by_group else plain


def evaluate(
    model: "Model",
    dataset: ImageDataset,
    indices: Sequence[int],
    options: DrawOptions = ONE_DRAW,
    *,
    loading: LoadOptions = ALONE,
    by_group: bool = False,
    check: Callable[[], None] | None = None,
    told: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate a model: classify labelled images, in float32, and count the errors.

    Within a process group every process calls this, does its part, and returns the same result.

    Arguments:
        model: on the device to work on; its mode is restored afterwards.
        dataset: the images.
        indices: example numbers, sorted by id.
        options: how to draw; `Model.predict` with the same seed draws the same cells.
        loading: images at a time on a GPU, and how they come; no result depends on it, but for images that fail where
            these are told (`LoadOptions.failed`): the evaluation is that of the others.
        by_group: take the images of a group (a patient) together, by the mean of their probabilities; an image without
            a group stands alone.
        check: called after every batch; may raise to stop.
        told: called with the number of images that this process has just done.

    Raises:
        DataError: there is no image to evaluate on, or images of one group have different labels.
        ImageError: an image cannot be read; raised in every process.
    """
    refuse_numbers(model.kind, "this evaluation is")
    rows = answer_images(model, dataset, indices, options, loading=loading, by_group=by_group, check=check, told=told)
    labels = scores.label_array([row.example.label for row in rows], len(dataset.classes), dataset.multi_label)
    probabilities = np.array([row.answer for row in rows], dtype=np.float64)
    result = judge([row.example for row in rows], labels, probabilities, dataset.classes, by_group)
    return replace(
        result,
        indices=tuple(row.index for row in rows),
        loss=result.loss if by_group else float(np.mean([row.loss for row in rows])),
        **seen_of(dataset, rows),
        order=grade_order(model),
    )


def judge(
    examples: Sequence[Example],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    by_group: bool = False,
) -> Evaluation:
    """Evaluation of answers that are known, whoever gave them: of a table of predictions, for one.

    Arguments:
        examples: ids and groups of n images, sorted by id.
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).
        classes: their names.
        by_group: take the images of a group together.

    Returns:
        The evaluation; patches, view, coverage and attention are not known of it.

    Raises:
        ValueError: the images of a group differ in their labels.
    """
    ids, groups = [one.id for one in examples], [one.group for one in examples]
    if by_group:
        ids, probabilities, labels = _by_group(examples, probabilities, labels)
        groups = [None] * len(ids)  # each is independent of the others now
    wrong = scores.wrong_shares(labels, probabilities).tolist()
    return Evaluation(
        indices=tuple(range(len(examples))),
        labels=labels,
        probabilities=probabilities,
        error=sum(wrong) / len(wrong),
        loss=mean_loss(probabilities, labels),
        interval=error_interval(wrong, groups),
        patches_per_image=0.0,
        view_size=(1, 1),
        ids=tuple(ids),
        classes=tuple(classes),
        by_group=by_group,
        groups=tuple(groups),
    )


def _by_group(
    examples: Sequence[Example], probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[list[str], NDArray[np.float64], NDArray[np.int64]]:
    """Names, mean probabilities and labels of the groups, sorted; an image without a group is one of its own."""
    keys = [(one.id, False) if one.group is None else (one.group, True) for one in examples]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    found, means, common = scores.group_means([keys[i] for i in order], probabilities[order], labels[order])
    assert common is not None
    return [name for name, _ in found], means, common
