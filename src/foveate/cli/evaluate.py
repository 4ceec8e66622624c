"""foveate evaluate: a trained model's error on labelled images, with its confidence interval."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import ConfigError, DataError, FoveateError, RunError

if TYPE_CHECKING:
    from foveate.models import Model
    from foveate.training.config import RunSettings
    from foveate.training.evaluation import Evaluation
    from foveate.types import ImageDataset

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "measure a trained model's error on labelled images, with its confidence interval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("model", metavar="RUN", help="a run or model folder, a shipped model's name, or a hub id")
    parser.add_argument("--data", metavar="MANIFEST", help="CSV or folder of classes; the run's own images if left out")
    parser.add_argument(
        "--split", help="train, validation or test (default: test; all images of a MANIFEST of others without splits)"
    )
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="average K draws per image (default: 1)")
    parser.add_argument(
        "--method", help="how cells are drawn: iid, des_raj, priority, murthy, uniform, or top for none"
    )
    parser.add_argument(
        "--by-group", action="store_true", help="average the images of a group (a patient), and count groups"
    )
    parser.add_argument("--seed", type=int, help="seed of the draws (default: the run's)")
    parser.add_argument("--batch", type=int, default=32, help="images at a time; changes no result (default: 32)")
    parser.add_argument("--workers", type=int, default=0, help="processes that make views (default: 0)")
    parser.add_argument("--out", metavar="FILE", help="where to write the figures as JSON (default: RUN/metrics.json)")


def run(namespace: argparse.Namespace) -> int:
    """Evaluate, print the figures (a table on a terminal, else JSON) and write them as JSON.

    Returns:
        0.
    """
    for name, least in (("samples", 1), ("batch", 1), ("workers", 0)):
        value = getattr(namespace, name)
        if value < least:
            raise ConfigError(f"--{name} must be at least {least}, got {value}: leave it out or give {least} or more")
    from foveate.models import load_model
    from foveate.training.evaluation import evaluate
    from foveate.training.loader import split_indices
    from foveate.training.processes import open_accelerator
    from foveate.training.replace import replace_file

    accelerator = open_accelerator()
    model = load_model(namespace.model).to(accelerator.device)
    settings = _run_settings(Path(namespace.model))
    dataset, split = _open(namespace.data, namespace.split, Path(namespace.model), settings, model)
    indices = split_indices(dataset, split)
    if not indices:
        raise DataError(f"no image is in the {split} split: choose another --split, or give another --data")
    if namespace.by_group and all(dataset.examples[index].group is None for index in indices):
        raise ConfigError("--by-group needs to know which images belong together: give --data with a column group")
    seed = namespace.seed if namespace.seed is not None else settings.seed if settings is not None else 0
    options = {name: getattr(namespace, name) for name in ("samples", "method", "batch", "workers", "by_group")}
    result = evaluate(model, dataset, indices, seed=seed, **options)
    figures = result.plain()
    figures |= {"split": split or "all", "samples": namespace.samples, "method": namespace.method or model.method}
    if accelerator.is_main_process:
        text = json.dumps(figures, indent=2) + "\n"
        if sys.stdout.isatty():
            _print_tables(result)
        else:
            print(text, end="")
        folder = Path(namespace.model)
        if namespace.out is not None or folder.is_dir():
            replace_file(folder / "metrics.json" if namespace.out is None else Path(namespace.out), text.encode())
    return 0


def _print_tables(result: "Evaluation") -> None:
    """The figures, and a row per class, for a terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    figures = Table("figure", show_header=False)
    figures.add_column(justify="right")
    low, high = result.interval
    auc, precision, exact = result.auc, result.mean_average_precision, result.exact_match_error
    figures.add_row("error", f"{result.error:.4f}  ({low:.4f} to {high:.4f})")
    for name, value in (
        ("exact match error", exact),
        ("balanced error", result.balanced_error),
        ("AUC", auc),
        ("mean average precision", precision),
        ("loss", result.loss),
    ):
        if value is not None:
            figures.add_row(name, f"{value:.4f}")
    figures.add_row("groups" if result.by_group else "images", str(result.n))
    figures.add_row("patches per image", f"{result.patches_per_image:.1f}")
    seen = result.coverage
    if seen is not None:
        figures.add_row("objects covered", f"{seen.covered_per_image:.2f} of {seen.objects_per_image:.2f}")
        if seen.error_floor is not None:
            figures.add_row("error that this leaves", f"{seen.error_floor:.4f}")
    classes = Table("class", "recall")
    counts = result.confusion
    for name in result.classes if counts is not None else ():
        classes.add_column(f"as {escape(name)}", justify="right")
    for number, name in enumerate(result.classes):
        recall = result.recalls[name]
        row = [] if counts is None else [str(count) for count in counts[number]]
        classes.add_row(escape(name), "–" if recall is None else f"{recall:.3f}", *row)
    console = Console()
    console.print(figures)
    console.print(classes)


def _run_settings(folder: Path) -> "RunSettings | None":
    """The settings of the run, or None for a model without one."""
    from foveate.training.run_folder import run_settings

    try:
        return run_settings(folder)
    except RunError:
        return None


def _open(
    manifest: str | None, split: str | None, run: Path, settings: "RunSettings | None", model: "Model"
) -> "tuple[ImageDataset, str | None]":
    """The images and the split to take; None where a manifest names no splits, and all images count.

    The run's own images are split as they were in training, by whatever manifest they come, so that no training image
    comes into the test.
    """
    from foveate.datasets import open_dataset, read_manifest
    from foveate.training.folds import join_splits, read_splits

    own = None if settings is None else settings.data.manifest
    if manifest is None or (own is not None and Path(own).resolve() == Path(manifest).resolve()):
        if settings is None:
            raise DataError("this model has no run folder that says which images to take: give --data MANIFEST")
        dataset = open_dataset(settings.data, settings.seed)
        if dataset.classes != model.classes:
            raise DataError(
                f"the images have the classes {', '.join(dataset.classes)}, the model {', '.join(model.classes)}: "
                "give --data with the images it was trained for"
            )
        return read_splits(run, dataset), split or "test"
    images = read_manifest(manifest, classes=model.classes, multi_label=model.multi_label)
    if any(example.split for example in images.examples):
        return images, split or "test"
    known = {} if settings is None else _splits(run, settings)
    if any(known.get(example.id) == "train" for example in images.examples):
        return join_splits(images, known), split or "test"
    if split is not None:
        raise DataError(f"{manifest} names no splits: leave out --split to take all its images, or add a split column")
    return images, None


def _splits(run: Path, settings: "RunSettings") -> dict[str, str]:
    """Image id → split of the run; empty where its images are no longer there."""
    from foveate.datasets import open_dataset
    from foveate.training.folds import read_splits

    try:
        examples = read_splits(run, open_dataset(settings.data, settings.seed)).examples
    except FoveateError:
        return {}
    return {example.id: example.split for example in examples if example.split is not None}
