"""Cross-validation: one run per fold, and what the folds say together; which image was in which split."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from foveate.atomic import replace_file
from foveate.config.training import RunSettings
from foveate.datasets import fill_splits, k_folds, open_dataset
from foveate.datasets.open import named_manifest
from foveate.datasets.types import Example, ImageDataset, Resplit
from foveate.errors import DataError, RunError
from foveate.evaluation.evaluate import evaluate
from foveate.models import DrawOptions, load_model
from foveate.pipeline.distributed import agreed, open_accelerator
from foveate.pipeline.loader import LoadOptions, split_indices
from foveate.training.loop import train
from foveate.training.progress import Progress, choose_progress, span

SPLITS = "splits.json"
"""File in a fold's folder: image id → split, since its settings alone do not tell."""


def read_splits(run: Path, dataset: ImageDataset) -> ImageDataset:
    """Splits of a run: the images split as they were for a fold; as they are, where the run is none.

    Arguments:
        run: folder of a run, or of the model in it.
        dataset: the run's images.

    Raises:
        DataError: an image was not there when the folds were made.
        RunError: the record of the splits is damaged.
    """
    path = next((folder / SPLITS for folder in (run, run.parent) if (folder / SPLITS).is_file()), None)
    if path is None:
        return dataset
    splits = _splits(path)
    new = next((one.id for one in dataset.examples if one.id not in splits), None)
    if new is not None:
        raise DataError(f"{new} is in no fold of {path.parent}: give the images as they were, or others with --data")
    return Resplit(dataset, tuple(replace(one, split=splits[one.id]) for one in dataset.examples))


def write_splits(folder: Path, examples: Sequence[Example], again: str) -> None:
    """Splits of a run, written into its folder before its first model is there to be evaluated.

    Where a run never got as far as a state or a model, the splits it was to have are replaced.

    Arguments:
        folder: of the run.
        examples: the images, each with its split.
        again: what to do with the images "it was begun with", if these are split otherwise.

    Raises:
        RunError: the run was begun with other splits, or the record of them is damaged.
    """
    splits = {one.id: one.split for one in examples}
    path = folder / SPLITS
    begun = any((folder / name).exists() for name in ("state", "model"))
    if not (begun and path.exists()):
        replace_file(path, json.dumps(splits, ensure_ascii=False, indent=0).encode(errors="surrogateescape"))
    elif _splits(path) != splits:
        raise RunError(f"{folder} was split otherwise: {again} it was begun with, or choose another --out")


def join_splits(dataset: ImageDataset, splits: Mapping[str, str]) -> ImageDataset:
    """Splits by a run, for images without: those that were in it keep its split, and so do others of their groups.

    Arguments:
        dataset: the images.
        splits: image id → split of the run. What it does not know was never trained on, and is "test".
    """
    groups = {one.group: splits[one.id] for one in dataset.examples if one.group is not None and one.id in splits}

    def split(one: Example) -> str:
        return splits.get(one.id) or ("test" if one.group is None else groups.get(one.group, "test"))

    return Resplit(dataset, tuple(replace(one, split=split(one)) for one in dataset.examples))


def train_folds(
    settings: RunSettings,
    out: Path | str,
    folds: int,
    *,
    resume: bool = False,
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Cross-validation: train one model per fold and measure each on images it never saw.

    Every fold is the test split once; validation images, which choose the model, are held out of the others. Where the
    data name a test split, that one tests all models, and the folds take turns as validation split.

    Arguments:
        settings: of every run.
        out: folder; the runs go to fold-1 … fold-k in it, the result to folds.json.
        folds: number of folds k.
        resume: continue; folds that are done are not trained again.
        dataset: the images, with the splits that the data name; opened from `settings.data` if None.
        progress: who is told; chosen if None.

    Returns:
        What folds.json holds: "k", "mean" test error, its "standard_error", and "folds" with a record each.

    Raises:
        RunError: `out` is not empty and `resume` is False, or its folds were others.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        DataError: the images cannot be divided so.
    """
    out = Path(out)
    accelerator = open_accelerator()
    agreed(accelerator, partial(_check_free, out, resume))
    images = dataset or _named_splits(settings)
    remedy = f"to continue: foveate train --resume --folds {folds} --out {shlex.quote(str(out))}"
    crossing = settings.data.allow_crossing_groups
    records: list[dict[str, Any]] = []
    errors: list[float] = []
    took: list[float] = []
    divided = k_folds(images.examples, folds, settings.seed, allow_crossing=crossing)
    for number, examples in enumerate(divided, start=1):
        filled = fill_splits(examples, settings.data.validation, 0.0, settings.seed, allow_crossing=crossing)
        split = Resplit(images, tuple(filled))
        folder = out / f"fold-{number}"
        agreed(accelerator, partial(write_splits, folder, filled, "resume with the images and the --folds"))
        told = progress or choose_progress(f"fold {number} of {folds}")
        if accelerator.is_main_process:
            told.say(fold_line(number, folds, took))
        result = train(settings, folder, resume=True, dataset=split, progress=told, remedy=remedy)
        took.append(result.seconds)
        model = load_model(folder, allow_code=settings.model.own_code).to(accelerator.device)
        test, loading = split_indices(split, "test"), LoadOptions(settings.training.batch)
        tested = evaluate(model, split, test, DrawOptions(seed=settings.seed), loading=loading)
        errors.append(tested.error)
        records.append({"fold": number, "validation_error": result.validation_error, **tested.plain()})
    summary = {
        "k": folds,
        "mean": mean(errors),
        "standard_error": stdev(errors) / math.sqrt(folds),
        "folds": records,
    }
    if accelerator.is_main_process:
        replace_file(out / "folds.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def fold_line(number: int, folds: int, took: Sequence[float]) -> str:
    """Line at the beginning of a fold, with the time that all that are left will take if they take what others took.

    Example:
        >>> fold_line(1, 5, []), fold_line(4, 5, [100.0, 140.0, 120.0])
        ('fold 1 of 5', 'fold 4 of 5 · about 4 min left for 2 folds')
    """
    if not took:
        return f"fold {number} of {folds}"
    left = folds - number + 1
    return f"fold {number} of {folds} · about {span(mean(took) * left)} left for {left} fold{'s' if left > 1 else ''}"


def _check_free(out: Path, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, folds need a folder: choose another --out")
    if not resume and any(not path.is_dir() and path.name != SPLITS for path in out.rglob("*")):
        raise RunError(f"{out} is not empty: add --resume to continue the folds there, or choose another --out")


def _splits(path: Path) -> dict[str, str]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError:
        splits = None
    if not isinstance(splits, dict):
        raise RunError(f"{path} is damaged: restore a copy, or choose another --out to train anew")
    return splits


def _named_splits(settings: RunSettings) -> ImageDataset:
    """The images with the splits that the data name, none filled in."""
    if settings.data.source == "manifest" and settings.data.manifest is not None:
        return named_manifest(settings.data)
    return open_dataset(replace(settings.data, test=0.0), settings.seed)
