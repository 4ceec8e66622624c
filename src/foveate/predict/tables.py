"""Predictions as CSV files, whole or not at all, with a list of what failed beside them."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from foveate.errors import ConfigError
from foveate.predict.rows import Failure
from foveate.types import Prediction

__all__ = ["Summary", "check_output", "prediction_columns", "starts_with", "write_predictions", "write_rows"]

ERRORS = "errors.csv"
ERROR_COLUMNS = ("path", "stage", "message")


@dataclass(frozen=True)
class Summary:
    """What became of the rows.

    Attributes:
        done: number of predictions written.
        failures: the rest.
    """

    done: int
    failures: tuple[Failure, ...]


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
    if errors.exists() and not starts_with(errors, ERROR_COLUMNS):
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


def starts_with(file: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a table with these first columns that an earlier call wrote, perhaps cut off before a word."""
    header = ",".join(columns).encode()
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(header)) in (header, b"")


def _open_table(path: Path) -> TextIO:
    # A file name that is not UTF-8 is written back as the bytes it was.
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
