"""Summary of a comparison: error with interval, difference, AUC, recalls and more, from the predictions of all runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.compare.store import Predictions, begun
from foveate.errors import DataError
from foveate.evaluation import scores
from foveate.evaluation.intervals import (
    Tally,
    area_interval,
    area_noise,
    error_interval,
    interval,
    resampled_errors,
    tally,
    wilson_interval,
)


@dataclass(frozen=True)
class Difference:
    """Difference of two methods: how much more often one is wrong than the other, on the same images.

    Attributes:
        reference: name of the other method.
        error: error of the method minus that of the other, mean over `seeds`.
        interval: 95 % interval, by paired bootstrap.
        share_below: share of bootstrap samples in which the method is wrong less often than the other.
        seeds: the seeds that both ran.
    """

    reference: str
    error: float
    interval: tuple[float, float]
    share_below: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Quality:
    """Quality of a method. What it got wrong is counted on images, or on groups if these are judged.

    Attributes:
        name: of the method.
        error: mean over seeds of the share of test images that are wrong, folds pooled; with several labels, of the
            share of wrong answers over images and classes.
        interval: 95 % interval: bootstrap over images (groups, where there are groups), jointly for all seeds; Wilson's
            where every image was tested once and for itself, and Wilson's over images (groups) where none, or all,
            were ever wrong, since no resample of these differs from another.
        n: different images tested, all folds and seeds together.
        runs: number of runs.
        seeds: of the runs.
        seed_errors: error of each seed, folds pooled.
        fold_errors: for each seed, the error of each fold; a single one without folds.
        standard_error_seeds: standard deviation of `seed_errors` over √seeds; None of a single seed.
        standard_error_folds: standard deviation of a seed's fold errors over √folds, mean over seeds; None
            without folds.
        auc: area under the ROC curve, folds pooled, mean over seeds; None where it is not defined.
        auc_interval: 95 % interval of it, DeLong's by images (groups, where there are groups); None as `auc`.
        constant_runs: number of seeds all of whose images, folds pooled, got the same answer.
        unequal: whether a class has twice as many test images as another.
        balanced_error: mean over classes of the share of their images that are wrong; mean over seeds.
        recalls: class → share of its images that are right, seeds and folds pooled; None without any.
        confusion: true class × predicted class, counts over seeds and folds; None with several labels.
        loss: mean cross-entropy of test images in nats.
        train_loss: mean over runs of the cross-entropy in the last epoch, in nats.
        train_loss_deviation: its standard deviation over runs; None of a single run.
        train_error: mean over runs of the error in the last epoch, on the images as they were shown.
        epochs: mean over runs of the epochs trained.
        train_seconds: of training and validation, mean over runs.
        total_seconds: of training, validation and testing, all runs together.
        difference: to the reference; None of the reference itself, and where no seed is common.
        begun_steps: steps of each run until its training error fell below the limit asked for, None of a run in which
            it never did; None where no limit was given or a run has kept no curve.
        objects_covered: different objects covered per test image that has any, mean over runs; None where no objects
            are known.
        objects: how many there are per such image.
        error_floor: the error that this coverage leaves at the least, mean over runs; see
            `foveate.evaluation.coverage.Coverage`.
    """

    name: str
    error: float
    interval: tuple[float, float]
    n: int
    runs: int
    seeds: tuple[int, ...]
    seed_errors: tuple[float, ...]
    fold_errors: tuple[tuple[float, ...], ...]
    standard_error_seeds: float | None
    standard_error_folds: float | None
    auc: float | None
    balanced_error: float
    recalls: dict[str, float | None]
    confusion: tuple[tuple[int, ...], ...] | None
    loss: float
    train_loss: float
    train_loss_deviation: float | None
    train_error: float
    epochs: float
    train_seconds: float
    total_seconds: float
    difference: Difference | None
    begun_steps: tuple[int | None, ...] | None = None
    objects_covered: float | None = None
    objects: float | None = None
    error_floor: float | None = None
    auc_interval: tuple[float, float] | None = None
    constant_runs: int = 0
    unequal: bool = False


@dataclass(frozen=True)
class _Answers:
    """Answers of runs for n test images, or groups of images; the unit of each is what is drawn again."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def wrong(self) -> NDArray[np.float64]:
        """(n,) 0 or 1; with several labels the share of classes."""
        return scores.wrong_shares(self.labels, self.probabilities)

    @property
    def table(self) -> NDArray[np.int64]:
        """(C, C) images by true and predicted class; with several labels (C, 2, 2), class by class."""
        return scores.answer_table(self.labels, self.probabilities)


def summarise(
    runs: Mapping[str, Sequence[Predictions]],
    reference: str,
    *,
    by_group: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    begun_below: float | None = None,
) -> list[Quality]:
    """Summary of all runs together.

    Arguments:
        runs: method → the predictions of its runs.
        reference: name of the method that the others are compared with.
        by_group: judge groups by the mean probabilities of their images.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        begun_below: training error below which a run has begun to learn.

    Returns:
        One per method, in order.

    Raises:
        DataError: groups are judged and the images of one differ in their labels.
    """
    answers = {
        name: {(one.seed, one.fold): _answers(one, by_group) for one in predictions}
        for name, predictions in runs.items()
    }
    units = sorted({unit for each in answers.values() for one in each.values() for unit in one.units})
    tallies = {name: _tally(each, _seeds(each), units) for name, each in answers.items()}
    drawn = dict(zip(tallies, resampled_errors(list(tallies.values()), resamples, seed), strict=True))
    return [
        _quality(
            runs[name],
            answers[name],
            tallies[name],
            drawn[name],
            _difference(answers, units, name, reference, drawn, resamples, seed),
            begun_below,
        )
        for name in runs
    ]


def _answers(run: Predictions, by_group: bool) -> _Answers:
    probabilities = np.array(run.probabilities, dtype=np.float64)
    labels = scores.label_array(run.labels, len(run.classes), run.multi_label)
    units = tuple(
        f"image {name}" if group is None else f"group {group}" for name, group in zip(run.ids, run.groups, strict=True)
    )
    if by_group:
        try:
            judged, probabilities, common = scores.group_means(units, probabilities, labels)
        except ValueError as error:
            raise DataError(
                f"images of {error} have different labels: correct the manifest's group column, or set by_group: false"
            ) from error
        assert common is not None
        return _Answers(tuple(judged), tuple(judged), common, probabilities)
    return _Answers(run.ids, units, labels, probabilities)


def _seeds(answers: Mapping[tuple[int, int | None], _Answers]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(seed for seed, _ in answers))


def _tally(answers: Mapping[tuple[int, int | None], _Answers], seeds: Sequence[int], units: Sequence[str]) -> Tally:
    wrong = [
        [pair for (of, _), one in answers.items() if of == seed for pair in zip(one.units, one.wrong, strict=True)]
        for seed in seeds
    ]
    return tally(wrong, units)


def _difference(
    answers: Mapping[str, Mapping[tuple[int, int | None], _Answers]],
    units: Sequence[str],
    name: str,
    reference: str,
    drawn: Mapping[str, NDArray[np.float64]],
    resamples: int,
    seed: int,
) -> Difference | None:
    """The paired bootstrap, on the seeds and folds that both ran."""
    own, other = answers[name], answers[reference]
    common = {run: (own[run], other[run]) for run in own if run in other}
    if name == reference or not common:
        return None
    seeds = tuple(dict.fromkeys(of for of, _ in common))
    if len(common) == len(own) == len(other):  # on these samples both have been drawn already
        pair = [_tally(one, seeds, units) for one in (own, other)]
        first, second = drawn[name], drawn[reference]
    else:
        of_both = {unit for one, _ in common.values() for unit in one.units}
        asked = [unit for unit in units if unit in of_both]
        pair = [_tally({run: both[place] for run, both in common.items()}, seeds, asked) for place in (0, 1)]
        first, second = resampled_errors(pair, resamples, seed)
    found = first - second
    return Difference(
        reference=reference,
        error=pair[0].error - pair[1].error,
        interval=interval(found),
        share_below=float(np.mean(found[np.isfinite(found)] < 0)),
        seeds=seeds,
    )


def _quality(
    runs: Sequence[Predictions],
    answers: Mapping[tuple[int, int | None], _Answers],
    counted: Tally,
    drawn: NDArray[np.float64],
    difference: Difference | None,
    begun_below: float | None,
) -> Quality:
    first, seeds = runs[0], _seeds(answers)
    pooled = [_pooled([one for (of, _), one in answers.items() if of == seed]) for seed in seeds]
    table = sum((one.table for one in pooled[1:]), pooled[0].table)
    fold_errors = tuple(
        tuple(float(one.wrong.mean()) for (of, _), one in answers.items() if of == seed) for seed in seeds
    )
    of_folds = [_standard_error(errors) for errors in fold_errors]
    known = [one for one in of_folds if one is not None]
    areas = [scores.auc(one.labels, one.probabilities) for one in pooled]
    noises = [area_noise(one.labels, one.probabilities, one.units) for one in pooled]
    losses = [run.training_loss for run in runs]
    coverages = [run.coverage for run in runs]
    curves = [run.curve for run in runs if run.curve is not None]
    timed = begun_below is not None and len(curves) == len(runs)
    return Quality(
        name=first.method,
        error=counted.error,
        interval=_interval(counted, drawn, first.multi_label),
        n=len({name for one in pooled for name in one.names}),
        runs=len(runs),
        seeds=seeds,
        seed_errors=tuple(counted.seed_errors.tolist()),
        fold_errors=fold_errors,
        standard_error_seeds=_standard_error(counted.seed_errors.tolist()),
        standard_error_folds=sum(known) / len(known) if known else None,
        auc=None if None in areas else float(np.mean([area for area in areas if area is not None])),
        auc_interval=area_interval([noise for noise in noises if noise is not None]) if None not in noises else None,
        constant_runs=sum(scores.is_constant(one.labels, one.probabilities) for one in pooled),
        unequal=scores.unequal(pooled[0].labels),
        balanced_error=float(np.mean([scores.balanced_error(one.table) for one in pooled])),
        recalls=dict(zip(first.classes, scores.recalls(table), strict=True)),
        confusion=None if first.multi_label else tuple(tuple(row) for row in table.tolist()),
        loss=float(np.average([run.loss for run in runs], weights=[len(run.ids) for run in runs])),
        train_loss=float(np.mean(losses)),
        train_loss_deviation=float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        train_error=float(np.mean([run.training_error for run in runs])),
        epochs=float(np.mean([run.epochs for run in runs])),
        train_seconds=float(np.mean([run.seconds for run in runs])),
        total_seconds=sum(run.seconds + run.test_seconds for run in runs),
        difference=difference,
        begun_steps=tuple(begun(one, begun_below) for one in curves) if timed and begun_below is not None else None,
        objects_covered=_mean([None if one is None else one.covered_per_image for one in coverages]),
        objects=_mean([None if one is None else one.objects_per_image for one in coverages]),
        error_floor=_mean([None if one is None else one.error_floor for one in coverages]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Their mean, if all are known."""
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _pooled(answers: Sequence[_Answers]) -> _Answers:
    return _Answers(
        tuple(name for one in answers for name in one.names),
        tuple(unit for one in answers for unit in one.units),
        np.concatenate([one.labels for one in answers]),
        np.concatenate([one.probabilities for one in answers]),
    )


def _interval(counted: Tally, drawn: NDArray[np.float64], multi_label: bool) -> tuple[float, float]:
    tested = counted.counts > 0
    shares = counted.errors.sum(0)[tested.any(0)] / counted.counts.sum(0)[tested.any(0)]
    if shares.max() == 0 or shares.min() == 1:
        return wilson_interval(int(shares.sum()), len(shares))
    if len(counted.counts) == 1 and counted.counts.max() == 1 and not multi_label:
        wrong = [bool(one) for one in counted.errors[tested]]
        return error_interval(wrong, [None] * len(wrong))
    return interval(drawn)


def _standard_error(errors: Sequence[float]) -> float | None:
    return float(np.std(errors, ddof=1)) / math.sqrt(len(errors)) if len(errors) > 1 else None
