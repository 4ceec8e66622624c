"""One prediction per image, over many images: what fails is reported and the rest goes on."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TextIO

import torch

from foveate.datasets import read_manifest
from foveate.datasets.class_folders import IMAGE_SUFFIXES, image_files
from foveate.errors import ConfigError, DataError, ImageError, MissingExtra
from foveate.images import Source, open_image
from foveate.models import Model
from foveate.settings import Method
from foveate.training.processes import WITHOUT_FLOAT64
from foveate.types import Prediction

__all__ = [
    "Failure",
    "Row",
    "Summary",
    "check_output",
    "choose_device",
    "find_rows",
    "predict_paths",
    "prediction_columns",
    "write_predictions",
    "write_rows",
]

ERRORS = "errors.csv"
ERROR_COLUMNS = ("path", "stage", "message")


@dataclass(frozen=True)
class Row:
    """One image to predict.

    Attributes:
        path: what the image is called in the results: the path as the user gave it, or as the manifest says.
        open: opens it, reading no pixel; may raise.
    """

    path: str
    open: Callable[[], Source]


@dataclass(frozen=True)
class Failure:
    """An image that could not be predicted.

    Attributes:
        path: the row's.
        stage: "open" or "read".
        message: one line that says what was wrong.
    """

    path: str
    stage: str
    message: str


@dataclass(frozen=True)
class Summary:
    """What became of the rows.

    Attributes:
        done: number of predictions written.
        failures: the rest.
    """

    done: int
    failures: tuple[Failure, ...]


def find_rows(paths: Iterable[str | Path]) -> list[Row]:
    """Expand what a user names into rows: files, folders (searched for images, recursively) and manifests (`.csv`).

    Arguments:
        paths: files, folders and manifests; a file that does not exist becomes a row that fails.

    Returns:
        One row per image, in the order given (folders sorted); an image named twice is one row.

    Raises:
        DataError: if a folder holds no image or a manifest is not one.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for file, row in _rows(path):
            rows.setdefault(file, row)
    return list(rows.values())


def predict_paths(
    model: Model,
    rows: Iterable[Row | str | Path],
    samples: int = 1,
    method: Method | None = None,
    seed: int = 0,
) -> Iterator[Prediction | Failure]:
    """Predict one image after another; each as `model.predict` would on its own, in any company and order.

    Arguments:
        model: a model in evaluation mode.
        rows: rows of `find_rows`, or paths of images.
        samples: draws whose probabilities are averaged, at least 1.
        method: how cells are drawn; the model's own method if None.
        seed: seed of the draws.

    Yields:
        A `Prediction` for every image that could be read, a `Failure` for every other, in order.

    Raises:
        ConfigError: if `samples` or `method` is not valid.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, got {samples}: 1 is one draw, 4 averages four")
    for row in rows:
        row = row if isinstance(row, Row) else _file_row(row)
        started, stage = perf_counter(), "open"
        try:
            source = row.open()
            stage = "read"
            prediction = model.predict(source, samples=samples, method=method, seed=seed)
        except (ImageError, DataError, MissingExtra, OSError) as error:
            yield Failure(row.path, stage, " ".join(str(error).split()))
        else:
            yield replace(prediction, path=row.path, seconds=perf_counter() - started)


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """The columns of a table of predictions.

    Arguments:
        classes: names of the classes.

    Returns:
        `path, predicted, p_<class> …, patches, bytes_read, seconds`.

    Example:
        >>> prediction_columns(["cat", "dog"])
        ['path', 'predicted', 'p_cat', 'p_dog', 'patches', 'bytes_read', 'seconds']
    """
    return ["path", "predicted", *(f"p_{name}" for name in classes), "patches", "bytes_read", "seconds"]


def write_rows(stream: TextIO, classes: Sequence[str], outcomes: Iterable[Prediction | Failure]) -> Iterator[Failure]:
    """Write predictions to an open stream as CSV, each as soon as it is made, and hand back the failures.

    Arguments:
        stream: where to write.
        classes: names of the classes, in the order of their columns.
        outcomes: of `predict_paths`.

    Yields:
        The failures, in order.
    """
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(prediction_columns(classes))
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            yield outcome
            continue
        shares = [format(outcome.probabilities[name], ".9g") for name in classes]
        counts = [outcome.patches, outcome.bytes_read, format(outcome.seconds, ".4f")]
        table.writerow([outcome.path, outcome.predicted, *shares, *counts])
        stream.flush()


def check_output(path: Path) -> Path:
    """Refuse a file that predictions cannot be written to, or where their `errors.csv` would overwrite another's.

    Arguments:
        path: the CSV file to write.

    Returns:
        The file that will be written: `path`, or what it is a link to.

    Raises:
        ConfigError: if it is a folder, a device or called `errors.csv`, or the `errors.csv` beside it is not ours.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, predictions go to a file: try {path / 'predictions.csv'}")
    resolved = path.resolve()
    if resolved.exists() and not resolved.is_file():
        raise ConfigError(f"{resolved} is a device or a pipe, which cannot be replaced by a file: use write_rows")
    if resolved.name.lower() == ERRORS:
        raise ConfigError(
            f"{path} is where the list of failed images goes: name the file otherwise, e.g. "
            f"{path.with_name('predictions.csv')}"
        )
    errors = resolved.parent / ERRORS
    if errors.exists() and not _is_ours(errors):
        raise ConfigError(
            f"{errors} is in the way, it does not start with {','.join(ERROR_COLUMNS)}: rename it, or write the "
            "predictions to another folder"
        )
    return resolved


def write_predictions(path: Path, classes: Sequence[str], outcomes: Iterable[Prediction | Failure]) -> Summary:
    """Write predictions to a CSV file, and what failed to `errors.csv` (path, stage, message) beside it.

    The file (or what it is a link to) appears when it is complete; until then, and after a crash, what is done lies in
    `<path>.partial`. A file that is there already stays if every row fails. An `errors.csv` of an earlier call goes
    away if nothing fails.

    Arguments:
        path: the CSV file; its folder is made if need be.
        classes: names of the classes, in the order of their columns.
        outcomes: of `predict_paths`.

    Returns:
        How many were written, and the failures.

    Raises:
        ConfigError: as `check_output`, before anything is predicted or written.
    """
    path = check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, errors = path.with_name(path.name + ".partial"), path.parent / ERRORS
    failures: list[Failure] = []
    rows = 0

    def counted() -> Iterator[Prediction | Failure]:
        nonlocal rows
        for rows, outcome in enumerate(outcomes, start=1):  # noqa: B007  the last number is how many there were
            yield outcome

    with ExitStack() as files:
        stream = files.enter_context(_open_table(unfinished))
        for failure in write_rows(stream, classes, counted()):
            if not failures:
                error_stream = files.enter_context(_open_table(errors))
                error_table = csv.writer(error_stream, lineterminator="\n")
                error_table.writerow(ERROR_COLUMNS)
            error_table.writerow((failure.path, failure.stage, failure.message))
            error_stream.flush()
            failures.append(failure)
    if not failures and errors.exists():
        errors.unlink()
    if failures and rows == len(failures):
        unfinished.unlink()
    else:
        unfinished.replace(path)
    return Summary(rows - len(failures), tuple(failures))


def choose_device(name: str) -> torch.device:
    """The device a user asked for.

    Arguments:
        name: "auto" (the first CUDA GPU, or the CPU), "cpu", "cuda", "cuda:1" …

    Returns:
        The device.

    Raises:
        ConfigError: if this machine, or this build of torch, does not have it, or it has no float64.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type in WITHOUT_FLOAT64:
            raise ConfigError(
                f"device {name!r} has no float64, in which foveate draws and weighs patches: use auto or cpu"
            )
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}): use auto or cpu") from error
    return device


def _is_ours(errors: Path) -> bool:
    """Whether a file is a list of failures that an earlier call wrote, perhaps cut off before its first word."""
    header = ",".join(ERROR_COLUMNS).encode()
    if not errors.is_file():
        return False
    with errors.open("rb") as stream:
        return stream.read(len(header)) in (header, b"")


def _open_table(path: Path) -> TextIO:
    # A file name that is not UTF-8 is written back as the bytes it was.
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def _rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """The file and the row of every image that a path stands for."""
    if "://" in str(path):
        yield str(path), _file_row(path)
        return
    path = Path(path)
    if path.suffix.lower() == ".csv":
        dataset = read_manifest(path, require_labels=False, check_files=False)
        for i, (file, example) in enumerate(zip(dataset.files, dataset.examples, strict=True)):
            yield file, Row(example.id, partial(dataset.open, i))
        return
    images = [path / name for name in image_files(path)] if path.is_dir() else [path]
    if not images:
        raise DataError(f"folder {path} holds no images ({' '.join(IMAGE_SUFFIXES)}): name the files themselves")
    for image in images:
        yield str(image), _file_row(image)


def _file_row(path: str | Path) -> Row:
    return Row(str(path), partial(open_image, path))
