"""Figures of a comparison: error against cost, and learning curves."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate.atomic import replace_file
from foveate.compare.report import Comparison, MethodResult
from foveate.compare.store import Curve, Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ("-", "--", ":", "-.")


def draw_curves(runs: Mapping[str, Sequence[Predictions]], path: Path | str) -> bool:
    """Learning curves: error against minutes of training, validation included; thin lines the runs, bold ones means.

    The lines are the validation error; where not every run has one, the error on the training images as they were
    shown. A circle at the end of each is the run's test error.

    Arguments:
        runs: method → the predictions of its runs.
        path: the PNG file to write.

    Returns:
        False, and no file, where no run has kept a curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kept = {name: [one for one in each if one.curve is not None and one.curve.epochs] for name, each in runs.items()}
    curves = [one.curve for each in kept.values() for one in each if one.curve is not None]
    if not curves:
        return False
    validated = all(any(epoch.validation_error is not None for epoch in one.epochs) for one in curves)
    shown = "validation" if validated else "training"
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for number, (name, each) in enumerate(kept.items()):
        style = STYLES[number // 10 % len(STYLES)]
        draw_method(panel, name, each, f"C{number % 10}", style, f"{shown}_error")
    panel.set_xlabel("minutes of training, validation included")
    panel.set_ylabel(f"{shown} error (lines), test error (circles)")
    panel.set_ylim(bottom=0)
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    replace_file(Path(path), content.getvalue())
    return True


def draw_method(
    panel: "Axes",
    name: str,
    runs: Sequence[Predictions],
    colour: str,
    style: str = "-",
    error: str = "validation_error",
) -> None:
    """Learning curves of one method: its runs, their mean and their test errors.

    Arguments:
        panel: of a figure; error against minutes.
        name: of the method, for the legend.
        runs: its runs; those that kept no curve are left out.
        colour: of all that is drawn.
        style: of the lines.
        error: which error of an epoch to draw, of those that `foveate.compare.store.Epoch` names.
    """
    lines = []
    for run in runs:
        if run.curve is None:
            continue
        lines.append(_epoch_points(run.curve, error))
        panel.plot(*lines[-1], marker=".", markersize=3, alpha=0.35, linewidth=0.8, color=colour, linestyle=style)
        panel.plot([run.seconds / 60], [run.error], "o", color=colour, markerfacecolor="white", markersize=5)
    if lines:
        panel.plot(*_mean(lines), linewidth=2, label=name, color=colour, linestyle=style)


def _epoch_points(curve: Curve, error: str) -> tuple[Any, Any]:
    """Minutes and errors of the epochs that have one."""
    found = [(epoch.seconds / 60, getattr(epoch, error)) for epoch in curve.epochs]
    known = [point for point in found if point[1] is not None]
    return tuple(np.array(known, dtype=np.float64).T)


def _mean(lines: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Mean of the lines over the minutes that all of them span, interpolated."""
    start, end = max(minutes[0] for minutes, _ in lines), min(minutes[-1] for minutes, _ in lines)
    if len(lines) == 1 or start > end:
        return lines[0]
    grid = np.unique(np.concatenate([minutes for minutes, _ in lines]).clip(start, end))
    return grid, np.mean([np.interp(grid, *line) for line in lines], axis=0)


def draw_comparison(comparison: Comparison, path: Path | str) -> None:
    """Error against cost: each method's test error with its 95 % interval, and what it costs to train, logarithmic.

    Left against time, right against the memory kept for the backward pass, both per training image. Where no cost was
    measured, the errors stand side by side.

    Arguments:
        comparison: what came of it.
        path: the PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    costed = [one for one in comparison.methods if one.cost is not None]
    panels = figure.subplots(1, 2, sharey=True) if costed else [figure.subplots()]
    if not costed:
        _draw(panels[0], [(float(place), one) for place, one in enumerate(comparison.methods)])
        panels[0].set_xticks([])
        panels[0].margins(x=0.3)
    for panel, (label, attribute) in zip(
        panels if costed else (),
        (("training step, ms per image", "train_ms_per_image"),
         ("kept for the backward pass, MB per image", "activation_mb_per_image")),
        strict=bool(costed),
    ):  # fmt: skip
        _draw(panel, [(getattr(one.cost, attribute), one) for one in costed])
        panel.set_xscale("log")
        panel.margins(x=0.25)
        panel.set_xlabel(label)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.set_axisbelow(True)
    _scale_errors(panels[0], comparison)
    panels[0].set_ylabel("test error, 95 % interval")
    canvas.draw()  # the layout is settled: labels can be put where there is room
    for panel in panels:
        _settle_labels(panel, canvas.get_renderer())
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    replace_file(Path(path), content.getvalue())


def _draw(panel: Any, points: list[tuple[float, MethodResult]]) -> None:
    for number, (x, one) in enumerate(points):
        error, (low, high) = one.quality.error, one.quality.interval
        colour = f"C{number % 10}"
        spread = [[max(0.0, error - low)], [max(0.0, high - error)]]
        panel.errorbar([x], [error], yerr=spread, fmt="o", color=colour, capsize=3)
        panel.annotate(
            one.name, (x, error), xytext=(7, 4), textcoords="offset points", fontsize=9, color=colour,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip


def _scale_errors(panel: Any, comparison: Comparison) -> None:
    """A logarithmic axis for the error, unless one of them is zero, or they are alike."""
    errors = [one.quality.error for one in comparison.methods]
    lows = [one.quality.interval[0] for one in comparison.methods]
    if min(errors) > 0 and max(errors) > 4 * min(errors):
        panel.set_yscale("log")
        panel.set_ylim(bottom=0.8 * min(low if low > 0 else error / 3 for low, error in zip(lows, errors, strict=True)))
    else:
        panel.set_ylim(0, 1.1 * max(max(errors), *(one.quality.interval[1] for one in comparison.methods), 0.01))


def _settle_labels(panel: Any, renderer: Any) -> None:
    """Keep labels within the panel, and move them upwards until none lies on another."""
    placed: list[Any] = []
    for label in panel.texts:
        if label.get_window_extent(renderer).x1 > panel.get_window_extent(renderer).x1:
            x, y = label.get_position()
            label.set_horizontalalignment("right")
            label.set_position((-x, y))
    for label in sorted(panel.texts, key=lambda text: text.get_window_extent(renderer).y0):
        for _ in range(50):
            box = label.get_window_extent(renderer)
            hit = next((other for other in placed if box.overlaps(other)), None)
            if hit is None:
                break
            x, y = label.get_position()
            label.set_position((x, y + (hit.y1 - box.y0) * 72 / renderer.dpi + 1))
        placed.append(label.get_window_extent(renderer))
