"""Batch prediction: one prediction per image, over many images; what fails is reported and the rest goes on."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import cast

import torch

from foveate._version import __version__
from foveate.config.settings import Method
from foveate.datasets import read_manifest
from foveate.datasets.manifest.folders import IMAGE_SUFFIXES, TABLES, class_folder, image_files, passed_over
from foveate.datasets.manifest.rows import PLAIN, Layout, label_names
from foveate.errors import UNREADABLE, ArgumentTypeError, DataError, FoveateError
from foveate.images import Source, is_zarr, open_image
from foveate.models import Look, Model
from foveate.models.look import LookStarted, Sight, finish_looks, see, start_looks
from foveate.models.probabilities import UNDECIDED
from foveate.models.types import ONE_DRAW, DrawOptions, Prediction
from foveate.pipeline.inference import on_cores
from foveate.threads import one_ahead, read_ahead, reading_threads
from foveate.types import Size

BATCH = 32
"""Images looked at together on a GPU."""


@dataclass(frozen=True)
class Row:
    """Row: one image to predict.

    Attributes:
        path: what the image is called in the results: the path as the user gave it, or as the manifest says.
        open: opens it, reading no pixel; may raise.
        group: what it belongs to (a patient), by the manifest's group column; or None.
        labels: what it shows, by the manifest or the class folder it lies in; None where nothing says so.
    """

    path: str
    open: Callable[[], Source]
    group: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """Failure: an image that could not be predicted.

    Attributes:
        path: the row's.
        stage: "open" or "read".
        message: one line that says what was wrong.
    """

    path: str
    stage: str
    message: str


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


Sink = Callable[[Row, Prediction | Failure], None]
"""Where outcomes go, one by one: a file, a table, a sum, a bar."""


def find_rows(
    paths: Iterable[str | Path], layout: Layout = PLAIN, say: Callable[[str], None] | None = None
) -> list[Row]:
    """Rows of what a user names: images, folders (searched for images, recursively) and manifests (`.csv`, `.tsv`).

    Arguments:
        paths: files, addresses, Zarr folders, other folders and manifests; a file that does not exist becomes a row
            that fails.
        layout: of manifests that have other columns, or images elsewhere.
        say: called with a line for every folder in which files are passed over.

    Returns:
        One row per image, in the order given (folders sorted); an image named twice is one row.

    Raises:
        DataError: if a folder holds no image or a manifest is not one.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for file, row in _rows(path, layout, say):
            rows.setdefault(file, row)
    return list(rows.values())


def predict_row(
    model: Model, row: Row, options: DrawOptions = ONE_DRAW, seen: Callable[[Row, Look], None] | None = None
) -> Prediction | Failure:
    """Prediction for one row, as `model.predict` would make it; or the failure, if the image cannot be read.

    Arguments:
        model: a model in evaluation mode.
        row: of `find_rows`.
        options: how to draw.
        seen: called with the row and what the model saw of an image that could be read; if it raises as a reader
            would, the image has failed.
    """
    with model.in_evaluation_mode(options.method):
        return _outcome(row, _look(model, row, options), seen)


def predict_rows(
    model: Model,
    rows: Iterable[Row],
    sinks: Sequence[Sink],
    options: DrawOptions = ONE_DRAW,
    seen: Callable[[Row, Look], None] | None = None,
    batch: int = BATCH,
) -> None:
    """Prediction loop: every outcome handed to every sink, in the order of the rows; see `predict_row`.

    On a CPU every core takes an image from the file to the answer, on a GPU `batch` images of one size are looked at
    together, and others are read meanwhile.
    """
    rows = list(rows)
    with closing(look_at_rows(model, rows, options, batch)) as looks:
        for row, look in zip(rows, looks, strict=True):
            outcome = _outcome(row, look, seen)
            for sink in sinks:
                sink(row, outcome)


def predict_paths(
    model: Model,
    rows: Iterable[Row | str | Path],
    samples: int = 1,
    method: Method | None = None,
    seed: int = 0,
    seen: Callable[[Row, Look], None] | None = None,
) -> Iterator[Prediction | Failure]:
    """Predictions of many images; each as `model.predict` would on its own, in any company and order.

    Arguments:
        model: a model in evaluation mode.
        rows: rows of `find_rows`, or paths of images.
        samples: draws whose probabilities are averaged, at least 1.
        method: how cells are drawn; the model's own method if None.
        seed: seed of the draws.
        seen: as for `predict_row`.

    Returns:
        A `Prediction` for every image that could be read, a `Failure` for every other, in order.

    Raises:
        ConfigError: if `samples` is not valid.
        ArgumentTypeError: a path alone is given.
    """
    if isinstance(rows, str | Path):
        raise ArgumentTypeError(
            f"rows are the images to predict, got one path {str(rows)!r}: give a list of paths, or find_rows([path]), "
            "for a folder or a manifest"
        )
    options = DrawOptions(samples, method, seed)
    given = [row if isinstance(row, Row) else _file_row(row) for row in rows]
    return (
        _outcome(row, look, seen) for row, look in zip(given, look_at_rows(model, given, options, BATCH), strict=True)
    )


def dependencies(model: Model, options: DrawOptions, **more: object) -> dict[str, object]:
    """Dependencies of predictions: all that decides them besides the image, as plain values, the model as a digest.

    Arguments:
        model: on the device where it predicts, since a CPU and an accelerator draw different cells.
        options: how it draws.
        more: what else an outcome depends on.
    """
    digest = hashlib.sha256(repr((model.settings, model.classes, model.multi_label)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    drawn = {"samples": options.samples, "method": options.method or model.method, "seed": options.seed}
    known: dict[str, object] = {"foveate": __version__, "model": digest.hexdigest()[:16], "device": model.device.type}
    known |= {} if options.max_patches is None else {"draws until": [options.max_patches, options.confidence]}
    known |= {} if model.decision == UNDECIDED else {"decision": repr(model.decision)}
    return known | drawn | more


def more_columns(model: Model, options: DrawOptions = ONE_DRAW) -> tuple[str, ...]:
    """Columns of a table of predictions beside the usual ones: what else the model says of an image."""
    settles = ("spread", "settled") if options.max_patches is not None else ()
    return (*settles, *(("decision",) if model.decision.decides else ()))


def _outcome(row: Row, look: Look | Failure, seen: Callable[[Row, Look], None] | None) -> Prediction | Failure:
    if isinstance(look, Failure):
        return look
    if seen is not None:
        try:
            seen(row, look)
        except UNREADABLE as error:
            return _failure(row, "read", error)
    return replace(look.prediction, path=row.path)


def _failure(row: Row, stage: str, error: Exception) -> Failure:
    return Failure(row.path, stage, " ".join(str(error).split()))


def look_at_rows(
    model: Model, rows: Sequence[Row], options: DrawOptions = ONE_DRAW, batch: int = BATCH
) -> Generator[Look | Failure, None, None]:
    """Looks at many images: what a model sees of each row, in order; see `predict_rows`."""
    with model.in_evaluation_mode(options.method):
        if not rows:
            return
        if model.device.type == "cpu":
            yield from on_cores(partial(_look, model, options=options), rows)
        else:
            yield from look_by_batches(model, rows, options, batch)


def _look(model: Model, row: Row, options: DrawOptions) -> Look | Failure:
    """What a model sees of one image, from the file to the answer; within `Model.in_evaluation_mode`."""
    return _alone(model, row, _sight(model, row), options)


def look_by_batches(model: Model, rows: Sequence[Row], options: DrawOptions, batch: int) -> Generator[Look | Failure]:
    """What a model sees of each row, in order: images of one size in batches, of which the next is always under way.

    Within `Model.in_evaluation_mode`. An image that fails does not take the others of its batch along: they are looked
    at once more, one by one.
    """

    def begun(group: Sequence[tuple[Row, Sight | Failure]]) -> LookStarted | None:
        sights = [sight for _, sight in group if isinstance(sight, Sight)]
        try:
            with torch.inference_mode():
                return start_looks(model, sights, options) if sights else None
        except (FoveateError, *UNREADABLE):
            return None

    with closing(read_ahead(partial(_sight, model), rows, reading_threads(), 2 * batch)) as sights:
        groups = ((group, begun(group)) for group in _of_one_size(zip(rows, sights, strict=True), batch))
        for group, started in one_ahead(groups):
            looks: Iterator[Look] = iter(())
            try:
                with torch.inference_mode():
                    looks = iter(() if started is None else finish_looks(model, started))
            except UNREADABLE:
                pass
            for row, sight in group:
                look = next(looks, None) if isinstance(sight, Sight) else sight
                yield _alone(model, row, sight, options) if look is None else look


def _of_one_size(
    sights: Iterable[tuple[Row, Sight | Failure]], batch: int
) -> Iterator[list[tuple[Row, Sight | Failure]]]:
    """Runs of images whose views are of one size, at most `batch`; failures go with any."""
    group: list[tuple[Row, Sight | Failure]] = []
    sizes: set[Size] = set()
    for row, sight in sights:
        own = {sight.size} if isinstance(sight, Sight) else set()
        if len(group) == batch or len(sizes | own) > 1:
            yield group
            group, sizes = [], set()
        group.append((row, sight))
        sizes |= own
    if group:
        yield group


def _alone(model: Model, row: Row, sight: Sight | Failure, options: DrawOptions) -> Look | Failure:
    if isinstance(sight, Failure):
        return sight
    try:
        with torch.inference_mode():
            (look,) = finish_looks(model, start_looks(model, [sight], options))
    except UNREADABLE as error:
        return _failure(row, "read", error)
    return look


def _sight(model: Model, row: Row) -> Sight | Failure:
    """An image opened, its view made and, where need be, decoded; how long that took is told as opening and viewing."""
    started, stage = perf_counter(), "open"
    try:
        opened = row.open()
        stage, opening = "read", perf_counter() - started
        sight = see(model, opened)
        sight.source.prefetch()
    except UNREADABLE as error:
        return _failure(row, stage, error)
    return replace(sight, stages=sight.stages | {"open": sight.stages["open"] + opening})


def _rows(path: str | Path, layout: Layout, say: Callable[[str], None] | None) -> Iterator[tuple[str, Row]]:
    """The file and the row of every image that a path stands for."""
    if "://" in str(path):
        yield str(path), _file_row(path)
        return
    path = Path(path)
    if path.suffix.lower() in TABLES:
        dataset = read_manifest(path, require_labels=False, check_files=False, layout=layout)
        for i, (file, example) in enumerate(zip(dataset.files, dataset.examples, strict=True)):
            label = None if example.label is None else dataset.classes[cast(int, example.label)]
            labels = None if label is None else tuple(label_names(label))
            yield file, Row(example.id, partial(dataset.open, i), example.group, labels)
        return
    if not path.is_dir() or is_zarr(path):
        yield str(path), _file_row(path)
        return
    passed: list[str] = []
    images = image_files(path, passed)
    if passed and say is not None:
        say(f"{path}: {passed_over(passed)}")
    if not images:
        raise DataError(f"folder {path} holds no images ({' '.join(IMAGE_SUFFIXES)}): name the files themselves")
    for image in images:
        folder = class_folder(image)
        yield str(path / image), replace(_file_row(path / image), labels=None if folder is None else (folder,))


def _file_row(path: str | Path) -> Row:
    return Row(str(path), partial(open_image, path))
