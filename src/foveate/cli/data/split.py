"""`foveate data split`: a manifest in which every image has a split, or a fold."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.cli.parser import add_layout
from foveate.config.settings import DataSettings
from foveate.errors import ConfigError

if TYPE_CHECKING:
    from foveate.datasets.types import Example

SUMMARY = "write a manifest with a split for every image"

EPILOG = """examples:
  foveate data split slides.csv --out split.csv --test 0.2 --validation 0.1
  foveate data split slides.csv --out folds.csv --folds 5             a column fold, 0 to 4
  foveate data split slides.csv --out fold-0.csv --folds 5 --fold 0   fold 0 tests, the others train and validate

Classes keep their shares, groups stay whole, and the seed decides, not the order of the rows.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `foveate data split`."""
    parser.add_argument("manifest", help="CSV file, or folder with one folder per class; splits it names stay")
    add_layout(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="NEW.csv", help="manifest to write")
    parser.add_argument("--test", type=float, metavar="SHARE", help="share held out for testing (0.2)")
    parser.add_argument(
        "--validation", type=float, metavar="SHARE", help="share of the others held out to choose the model (0.1)"
    )
    parser.add_argument("--folds", type=int, metavar="K", help="write a fold number, 0 to K-1, instead of a split")
    parser.add_argument(
        "--fold", type=int, metavar="I", help="with --folds: write the split in which fold I is held out"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (0)")
    parser.add_argument("--multi-label", action="store_true", help="labels are several, separated by |, or none")
    parser.add_argument(
        "--allow-crossing", action="store_true", help="accept groups that the manifest names in several splits"
    )


def run(arguments: argparse.Namespace) -> int:
    """Split, write, and say how many images are where."""
    from dataclasses import replace

    from foveate.datasets.manifest.dataset import read_manifest, read_table
    from foveate.datasets.manifest.rows import Layout
    from foveate.datasets.manifest.write import write_manifest
    from foveate.datasets.splits import fold_numbers

    _check_options(arguments)
    table = read_table(
        arguments.manifest,
        multi_label=arguments.multi_label,
        layout=Layout.of(arguments.columns, arguments.images),
    )
    examples = read_manifest(table, check_files=False, multi_label=arguments.multi_label).examples
    if arguments.folds is not None and arguments.fold is None:
        folds = fold_numbers(examples, arguments.folds, arguments.seed, arguments.allow_crossing)
        write_manifest(table, table.rows, arguments.out, folds)
        counts = {f"fold {k}": folds.count(k) for k in range(arguments.folds)}
        if None in folds:
            counts["test"] = folds.count(None)
    else:
        splits = [example.split for example in _splits(examples, arguments)]
        rows = [replace(row, split=split) for row, split in zip(table.rows, splits, strict=True)]
        write_manifest(table, rows, arguments.out)
        counts = {split: splits.count(split) for split in ("train", "validation", "test")}
    print(f"{arguments.out}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    folds, fold = arguments.folds, arguments.fold
    if fold is None:
        if folds is not None and (arguments.test is not None or arguments.validation is not None):
            raise ConfigError("--folds holds out every image once: leave --test and --validation out")
    elif folds is None:
        raise ConfigError("--fold I is one of --folds K folds: give both, e.g. --folds 5 --fold 0")
    elif not 0 <= fold < folds:
        raise ConfigError(
            f"--fold must be one of 0 to {folds - 1} with --folds {folds}, got {fold}: counting starts at 0"
        )
    elif arguments.test is not None:
        raise ConfigError("--fold says what is held out for testing: leave --test out")


def _splits(examples: "Sequence[Example]", arguments: argparse.Namespace) -> "Sequence[Example]":
    """The examples with the splits that the options ask for."""
    from foveate.datasets import fill_splits, k_folds

    default, allow = DataSettings(), arguments.allow_crossing
    validation = default.validation if arguments.validation is None else arguments.validation
    if arguments.folds is not None:
        examples = k_folds(examples, arguments.folds, arguments.seed, allow)[arguments.fold]
        return fill_splits(examples, validation, 0.0, arguments.seed, allow)
    test = default.test if arguments.test is None else arguments.test
    return fill_splits(examples, validation, test, arguments.seed, allow)
