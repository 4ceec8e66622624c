"""Cross-validation: one run per fold, and what the folds say together; which image was in which split."""

import csv
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.atomic import replace_file
from foveate.config.training import RunSettings
from foveate.datasets import fill_splits, k_folds, open_dataset
from foveate.datasets.open import named_manifest
from foveate.datasets.types import Example, ImageDataset, Resplit
from foveate.errors import ConfigError, DataError, RunError
from foveate.evaluation.evaluate import Evaluation, judge
from foveate.evaluation.numbers import AnyEvaluation, NumberEvaluation, evaluate_any
from foveate.evaluation.scores import label_array
from foveate.models import DrawOptions, load_model
from foveate.models.ensemble import FOLDS
from foveate.models.probabilities import SEPARATOR
from foveate.pipeline.distributed import agreed, open_accelerator
from foveate.pipeline.loader import LoadOptions, split_indices
from foveate.training.held_numbers import HeldNumbers, pooled
from foveate.training.loop import train
from foveate.training.progress import Progress, choose_progress, span

SPLITS = "splits.json"
"""File in a fold's folder: image id → split, since its settings alone do not tell."""

OUT_OF_FOLD, TEST = "out_of_fold.csv", "test.csv"
"""Tables of predictions in the folder of the folds: of every image by the model of the fold that it was held out of;
and, where the data name a test split, of its images by all models together."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions of a cross-validation: each image once, by models that were not trained on it.

    Attributes:
        examples: n images, sorted by id, with their labels and groups.
        folds: fold of the model that predicted each; 0 where all models did, and their mean counts.
        probabilities: (n, classes).
        classes: names of the classes.
        multi_label: whether an image may have several labels.
    """

    examples: tuple[Example, ...]
    folds: tuple[int, ...]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]
    multi_label: bool

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) class numbers; with several labels (n, classes), 1 for a class the image has and 0 else."""
        return label_array([one.label for one in self.examples], len(self.classes), self.multi_label)

    def judged(self, by_group: bool = False) -> Evaluation:
        """Evaluation of them all, pooled.

        Raises:
            DataError: groups are judged, and the images of one differ in their labels.
        """
        try:
            return judge(self.examples, self.labels, self.probabilities, self.classes, by_group)
        except ValueError as error:
            raise DataError(f"the images of group {error} have different labels: evaluate image by image") from error

    def write(self, path: Path) -> None:
        """Write them as CSV: `path, label, fold, group, p_<class> …`."""
        text = StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", "label", "fold", "group", *(f"p_{name}" for name in self.classes)])
        for one, fold, values in zip(self.examples, self.folds, self.probabilities.tolist(), strict=True):
            named = one.label if isinstance(one.label, tuple) else (one.label,)
            label = SEPARATOR.join(self.classes[k] for k in named if isinstance(k, int))
            rows.writerow([one.id, label, fold or "all", one.group or "", *(repr(value) for value in values)])
        replace_file(path, text.getvalue().encode(errors="surrogateescape"))

    @classmethod
    def read(cls, path: Path, multi_label: bool) -> "HeldOut":
        """The inverse of `write`.

        Raises:
            RunError: the table is missing or damaged.
        """
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                head, *rows = csv.reader(file)
            classes = tuple(name.removeprefix("p_") for name in head[4:])
            examples = tuple(_example(row, classes, multi_label) for row in rows)
            folds = tuple(0 if row[2] == "all" else int(row[2]) for row in rows)
            values = np.array([[float(value) for value in row[4:]] for row in rows]).reshape(-1, len(classes))
            return cls(examples, folds, values, classes, multi_label)
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing: foveate train --resume --folds K writes it") from error
        except (ValueError, IndexError) as error:
            raise RunError(f"{path} is damaged: foveate train --resume --folds K writes it again") from error


def _example(row: Sequence[str], classes: Sequence[str], multi_label: bool) -> Example:
    named = tuple(classes.index(name) for name in row[1].split(SEPARATOR) if name or not multi_label)
    return Example(row[0], named if multi_label else named[0], None, row[3] or None)


def held_out(folder: Path) -> tuple[HeldOut, HeldOut]:
    """Held-out predictions of a finished cross-validation: those that judge it, and those that may be tuned on.

    Arguments:
        folder: of the folds.

    Returns:
        Predictions of test images, and of validation images; the same where every image was tested once.

    Raises:
        RunError: a table or folds.json is missing or damaged.
        ConfigError: the models answer with numbers; `any_held_out` takes those, too.
    """
    tested, validated = any_held_out(folder)
    if isinstance(tested, HeldNumbers) or isinstance(validated, HeldNumbers):
        raise ConfigError(f"{folder} answers with numbers, and this is for classes: see foveate evaluate {folder}")
    return tested, validated


def any_held_out(folder: Path) -> tuple[HeldOut | HeldNumbers, HeldOut | HeldNumbers]:
    """Held-out predictions of a finished cross-validation, of classes or of numbers; see `held_out`."""
    try:
        told = json.loads((folder / FOLDS).read_text(encoding="utf-8"))
        several, numeric = bool(told["multi_label"]), bool(told.get("numbers", False))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder / FOLDS} is missing, damaged or of an older foveate: foveate train --resume --folds K --out "
            f"{folder} writes it again, and trains nothing twice"
        ) from error

    def read(path: Path) -> HeldOut | HeldNumbers:
        return HeldNumbers.read(path) if numeric else HeldOut.read(path, several)

    validated = read(folder / OUT_OF_FOLD)
    return read(folder / TEST) if (folder / TEST).is_file() else validated, validated


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
        What folds.json holds: "k", "mean" test error, its "standard_error", "folds" with a record each, and "pooled":
        figures of all held-out predictions together, which are in out_of_fold.csv (where the data name a test split,
        of its images by the mean of all models, in test.csv).

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
    errors, took = list[float](), list[float]()
    named = any(one.split == "test" for one in images.examples)
    tests, validations = list[AnyEvaluation](), list[AnyEvaluation]()
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
        tested = evaluate_any(model, split, test, DrawOptions(seed=settings.seed), loading=loading)
        tests.append(tested)
        if named:  # every image that is no test image is a validation image once
            others = split_indices(split, "validation")
            validations.append(evaluate_any(model, split, others, DrawOptions(seed=settings.seed), loading=loading))
        errors.append(tested.error)
        records.append({"fold": number, "validation_error": result.validation_error, **tested.plain()})
    out_of_fold = _held_out(images, validations if named else tests)
    judged = _held_out(images, tests, together=True) if named else out_of_fold
    patches = mean(one.patches_per_image for one in tests) * (folds if named else 1)
    pooled = replace(judged.judged(), patches_per_image=patches, view_size=tests[0].view_size)
    summary = {
        "k": folds,
        "mean": mean(errors),
        "standard_error": stdev(errors) / math.sqrt(folds),
        "multi_label": images.multi_label,
        "numbers": settings.model.head.numeric,
        "pooled": pooled.plain(),
        "folds": records,
    }
    if accelerator.is_main_process:
        out_of_fold.write(out / OUT_OF_FOLD)
        if named:
            judged.write(out / TEST)
        replace_file(out / FOLDS, (json.dumps(summary, indent=2) + "\n").encode())
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


def _held_out(images: ImageDataset, tested: Sequence[AnyEvaluation], together: bool = False) -> HeldOut | HeldNumbers:
    """Predictions of all folds, sorted by id; those of one image are averaged, if all folds tested it together."""
    numbers = [one for one in tested if isinstance(one, NumberEvaluation)]
    if numbers:
        return HeldNumbers.of(images, numbers, together)
    values = [one.probabilities for one in tested if isinstance(one, Evaluation)]
    return HeldOut(*pooled(images, tested, values, together), tuple(images.classes), images.multi_label)


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
    numbers = settings.model.head.numeric
    if settings.data.source == "manifest" and settings.data.manifest is not None:
        return named_manifest(settings.data, numbers=numbers)
    return open_dataset(replace(settings.data, test=0.0), settings.seed, numbers=numbers)
