"""Calibration: a temperature fitted to held-out answers, expected calibration error, and the reliability table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import DataError
from foveate.evaluation.evaluate import evaluate
from foveate.evaluation.intervals import error_interval, interval, unit_names
from foveate.models import Decision, DrawOptions, load_model, save_model
from foveate.models.store import saved_card
from foveate.pipeline.loader import LoadOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

BINS = 10
"""Most rows of a reliability table; each has about as many answers as another, and at least 5."""

LOWEST, HIGHEST = 0.02, 50.0
"""Range of temperatures that are looked for."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Bin:
    """Row of a reliability table: answers about as sure as each other.

    Attributes:
        confidence: their mean probability.
        share: share of them that are right.
        interval: 95 % interval of it.
        n: number of answers.
    """

    confidence: float
    share: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True)
class Reliability:
    """Reliability of probabilities: whether of answers of probability p the share p is right.

    Attributes:
        error: expected calibration error (ECE), the mean over the answers of how far share and confidence of their row
            are apart.
        interval: 95 % interval of it, by bootstrap over images or groups.
        by_chance: the ECE below which 95 % of calibrated models would be on so many images: what of it is noise.
        bins: the table, from the least sure to the surest.
    """

    error: float
    interval: tuple[float, float]
    by_chance: float
    bins: tuple[Bin, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def fit_temperature(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    r"""Temperature scaling: the T at which probabilities explain labels best. It changes no order of the classes.

    .. math:: T = \operatorname{argmin}_T -\frac1n \sum_i \sum_k t_{ik} \log \mathrm{softmax}(z_i / T)_k, \qquad
              t_{ik} = \frac{n\, 1\{y_i = k\} + 1}{n + C}

    convex in 1/T; with several labels the sum is over the classes' own sigmoids, and C is 2. The targets t are Platt's,
    without which an error-free handful of images would be explained best by certainty.

    Source: Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017), section 4; Platt,
    "Probabilistic Outputs for Support Vector Machines" (1999), section 2.2, for the targets.

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes) of images that the model was not trained on.

    Returns:
        T: above 1 for a model that is too sure, below 1 for one that is not sure enough.

    Raises:
        DataError: there is no image.

    Example:
        >>> sure = np.array([[0.99, 0.01]] * 20)
        >>> round(fit_temperature(np.array([0] * 15 + [1] * 5), sure), 2)  # right in 15 of 20
        4.68
    """
    if not len(labels):
        raise DataError("there is no image to fit a temperature to: give --data with labelled images")
    tiny = float(np.finfo(np.float64).tiny)
    logs = np.log(np.clip(probabilities, tiny, 1.0))
    if labels.ndim == 2:
        logits = logs - np.log(np.clip(1 - probabilities, tiny, 1.0))
        logits = np.stack([np.zeros_like(logits), logits], 2).reshape(-1, 2)
        labels = labels.reshape(-1)
    else:
        logits = logs
    n, classes = logits.shape
    targets = ((labels[:, None] == np.arange(classes)) * n + 1) / (n + classes)

    def slope(inverse: float) -> float:
        """Derivative of the loss in 1/T, which grows with it."""
        scaled = logits * inverse
        values = np.exp(scaled - scaled.max(1, keepdims=True))
        values /= values.sum(1, keepdims=True)
        return float(((values - targets) * logits).sum(1).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def at_temperature(probabilities: NDArray[np.float64], temperature: float, several: bool) -> NDArray[np.float64]:
    """Probabilities at a temperature: what `Model.probabilities` makes of the logits behind them.

    Arguments:
        probabilities: (n, classes) at temperature 1.
        temperature: T.
        several: whether an image may have several labels.

    Example:
        >>> at_temperature(np.array([[0.8, 0.2]]), 2.0, several=False).round(3)
        array([[0.667, 0.333]])
    """
    tiny = float(np.finfo(np.float64).tiny)
    scaled = np.log(np.clip(probabilities, tiny, 1.0)) / temperature
    other = np.log(np.clip(1 - probabilities, tiny, 1.0)) / temperature
    if several:
        values: NDArray[np.float64] = 1 / (1 + np.exp(other - scaled))
        return values
    values = np.exp(scaled - scaled.max(1, keepdims=True))
    shares: NDArray[np.float64] = values / values.sum(1, keepdims=True)
    return shares


def reliability(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: Sequence[str | None], seed: int = 0
) -> Reliability:
    r"""Reliability of the answers to n images: of each the most probable class; with several labels, of each class.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \lvert \mathrm{share}_b - \mathrm{confidence}_b \rvert

    in rows of equally many answers, which have less bias than rows of equal width. ECE is above 0 for a calibrated
    model, too, and the more so the fewer the images: labels drawn anew from the probabilities tell how far (Bröcker &
    Smith, "Increasing the Reliability of Reliability Diagrams", 2007).

    Source: Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015);
    Nixon et al., "Measuring Calibration in Deep Learning" (2019), for the rows.

    Arguments:
        labels: (n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else.
        probabilities: (n, classes).
        groups: the group of each image; None is a group of its own.
        seed: of the resampling.
    """
    several = labels.ndim == 2
    sure = probabilities.reshape(-1) if several else probabilities.max(1)
    right = (labels.reshape(-1) if several else labels == probabilities.argmax(1)).astype(np.float64)
    units = np.repeat(np.asarray(unit_names(groups)), probabilities.shape[1] if several else 1)
    count = max(1, min(BINS, len(sure) // 5))
    rows = np.array_split(np.argsort(sure, kind="stable"), count)
    place = np.empty(len(sure), dtype=np.int64)
    for number, row in enumerate(rows):
        place[row] = number
    generator = np.random.default_rng(seed)
    names, member = np.unique(units, return_inverse=True)
    drawn, chance = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        weights = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))[member]
        drawn[resample] = _ece(sure, right, place, weights.astype(np.float64), count)
        chance[resample] = _ece(sure, (generator.random(len(sure)) < sure).astype(np.float64), place, None, count)
    bins = tuple(
        Bin(
            float(sure[row].mean()),
            float(right[row].mean()),
            error_interval(right[row].tolist(), units[row].tolist()),
            len(row),
        )
        for row in rows
    )
    found = _ece(sure, right, place, None, count)
    return Reliability(found, interval(drawn), float(np.quantile(chance, 0.95)), bins)


def calibrate_best(
    folder: Path,
    settings: RunSettings,
    dataset: ImageDataset,
    indices: Sequence[int],
    accelerator: "Accelerator",
    features: nn.Module | None = None,
) -> None:
    """Temperature of a run's best model, fitted to its validation images; every process calls it, the first one writes.

    Arguments:
        folder: of the model.
        settings: of the run.
        dataset: its images.
        indices: of the validation images; without any, nothing is done.
        accelerator: of this process.
        features: layers of the user's own, as `load_model` takes them.
    """
    if not indices:
        return
    model = load_model(folder, features, settings.model.own_code).to(accelerator.device)
    model.decision = Decision()
    loading = LoadOptions(settings.training.batch)
    result = evaluate(model, dataset, indices, DrawOptions(seed=settings.seed), loading=loading)
    model.decision = Decision(temperature=fit_temperature(result.labels, result.probabilities))
    if accelerator.is_main_process:
        save_model(model, folder, saved_card(folder))
    accelerator.wait_for_everyone()


def _ece(
    sure: NDArray[np.float64],
    right: NDArray[np.float64],
    place: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    count: int,
) -> float:
    """Σ n_b/n |share − confidence| is Σ |Σ right − Σ confidence| / n."""
    gaps = np.bincount(place, weights=(right - sure) if weights is None else (right - sure) * weights, minlength=count)
    return float(np.abs(gaps).sum() / (len(sure) if weights is None else weights.sum()))
