"""`foveate report RUN`: a page that says what a run learnt, how sure it is, and where it is wrong."""

import argparse
from pathlib import Path

from foveate.cli.evaluate import add_images, judged_by, seed_of, settings_of
from foveate.cli.labelled import open_images
from foveate.cli.parser import add_layout, add_loading, add_model, check_looking
from foveate.errors import ConfigError, DataError

SUMMARY = "say on a page what a trained model learnt, how sure it is, and where it is wrong"

EPILOG = """\
examples:
  foveate report runs/mine                               RUN/report.html, by the run's own test images
  foveate report runs/mine --split validation            by those that chose the model
  foveate report runs/cv                                 a cross-validation, by its held-out predictions
  foveate report runs/mine --data other.csv --out other.html --worst 12

The page needs nothing beside it: figures with their intervals and whether anything was learnt, learning curves with the
line of one answer for all, attention in the course of training (training.watch), confusion, ROC and precision-recall
curves, decisions, calibration, and the mistakes that the model is surest of, with where it looked. Of a model that
answers with numbers: answers against labels, and those that are furthest off.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    add_model(parser, "model")
    add_images(parser)
    parser.add_argument("--worst", type=int, default=6, metavar="K", help="mistakes to show (default: 6)")
    add_loading(parser)
    add_layout(parser)
    parser.add_argument("--out", metavar="FILE", help="page to write (default: RUN/report.html)")


def run(namespace: argparse.Namespace) -> int:
    """Evaluate, and write the page.

    Returns:
        0.
    """
    check_looking(namespace)
    if namespace.worst < 0:
        raise ConfigError(f"--worst must be at least 0, got {namespace.worst}: 6 shows the six worst mistakes")
    folder = Path(namespace.model)
    if namespace.out is None and not folder.is_dir():
        raise DataError(f"{namespace.model} is no folder that a report could be put into: name a file with --out")
    out = Path(namespace.out) if namespace.out is not None else folder / "report.html"
    if namespace.data is None and (folder / "fold-1").is_dir():
        return _of_folds(namespace, folder, out)
    from foveate.devices import best_device
    from foveate.models import DrawOptions, load_model
    from foveate.pipeline.loader import split_indices
    from foveate.report import worst_mistakes, write_report

    model = load_model(namespace.model, allow_code=namespace.allow_code).to(best_device())
    settings = settings_of(folder)
    dataset, split = open_images(namespace, settings, model)
    indices = split_indices(dataset, split)
    if not indices:
        raise DataError(f"no image is in the {split} split: choose another --split, or give another --data")
    options = DrawOptions(namespace.samples, namespace.method, seed_of(namespace, settings))
    result = judged_by(namespace, model, dataset, indices, options, "evaluating")
    write_report(
        out,
        model.decision,
        dataset.examples,
        result,
        name=namespace.model,
        split=split or "given",
        settings=settings,
        run=folder if settings is not None else None,
        dataset=dataset,
        mistakes=worst_mistakes(model, dataset, result, namespace.worst, options),
    )
    print(out)
    return 0


def _of_folds(namespace: argparse.Namespace, folder: Path, out: Path) -> int:
    """The report of a cross-validation, by what each fold said of the images that it was not trained on."""
    from foveate.models.store import find_model, saved_decision
    from foveate.report import write_report
    from foveate.training.folds import any_held_out

    tested, _ = any_held_out(folder)
    rule = saved_decision(find_model(folder))
    write_report(out, rule, tested.examples, tested.judged(False), name=namespace.model, split="held-out")
    print(out)
    return 0
