"""Skipped images of a run: those that cannot be read, those its manifest names no more; and steps without them."""

import csv
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from foveate.atomic import replace_file, writing
from foveate.datasets.types import Example, ImageDataset
from foveate.errors import UNREADABLE, Absent, ImageError, RunError
from foveate.images import Source
from foveate.models.probabilities import too_large
from foveate.models.types import Batch, Output
from foveate.networks.normalise import BATCH_NORMS
from foveate.types import Label

SKIPPED = "skipped.csv"
"""File of a run that names each image it went on without, once."""

IMAGES = Path("state") / "images.json"
"""File of a run with the id, the label and the split of each image that it was begun with."""

COLUMNS = ("path", "message")


class SkipLog:
    """Images that a run goes on without: each named once in a file of the run, and no more of them than allowed.

    An image that failed is tried again in the next epoch: a server may be back, and other patches be whole. Processes
    of a run share the file.

    Arguments:
        folder: of the run.
        dataset: its images.
        images: how many of these it uses.
        limit: share of them that may be skipped; one may, whatever the share.
    """

    def __init__(self, folder: Path, dataset: ImageDataset, images: int, limit: float) -> None:
        self.path, self._dataset, self._images, self._limit = folder / SKIPPED, dataset, images, limit
        self._lock = threading.Lock()
        self._told: dict[int, tuple[str, str]] = {}
        self._begun = False

    def __call__(self, index: int, error: Exception) -> None:
        """Skip an image.

        Raises:
            RunError: there are too many by now.
        """
        with self._lock:
            if index in self._told:
                return
            self._told[index] = self._dataset.examples[index].id, " ".join(str(error).split())
            self._write()
            names, (_, message) = self.names(), self._told[index]
        if len(names) > max(1, self._limit * self._images):
            which = f"those that {self.path} names" if self._begun else ", ".join(names)
            raise RunError(
                f"{len(names)} of {self._images} images could not be read, and training.skip_limit is {self._limit:g}, "
                f"the last because {message}: mend {which}, or raise the limit"
            )

    def begin(self) -> None:
        """The folder of the run is there: write to it from now on, and what was told before."""
        with self._lock:
            self._begun = True
            self._write()

    def _write(self) -> None:
        known = set(self._written())
        new = [row for row in self._told.values() if row[0] not in known]
        if not (self._begun and new):
            return
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file, lineterminator="\n").writerows(new if file.tell() else [COLUMNS, *new])

    def names(self) -> list[str]:
        """Ids of the images skipped so far, by all processes, in this call and earlier ones."""
        return list(dict.fromkeys([*self._written(), *(name for name, _ in self._told.values())]))

    def _written(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [row[0] for row in csv.reader(file) if row][1:]


def refuse(index: int, error: Exception) -> None:  # noqa: ARG001  of `LoadOptions.failed`
    """What is told of images that fail where none may: raises it."""
    raise error


@dataclass(frozen=True)
class Remembered:
    """Data set as a run was begun with it, some of whose images are no longer there: to open one raises `Absent`.

    Attributes:
        dataset: what is left.
        examples: as they were.
        numbers: of each, its number in what is left, or None.
    """

    dataset: ImageDataset
    examples: Sequence[Example]
    numbers: Sequence[int | None]
    classes: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.dataset.multi_label

    def open(self, index: int) -> Source:
        """The image of example `index`, if it is there."""
        number = self.numbers[index]
        if number is None:
            raise Absent(f"{self.examples[index].id} is no longer in the manifest")
        return self.dataset.open(number)


def remember(folder: Path, dataset: ImageDataset) -> None:
    """Write down which images a run is begun with, so that it can go on without some of them."""
    rows = [[one.id, one.label, one.split] for one in dataset.examples]
    replace_file(folder / IMAGES, json.dumps({"classes": dataset.classes, "images": rows}).encode())


def recall(folder: Path, dataset: ImageDataset, limit: float) -> tuple[ImageDataset, int]:
    """Images that a run was begun with, where some of their rows have been taken out since.

    Arguments:
        folder: of the run.
        dataset: the images as the manifest names them now.
        limit: share of them that may be gone.

    Returns:
        The data set as it was, and how many of its images are gone; `dataset` itself where that is none, or where more
        has changed than that: then it is not the run's.
    """
    try:
        kept = json.loads((folder / IMAGES).read_bytes())
    except (FileNotFoundError, ValueError):
        return dataset, 0
    classes = tuple(kept["classes"])
    before = [Example(name, _label(label), split) for name, label, split in kept["images"]]
    known = {one.id: one for one in before}
    number = {one.id: index for index, one in enumerate(dataset.examples)}
    gone = len(before) - len(number)
    same = all(
        one.id in known and _names(one, dataset.classes) == _names(known[one.id], classes) for one in dataset.examples
    )
    if not same or not 0 < gone <= max(1, limit * len(before)):
        return dataset, 0
    return Remembered(dataset, tuple(before), [number.get(one.id) for one in before], classes), gone


def _label(plain: int | float | list[int] | None) -> Label | None:
    return tuple(plain) if isinstance(plain, list) else plain


def _names(one: Example, classes: Sequence[str]) -> list[str] | None:
    if one.label is None:
        return None
    if isinstance(one.label, float):
        return [repr(one.label)]
    return [classes[number] for number in (one.label if isinstance(one.label, tuple) else (one.label,))]


class Sparing(nn.Module):
    """Forward pass that spares a batch its unreadable images: the model is asked of the others alone.

    It is within what shares gradients among processes: each enters one forward pass a step, whatever fails.

    Arguments:
        model: what is trained.
        seeded: sets the seeds of layers that draw, by a batch.
    """

    def __init__(self, model: nn.Module, seeded: Callable[[Batch], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.model, self._seeded = model, seeded
        self._last: Batch | None = None

    def forward(self, batch: Batch) -> tuple[Output, Batch, list[tuple[int, Exception]]]:
        """Output for the images that can be read, and these; and the places of the others, each with why.

        Where none is left an image of an earlier batch lends its presence: its batch has the place −1.

        Raises:
            ImageError: none is left, and there was no batch before.
        """
        failed: list[tuple[int, Exception]] = []
        if len(batch):
            try:
                return self._asked(batch), self._keep(batch), failed
            except UNREADABLE:
                found = [self._failure(batch, row) for row in range(len(batch))]
            places = batch.places or tuple(range(len(batch)))
            failed = [(place, error) for place, error in zip(places, found, strict=True) if error is not None]
            left = [row for row, error in enumerate(found) if error is None]
            if left:
                rest = batch.rows(left)
                return self._asked(rest), self._keep(rest), failed
        if self._last is None:
            reason = f", the first because {failed[0][1]}" if failed else ""
            raise ImageError(f"no image of the first batch can be read{reason}: mend it, or raise training.batch")
        return self._asked(self._last), self._last, failed

    def _asked(self, batch: Batch) -> Output:
        with self._seeded(batch):
            output: Output = self.model(batch)
        if not bool(output.logits.isfinite().all()) and not bool((~output.logits.isfinite()).all()):
            raise too_large("an image")
        return output

    def _failure(self, batch: Batch, row: int) -> Exception | None:
        try:
            with torch.no_grad(), _statistics_as_they_are(self.model), self._seeded(batch):
                output: Output = self.model(batch.rows([row]))
        except UNREADABLE as error:
            return error
        if not bool(output.logits.isfinite().all()):
            name = batch.ids[row] if batch.ids else f"image {row}"
            return too_large(name)
        return None

    def _keep(self, batch: Batch) -> Batch:
        self._last = replace(batch.rows([0]), places=(-1,))
        return batch


@contextmanager
def _statistics_as_they_are(model: nn.Module) -> Iterator[None]:
    """Running statistics of batches: neither used as such nor counted within."""
    layers = [layer for layer in model.modules() if isinstance(layer, BATCH_NORMS) and layer.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
