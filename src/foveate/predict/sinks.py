"""Predictions as CSV files, whole or not at all, with a list of what failed beside them."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TextIO

import numpy as np

from foveate.atomic import replace_file
from foveate.errors import ConfigError
from foveate.evaluation.scores import group_means
from foveate.models.probabilities import name_predicted
from foveate.models.receipts import complete_receipt
from foveate.models.types import Prediction, Receipt
from foveate.predict.predict import Failure, Row

__all__ = [
    "GroupTally",
    "ReceiptTally",
    "Summary",
    "check_groups",
    "check_output",
    "group_columns",
    "prediction_columns",
    "starts_with",
    "write_predictions",
    "write_rows",
]

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


GROUPS = "groups.csv"


def check_groups(rows: Iterable[Row], out: Path) -> Path:
    """Refuse images without groups, and a place where `groups.csv` would overwrite what foveate did not write.

    Arguments:
        rows: of `find_rows`.
        out: the CSV file that the predictions go to.

    Returns:
        The `groups.csv` beside it.

    Raises:
        ConfigError: no row has a group, or the file cannot be written.
    """
    if all(row.group is None for row in rows):
        raise ConfigError("--by-group needs to know which images belong together: give a manifest with a column group")
    path = out.resolve().parent / GROUPS
    if out.resolve().name.lower() == GROUPS:
        raise ConfigError(f"{out} is where the groups go: name the file otherwise, e.g. predictions.csv")
    if path.exists() and not starts_with(path, ("group", "predicted")):
        raise ConfigError(
            f"{path} is in the way, it does not start with group,predicted: rename it, or write the predictions to "
            "another folder"
        )
    return path


def group_columns(classes: Sequence[str]) -> list[str]:
    """The columns of a table of groups.

    Example:
        >>> group_columns(["cat", "dog"])
        ['group', 'predicted', 'p_cat', 'p_dog', 'images']
    """
    return ["group", "predicted", *(f"p_{name}" for name in classes), "images"]


class GroupTally:
    """Takes predictions together by group; an image without a group stands alone, under its path.

    Arguments:
        classes: names of the classes.
        multi_label: whether an image may have several labels.
    """

    def __init__(self, classes: Sequence[str], multi_label: bool = False) -> None:
        self._classes, self._multi_label = tuple(classes), multi_label
        self._keys: list[tuple[bool, str]] = []
        self._probabilities: list[list[float]] = []

    def watch(self, rows: Iterable[Row], outcomes: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
        """Hand on the outcomes of some rows, one each in their order, and remember them by group; failures are not."""
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                self._keys.append((False, row.path) if row.group is None else (True, row.group))
                self._probabilities.append([outcome.probabilities[name] for name in self._classes])
            yield outcome

    def table(self) -> list[list[object]]:
        """A row per group, in order of their first image: its name, the answer, the mean probabilities, its images."""
        if not self._keys:
            return []
        groups, means, _ = group_means(self._keys, np.array(self._probabilities))
        counts = Counter(self._keys)
        return [
            [key[1], name_predicted(self._classes, mean, self._multi_label), *mean, counts[key]]
            for key, mean in zip(groups, means.tolist(), strict=True)
        ]

    def write(self, path: Path) -> int:
        """Write the table as CSV, all at once; nothing where every image failed.

        Returns:
            The number of groups.
        """
        rows = self.table()
        if rows:
            stream = StringIO(newline="")
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(group_columns(self._classes))
            for name, predicted, *shares, count in rows:
                table.writerow([name, predicted, *(format(share, ".9g") for share in shares), count])
            replace_file(path, stream.getvalue().encode(errors="surrogateescape"))
        return len(rows)


class ReceiptTally:
    """Adds up the receipts of predictions as they pass.

    Arguments:
        stream: where to write each of them, a JSON object a line; None writes none.

    Example:
        >>> tally = ReceiptTally()
        >>> receipt = Receipt(10, 900, 2000, 10**6, {"read": 0.5}, None)
        >>> row = Prediction("a.png", "cat", {"cat": 1.0}, 10, 2000, 0.75, receipt=receipt)
        >>> list(tally.watch([row, row])) == [row, row]
        True
        >>> tally.total().patches, tally.total().seconds
        (20, {'read': 1.0, 'other': 0.5})
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._sum = Receipt(0, 0, 0, 0, {}, None)
        self._seconds = 0.0

    def watch(self, outcomes: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
        """Hand on what `predict_paths` gives, and note its receipts."""
        for outcome in outcomes:
            if isinstance(outcome, Prediction) and outcome.receipt is not None:
                self._sum = _added(self._sum, outcome.receipt)
                self._seconds += outcome.seconds
                if self._stream is not None:
                    entry = {"path": outcome.path} | asdict(complete_receipt(outcome.receipt, outcome.seconds))
                    self._stream.write(json.dumps(entry) + "\n")
            yield outcome

    def total(self) -> Receipt:
        """The sum over the images; "other" is what no stage accounts for."""
        return complete_receipt(self._sum, self._seconds)


def _added(one: Receipt, other: Receipt) -> Receipt:
    return Receipt(
        patches=one.patches + other.patches,
        patches_of=_sum(one.patches_of, other.patches_of),
        bytes_read=one.bytes_read + other.bytes_read,
        bytes_of=_sum(one.bytes_of, other.bytes_of),
        seconds={
            stage: one.seconds.get(stage, 0.0) + other.seconds.get(stage, 0.0) for stage in one.seconds | other.seconds
        },
        peak_memory=max(one.peak_memory or 0, other.peak_memory or 0) or None,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    """The sum; None if one is not known."""
    return None if one is None or other is None else one + other
