"""Batch prediction: one prediction per image, over many images; what fails is reported and the rest goes on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from foveate.config.settings import Method
from foveate.datasets import read_manifest
from foveate.datasets.manifest.folders import IMAGE_SUFFIXES, image_files
from foveate.errors import DataError, ImageError, MissingExtra
from foveate.images import Source, is_zarr, open_image
from foveate.models import Look, Model
from foveate.models.types import ONE_DRAW, DrawOptions, Prediction


@dataclass(frozen=True)
class Row:
    """Row: one image to predict.

    Attributes:
        path: what the image is called in the results: the path as the user gave it, or as the manifest says.
        open: opens it, reading no pixel; may raise.
        group: what it belongs to (a patient), by the manifest's group column; or None.
    """

    path: str
    open: Callable[[], Source]
    group: str | None = None


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


Sink = Callable[[Row, Prediction | Failure], None]
"""Where outcomes go, one by one: a file, a table, a sum, a bar."""


def find_rows(paths: Iterable[str | Path]) -> list[Row]:
    """Rows of what a user names: images, folders (searched for images, recursively) and manifests (`.csv`).

    Arguments:
        paths: files, addresses, Zarr folders, other folders and manifests; a file that does not exist becomes a row
            that fails.

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


def predict_row(
    model: Model, row: Row, options: DrawOptions = ONE_DRAW, seen: Callable[[str, Look], None] | None = None
) -> Prediction | Failure:
    """Prediction for one row, as `model.predict` would make it; or the failure, if the image cannot be read.

    Arguments:
        model: a model in evaluation mode.
        row: of `find_rows`.
        options: how to draw.
        seen: called with the row's path and what the model saw of an image that could be read; if it raises as a
            reader would, the image has failed.
    """
    started, stage = perf_counter(), "open"
    try:
        source = row.open()
        stage = "read"
        look = model.look(source, options)
        seconds = perf_counter() - started
        if seen is not None:
            seen(row.path, look)
    except (ImageError, DataError, MissingExtra, OSError) as error:
        return Failure(row.path, stage, " ".join(str(error).split()))
    return replace(look.prediction, path=row.path, seconds=seconds)


def predict_rows(
    model: Model,
    rows: Iterable[Row],
    sinks: Sequence[Sink],
    options: DrawOptions = ONE_DRAW,
    seen: Callable[[str, Look], None] | None = None,
) -> None:
    """Prediction loop: row by row, every outcome handed to every sink, in order; see `predict_row`."""
    for row in rows:
        outcome = predict_row(model, row, options, seen)
        for sink in sinks:
            sink(row, outcome)


def predict_paths(
    model: Model,
    rows: Iterable[Row | str | Path],
    samples: int = 1,
    method: Method | None = None,
    seed: int = 0,
    seen: Callable[[str, Look], None] | None = None,
) -> Iterator[Prediction | Failure]:
    """Predictions of one image after another; each as `model.predict` would on its own, in any company and order.

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
    """
    options = DrawOptions(samples, method, seed)
    return (predict_row(model, row if isinstance(row, Row) else _file_row(row), options, seen) for row in rows)


def _rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """The file and the row of every image that a path stands for."""
    if "://" in str(path):
        yield str(path), _file_row(path)
        return
    path = Path(path)
    if path.suffix.lower() == ".csv":
        dataset = read_manifest(path, require_labels=False, check_files=False)
        for i, (file, example) in enumerate(zip(dataset.files, dataset.examples, strict=True)):
            yield file, Row(example.id, partial(dataset.open, i), example.group)
        return
    whole = not path.is_dir() or is_zarr(path)
    images = [path] if whole else [path / name for name in image_files(path)]
    if not images:
        raise DataError(f"folder {path} holds no images ({' '.join(IMAGE_SUFFIXES)}): name the files themselves")
    for image in images:
        yield str(image), _file_row(image)


def _file_row(path: str | Path) -> Row:
    return Row(str(path), partial(open_image, path))
