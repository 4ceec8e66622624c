"""How the methods of a comparison learnt, as a picture: error against minutes."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate.compare.curve import Curve
from foveate.compare.predictions import Predictions
from foveate.training.replace import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curves", "draw_method"]

STYLES = ("-", "--", ":", "-.")


def draw_curves(runs: Mapping[str, Sequence[Predictions]], path: Path | str) -> bool:
    """Draw error against minutes of training, validation included: a thin line a run, a bold one their mean.

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
    """Draw how one method learnt: its runs, their mean and their test errors.

    Arguments:
        panel: of a figure; error against minutes.
        name: of the method, for the legend.
        runs: its runs; those that kept no curve are left out.
        colour: of all that is drawn.
        style: of the lines.
        error: which error of an epoch to draw, of those that `foveate.compare.curve.Epoch` names.
    """
    lines = []
    for run in runs:
        if run.curve is None:
            continue
        lines.append(_points(run.curve, error))
        panel.plot(*lines[-1], marker=".", markersize=3, alpha=0.35, linewidth=0.8, color=colour, linestyle=style)
        panel.plot([run.seconds / 60], [run.error], "o", color=colour, markerfacecolor="white", markersize=5)
    if lines:
        panel.plot(*_mean(lines), linewidth=2, label=name, color=colour, linestyle=style)


def _points(curve: Curve, error: str) -> tuple[Any, Any]:
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
