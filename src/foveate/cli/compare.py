"""foveate compare: several methods on the same images, over folds and seeds, with what each costs."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.cli.parser import add_code
from foveate.errors import RunError

if TYPE_CHECKING:
    from foveate.compare import Comparison

WIDTH = 140
"""Columns of the table where there is no terminal to ask."""

SUMMARY = "train and test several methods on the same images, and say what each costs"

EPILOG = """FILE is YAML: what all runs share under `base`, and what differs under `methods`:

  preset: colon-cancer-paper
  base:
    data: {source: colon-cancer, published: CRCHistoPhenotypes_2016_04_28.zip}
  folds: 10
  seeds: [0, 1, 2]
  reference: deep-mil
  methods:
    ats-10: {}
    u-10: {settings: {model: {name: uniform}}}
    deep-mil: {settings: {model: {name: deep-mil}}, seeds: [0]}

Each run is a folder, DIR/METHOD/seed-S/fold-F, which foveate evaluate and predict take. Runs go on where they stopped;
what is complete is not run again. DIR then has results.md, results.json, results.png, curves.png and cost.json.
With --data PATH the same FILE serves wherever the images lie.
Several processes share the work with --part 1/2 and --part 2/2; the cost is measured without --part, at the end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the comparison")
    parser.add_argument("--data", metavar="PATH", help="where the images lie: the manifest, or the published files")
    parser.add_argument("--out", metavar="DIR", help="folder of the comparison (default: runs/ and FILE's name)")
    parser.add_argument("--part", metavar="I/K", help="do every K-th run only, and leave the others to other processes")
    parser.add_argument("--force-cost", action="store_true", help="measure time and memory again")
    add_code(parser)


def run(namespace: argparse.Namespace) -> int:
    """Compare, print the table, say where the rest is.

    Returns:
        0.
    """
    from foveate.compare import compare, load_comparison, read_part, with_images
    from foveate.config.files import check_code

    part = None if namespace.part is None else read_part(namespace.part)
    settings = load_comparison(namespace.config)
    for method in settings.resolved():
        check_code(method.settings.model, namespace.allow_code, namespace.config)
    if namespace.data is not None:
        settings = with_images(settings, namespace.data)
    out = Path(namespace.out or Path("runs") / Path(namespace.config).stem)
    _check_folder(out)
    comparison = compare(
        settings, out, part=part, force_cost=namespace.force_cost, tell=_tell, remedy=_remedy(namespace, out)
    )
    if comparison is not None:
        print_table(comparison)
        print(f"all tables: {out / 'results.md'} · figures: {out / 'results.json'} · picture: {out / 'results.png'}")
    return 0


def print_table(comparison: "Comparison") -> None:
    """Print the table of a comparison."""
    from rich.console import Console
    from rich.table import Table

    from foveate.compare import remarks, table_columns, table_rows

    table = Table()
    for number, heading in enumerate(table_columns(comparison)):
        table.add_column(heading, justify="left" if number == 0 else "right")
    for row in table_rows(comparison):
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    for remark in remarks(comparison):
        console.print(f"note: {remark}", highlight=False, markup=False)


def _remedy(namespace: argparse.Namespace, out: Path) -> str:
    words = ["foveate", "compare", "--config", namespace.config, "--out", str(out)]
    for option, value in (("--data", namespace.data), ("--part", namespace.part)):
        words += [] if value is None else [option, value]
    return f"to continue: {shlex.join(words)}"


def _tell(line: str) -> None:
    print(line, flush=True)


def _check_folder(out: Path) -> None:
    ours = (out / "comparison.yaml").is_file() or next(out.rglob("predictions.json"), None) is not None
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise RunError(f"{out} is in the way and not a comparison's folder: choose another --out")
