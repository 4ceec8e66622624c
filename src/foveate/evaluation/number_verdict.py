"""Verdict on a model that answers with numbers: whether it has learnt anything, by shuffled labels; in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foveate.datasets.types import Example
from foveate.evaluation.intervals import unit_names
from foveate.evaluation.numbers import AnyEvaluation, Floats, NumberEvaluation
from foveate.evaluation.permutation import SHUFFLES, Tested, Verdict


def fit_p(labels: Floats, answers: Floats, groups: Sequence[str | None], seed: int = 0) -> float | None:
    r"""Permutation test, its p: how often shuffled labels go with the answers as well as the true ones.

    .. math:: p = \frac{1 + \#\{b : r_b \ge r\}}{1 + B}

    r is the correlation of labels and answers, which neither a wrong scale nor a wrong mean spoils. Where all images of
    a group have the same label, groups and not images change labels. Source: as `permutation_p`.

    Arguments:
        labels: (n,) numbers by truth.
        answers: (n,) numbers foretold.
        groups: the group of each image; None is a group of its own.
        seed: of the shuffles.

    Returns:
        p; 1 where all answers are alike, None where all labels are.

    Example:
        >>> fit_p(np.arange(9.0), np.arange(9.0) ** 2, [None] * 9)
        0.0005
    """
    if np.ptp(labels) == 0:
        return None
    if np.ptp(answers) == 0:
        return 1.0
    _, first, member = np.unique(unit_names(groups), return_index=True, return_inverse=True)
    if (labels[first][member] != labels).any():  # labels differ within groups: image by image
        first = member = np.arange(len(labels))
    of_units, generator = labels[first], np.random.default_rng(seed)
    centred = (answers - answers.mean()) / answers.std()
    own, reached = _correlation(labels, centred) - 1e-9, 0
    for _ in range(SHUFFLES):
        reached += _correlation(of_units[generator.permutation(len(first))][member], centred) >= own
    return (1 + reached) / (1 + SHUFFLES)


def _correlation(labels: Floats, centred: Floats) -> float:
    spread = float(labels.std())  # of groups of unequal sizes, it differs from shuffle to shuffle
    return 0.0 if spread == 0 else float((labels * centred).mean()) / spread


@dataclass(frozen=True)
class NumberVerdict(Tested):
    """Verdict on a model that answers with numbers: whether it has learnt anything, by images it was not taught.

    Attributes:
        images: number of them.
        error: mean absolute error.
        interval: 95 %, of it.
        centre: mean of the training labels.
        constant: mean absolute error of always answering it.
        r_squared: share of the squared distances from it that answers explain; None where there are none.
        p: of the permutation test, `fit_p`; None where labels are all alike.
        faultless: p that a model without fault would have; likewise.
        others: number of test images, which have not chosen the model as these have.
        split: what the images are called.
    """

    images: int
    error: float
    interval: tuple[float, float]
    centre: float
    constant: float
    r_squared: float | None
    p: float | None
    faultless: float | None
    others: int = 0
    split: str = "validation"

    @classmethod
    def of(cls, result: NumberEvaluation, examples: Sequence[Example]) -> "NumberVerdict":
        """Verdict by an evaluation on validation images of a data set with these examples."""
        return cls(
            images=result.n,
            error=result.error,
            interval=result.interval,
            centre=float(result.centres.mean()),
            constant=result.constant_error,
            r_squared=None if result.r_squared is None else result.r_squared.value,
            p=fit_p(result.labels, result.answers, result.groups),
            faultless=fit_p(result.labels, result.labels, result.groups),
            others=sum(one.split == "test" for one in examples),
        )

    @property
    def pays(self) -> bool:
        """Whether its answers are better than the mean, in squares."""
        return self.r_squared is not None and self.r_squared > 0

    def lines(self) -> list[str]:
        """Lines that say so: the verdict, the test behind it and, if there is need, what to try."""
        low, high = self.interval
        between = f" (95 %: {low:.4g} to {high:.4g})" if low < high else ""
        images = f"{self.images} {self.split} image{'' if self.images == 1 else 's'}"
        always = f"and by {self.constant:.4g} if {self.centre:.4g}, the mean of the training labels, is always answered"
        first = f"{self._headline()}: of {images} it is off by {self.error:.4g} in the mean{between}, {always}"
        return [first, *self._test()]

    def _test(self) -> Iterator[str]:
        if self.p is None or self.r_squared is None:
            yield "  they all have one label, and so no model could show anything by them"
            return
        reached = round(self.p * (1 + SHUFFLES)) - 1
        times = {0: "none goes", 1: "1 goes"}.get(reached, f"{reached:,} go")
        told = f"of {SHUFFLES:,} shuffles of the labels {times} with its answers as well (p = {self.p:.2g})"
        yield f"  R² {self.r_squared:.3f} against that mean, 0 if it is answered; {told}"
        if self.learnt is None:
            yield "  so few images cannot tell: try more of them (a larger data.validation), or --folds 5"
        elif not self.learnt:
            yield "  try: looking where it looks (foveate explain RUN IMAGES --out X), a larger model.view, more epochs"
        elif self.others:
            yield f"  these images chose the model, too: the {self.others:,} test images have not (foveate evaluate)"


AnyVerdict = Verdict | NumberVerdict
"""Verdict on a model, whatever it answers with."""


def verdict_of(result: AnyEvaluation, examples: Sequence[Example], known: float | None = None) -> AnyVerdict:
    """Verdict by an evaluation on validation images; arguments as of `Verdict.of`."""
    if isinstance(result, NumberEvaluation):
        return NumberVerdict.of(result, examples)
    return Verdict.of(result, examples, known)
