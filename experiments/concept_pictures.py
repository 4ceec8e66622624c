"""Pictures of two concepts: what draws and method do to the estimate, and what a control variate saves.

The first shows the mean squared error of Φ̂ over ‖Φ‖² against the number of draws, of 1,000 cells with flat and with
peaked attention, made up as `control_variate.py` makes them; "top" draws nothing, so its error is its bias. The second
shows how many draws without a control variate are as exact as ten with one, against how far what it foretells
correlates with what is.

    python experiments/concept_pictures.py estimator-error.png control-variate.png [--draws 200] [--fields 10]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from control_variate import STEEPNESS, attention_and_features, draws_for, foretold, plain_curve, squared_errors

matplotlib.use("agg")
from matplotlib import pyplot

METHODS = ("uniform", "iid", "des_raj", "murthy", "top")
PATCHES = (1, 2, 5, 10, 20, 50, 100)
CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
CELLS, KEPT = 1000, 10
"""Cells of a made-up image; draws with a control variate."""


def estimator_errors(kind: str, fields: int, draws: int, seed: int) -> dict[str, list[float]]:
    """Mean squared error of Φ̂ over ‖Φ‖², by method, for each number of draws."""
    generator = torch.Generator().manual_seed(seed)
    log_prob, features, _ = attention_and_features(kind, fields, CELLS, generator)
    whole = torch.einsum("fk,fkd->fd", log_prob.exp(), features).square().sum(1)
    return {
        method: [
            float((squared_errors(log_prob, features, [None], n, draws, method, generator)[:, 0] / whole).mean())
            for n in PATCHES
        ]
        for method in METHODS
    }


def draws_saved(kind: str, fields: int, draws: int, seed: int) -> list[float]:
    """Draws without a control variate that are as exact as `KEPT` with one, for each correlation."""
    generator = torch.Generator().manual_seed(seed)
    log_prob, features, noise = attention_and_features(kind, fields, CELLS, generator)
    curve = plain_curve(log_prob, features, KEPT // 2, draws, "murthy", generator)
    controls = [foretold(features, noise, one) for one in CORRELATIONS]
    errors = squared_errors(log_prob, features, controls, KEPT, draws, "murthy", generator).mean(0)
    return [draws_for(error, curve) for error in errors.tolist()]


def told(places: Sequence[float], values: Sequence[float]) -> str:
    """Line of a curve."""
    return " ".join(f"{place:g}: {value:.3g}" for place, value in zip(places, values, strict=True))


def main() -> None:
    """Draw both pictures, and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimator", type=Path, help="the PNG file of the first")
    parser.add_argument("control", type=Path, help="the PNG file of the second")
    parser.add_argument("--draws", type=int, default=200, help="of each made-up image and number of patches")
    parser.add_argument("--fields", type=int, default=10, help="made-up images")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, kind in zip(panels, STEEPNESS, strict=True):
        for method, values in estimator_errors(kind, given.fields, given.draws, given.seed).items():
            print(
                f"{kind:6} {method:8}", " ".join(f"{n}: {value:.3g}" for n, value in zip(PATCHES, values, strict=True))
            )
            panel.loglog(PATCHES, values, "o-", markersize=4, label=method)
        panel.set(title=f"{kind} attention", xlabel="draws of 1,000 cells")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean squared error of Φ̂ / ‖Φ‖²")
    panels[1].legend()
    figure.savefig(given.estimator, dpi=110)
    figure, axes = pyplot.subplots(figsize=(5.5, 3.6), layout="constrained")
    for kind in STEEPNESS:
        values = draws_saved(kind, given.fields, given.draws, given.seed)
        print(
            f"{kind:6} as exact", " ".join(f"{r:g}: {value:.1f}" for r, value in zip(CORRELATIONS, values, strict=True))
        )
        axes.plot(CORRELATIONS, values, "o-", markersize=4, label=f"{kind} attention")
    axes.set(xlabel="correlation of what is foretold with what is", ylabel=f"draws without, as exact as {KEPT} with")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(given.control, dpi=110)


if __name__ == "__main__":
    main()
