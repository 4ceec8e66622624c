"""A comparison as a picture: error against time and against memory."""

from io import BytesIO
from pathlib import Path
from typing import Any

from foveate.compare.results import Comparison, MethodResult
from foveate.training.replace import replace_file

__all__ = ["draw_comparison"]


def draw_comparison(comparison: Comparison, path: Path | str) -> None:
    """Draw each method's test error, with its 95 % interval, against what it costs to train, on logarithmic axes.

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
