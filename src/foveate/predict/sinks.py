"""Sinks of predictions: a journal to resume from, CSV rows and files, errors.csv and receipts."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from foveate.atomic import not_written
from foveate.errors import ConfigError, FoveateError
from foveate.models.receipts import add_receipts, complete_receipt
from foveate.models.types import Prediction, Receipt
from foveate.predict.predict import Failure, Row, Summary

ERRORS = "errors.csv"
ERROR_COLUMNS = ("path", "stage", "message")


class Journal:
    """Journal (write-ahead log) of predictions: every outcome a JSON line as soon as it is made, to resume from.

    Each process writes a file of its own beside the table that is to come: `<path>.partial`, or `<path>.partial-<rank>`
    where there are several. Its first line says what the outcomes depend on. Whatever ends a process, whole lines stay;
    a torn last one counts as not written.

    Arguments:
        path: the table, a file that `check_output` has passed.
        rows: all that are to be in it, in order.
        about: what outcomes depend on, as plain values; of `dependencies`.
        keep: what else to keep of a row that was predicted, as plain values.
        is_kept: whether that still holds; what does not is predicted again.
    """

    def __init__(
        self,
        path: Path,
        rows: Sequence[Row],
        about: Mapping[str, object],
        keep: Callable[[Row], object] = lambda _: None,
        is_kept: Callable[[Row, Any], bool] = lambda _row, _kept: True,
    ) -> None:
        self._path, self._about, self._keep, self._is_kept = path, dict(about), keep, is_kept
        counts: Counter[str] = Counter()
        self._keys: dict[Row, tuple[str, int]] = {}
        for row in rows:  # two manifests may have the same name for different images
            self._keys[row] = row.path, counts[row.path]
            counts[row.path] += 1
        self._begun: set[Path] = set()
        self._done: dict[Row, tuple[Path, int]] = {}
        self._failed: dict[Row, tuple[Path, int]] = {}

    def read(self) -> None:
        """Look up what is done, in the files of all processes, of this call and earlier ones.

        Raises:
            ConfigError: a file is of another model, other options or another version of foveate.
        """
        self._begun, self._done, self._failed = set(), {}, {}
        rows = {key: row for row, key in self._keys.items()}
        for file in self._files():
            for place, record in _records(file):
                if place == 0:
                    self._check(file, record)
                    self._begun.add(file)
                elif (row := rows.get((record["path"], record["nth"]))) is None:
                    continue
                elif record["failure"] is not None:
                    self._failed[row] = file, place
                elif self._is_kept(row, record["kept"]):
                    self._done[row] = file, place

    def left(self) -> list[Row]:
        """Rows that are still to be predicted, as of the last `read`: those that failed are tried again."""
        return [row for row in self._keys if row not in self._done]

    @contextmanager
    def writing(self, rank: int = 0, world: int = 1) -> Iterator[None]:
        """Open the file of this process, at the end of what is there; within, outcomes are written."""
        file = self._path.with_name(f"{self._path.name}.partial{f'-{rank}' if world > 1 else ''}")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = file.open("a" if file in self._begun else "w", encoding="ascii")
        try:
            self._write(None if file in self._begun else self._about)  # an empty line ends a torn one
            yield
        finally:
            with suppress(OSError):  # every line was flushed: what is left is one that could not be written
                self._stream.close()

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:
        """Write an outcome; boxes of patches are left out."""
        path, nth = self._keys[row]
        failed = isinstance(outcome, Failure)
        told = asdict(outcome if isinstance(outcome, Failure) else replace(outcome, boxes=(), sketch=None))
        kept = {"prediction": None, "failure": told} if failed else {"prediction": told, "failure": None}
        self._write({"path": path, "nth": nth, **kept, "kept": None if failed else self._keep(row)})

    def outcomes(self) -> Iterator[tuple[Row, Prediction | Failure, Any]]:
        """Rows in order, each with its outcome and what else was kept, as of the last `read`.

        Raises:
            ConfigError: a row has none.
        """
        found = self._failed | self._done
        if missing := len(self._keys) - len(found):
            raise ConfigError(
                f"{missing} of {len(self._keys)} images are in no {self._path}.partial-*: --out must be on a file "
                "system that all processes share; copy those files together, and --resume"
            )
        with ExitStack() as opened:
            streams = {file: opened.enter_context(file.open("rb")) for file in self._files()}
            for row in self._keys:
                file, place = found[row]
                streams[file].seek(place)
                record = json.loads(streams[file].readline())
                yield row, _restored(record), record["kept"]

    def discard(self) -> None:
        """Remove the files of all processes."""
        for file in self._files():
            file.unlink()

    def _files(self) -> list[Path]:
        name = f"{self._path.name}.partial"
        there = self._path.parent.iterdir() if self._path.parent.is_dir() else ()
        return sorted(file for file in there if file.name == name or _rank(file.name, name))

    def _check(self, file: Path, header: Mapping[str, Any]) -> None:
        for name, ours in self._about.items():
            if header.get(name) != ours:
                raise ConfigError(
                    f"{file} is unfinished work with {name} {header.get(name)}, and this call has {name} {ours}: give "
                    "what that call was given, or leave out --resume to begin anew"
                )

    def _write(self, record: object) -> None:
        with _writing(self._stream.name):
            print("" if record is None else json.dumps(record), file=self._stream, flush=True)


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines of a file, each with its place in it."""
    place = 0
    with file.open("rb") as stream:
        for line in stream:
            with suppress(ValueError):  # torn
                yield place, json.loads(line)
            place += len(line)


def _restored(record: Mapping[str, Any]) -> Prediction | Failure:
    if record["failure"] is not None:
        return Failure(**record["failure"])
    told = record["prediction"]
    receipt = None if told["receipt"] is None else Receipt(**told["receipt"])
    return Prediction(**{**told, "boxes": (), "receipt": receipt})


def _rank(name: str, stem: str) -> bool:
    return name.startswith(f"{stem}-") and name.removeprefix(f"{stem}-").isdigit()


@contextmanager
def _writing(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


class CsvRows:
    """CSV rows of predictions on an open stream, each as soon as it is made; failures are left out.

    Arguments:
        stream: where to write; the header at once: `path, predicted, p_<class> …, patches, bytes_read, seconds`. Of
            numbers, `predicted` is the number.
        classes: names of the classes, in the order of their columns.
        more: what else of a prediction has a column, e.g. "decision"; last.
    """

    def __init__(self, stream: TextIO, classes: Sequence[str], more: Sequence[str] = ()) -> None:
        self._stream, self._classes, self._more = stream, tuple(classes), tuple(more)
        self._writer = csv.writer(stream, lineterminator="\n")
        shares = [f"p_{name}" for name in classes]
        self._writer.writerow(["path", "predicted", *shares, "patches", "bytes_read", "seconds", *more])

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:  # noqa: ARG002  a sink
        """Write the row of a prediction."""
        if isinstance(outcome, Prediction):
            shares = [format(outcome.probabilities[name], ".9g") for name in self._classes]
            counts = [outcome.patches, outcome.bytes_read, format(outcome.seconds, ".4f")]
            told = [cell(getattr(outcome, name)) for name in self._more]
            self._writer.writerow([outcome.path, outcome.predicted, *shares, *counts, *told])
            self._stream.flush()


def cell(value: object) -> str:
    """Of a column: numbers as short as they may be, yes and no in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, ".3g") if isinstance(value, float) else "" if value is None else str(value)


class PredictionFile:
    """CSV file of predictions, whole or not at all, and what failed in `errors.csv` (path, stage, message) beside it.

    The file (or what it is a link to) appears when it is left without an error. A file that is there already stays if
    every row fails. An `errors.csv` of an earlier call goes away if nothing fails.

    Arguments:
        path: the CSV file; its folder is made if need be.
        classes, more: as `CsvRows`.

    Attributes:
        summary: of what was written so far.

    Raises:
        ConfigError: as `check_output`.
    """

    def __init__(self, path: Path, classes: Sequence[str], more: Sequence[str] = ()) -> None:
        self._path, self._classes, self._more = check_output(path), classes, more
        self._unfinished = self._path.with_name(f".{self._path.name}.part")
        self._errors = self._path.parent / ERRORS
        self._files, self.summary = ExitStack(), Summary()

    def __enter__(self) -> "PredictionFile":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = CsvRows(self._opened(self._unfinished), self._classes, self._more)
        return self

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:
        """Write the row of an outcome, here or among the errors."""
        with _writing(self._path):
            self._rows(row, outcome)
        if isinstance(outcome, Failure):
            with _writing(self._errors):
                self._add_error(outcome)
        self.summary(row, outcome)

    def _add_error(self, failure: Failure) -> None:
        if not self.summary.failures:
            self._error_stream = self._opened(self._errors)
            csv.writer(self._error_stream, lineterminator="\n").writerow(ERROR_COLUMNS)
        csv.writer(self._error_stream, lineterminator="\n").writerow((failure.path, failure.stage, failure.message))
        self._error_stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with _writing(self._path):
                self._files.close()
        except (FoveateError, OSError) as failed:
            error = error or failed
        if error is not None:
            self._unfinished.unlink(missing_ok=True)
            if kind is None:
                raise error
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
    refuse_others(resolved.parent / ERRORS, ERROR_COLUMNS)
    return resolved


def refuse_others(file: Path, columns: Sequence[str]) -> None:
    """Output check: refuse a file that foveate did not write, going by its first columns; an empty one was cut off.

    Raises:
        ConfigError: it has other columns.
    """
    header = ",".join(columns)
    if not file.exists() or (file.is_file() and file.read_bytes()[: len(header)] in (header.encode(), b"")):
        return
    raise ConfigError(
        f"{file} is in the way, it does not start with {header}: rename it, or write the predictions to another folder"
    )


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
                with _writing(self._stream.name):
                    print(json.dumps(entry), file=self._stream, flush=True)

    def total(self) -> Receipt:
        """The sum over the images; "other" is what no stage accounts for."""
        return complete_receipt(self._sum, self._seconds)
