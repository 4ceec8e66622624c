"""Figures of a report: learning curves, ROC and precision-recall curves, reliability; numbers and truth."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveate.evaluation.calibration import Reliability
from foveate.evaluation.evaluate import Evaluation
from foveate.evaluation.numbers import NumberEvaluation
from foveate.evaluation.scores import one_hot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE, DPI = (4.4, 3.3), 100
"""Width and height of a panel, in inches, and pixels an inch."""

MOST_CURVES = 8
"""Classes with curves of their own, at most: those with the most images."""

Draw = Callable[["Axes"], None]


def svg(*panels: Draw) -> bytes:
    """Figure of panels side by side, as SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "foveate", "font.size": 9}):
        figure = Figure(figsize=(SIDE[0] * len(panels), SIDE[1]), layout="constrained", dpi=DPI)
        FigureCanvasSVG(figure)
        for panel, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw(panel)
            panel.grid(alpha=0.3)
        content = BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
        return content.getvalue()


def learning_curves(
    epochs: Sequence[Mapping[str, Any]],
    constant: float | None,
    measure: str = "error",
    always: str = "one answer for all",
) -> bytes:
    """Learning curves against epochs: error, with the line of one answer for all; loss; cells that share the attention.

    Arguments:
        epochs: lines of metrics.jsonl of the kind "epoch".
        constant: error of one answer for all; None with several labels.
        measure: what the error is called.
        always: what that one answer is called.
    """
    numbers = [line["epoch"] for line in epochs]

    def curves(kind: str) -> Draw:
        def draw(panel: "Axes") -> None:
            for part in ("training", "validation"):
                values = [line.get(f"{part}_{kind}") for line in epochs]
                if any(value is not None for value in values):
                    panel.plot(numbers, [np.nan if value is None else value for value in values], ".-", label=part)
            if kind == "error" and constant is not None:
                panel.axhline(constant, color="black", linestyle="--", linewidth=1, label=always)
            best = [line["epoch"] for line in epochs if line.get("best")]
            if best:
                panel.axvline(best[-1], color="grey", linestyle=":", linewidth=1, label="kept")
            panel.set(xlabel="epoch", ylabel=measure if kind == "error" else kind, ylim=(0, None))
            panel.legend()

        return draw

    def spread(panel: "Axes") -> None:
        panel.plot(numbers, np.exp([line["entropy"] for line in epochs]), ".-")
        panel.set(xlabel="epoch", ylabel="cells that share the attention, exp(entropy)", ylim=(0, None))

    attends = all(isinstance(line.get("entropy"), float) for line in epochs)
    return svg(curves("error"), curves("loss"), *([spread] if attends else []))


def receiver_points(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """ROC points: (t, 3) false positive rate, true positive rate (recall) and precision, as the threshold falls.

    Of images that have the same score none comes before another. The first point is that of a threshold above all.

    Arguments:
        positive: (n,) whether an image has the class.
        scores: (n,) its probability.

    Example:
        >>> receiver_points(np.array([True, False, True]), np.array([0.9, 0.5, 0.5])).tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [1.0, 1.0, 0.6666666666666666]]
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of the images of equal score
    hits = np.cumsum(positive[order])[last]
    alarms = np.cumsum(~positive[order])[last]
    rates = alarms / max(alarms[-1], 1), hits / max(hits[-1], 1), hits / (hits + alarms)
    return np.concatenate([[[0.0, 0.0, 1.0]], np.stack(rates, 1)])


def threshold_curves(result: Evaluation) -> bytes:
    """ROC and precision-recall curves of every class that has images with and without it; of two, of the second."""
    hot = one_hot(result.labels, len(result.classes)) == 1
    told = [number for number in range(hot.shape[1]) if 0 < hot[:, number].sum() < len(hot)]
    if len(result.classes) == 2 and not result.several:
        told = told[1:]
    told = sorted(sorted(told, key=lambda number: -hot[:, number].sum())[:MOST_CURVES])
    points = {number: receiver_points(hot[:, number], result.probabilities[:, number]) for number in told}

    def receiver(panel: "Axes") -> None:
        panel.plot([0, 1], [0, 1], "k--", linewidth=1, label="chance")
        for number, curve in points.items():
            panel.plot(curve[:, 0], curve[:, 1], label=result.classes[number])
        panel.set(xlabel="false positive rate", ylabel="true positive rate (sensitivity)")
        panel.legend()

    def precision(panel: "Axes") -> None:
        for place, (number, curve) in enumerate(points.items()):
            panel.plot(curve[1:, 1], curve[1:, 2], f"C{place}", label=result.classes[number])
            panel.axhline(hot[:, number].mean(), color=f"C{place}", linestyle="--", linewidth=1)
        panel.set(xlabel="recall (sensitivity)", ylabel="precision; dashed: chance", ylim=(0, 1.02))
        if points:
            panel.legend()

    return svg(receiver, precision)


def reliability_curve(found: Reliability) -> bytes:
    """Reliability diagram: of answers about as sure, the share that is right, with its 95 % interval."""

    def draw(panel: "Axes") -> None:
        sure = np.array([row.confidence for row in found.bins])
        right = np.array([row.share for row in found.bins])
        low, high = np.array([row.interval for row in found.bins]).T
        panel.plot([0, 1], [0, 1], "k--", linewidth=1, label="calibrated")
        away = np.stack([right - low, high - right]).clip(0)
        panel.errorbar(sure, right, away, fmt="o-", markersize=4, capsize=2, label="this model")
        panel.set(xlabel="probability of the answer", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
        panel.legend()

    return svg(draw)


def answers_and_truth(result: NumberEvaluation) -> bytes:
    """Answers against labels, with the line of right ones and the mean of training labels; and how far off they are."""
    from matplotlib.ticker import MaxNLocator

    off, centre = result.answers - result.labels, float(result.centres.mean())
    both = np.concatenate([result.labels, result.answers])
    ends = [both.min(), both.max()]

    def scatter(panel: "Axes") -> None:
        panel.plot(ends, ends, "k--", linewidth=1, label="right")
        panel.axhline(centre, color="grey", linestyle=":", linewidth=1, label="mean of the training labels")
        panel.plot(result.labels, result.answers, "o", markersize=4, alpha=0.6, label="images")
        panel.set(xlabel="label", ylabel="answer")
        panel.legend()

    def errors(panel: "Axes") -> None:
        panel.axvline(0, color="black", linestyle="--", linewidth=1)
        panel.hist(off, bins="auto" if np.ptp(off) > 0 else 1)
        panel.set(xlabel="answer − label", ylabel="groups" if result.by_group else "images")
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(scatter, errors)
