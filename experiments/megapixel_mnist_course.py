"""How fast Megapixel MNIST is learnt, beside what the authors' released code reports: the picture in the README.

Left, error against minutes of training; right, against epochs, with the published course of the original. Lines are
the validation error, a line a seed; circles at their ends are the test error.

    foveate compare --config experiments/megapixel-mnist.yaml --out runs/megapixel-mnist
    python experiments/megapixel_mnist_course.py experiments/results/megapixel-mnist --out course.png
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foveate.compare.store import Curve, Epoch, Predictions, finished_runs

REPORTED = ((1, 0.90), (210, 0.90), (220, 0.30), (270, 0.20), (500, 0.21))
"""Epoch and test error of the original, ATS-10, 5,000 training canvases, noise over the digits: read off the plot in
its repository (github.com/idiap/attention-sampling), to about 0.02."""


def main() -> None:
    """Draw the picture, and print what it shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", metavar="RESULTS", type=Path, nargs="+", help="folders of comparisons, or of runs")
    parser.add_argument("--method", default="ats-10", help="whose runs to draw (default: ats-10)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    arguments = parser.parse_args()
    found = {folder: finished_runs(folder, arguments.method) for folder in arguments.results}
    for folder, runs in found.items():
        for run in runs:
            minutes = run.seconds / 60
            print(f"{folder.name} seed {run.seed}: {run.epochs} epochs, {minutes:.1f} minutes, test error {run.error}")
    draw({folder.name: runs for folder, runs in found.items()}, arguments.out)


def draw(runs: dict[str, list[Predictions]], path: Path) -> None:
    """Draw both panels.

    Arguments:
        runs: name → finished runs.
        path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    by_minutes, by_epochs = figure.subplots(1, 2, sharey=True)
    for number, (name, each) in enumerate(runs.items()):
        for run in each:
            label = f"foveate, {name}" if run is each[0] else None
            _line(by_minutes, run, f"C{number}", label, lambda epoch: epoch.seconds / 60)
            _line(by_epochs, run, f"C{number}", label, lambda epoch: epoch.epoch)
    by_epochs.plot(
        *zip(*REPORTED, strict=True), color="0.4", linestyle="--", label="the original, test error (reported)"
    )
    by_minutes.set_xlabel("minutes of training, validation included")
    by_minutes.set_ylabel("validation error (lines)\ntest error (circles)")
    by_minutes.set_xlim(left=0)
    by_epochs.set_xlabel("epochs")
    by_epochs.set_xscale("log")
    for panel in (by_minutes, by_epochs):
        panel.set_ylim(0, 0.95)
        panel.grid(alpha=0.3)
    by_epochs.xaxis.set_major_formatter("{x:.0f}")
    handles, names = by_epochs.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _line(panel: Any, run: Predictions, colour: str, label: str | None, place: Callable[[Epoch], float]) -> None:
    assert isinstance(run.curve, Curve), "runs of older versions kept no curve: train them again"
    points = [(place(one), one.validation_error) for one in run.curve.epochs if one.validation_error is not None]
    panel.plot(*zip(*points, strict=True), color=colour, linewidth=1, alpha=0.8, label=label)
    panel.plot([place(run.curve.epochs[-1])], [run.error], "o", color=colour, markerfacecolor="white", markersize=5)


if __name__ == "__main__":
    main()
