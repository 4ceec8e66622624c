"""What each choice of the recipe is worth: the curves of ablation.yaml, a panel for each kind of choice.

Lines are the validation error against minutes of training, thin ones a run, bold ones the mean of the seeds; circles
are the test errors.

    foveate compare --config experiments/ablation.yaml --out runs/ablation
    python experiments/ablation_curves.py experiments/results/ablation --out ablation.png
"""

import argparse
from pathlib import Path

from foveate.compare.figures import draw_method
from foveate.compare.store import finished_runs

REFERENCE = "ats-10"
"""In every panel, in black."""

PANELS = {
    "estimator and gradient": ("des-raj", "no-baseline", "des-raj-no-baseline", "original-gradient", "as-published"),
    "norm, prior, map": ("norm-1", "no-prior", "variety-no-prior", "stride-1", "stride-6", "papers-attention"),
    "training": ("pooled", "undrawn", "variety", "prior-to-0", "still", "batch-32"),
    "patches": ("ats-5", "ats-25", "ats-50", "ats-100"),
}
"""Title → methods."""


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="folder of the comparison")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    arguments = parser.parse_args()
    draw(arguments.results, arguments.out)


def draw(results: Path, path: Path) -> None:
    """Draw all panels.

    Arguments:
        results: folder of the comparison.
        path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (title, methods) in zip(
        figure.subplots(2, 2, sharex=True, sharey=True).flat, PANELS.items(), strict=True
    ):
        for number, method in enumerate(methods):
            draw_method(panel, method, finished_runs(results, method), f"C{number}")
        draw_method(panel, REFERENCE, finished_runs(results, REFERENCE), "black")
        panel.set_title(title)
        panel.set_xlim(left=0)
        panel.set_yscale("log")
        panel.set_ylim(0.03, 1)
        panel.set_yticks([0.03, 0.1, 0.3, 1], labels=["0.03", "0.1", "0.3", "1"])
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8, loc="lower left")
    figure.supxlabel("minutes of training, validation included")
    figure.supylabel("validation error (lines), test error (circles)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
