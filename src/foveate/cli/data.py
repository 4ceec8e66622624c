"""Make data sets, check manifests, split them.

foveate trains on a manifest: a CSV file with the columns path,label[,split][,group][,mpp], paths relative to it,
or a folder with one folder of images per class.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from foveate.errors import ConfigError
from foveate.settings import DataSettings

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "make data sets, check manifests, split them"

EPILOG = """examples:
  foveate data megapixel-mnist --out digits --size 1000 1500 --train 500 --test 100
  foveate data check digits/manifest.csv
  foveate data split slides.csv --out slides-split.csv --test 0.2 --validation 0.1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `foveate data` takes."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    _add_megapixel_mnist(
        verbs.add_parser("megapixel-mnist", help="write canvases of handwritten digits as image files")
    )
    check = verbs.add_parser("check", help="look for what is wrong with a manifest")
    check.add_argument("manifest", help="CSV file, or folder with one folder per class")
    check.add_argument("--quick", action="store_true", help="read headers only: finds no cut-off files and no copies")
    _add_split(verbs.add_parser("split", help="write a manifest with a split for every image"))


def _add_megapixel_mnist(parser: argparse.ArgumentParser) -> None:
    default = DataSettings()
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--size", type=int, nargs=2, default=default.canvas, metavar=("HEIGHT", "WIDTH"), help="pixels (1500 1500)"
    )
    parser.add_argument(
        "--channels", type=int, choices=(1, 3), default=default.channels, help="1 is grey (the default), 3 is RGB"
    )
    parser.add_argument("--train", type=int, default=default.train_images, metavar="N", help="training images (5000)")
    parser.add_argument("--test", type=int, default=default.test_images, metavar="N", help="test images (1000)")
    parser.add_argument("--noise", type=int, default=default.noise, metavar="N", help="noise strokes an image (50)")
    parser.add_argument(
        "--noise-under-digits", action="store_true", help="paste strokes under digits, not over them as the original"
    )
    parser.add_argument(
        "--digits", default=default.digits, help="bundled (the default), mnist (downloaded once), or an .npz file"
    )
    parser.add_argument("--seed", type=int, default=default.generator_seed, help="determines every pixel (0)")
    parser.add_argument(
        "--format", choices=("png", "canvas"), default="png", help="png, or canvas: small .npz files foveate can read"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call with these options stopped")


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", help="CSV file, or folder with one folder per class; splits it names stay")
    parser.add_argument("--out", type=Path, required=True, metavar="NEW.csv", help="manifest to write")
    parser.add_argument("--test", type=float, metavar="SHARE", help="share held out for testing (0.2)")
    parser.add_argument(
        "--validation", type=float, metavar="SHARE", help="share of the others held out to choose the model (0.1)"
    )
    parser.add_argument("--folds", type=int, metavar="K", help="write a fold number, 0 to K-1, instead of a split")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (0)")


def run(arguments: argparse.Namespace) -> int:
    """Do what `foveate data` was asked for.

    Arguments:
        arguments: as parsed by the parser of `add_arguments`.

    Returns:
        0, or 2 if a check found problems.

    Raises:
        FoveateError: if the input is at fault.
    """
    action: Callable[[argparse.Namespace], int] = {
        "megapixel-mnist": _megapixel_mnist,
        "check": _check,
        "split": _split,
    }[arguments.action]
    return action(arguments)


def _megapixel_mnist(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from foveate.datasets import megapixel_mnist
    from foveate.datasets.export import write_canvases

    settings = DataSettings(
        source="megapixel-mnist",
        digits=arguments.digits,
        canvas=(arguments.size[0], arguments.size[1]),
        channels=arguments.channels,
        train_images=arguments.train,
        test_images=arguments.test,
        noise=arguments.noise,
        noise_over_digits=not arguments.noise_under_digits,
        generator_seed=arguments.seed,
    )
    unused = ("source", "manifest", "validation", "test")
    recipe = {name: value for name, value in asdict(settings).items() if name not in unused}
    data = megapixel_mnist(settings)
    manifest = write_canvases(
        data, arguments.out, recipe, arguments.format, arguments.resume, _progress("images written")
    )
    print(f"{len(data)} images; train on them with --data {manifest}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from foveate.datasets.check import check_manifest

    report = check_manifest(arguments.manifest, not arguments.quick, _progress("images checked"))
    print(report.table())
    for problem in report.problems:
        print(problem)
    print(f"{report.images} images, {len(report.problems) or 'no'} problem{'' if len(report.problems) == 1 else 's'}")
    return 2 if report.problems else 0


def _split(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from foveate.datasets import fill_splits, read_manifest
    from foveate.datasets.export import write_manifest
    from foveate.datasets.manifest import read_table
    from foveate.datasets.splits import fold_numbers

    if arguments.folds is not None and (arguments.test is not None or arguments.validation is not None):
        raise ConfigError("--folds holds out every image once: leave --test and --validation out")
    examples = read_manifest(arguments.manifest, check_files=False).examples
    table = read_table(arguments.manifest)
    default = DataSettings()
    if arguments.folds is not None:
        folds = fold_numbers(examples, arguments.folds, arguments.seed)
        write_manifest(table, table.rows, arguments.out, folds)
        counts = {f"fold {k}": folds.count(k) for k in range(arguments.folds)}
    else:
        validation = default.validation if arguments.validation is None else arguments.validation
        test = default.test if arguments.test is None else arguments.test
        splits = [example.split for example in fill_splits(examples, validation, test, arguments.seed)]
        rows = [replace(row, split=split) for row, split in zip(table.rows, splits, strict=True)]
        write_manifest(table, rows, arguments.out)
        counts = {split: splits.count(split) for split in ("train", "validation", "test")}
    print(f"{arguments.out}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0


def _progress(what: str) -> Callable[[int, int], None]:
    """A line on standard error: one that moves on a terminal, one for every tenth part elsewhere."""
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
