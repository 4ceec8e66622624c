"""The tables of docs/results.md and docs/scales.md, computed again from the recorded predictions.

A row a method: test error with its 95 % interval, error of each seed, difference to the reference, AUC, training loss
and error, epochs, steps, steps until learning began, objects covered and the error that this leaves. A page
shows of these what a table is about.

    python experiments/results_tables.py [experiments/results/ablation …]
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from foveate.compare.store import Predictions, finished_runs
from foveate.compare.summary import Quality, summarise

RESULTS = Path(__file__).parent / "results"

REFERENCES = {
    "ablation": "ats-10",
    "colon-cancer": "ats-10",
    "german-speed-limits": "ats-10",
    "rivals": "ats-10",
    "several-scales": "several",
}
"""Records whose methods are compared with one of them."""

BEGUN_BELOW = 0.8
"""Training error below which a run has begun to learn, in all tables that say when."""


def main(words: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", metavar="RESULTS", type=Path, nargs="*", help="folders of records (default: all)")
    for folder in parser.parse_args(words).results or sorted(RESULTS.iterdir()):
        for name, cells in rows(recorded(folder), REFERENCES.get(folder.name)).items():
            print(" | ".join((folder.name, name, *cells.values())))


def rows(runs: Mapping[str, Sequence[Predictions]], reference: str | None = None) -> dict[str, dict[str, str]]:
    """Method → name of a figure → how docs/results.md writes it; a figure that is not known has none.

    Arguments:
        runs: method → its runs.
        reference: method that the others are compared with; the first if None.
    """
    if not runs:
        return {}
    found = summarise(runs, reference or next(iter(runs)), begun_below=BEGUN_BELOW)
    return {name: _cells(one, runs[name]) for name, one in zip(runs, found, strict=True)}


def recorded(folder: Path) -> dict[str, list[Predictions]]:
    """Method → its runs, by name, seed and fold.

    Arguments:
        folder: of records, METHOD/…/predictions.json.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return {name: runs for name in names if (runs := finished_runs(folder, name))}


def _cells(one: Quality, runs: Sequence[Predictions]) -> dict[str, str]:
    cells = {
        "error": f"{one.error:.3f} ({one.interval[0]:.3f}–{one.interval[1]:.3f})",
        "seeds": ", ".join(f"{error:.3f}" for error in one.seed_errors),
        "minus": "–",
        "loss": f"{one.train_loss:.3f}",
        "training error": f"{one.train_error:.3f}",
        "epochs": f"{one.epochs:.0f}",
        "steps": ", ".join(f"{run.steps:,}" for run in runs),
        "minutes": ", ".join(f"{run.seconds / 60:.1f}" for run in runs),
    }
    if one.difference is not None:
        low, high = one.difference.interval
        cells["minus"] = f"{one.difference.error:+.3f} ({low:+.3f} – {high:+.3f})".replace("-", "−")
    if one.auc is not None:
        cells["auc"] = f"{one.auc:.3f}"
    if one.train_loss_deviation is not None:
        cells["loss"] += f" ± {one.train_loss_deviation:.3f}"
    if one.begun_steps is not None:
        cells["begun"] = ", ".join("never" if step is None else str(step) for step in one.begun_steps)
    if one.objects_covered is not None and one.error_floor is not None:
        cells |= {"covered": f"{one.objects_covered:.2f}", "floor": f"{one.error_floor:.3f}"}
    return cells


if __name__ == "__main__":
    main()
