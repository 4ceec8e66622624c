"""Sinks of predictions: CSV rows and files, whole or not at all, errors.csv, groups.csv and receipts."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import TextIO

import numpy as np

from foveate.atomic import replace_file
from foveate.errors import ConfigError
from foveate.evaluation.scores import group_means
from foveate.models.probabilities import name_predicted
from foveate.models.receipts import add_receipts, complete_receipt
from foveate.models.types import Prediction, Receipt
from foveate.predict.predict import Failure, Row

ERRORS, GROUPS = "errors.csv", "groups.csv"
ERROR_COLUMNS = ("path", "stage", "message")


@dataclass
class Summary:
    """Summary of what became of the rows: the number of predictions, and the failures."""

    done: int = 0
    failures: list[Failure] = field(default_factory=list)

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:  # noqa: ARG002  a sink
        """Count an outcome."""
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
        else:
            self.done += 1


class CsvRows:
    """CSV rows of predictions on an open stream, each as soon as it is made; failures are left out.

    Arguments:
        stream: where to write; the header at once: `path, predicted, p_<class> …, patches, bytes_read, seconds`.
        classes: names of the classes, in the order of their columns.
    """

    def __init__(self, stream: TextIO, classes: Sequence[str]) -> None:
        self._stream, self._classes = stream, tuple(classes)
        self._writer = csv.writer(stream, lineterminator="\n")
        shares = [f"p_{name}" for name in classes]
        self._writer.writerow(["path", "predicted", *shares, "patches", "bytes_read", "seconds"])

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:  # noqa: ARG002  a sink
        """Write the row of a prediction."""
        if isinstance(outcome, Prediction):
            shares = [format(outcome.probabilities[name], ".9g") for name in self._classes]
            counts = [outcome.patches, outcome.bytes_read, format(outcome.seconds, ".4f")]
            self._writer.writerow([outcome.path, outcome.predicted, *shares, *counts])
            self._stream.flush()


class PredictionFile:
    """CSV file of predictions, whole or not at all, and what failed in `errors.csv` (path, stage, message) beside it.

    The file (or what it is a link to) appears when it is left without an error; until then, and after a crash, what is
    done lies in `<path>.partial`. A file that is there already stays if every row fails. An `errors.csv` of an earlier
    call goes away if nothing fails.

    Arguments:
        path: the CSV file; its folder is made if need be.
        classes: names of the classes, in the order of their columns.

    Attributes:
        summary: of what was written so far.

    Raises:
        ConfigError: as `check_output`.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._path, self._classes = check_output(path), classes
        self._unfinished = self._path.with_name(self._path.name + ".partial")
        self._errors = self._path.parent / ERRORS
        self._files, self.summary = ExitStack(), Summary()

    def __enter__(self) -> "PredictionFile":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = CsvRows(self._opened(self._unfinished), self._classes)
        return self

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:
        """Write the row of an outcome, here or among the errors."""
        self._rows(row, outcome)
        if isinstance(outcome, Failure):
            if not self.summary.failures:
                self._error_stream = self._opened(self._errors)
                csv.writer(self._error_stream, lineterminator="\n").writerow(ERROR_COLUMNS)
            told = (outcome.path, outcome.stage, outcome.message)
            csv.writer(self._error_stream, lineterminator="\n").writerow(told)
            self._error_stream.flush()
        self.summary(row, outcome)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()
        if kind is not None:
            return
        if not self.summary.failures:
            self._errors.unlink(missing_ok=True)
        if self.summary.failures and not self.summary.done:
            self._unfinished.unlink()
        else:
            self._unfinished.replace(self._path)

    def _opened(self, path: Path) -> TextIO:
        # A file name that is not UTF-8 is written back as the bytes it was.
        return self._files.enter_context(path.open("w", newline="", encoding="utf-8", errors="surrogateescape"))


def check_output(path: Path) -> Path:
    """Output check: refuse a file that cannot be written, or whose `errors.csv` would overwrite another's.

    Returns:
        The file that will be written: `path`, or what it is a link to.

    Raises:
        ConfigError: if it is a folder, a device or called `errors.csv`, or the `errors.csv` beside it is not ours.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, predictions go to a file: try {path / 'predictions.csv'}")
    resolved = path.resolve()
    if resolved.exists() and not resolved.is_file():
        raise ConfigError(f"{resolved} is a device or a pipe, which cannot be replaced by a file: use CsvRows")
    if resolved.name.lower() == ERRORS:
        raise ConfigError(
            f"{path} is where the list of failed images goes: name the file otherwise, e.g. "
            f"{path.with_name('predictions.csv')}"
        )
    _refuse_others(resolved.parent / ERRORS, ERROR_COLUMNS)
    return resolved


def check_groups(rows: Sequence[Row], out: Path) -> Path:
    """Output check of groups: refuse images without any, and a `groups.csv` that foveate did not write.

    Returns:
        The `groups.csv` beside `out`, the CSV file that the predictions go to.

    Raises:
        ConfigError: no row has a group, or the file cannot be written.
    """
    if all(row.group is None for row in rows):
        raise ConfigError("--by-group needs to know which images belong together: give a manifest with a column group")
    path = out.resolve().parent / GROUPS
    if out.resolve().name.lower() == GROUPS:
        raise ConfigError(f"{out} is where the groups go: name the file otherwise, e.g. predictions.csv")
    _refuse_others(path, ("group", "predicted"))
    return path


def _refuse_others(file: Path, columns: Sequence[str]) -> None:
    """Refuse a file without the first columns of an earlier call, which may have been cut off before a word."""
    header = ",".join(columns)
    if not file.exists() or (file.is_file() and file.read_bytes()[: len(header)] in (header.encode(), b"")):
        return
    raise ConfigError(
        f"{file} is in the way, it does not start with {header}: rename it, or write the predictions to another folder"
    )


class GroupTally:
    """Group means: predictions taken together by group; an image without a group stands alone, under its path.

    Arguments:
        classes: names of the classes.
        multi_label: whether an image may have several labels.
    """

    def __init__(self, classes: Sequence[str], multi_label: bool = False) -> None:
        self._classes, self._multi_label = tuple(classes), multi_label
        self._keys: list[tuple[bool, str]] = []
        self._probabilities: list[list[float]] = []

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:
        """Remember a prediction by its row's group."""
        if isinstance(outcome, Prediction):
            self._keys.append((False, row.path) if row.group is None else (True, row.group))
            self._probabilities.append([outcome.probabilities[name] for name in self._classes])

    def write(self, path: Path) -> int:
        """Write the groups as CSV, all at once: `group, predicted, p_<class> …, images`, in order of first images.

        Returns:
            The number of groups; 0 where every image failed, and then nothing is written.
        """
        if not self._keys:
            return 0
        stream, counts = StringIO(newline=""), Counter(self._keys)
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["group", "predicted", *(f"p_{name}" for name in self._classes), "images"])
        groups, means, _ = group_means(self._keys, np.array(self._probabilities))
        for key, mean in zip(groups, means.tolist(), strict=True):
            predicted = name_predicted(self._classes, mean, self._multi_label)
            writer.writerow([key[1], predicted, *(format(share, ".9g") for share in mean), counts[key]])
        replace_file(path, stream.getvalue().encode(errors="surrogateescape"))
        return len(groups)


class ReceiptTally:
    """Receipts of predictions, added up.

    Arguments:
        stream: where to write each of them, a JSON object a line; None writes none.

    Example:
        >>> tally = ReceiptTally()
        >>> receipt = Receipt(10, 900, 2000, 10**6, {"read": 0.5}, None)
        >>> found = Prediction("a.png", "cat", {"cat": 1.0}, 10, 2000, 0.75, receipt=receipt)
        >>> for _ in range(2):
        ...     tally(Row("a.png", lambda: None), found)
        >>> tally.total().patches, tally.total().seconds
        (20, {'read': 1.0, 'other': 0.5})
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream, self._seconds = stream, 0.0
        self._sum = Receipt(0, 0, 0, 0, {}, None)

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:  # noqa: ARG002  a sink
        """Add the receipt of a prediction."""
        if isinstance(outcome, Prediction) and outcome.receipt is not None:
            self._sum = add_receipts(self._sum, outcome.receipt)
            self._seconds += outcome.seconds
            if self._stream is not None:
                entry = {"path": outcome.path} | asdict(complete_receipt(outcome.receipt, outcome.seconds))
                self._stream.write(json.dumps(entry) + "\n")

    def total(self) -> Receipt:
        """The sum over the images; "other" is what no stage accounts for."""
        return complete_receipt(self._sum, self._seconds)
