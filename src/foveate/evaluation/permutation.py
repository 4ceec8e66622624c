"""Permutation test: whether a model has learnt anything, by shuffled labels; and that verdict in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.datasets.types import Example
from foveate.evaluation.evaluate import Evaluation
from foveate.evaluation.intervals import unit_names
from foveate.evaluation.scores import one_hot

LEVEL = 0.05
"""p up to which something has been learnt."""

SHUFFLES = 1999
"""Of the labels."""

TOGETHER = 2**20
"""Labels that are shuffled at a time, of all shuffles together: they take 8 bytes each."""


def permutation_p(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: Sequence[str | None],
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> float | None:
    r"""Permutation test, its p: how often shuffled labels give an AUC as high as the true ones.

    .. math:: p = \frac{1 + \#\{b : \mathrm{AUC}_b \ge \mathrm{AUC}\}}{1 + B}

    The AUC is that of `foveate.evaluation.scores.auc`, which unequal classes do not flatter. Where all images of a
    group have the same label, groups and not images change labels. Phipson & Smyth, "Permutation P-values should never
    be zero", Statistical Applications in Genetics and Molecular Biology 2010.

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).
        groups: the group of each image; None is a group of its own.
        shuffles: B.
        seed: of the shuffles.

    Returns:
        p, at least 1 / (B + 1); None where no class has images with it and without it.

    Example:
        >>> answers = np.linspace(0, 1, 20)
        >>> permutation_p(np.array([0] * 10 + [1] * 10), np.stack([1 - answers, answers], 1), [None] * 20)
        0.0005
    """
    from scipy.stats import rankdata

    classes = probabilities.shape[1]
    hot = one_hot(labels, classes)
    chosen = slice(1, 2) if labels.ndim == 1 and classes == 2 else slice(None)
    hot, ranks = hot[:, chosen], rankdata(probabilities[:, chosen], axis=0)
    if not ((hot.sum(0) > 0) & (hot.sum(0) < len(hot))).any():
        return None
    _, first, member = np.unique(unit_names(groups), return_index=True, return_inverse=True)
    if (hot[first][member] != hot).any():  # labels differ within groups: image by image
        first = member = np.arange(len(hot))
    of_units, generator = hot[first], np.random.default_rng(seed)
    least, reached = _mean_auc(hot[None], ranks)[0] - 1e-9, 0
    at_once = max(1, TOGETHER // hot.size)
    for start in range(0, shuffles, at_once):
        count = min(at_once, shuffles - start)
        orders = np.stack([generator.permutation(len(first)) for _ in range(count)])
        reached += int((_mean_auc(of_units[orders[:, member]], ranks) >= least).sum())
    return (1 + reached) / (1 + shuffles)


def _mean_auc(hot: NDArray[np.int64], ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes of the Mann-Whitney statistic, from labels (shuffle, n, classes) and ranks (n, classes)."""
    positives = hot.sum(1)
    pairs = positives * (hot.shape[1] - positives)
    wins = np.einsum("bnc,nc->bc", hot, ranks) - positives * (positives + 1) / 2
    shares, told = wins / np.maximum(pairs, 1), pairs > 0
    mean: NDArray[np.float64] = (shares * told).sum(1) / np.maximum(told.sum(1), 1)
    return np.where(told.any(1), mean, 0.5)


class Tested:
    """What a permutation test says of a model, whatever it answers with.

    Attributes:
        p: of the test; None where labels are all alike.
        faultless: p that a model without fault would have; likewise.
    """

    p: float | None
    faultless: float | None

    @property
    def learnt(self) -> bool | None:
        """Whether anything was learnt; None where the images cannot tell."""
        if self.p is None or (self.p > LEVEL and (self.faultless or 0.0) > LEVEL):
            return None
        return self.p <= LEVEL

    @property
    def pays(self) -> bool:
        """Whether its answers are better than one answer for all; for subclasses."""
        raise NotImplementedError

    def _headline(self) -> str:
        if self.learnt is None:
            return "whether anything was learnt cannot be told"
        if not self.learnt:
            return "nothing that shows was learnt"
        return "something was learnt" if self.pays else "something was learnt, but answers are no better for it"


@dataclass(frozen=True)
class Verdict(Tested):
    """Verdict on a model: whether it has learnt anything, by images that it has not been taught.

    Attributes:
        images: number of them.
        error: share that is wrong.
        interval: 95 %, of it.
        majority: the commonest class; None with several labels.
        constant: error of answering it always; with several labels, of each class's commoner answer.
        auc: area under the ROC curve, ½ by chance; None where nothing tells.
        p: of the permutation test, `permutation_p`; likewise.
        faultless: p that a model without fault would have.
        known: error of the training images in the last epoch; None where it was not seen.
        others: number of test images, which have not chosen the model as these have; 0 where these have not, either.
        split: what the images are called.

    Example:
        >>> verdict = Verdict(12, 0.5, (0.25, 0.75), "intact", 0.5, 0.56, 0.31, 0.003)
        >>> verdict.learnt
        False
        >>> print(verdict.lines()[0])  # doctest: +ELLIPSIS
        nothing that shows was learnt: of 12 validation images it errs on 0.500 (95 %: 0.250–0.750), and on 0.500 if ...
    """

    images: int
    error: float
    interval: tuple[float, float]
    majority: str | None
    constant: float
    auc: float | None
    p: float | None
    faultless: float | None
    known: float | None = None
    others: int = 0
    split: str = "validation"

    @classmethod
    def of(cls, result: Evaluation, examples: Sequence[Example], known: float | None = None) -> "Verdict":
        """Verdict by an evaluation on validation images.

        Arguments:
            result: of that evaluation.
            examples: of the data set.
            known: see above.
        """
        labels, groups = result.labels, [examples[index].group for index in result.indices]
        hot = one_hot(labels, len(result.classes))
        shares = hot.mean(0)
        constant = float(np.minimum(shares, 1 - shares).mean()) if result.several else 1 - float(shares.max())
        return cls(
            images=result.n,
            error=result.error,
            interval=result.interval,
            majority=None if result.several else result.classes[int(shares.argmax())],
            constant=constant,
            auc=result.auc,
            p=permutation_p(labels, result.probabilities, groups),
            faultless=permutation_p(labels, hot.astype(np.float64), groups),
            known=known,
            others=sum(one.split == "test" for one in examples),
        )

    @property
    def pays(self) -> bool:
        """Whether its answers err less than one answer for all."""
        return self.error < self.constant

    def lines(self) -> list[str]:
        """Lines that say so: the verdict, the test behind it and, if there is need, what to try."""
        return [f"{self._headline()}: {self._errors()}", *self._test(), *(f"  try: {one}" for one in self._remedies())]

    def _errors(self) -> str:
        low, high = self.interval
        between = f" (95 %: {low:.3f}–{high:.3f})" if low < high else ""
        one = f'"{self.majority}" is' if self.majority is not None else "the commoner answer to every class is"
        images = f"{self.images} {self.split} image{'' if self.images == 1 else 's'}"
        return f"of {images} it errs on {self.error:.3f}{between}, and on {self.constant:.3f} if {one} always answered"

    def _test(self) -> Iterator[str]:
        if self.auc is None or self.p is None:
            yield "  they are all of one class, and so no model could show anything by them"
            return
        reached = round(self.p * (1 + SHUFFLES)) - 1
        times = {0: "none", 1: "1"}.get(reached, f"{reached:,}")
        shuffled = f"of {SHUFFLES:,} shuffles of the labels {times} reached it (p = {self.p:.2g})"
        yield f"  AUC {self.auc:.3f}, 0.5 by chance; {shuffled}"
        if self.learnt is None:
            yield f"  so few images cannot tell: without a fault p would be {self.faultless:.2g}"
        elif self.learnt and self.others:
            yield f"  these images chose the model, too: the {self.others:,} test images have not (foveate evaluate)"

    def _remedies(self) -> Iterator[str]:
        """What to try, the likeliest first; nothing of a model that has learnt."""
        if self.learnt and self.pays:
            return
        if self.learnt is None:
            if self.split not in ("validation", "test"):
                yield "more images with labels"
                return
            yield f"more {self.split} images (a larger data.{self.split}, or the manifest's column split)"
            yield "--folds 5, by which every image is tested once"
            return
        if self.learnt:
            yield "training longer, training.class_weights balanced, or another threshold than the likeliest class"
            return
        if self.known is not None and self.known < self.constant / 2:
            yield (
                f"what keeps it from learning images by heart (it errs on {self.known:.3f} of those it trained on): "
                "more images, model.features.frozen true, stronger changes (augment.patch_…)"
            )
        yield "looking where it looks: foveate explain RUN IMAGES --out seen"
        yield "a larger model.view, if what matters cannot be guessed at in it, and a model.patch of twice its size"
        yield "beginning with evidence: the preset manifest or photographs, or foveate data init"
