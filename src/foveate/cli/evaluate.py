"""`foveate evaluate RUN`: a trained model's error on labelled images, with its confidence interval."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.cli.parser import add_layout, add_loading, add_model, check_looking
from foveate.cli.predict import SOME_FAILED, progress
from foveate.errors import ConfigError, DataError, FoveateError, RunError

if TYPE_CHECKING:
    from rich.table import Table

    from foveate.config.training import RunSettings
    from foveate.datasets.types import ImageDataset
    from foveate.evaluation.evaluate import Evaluation
    from foveate.explain import AverageDeletion, Localisation
    from foveate.models import DrawOptions, Model

SUMMARY = "measure a trained model's error on labelled images, with its confidence interval"

EPILOG = """\
examples:
  foveate evaluate runs/mine                                   the run's own test images
  foveate evaluate runs/mine --data other.csv --samples 4      other images, four draws averaged
  foveate evaluate runs/megapixel-mnist --localisation         and how well its maps find the digits
  foveate evaluate runs/mine --deletion                        and whether its answers rest on what the maps point at

--localisation is for images of which it is known what lies where: megapixel-mnist, circuit-boards, colon-cancer,
speed-limits and german-speed-limits. Attention on the objects, pointing game, average precision of the cells and hits
of patches and objects are means over the images that have objects, each with its 95 % interval by bootstrap over images
(groups, where there are any). --deletion is for any images: the probability of each answer as the patches of the most
attended cells are covered, 1 to 20, beside as many covered anywhere; eleven predictions an image.

Images that cannot be read are not counted: errors.csv beside the figures names them, and the exit code is 3.
"""

NAMES = {
    "chance": "share of cells that show one",
    "mass": "attention on them",
    "pointing": "pointing game",
    "average_precision": "average precision of the cells",
    "draws_that_hit": "patches that hit one",
    "objects_hit": "objects that are hit",
}
"""What the scores of maps are called."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    add_model(parser, "model")
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
    parser.add_argument("--localisation", action="store_true", help="score the maps where it is known what lies where")
    parser.add_argument("--deletion", action="store_true", help="cover what the maps point at, and predict again")
    parser.add_argument("--seed", type=int, help="seed of the draws (default: the run's)")
    add_loading(parser)
    add_layout(parser)
    parser.add_argument("--out", metavar="FILE", help="where to write the figures as JSON (default: RUN/metrics.json)")


def run(namespace: argparse.Namespace) -> int:
    """Evaluate, print the figures (a table on a terminal, else JSON) and write them as JSON.

    Returns:
        0, or 3 if some images could not be read.
    """
    check_looking(namespace)
    from accelerate.utils import gather_object

    from foveate.atomic import replace_file
    from foveate.evaluation.evaluate import evaluate
    from foveate.models import DrawOptions, load_model
    from foveate.pipeline.distributed import ending_together, open_accelerator
    from foveate.pipeline.loader import LoadOptions, split_indices
    from foveate.threads import set_reading_threads

    accelerator = open_accelerator()
    model = load_model(namespace.model, allow_code=namespace.allow_code).to(accelerator.device)
    settings = _run_settings(Path(namespace.model))
    dataset, split = _open(namespace, settings, model)
    indices = split_indices(dataset, split)
    if not indices:
        raise DataError(f"no image is in the {split} split: choose another --split, or give another --data")
    if namespace.by_group and all(dataset.examples[index].group is None for index in indices):
        raise ConfigError("--by-group needs to know which images belong together: give --data with a column group")
    _check_maps(namespace, model, dataset, indices)
    seed = namespace.seed if namespace.seed is not None else settings.seed if settings is not None else 0
    failures: list[tuple[str, str, str]] = []

    def failed(index: int, error: Exception) -> None:
        failures.append((dataset.examples[index].id, "evaluate", " ".join(str(error).split())))

    options, loading = (
        DrawOptions(namespace.samples, namespace.method, seed),
        LoadOptions(namespace.batch, failed=failed),
    )
    errors = _errors_file(namespace)
    set_reading_threads(namespace.threads)
    with ending_together(), progress(len(indices) if accelerator.is_main_process else 0, "evaluating") as bar:

        def told(images: int) -> None:
            for _ in range(images * accelerator.num_processes):
                bar()

        result = evaluate(model, dataset, indices, options, loading=loading, by_group=namespace.by_group, told=told)
    failures = sorted(gather_object(failures))
    indices = result.indices
    figures = result.plain() | ({"failed": len(failures)} if failures else {})
    figures |= {"split": split or "all", "samples": namespace.samples, "method": namespace.method or model.method}
    if accelerator.is_main_process:
        localisation, deletion = _judge_maps(namespace, model, dataset, indices, options)
        judged = {"localisation": localisation, "deletion": deletion}
        figures |= {name: one.plain() for name, one in judged.items() if one is not None}
        text = json.dumps(figures, indent=2) + "\n"
        if sys.stdout.isatty():
            print_tables(result, localisation, deletion)
        else:
            print(text, end="")
        _tell_failures(failures, errors, len(indices))
        if (out := _figures_file(namespace)) is not None:
            replace_file(out, text.encode())
    return SOME_FAILED if failures else 0


def _figures_file(namespace: argparse.Namespace) -> Path | None:
    folder = Path(namespace.model)
    if namespace.out is not None:
        return Path(namespace.out)
    return folder / "metrics.json" if folder.is_dir() else None


def _errors_file(namespace: argparse.Namespace) -> Path | None:
    """The file beside the figures that names images which could not be read; one of another kind is refused."""
    from foveate.predict.sinks import ERROR_COLUMNS, ERRORS, refuse_others

    out = _figures_file(namespace)
    if out is None:
        return None
    refuse_others(out.parent / ERRORS, ERROR_COLUMNS)
    return out.parent / ERRORS


def _tell_failures(failures: Sequence[tuple[str, str, str]], errors: Path | None, done: int) -> None:
    """Images that could not be read, in errors.csv beside the figures or, where these go nowhere, line by line."""
    from foveate.atomic import replace_file
    from foveate.predict.sinks import ERROR_COLUMNS

    if errors is None:
        for path, _, message in failures:
            print(f"foveate: {message if path in message else f'{path}: {message}'}", file=sys.stderr)
    elif failures:
        text = StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([ERROR_COLUMNS, *failures])
        replace_file(errors, text.getvalue().encode(errors="surrogateescape"))
    else:
        errors.unlink(missing_ok=True)
    if failures:
        told = f"{len(failures)} of {done + len(failures)} images failed and are not counted"
        print(f"foveate: {told}{'' if errors is None else f', see {errors}'}", file=sys.stderr)


def _check_maps(namespace: argparse.Namespace, model: "Model", dataset: "ImageDataset", indices: Sequence[int]) -> None:
    """Refuse what no map can be asked, before the images are evaluated."""
    from foveate.explain import check_deletion, check_localisation

    if namespace.localisation:
        check_localisation(model, dataset, indices)
    if namespace.deletion:
        check_deletion(model)


def _judge_maps(
    namespace: argparse.Namespace,
    model: "Model",
    dataset: "ImageDataset",
    indices: Sequence[int],
    options: "DrawOptions",
) -> "tuple[Localisation | None, AverageDeletion | None]":
    """What the maps are worth, as far as it is asked."""
    from foveate.explain import deletion_over, localisation_over

    given = (model, dataset, indices, options)
    return (
        localisation_over(*given) if namespace.localisation else None,
        deletion_over(*given) if namespace.deletion else None,
    )


def _run_settings(folder: Path) -> "RunSettings | None":
    """The settings of the run, or None for a model without one."""
    from foveate.training.run_folder import run_settings

    try:
        return run_settings(folder)
    except RunError:
        return None


def _open(
    namespace: argparse.Namespace, settings: "RunSettings | None", model: "Model"
) -> "tuple[ImageDataset, str | None]":
    """The images and the split to take; None where a manifest names no splits, and all images count.

    The run's own images are split as they were in training, by whatever manifest they come, so that no training image
    comes into the test.
    """
    from foveate.datasets import open_dataset, read_manifest
    from foveate.datasets.manifest.rows import Layout
    from foveate.training.folds import join_splits, read_splits

    manifest, split, run = namespace.data, namespace.split, Path(namespace.model)
    layout = Layout.of(namespace.columns, namespace.images)
    own = None if settings is None else settings.data.manifest
    if manifest is None or (own is not None and Path(own).resolve() == Path(manifest).resolve()):
        if settings is None:
            raise DataError("this model has no run folder that says which images to take: give --data MANIFEST")
        dataset = open_dataset(settings.data, settings.seed, check_files=False)
        if dataset.classes != model.classes:
            raise DataError(
                f"the images have the classes {', '.join(dataset.classes)}, the model {', '.join(model.classes)}: "
                "give --data with the images it was trained for"
            )
        return read_splits(run, dataset), split or "test"
    images = read_manifest(
        manifest, classes=model.classes, check_files=False, multi_label=model.multi_label, layout=layout
    )
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
        examples = read_splits(run, open_dataset(settings.data, settings.seed, check_files=False)).examples
    except FoveateError:
        return {}
    return {example.id: example.split for example in examples if example.split is not None}


def print_tables(
    result: "Evaluation", localisation: "Localisation | None" = None, deletion: "AverageDeletion | None" = None
) -> None:
    """Tables for a terminal: the figures, a row per class, and what the maps are worth.

    Arguments:
        result: of the evaluation.
        localisation: scores of the maps where the truth is known; None leaves them out.
        deletion: how answers change as patches are covered; likewise.
    """
    from rich.console import Console

    console = Console()
    console.print(_figures(result))
    console.print(_classes(result))
    if localisation is not None:
        console.print(_scores(localisation))
    if deletion is not None:
        console.print(_steps(deletion))


def _figures(result: "Evaluation") -> "Table":
    from rich.table import Table

    figures = Table("figure", show_header=False)
    figures.add_column(justify="right")
    figures.add_row("error", _with_interval(result.error, result.interval))
    named = {
        "exact match error": result.exact_match_error,
        "balanced error": result.balanced_error,
        "AUC": result.auc,
        "mean average precision": result.mean_average_precision,
        "loss": result.loss,
    }
    for name, value in named.items():
        if value is not None:
            figures.add_row(name, f"{value:.4f}")
    figures.add_row("groups" if result.by_group else "images", str(result.n))
    figures.add_row("patches per image", f"{result.patches_per_image:.1f}")
    seen = result.coverage
    if seen is not None:
        figures.add_row("objects covered", f"{seen.covered_per_image:.2f} of {seen.objects_per_image:.2f}")
        if seen.error_floor is not None:
            figures.add_row("error that this leaves", f"{seen.error_floor:.4f}")
    return figures


def _classes(result: "Evaluation") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    classes = Table("class", "recall")
    counts = result.confusion
    for name in result.classes if counts is not None else ():
        classes.add_column(f"as {escape(name)}", justify="right")
    for number, name in enumerate(result.classes):
        recall = result.recalls[name]
        row = [] if counts is None else [str(count) for count in counts[number]]
        classes.add_row(escape(name), "–" if recall is None else f"{recall:.3f}", *row)
    return classes


def _scores(localisation: "Localisation") -> "Table":
    from rich.table import Table

    objects = f"{localisation.objects_per_image:.2f} objects in each of {localisation.images} images"
    table = Table(objects, "mean (95 %)", "images")
    for name, score in localisation.scores.items():
        if score is not None:
            table.add_row(NAMES[name], _with_interval(score.mean, score.interval), str(score.images))
    return table


def _steps(deletion: "AverageDeletion") -> "Table":
    from rich.table import Table

    table = Table("patches covered", "probability, most attended first", "by chance")
    for count, attended, anywhere in zip(deletion.covered, deletion.by_attention, deletion.by_chance, strict=True):
        table.add_row(str(count), f"{attended:.4f}", f"{anywhere:.4f}")
    table.add_row("falls further by", _with_interval(deletion.drop.mean, deletion.drop.interval), "")
    return table


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f}  ({interval[0]:.4f} to {interval[1]:.4f})"
