"""foveate demo: the main job, on data it makes itself from real handwritten digits."""

import argparse
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foveate.errors import RunError
from foveate.training.config import RunSettings, preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from foveate.compare import Entrant, MethodResult

__all__ = ["SUMMARY", "add_arguments", "demo_methods", "run"]

WIDTH = 120
"""Columns of the table where there is no terminal to ask."""

SUMMARY = "train attention sampling and two baselines on megapixel images it makes itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder of the demo (default: runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of images, weights and draws (default: 0)")


def demo_methods(seed: int) -> "list[Entrant]":
    """ATS-10, U-10 and a CNN on ATS-10's view, from the preset `demo`; the CNN trains at least as long as ATS-10."""
    from foveate.compare import Entrant

    base = preset("demo")
    base = replace(base, seed=seed, data=replace(base.data, generator_seed=seed))
    return [
        Entrant("ats-10", base),
        Entrant("u-10", _as(base, "uniform")),
        Entrant("cnn", _as(base, "cnn"), as_long_as="ats-10"),
    ]


def run(namespace: argparse.Namespace) -> int:
    """Make the images, train and test three methods, print the table, keep pictures and the model.

    Returns:
        0.
    """
    from foveate.compare import compare, markdown_table
    from foveate.datasets import open_dataset
    from foveate.explain import draw_evolution

    out = Path(namespace.out)
    start = time.perf_counter()
    methods = demo_methods(namespace.seed)
    _check_folder(out)
    data = methods[0].settings.data
    height, width = data.canvas
    print(
        f"{data.train_images} training and {data.test_images} test canvases of {height}×{width} pixels: five real "
        f"handwritten digits under {data.noise} noise strokes. Which digit is there three times?",
        flush=True,
    )
    dataset = open_dataset(data, namespace.seed)
    results = compare(methods, out, dataset=dataset, remedy=f"to continue: foveate demo --out {out}")
    draw_evolution(out / "ats-10", dataset, out / "attention.png")
    shutil.copytree(out / "ats-10" / "model", out / "model", dirs_exist_ok=True)
    shutil.copyfile(out / "ats-10" / "config.yaml", out / "config.yaml")
    (out / "results.md").write_text(markdown_table(results), encoding="utf-8")
    _print_table(results)
    print(f"how the attention moved: {out / 'attention.png'}")
    print(f"the model: {out} · try: foveate evaluate {out} --samples 4 · {time.perf_counter() - start:.0f} s in all")
    return 0


def _as(settings: RunSettings, name: Literal["uniform", "cnn"]) -> RunSettings:
    return replace(settings, model=replace(settings.model, name=name), training=replace(settings.training, watch=0))


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "ats-10").is_dir())):
        raise RunError(f"{out} is in the way and not a demo's folder: choose another --out")


def _print_table(results: "Sequence[MethodResult]") -> None:
    from rich.console import Console
    from rich.table import Table

    from foveate.compare import COLUMNS, table_rows

    table = Table()
    for number, heading in enumerate(COLUMNS):
        table.add_column(heading, justify="left" if number == 0 else "right")
    for row in table_rows(results):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
