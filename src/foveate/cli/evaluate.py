"""`foveate evaluate RUN`: a trained model's error on labelled images, with its confidence interval."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.labelled import open_images
from foveate.cli.parser import add_abstain, add_layout, add_loading, add_model, check_looking
from foveate.cli.predict import SOME_FAILED, progress
from foveate.errors import ConfigError, DataError, RunError

if TYPE_CHECKING:
    from foveate.config.training import RunSettings
    from foveate.datasets.types import ImageDataset
    from foveate.evaluation.decisions import DecisionScores
    from foveate.evaluation.evaluate import Evaluation
    from foveate.evaluation.numbers import AnyEvaluation
    from foveate.explain import AverageDeletion, Localisation
    from foveate.models import Decision, DrawOptions, Model

SUMMARY = "measure a trained model's error on labelled images, with its confidence interval"

EPILOG = """\
examples:
  foveate evaluate runs/mine                                   the run's own test images
  foveate evaluate runs/mine --data other.csv --samples 4      other images, four draws averaged
  foveate evaluate runs/cv                                     a cross-validation: its held-out predictions, pooled
  foveate evaluate runs/megapixel-mnist --localisation         and how well its maps find the digits
  foveate evaluate runs/mine --deletion                        and whether its answers rest on what the maps point at

--localisation is for images of which it is known what lies where: megapixel-mnist, circuit-boards, colon-cancer,
speed-limits and german-speed-limits. Attention on the objects, pointing game, average precision of the cells and hits
of patches and objects are means over the images that have objects, each with its 95 % interval by bootstrap over images
(groups, where there are any). --deletion is for any images: the probability of each answer as the patches of the most
attended cells are covered, 1 to 20, beside as many covered anywhere; eleven predictions an image.

Images that cannot be read are not counted: errors.csv beside the figures names them, and the exit code is 3.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    add_model(parser, "model")
    add_images(parser)
    parser.add_argument(
        "--by-group", action="store_true", help="average the images of a group (a patient), and count groups"
    )
    parser.add_argument("--localisation", action="store_true", help="score the maps where it is known what lies where")
    parser.add_argument("--deletion", action="store_true", help="cover what the maps point at, and predict again")
    add_abstain(parser)
    add_loading(parser)
    add_layout(parser)
    parser.add_argument("--out", metavar="FILE", help="where to write the figures as JSON (default: RUN/metrics.json)")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Arguments of which labelled images a model is judged by, and of how it draws."""
    parser.add_argument("--data", metavar="MANIFEST", help="CSV or folder of classes; the run's own images if left out")
    parser.add_argument(
        "--split", help="train, validation or test (default: test; all images of a MANIFEST of others without splits)"
    )
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="average K draws per image (default: 1)")
    parser.add_argument(
        "--method", help="how cells are drawn: iid, des_raj, priority, murthy, uniform, or top for none"
    )
    parser.add_argument("--seed", type=int, help="seed of the draws (default: the run's)")


def run(namespace: argparse.Namespace) -> int:
    """Evaluate, print the figures (a table on a terminal, else JSON) and write them as JSON.

    Returns:
        0, or 3 if some images could not be read.
    """
    check_looking(namespace)
    if namespace.data is None and (Path(namespace.model) / "fold-1").is_dir():
        return _held_out(namespace)
    from accelerate.utils import gather_object

    from foveate.atomic import replace_file
    from foveate.cli.tables import print_numbers, print_tables
    from foveate.evaluation.calibration import reliability
    from foveate.evaluation.numbers import NumberEvaluation, evaluate_any
    from foveate.models import DrawOptions, load_model
    from foveate.models.probabilities import refuse_numbers
    from foveate.pipeline.distributed import ending_together, open_accelerator
    from foveate.pipeline.loader import LoadOptions, split_indices
    from foveate.threads import set_reading_threads

    accelerator = open_accelerator()
    model = load_model(namespace.model, allow_code=namespace.allow_code).to(accelerator.device)
    for option in ("abstain", "deletion"):
        if getattr(namespace, option):
            refuse_numbers(model.kind, f"--{option} is")
    model.decision = model.decision.abstaining(namespace.abstain)
    settings = settings_of(Path(namespace.model))
    dataset, split = open_images(namespace, settings, model)
    indices = split_indices(dataset, split)
    if not indices:
        raise DataError(f"no image is in the {split} split: choose another --split, or give another --data")
    if namespace.by_group and all(dataset.examples[index].group is None for index in indices):
        raise ConfigError("--by-group needs to know which images belong together: give --data with a column group")
    _check_maps(namespace, model, dataset, indices)
    seed = seed_of(namespace, settings)
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

        result = evaluate_any(model, dataset, indices, options, loading=loading, by_group=namespace.by_group, told=told)
    failures = sorted(gather_object(failures))
    indices = result.indices
    figures = result.plain() | ({"failed": len(failures)} if failures else {})
    figures |= {"split": split or "all", "samples": namespace.samples, "method": namespace.method or model.method}
    if accelerator.is_main_process:
        localisation, deletion = _judge_maps(namespace, model, dataset, indices, options)
        judged: dict[str, Any] = {"localisation": localisation, "deletion": deletion}
        decisions = None
        if not isinstance(result, NumberEvaluation):
            judged["decisions"] = decisions = _judge_decisions(model.decision, result)
            judged["calibration"] = reliability(result.labels, result.probabilities, result.groups)
        figures |= {name: one.plain() for name, one in judged.items() if one is not None}
        text = json.dumps(figures, indent=2) + "\n"
        if not sys.stdout.isatty():
            print(text, end="")
        elif isinstance(result, NumberEvaluation):
            print_numbers(result, localisation)
        else:
            print_tables(result, localisation, deletion, decisions)
        _tell_failures(failures, errors, len(indices))
        if (out := _figures_file(namespace)) is not None:
            replace_file(out, text.encode())
    return SOME_FAILED if failures else 0


def _held_out(namespace: argparse.Namespace) -> int:
    """What the folds of a cross-validation said of the images that each was not trained on, pooled."""
    from dataclasses import replace

    from foveate.atomic import replace_file
    from foveate.cli.tables import print_numbers, print_tables
    from foveate.evaluation.evaluate import Evaluation
    from foveate.models.ensemble import fold_folders
    from foveate.models.heads import order_of
    from foveate.training.folds import any_held_out

    folder = Path(namespace.model)
    folds = fold_folders(folder)
    asked = {
        name: getattr(namespace, name) for name in ("split", "method", "localisation", "deletion", "seed", "abstain")
    }
    if given := [f"--{name}" for name, value in asked.items() if value] + ["--samples"] * (namespace.samples > 1):
        raise ConfigError(
            f"{folder} is a cross-validation, whose folds were tested as they were trained: leave out "
            f"{', '.join(given)}, or give --data with images of which none was trained on, or one fold, e.g. {folds[0]}"
        )
    tested, _ = any_held_out(folder)
    if namespace.by_group and all(one.group is None for one in tested.examples):
        raise ConfigError("--by-group needs to know which images belong together: train with a column group")
    told = json.loads((folder / "folds.json").read_text(encoding="utf-8"))["pooled"]
    view = (int(told["view_size"][0]), int(told["view_size"][1]))
    settings = settings_of(Path(folds[0]))
    result = replace(tested.judged(namespace.by_group), patches_per_image=told["patches_per_image"], view_size=view)
    if isinstance(result, Evaluation) and settings is not None:
        result = replace(result, order=order_of(settings.model.head, result.classes))
    text = json.dumps(result.plain() | {"split": "held out", "folds": len(folds)}, indent=2) + "\n"
    if not sys.stdout.isatty():
        print(text, end="")
    elif isinstance(result, Evaluation):
        print_tables(result)
    else:
        print_numbers(result)
    replace_file(folder / "metrics.json" if namespace.out is None else Path(namespace.out), text.encode())
    return 0


def _judge_decisions(rule: "Decision", result: "Evaluation") -> "DecisionScores | None":
    """What the model's decision rule is worth on the images, if it has one."""
    from foveate.evaluation.decisions import judge_decisions

    if not rule.decides:
        return None
    return judge_decisions(rule, result.classes, result.labels, result.probabilities, result.groups)


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


def settings_of(folder: Path) -> "RunSettings | None":
    """The settings of the run, or None for a model without one."""
    from foveate.training.run_folder import run_settings

    try:
        return run_settings(folder)
    except RunError:
        return None


def seed_of(namespace: argparse.Namespace, settings: "RunSettings | None") -> int:
    """Seed of the draws: the one that is asked for, else the run's, else 0."""
    return namespace.seed if namespace.seed is not None else settings.seed if settings is not None else 0


def judged_by(
    namespace: argparse.Namespace,
    model: "Model",
    dataset: "ImageDataset",
    indices: Sequence[int],
    options: "DrawOptions",
    doing: str,
) -> "AnyEvaluation":
    """Evaluation by this process alone, under a bar; an image that cannot be read ends it."""
    from foveate.evaluation.numbers import evaluate_any
    from foveate.pipeline.loader import LoadOptions
    from foveate.threads import set_reading_threads

    set_reading_threads(namespace.threads)
    with progress(len(indices), doing) as bar:

        def told(images: int) -> None:
            for _ in range(images):
                bar()

        return evaluate_any(model, dataset, indices, options, loading=LoadOptions(namespace.batch), told=told)
