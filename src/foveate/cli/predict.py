"""`foveate predict RUN PATH …`: one row per image."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from foveate.atomic import writing
from foveate.cli.parser import add_abstain, add_looking, add_resume, check_looking
from foveate.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from foveate.explain.layer import Layer
    from foveate.models import DrawOptions, Look, Model
    from foveate.pipeline.inference import Processes
    from foveate.predict import Journal, Row, Sink, Summary

SUMMARY = "classify images with a trained model"

EPILOG = """\
examples:
  foveate predict runs/demo digits/images/test-00000.png            one row on the terminal
  foveate predict runs/mine images/ --out predictions.csv           a folder, one row per image
  foveate predict runs/mine images.csv --samples 4 --out four.csv   a manifest, four draws averaged
  foveate predict runs/mine slides.csv --out all.csv --by-group     and groups.csv: one row per patient

  torchrun --nproc_per_node 8 -m foveate predict runs/mine slides.csv --out all.csv     eight GPUs, one table

The columns are path, predicted, p_<class> ..., patches, bytes_read and seconds, and for a model with a decision rule
(foveate calibrate, --abstain) decision: a class, or unsure, while predicted is the most probable class. --receipts FILE
gets, image by image, what that is of how much, seconds by stage and peak memory, a JSON object a line. --by-group
averages the probabilities of images with the same entry in the manifest's column group: group, predicted, p_<class>
..., images. A model that answers with a number (model.head.kind number) has no p_<class>: predicted is the number.
--geojson FILE gets the footprint of every image that has a place on earth, in degrees, with its row: a layer for QGIS
and the like. With --max-patches there are columns spread (standard deviation of the predicted class' probability over
draws) and settled (yes or no). Images that cannot be read go to errors.csv beside the output, and the exit code is 3;
it is 2 if none could be read. What is done
lies in FILE.partial until all is; after a stop, of any number of processes, the same call goes on with --resume.
"""

DONE, ALL_FAILED, SOME_FAILED = 0, 2, 3

EVERY = 30
"""Seconds between lines of progress in a log."""


@dataclass(frozen=True)
class _Task:
    """What is asked for, checked and loaded.

    Attributes:
        rows: all images.
        model: on the device of this process.
        options: how it draws.
        file: the table; None if rows go to a stream.
        groups: the table of groups; None if none is wanted.
    """

    rows: "Sequence[Row]"
    model: "Model"
    options: "DrawOptions"
    file: Path | None
    groups: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate predict` takes."""
    add_looking(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV file to write (default: print the rows)")
    parser.add_argument("--receipts", type=Path, metavar="FILE", help="JSON lines to write: what each image cost")
    parser.add_argument(
        "--geojson", type=Path, metavar="FILE", help="also write a layer for maps: footprints and answers, in degrees"
    )
    parser.add_argument("--by-group", action="store_true", help="also write groups.csv, one row per group of images")
    add_abstain(parser)
    parser.add_argument(
        "--max-patches", type=int, metavar="N", help="draw until the class is settled, at most N patches an image"
    )
    parser.add_argument(
        "--confidence", type=float, metavar="C", help="with --max-patches: how sure the class must be (default: 0.95)"
    )
    add_resume(parser)


def run(arguments: argparse.Namespace) -> int:
    """Predict, write or print the rows, and say what failed."""
    check_looking(arguments)
    if arguments.out is not None and arguments.out.is_dir():
        raise ConfigError(f"--out {arguments.out} is a folder: give a file, e.g. {arguments.out / 'predictions.csv'}")
    from foveate.pipeline.inference import join_processes

    processes = join_processes()
    task = processes.together(partial(_task, arguments, processes))
    return _stream(arguments, task) if task.file is None else _write(arguments, task, task.file, processes)


def _task(arguments: argparse.Namespace, processes: "Processes") -> _Task:
    from foveate.datasets.manifest.rows import Layout
    from foveate.models import DrawOptions, load_model
    from foveate.models.probabilities import refuse_numbers
    from foveate.predict import check_groups, check_output, choose_device, find_rows
    from foveate.threads import set_reading_threads

    out: Path | None = arguments.out
    is_stream = out is not None and out.exists() and (out.is_relative_to("/dev") or not out.is_file())
    file = None if is_stream else out
    needs = {"--by-group writes groups.csv beside the predictions": arguments.by_group}
    needs |= {"--resume goes on with what lies beside the predictions": arguments.resume}
    needs |= {"--geojson writes a layer when all is predicted": arguments.geojson is not None}
    needs |= {f"{processes.world} processes predict for one file": processes.world > 1}
    for need in (need for need, asked in needs.items() if asked and file is None):
        raise ConfigError(f"{need}: add --out FILE, e.g. predictions.csv")
    if file is not None:
        check_output(file)
    if arguments.confidence is not None and arguments.max_patches is None:
        raise ConfigError("--confidence says when to stop drawing: add --max-patches, e.g. 200")
    sure = 0.95 if arguments.confidence is None else arguments.confidence
    options = DrawOptions(arguments.samples, arguments.method, arguments.seed, arguments.max_patches, sure)
    device = choose_device(arguments.device, processes.local)
    set_reading_threads(arguments.threads)
    rows = find_rows(arguments.paths, Layout.of(arguments.columns, arguments.images), say if processes.first else None)
    groups = check_groups(rows, file) if arguments.by_group and file is not None else None
    model = load_model(arguments.run, allow_code=arguments.allow_code).to(device)
    if arguments.abstain is not None:
        refuse_numbers(model.kind, "--abstain is")
    model.decision = model.decision.abstaining(arguments.abstain)
    return _Task(rows, model, options, file, groups)


def say(line: str) -> None:
    """A line about what is read otherwise than might be thought, on standard error."""
    print(f"foveate: note: {line}", file=sys.stderr)


def _stream(arguments: argparse.Namespace, task: _Task) -> int:
    """Rows on the terminal, or to a pipe or a device, as they are made."""
    from foveate.predict import CsvRows, ReceiptTally, Summary, more_columns, predict_rows

    summary, columns = Summary(), (task.model.classes, more_columns(task.model, task.options))
    with ExitStack() as stack:
        sinks: list[Sink] = [summary, ReceiptTally(stack.enter_context(_receipts(arguments)))]
        if arguments.out is not None:  # appended to, never replaced
            stack.enter_context(writing(arguments.out))
            stream = arguments.out.open("a", newline="", encoding="utf-8", errors="surrogateescape")
            sinks.append(CsvRows(stack.enter_context(stream), *columns))
        elif sys.stdout.isatty():
            from foveate.cli.tables import prediction_table

            sinks.append(stack.enter_context(prediction_table(columns[1])))
        else:
            sinks.append(CsvRows(sys.stdout, *columns))
        predict_rows(task.model, task.rows, sinks, task.options, batch=arguments.batch)
    return conclude(summary, None)


def _write(arguments: argparse.Namespace, task: _Task, file: Path, processes: "Processes") -> int:
    """A table in a file, by one process or several."""
    from foveate.predict import (
        GroupTally,
        Journal,
        PredictionFile,
        ReceiptTally,
        Summary,
        check_output,
        dependencies,
        more_columns,
        receipt_line,
    )

    model = task.model
    tally = None if task.groups is None else GroupTally(model.classes, model.kind, model.decision)
    journal = Journal(check_output(file), task.rows, dependencies(model, task.options))
    layer = _layer(arguments, task)
    with processes.together(lambda: _receipts(arguments) if processes.first else nullcontext()) as receipts:
        if not predict_rest(model, journal, task.options, arguments, processes):
            return DONE
        summary, costs = Summary(), ReceiptTally(receipts)
        with PredictionFile(file, model.classes, more_columns(model, task.options)) as table:
            sinks: list[Sink] = [costs, summary, table, *(one for one in (tally, layer) if one is not None)]
            for row, outcome, _ in journal.outcomes():
                for sink in sinks:
                    sink(row, outcome)
    journal.discard()
    code = conclude(summary, file)
    print(receipt_line(costs.total()))
    if tally is not None and task.groups is not None:
        print(f"{tally.write(task.groups)} groups in {task.groups}")
    if layer is not None:
        print(layer.write(arguments.geojson))
    return code


def _layer(arguments: argparse.Namespace, task: _Task) -> "Layer | None":
    """The layer that is asked for, before anything is predicted for it."""
    if arguments.geojson is None:
        return None
    from foveate.explain.layer import Layer
    from foveate.predict import check_output, more_columns

    check_output(arguments.geojson)
    return Layer(task.model.classes, more_columns(task.model, task.options))


def predict_rest(
    model: "Model",
    journal: "Journal",
    options: "DrawOptions",
    arguments: argparse.Namespace,
    processes: "Processes",
    seen: "Callable[[Row, Look], None] | None" = None,
    doing: str = "predicting",
) -> bool:
    """Predict what a journal lacks, each process its part of it.

    Arguments:
        model: on the device of this process.
        journal: of all rows.
        options: how it draws.
        arguments: `resume` and `batch` are used.
        processes: that share the rows.
        seen: as for `foveate.predict.predict_rows`.
        doing: what the bar says.

    Returns:
        Whether this process is the one to go on: then all is in the journal, and no other process is at work.

    Raises:
        ConfigError: what is to be resumed is of another model or other options.
    """
    from foveate.predict import predict_rows

    if arguments.resume:
        processes.together(journal.read)
    elif processes.first:
        journal.discard()
    processes.wait()
    rows = journal.left()[processes.rank :: processes.world]
    with ExitStack() as stack:
        stack.enter_context(processes.ending_together())
        stack.enter_context(journal.writing(processes.rank, processes.world))
        bar = stack.enter_context(progress(len(rows) * processes.first, doing))
        predict_rows(model, rows, [journal, bar], options, seen, arguments.batch)
    processes.wait()
    if processes.first:
        journal.read()
    return processes.first


def _receipts(arguments: argparse.Namespace) -> "TextIO | nullcontext[None]":
    path: Path | None = arguments.receipts
    try:
        return nullcontext() if path is None else path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--receipts {path} cannot be written ({error.strerror}): name another file") from error


@contextmanager
def progress(total: int, doing: str = "predicting") -> "Iterator[Callable[..., None]]":
    """Progress bar on a terminal, where there are several images; elsewhere a line every half minute, for logs.

    Yields:
        A sink, which counts an image however it is called.
    """
    if total < 2:
        yield lambda *_: None
        return
    if not sys.stderr.isatty():
        yield _lines(total, doing)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Images a second, lately."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} images/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda *_: bar.advance(task)


def _lines(total: int, doing: str) -> "Callable[..., None]":
    began = told = perf_counter()
    count = 0

    def line(*_: object) -> None:
        nonlocal told, count
        count, now = count + 1, perf_counter()
        if now - told >= EVERY or (count == total and told > began):
            told, rate = now, count / (now - began)
            left = f", {(total - count) / rate:.0f} s left" if count < total else ""
            print(f"foveate: {doing}, {count:,} of {total:,} images, {rate:,.2f}/s{left}", file=sys.stderr, flush=True)

    return line


def conclude(summary: "Summary", out: Path | None) -> int:
    """Say what was done and what failed; the exit code.

    Raises:
        ImageError: no image could be read.
    """
    failures = summary.failures
    errors = None if out is None else (out.resolve() if out.is_symlink() else out).parent / "errors.csv"
    if failures and not summary.done:
        if len(failures) == 1:
            raise ImageError(failures[0].message)
        more = "" if errors is None else f" ({errors} names the others)"
        raise ImageError(f"none of {len(failures)} images could be read, the first because {failures[0].message}{more}")
    if out is not None:
        print(f"{summary.done} predictions in {out}")
    for failure in failures if errors is None else ():
        named = failure.path in failure.message
        print(f"foveate: {failure.message if named else f'{failure.path}: {failure.message}'}", file=sys.stderr)
    if errors is not None and failures:
        print(
            f"foveate: {len(failures)} of {summary.done + len(failures)} images failed: see {errors}", file=sys.stderr
        )
    return SOME_FAILED if failures else DONE
