"""The actions of `foveate data`.

foveate trains on a manifest: a CSV file with the columns path,label[,split][,group][,mpp], paths relative to it,
or a folder with one folder of images per class.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def progress_line(what: str) -> Callable[[int, int], None]:
    """Progress line on standard error: one that moves on a terminal, one for every tenth part elsewhere.

    Arguments:
        what: what is counted, e.g. "images written".

    Returns:
        What to call with the number done and the total.
    """
    terminal = sys.stderr.isatty()
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        step = done * (100 if terminal else 10) // max(total, 1)
        if step == last:
            return
        last = step
        if terminal:
            print(f"\r{done}/{total} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done:
            print(f"{done}/{total} {what}", file=sys.stderr, flush=True)

    return show


SUMMARY = "make data sets, check manifests, split them"

EPILOG = """examples:
  foveate data init photos/
  foveate data megapixel-mnist --out digits --size 1000 1500 --train 500 --test 100
  foveate data check digits/manifest.csv
  foveate data split slides.csv --out slides-split.csv --test 0.2 --validation 0.1
  foveate data split slides.csv --out fold-0.csv --folds 5 --fold 0
"""

ACTIONS = ("init", "megapixel-mnist", "circuit-boards", "colon-cancer", "speed-limits", "check", "split")
"""Each a module of this package with SUMMARY, add_arguments and run; EPILOG if it has one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data`."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    for name in ACTIONS:
        module = _module(name)
        summary: str = module.SUMMARY
        description = f"{summary[0].upper()}{summary[1:]}."
        module.add_arguments(
            verbs.add_parser(name, help=summary, description=description, epilog=getattr(module, "EPILOG", None))
        )


def run(arguments: argparse.Namespace) -> int:
    """Do what `foveate data` was asked for.

    Arguments:
        arguments: as parsed by the parser of `add_arguments`.

    Returns:
        0, or 2 if a check found problems.

    Raises:
        FoveateError: if the input is at fault.
    """
    return int(_module(arguments.action).run(arguments))


def _module(action: str) -> ModuleType:
    return import_module(f"foveate.cli.data.{action.replace('-', '_')}")
