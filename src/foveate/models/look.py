"""Looks at images: from images as they are opened to predictions and all that was seen for them, several at a time."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from foveate.config.settings import Method, ViewSettings
from foveate.images import Source
from foveate.images.view import shrunk_size
from foveate.models.preprocess import Intake, SeenView, make_batch, see_source
from foveate.models.probabilities import Decision, LabelKind, check_answers
from foveate.models.receipts import Stages, covering, peak_memory
from foveate.models.types import Batch, DrawOptions, Look, Output, Prediction, Receipt, Started
from foveate.notebook import SIDE, Sketch, picture_jpeg
from foveate.seeds import prediction_seed
from foveate.types import Affine, Box, Size

Kept = TypeVar("Kept")

MOST_CELLS = 128
"""Cells of the longest side of a map that a sketch keeps."""

SUSPECTS = "among its pixels, in values too large for float32 arithmetic, or in the model's weights"
"""Where an answer that is not a number may come from."""


@runtime_checkable
class Looker(Protocol):
    """What is asked of a model here; see `foveate.models.Model`."""

    classes: tuple[str, ...]
    multi_label: bool
    intake: Intake
    decision: Decision

    @property
    def view(self) -> ViewSettings | None: ...  # noqa: D102
    @property
    def patch(self) -> Size | None: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    def start(self, batch: Batch, samples: int = 1) -> Started: ...  # noqa: D102
    def draw_again(self, started: Started, row: int, seeds: Sequence[int]) -> Started: ...  # noqa: D102
    def finish(self, started: Started) -> Output: ...  # noqa: D102
    def settle(self, batch: Batch, options: DrawOptions) -> Output: ...  # noqa: D102
    @property
    def kind(self) -> LabelKind: ...  # noqa: D102
    def answers(self, logits: Tensor) -> Tensor: ...  # noqa: D102
    def evaluating(self, method: Method | None = None) -> AbstractContextManager[None]: ...  # noqa: D102


@dataclass(frozen=True)
class Sight:
    """Sight of one image before any network: what threads prepare.

    Attributes:
        opened: the image as it was opened.
        source: the image as the model takes it.
        seen: its view and its guide.
        size: (height, width) of the view, or of the image where the model wants none; images of one size go together.
        before: bytes that had been read of it already.
        stages: seconds of opening and of making the view.
    """

    opened: Source
    source: Source
    seen: SeenView
    size: Size
    before: int
    stages: dict[str, float]


@dataclass(frozen=True)
class LookStarted:
    """Look under way at some images of one size.

    Attributes:
        sights: of the images.
        started: forward pass of the model.
        options: how it draws.
        seconds: so far, for all images together.
        output: of a model that has drawn until its answers were settled.
    """

    sights: tuple[Sight, ...]
    started: Started
    options: DrawOptions
    seconds: float
    output: Output | None = None


def see(model: Looker, opened: Source) -> Sight:
    """Prepare one image: take it in and make its view; may be called from several threads.

    Raises:
        ImageError: the image cannot be read, or not be made what the model wants.
    """
    stages = Stages()
    with stages("open"):
        source = model.intake(opened)
    before = opened.bytes_read
    with stages("view"):
        seen = see_source(source, model.view)
    rows, columns = seen[0].shape[1:]
    size = source.size if model.view is None else (rows, columns)
    return Sight(opened, source, seen, size, before, stages.seconds)


def start_looks(model: Looker, sights: Sequence[Sight], options: DrawOptions) -> LookStarted:
    """Begin to look at some images of one size; call within `evaluating` and without gradients.

    Raises:
        FoveateError: an image has no cell to look at, or pixels that are no numbers.
    """
    began = time.perf_counter()
    names = [sight.source.name for sight in sights]
    batch = make_batch(
        [sight.source for sight in sights],
        model.view,
        [prediction_seed(options.seed, name) for name in names],
        ids=names,
        made=[sight.seen for sight in sights],
    )
    batch = batch.pin_memory() if model.device.type == "cuda" else batch
    batch = batch.to(model.device, non_blocking=True)
    if options.max_patches is not None:
        output = model.settle(batch, options)
        spent = time.perf_counter() - began
        return LookStarted(tuple(sights), Started(batch, 1), options, spent, output)
    return LookStarted(tuple(sights), model.start(batch, options.samples), options, time.perf_counter() - began)


def finish_looks(model: Looker, begun: LookStarted) -> list[Look]:
    """Look to the end: what the model says of each image, and what it saw.

    Seconds that the images took together are shared out among them.

    Raises:
        ImageError: a patch cannot be read, or an answer is not a number.
    """
    began = time.perf_counter()
    output = begun.output or model.finish(begun.started)
    every = model.answers(output.logits.double()).tolist()
    check_answers([sight.source.name or "the array" for sight in begun.sights], np.array(every), SUSPECTS)
    seconds = begun.seconds + time.perf_counter() - began
    return [_look(model, begun, output, row, values, seconds / len(every)) for row, values in enumerate(every)]


def look_again(model: Looker, look: Look, options: Sequence[DrawOptions]) -> list[Prediction]:
    """What other seeds would have drawn and said of an image, without another look at it.

    Arguments:
        model: the one that looked.
        look: at the image.
        options: as it was looked at, but for the seeds.

    Raises:
        ImageError: a patch cannot be read.
    """
    if not options:
        return []
    name, opened = look.source.name, look.opened
    seen = look.started.batch.views[look.row], None
    sight = Sight(opened, look.source, seen, look.grid_size, opened.bytes_read, {"open": 0.0})
    with model.evaluating(options[0].method), torch.inference_mode():
        seeds = [prediction_seed(one.seed, name) for one in options]
        started = model.draw_again(look.started, look.row, seeds)
        looks = finish_looks(model, LookStarted((sight,) * len(options), started, options[0], 0.0))
    return [one.prediction for one in looks]


def sketched(look: Look, affine: Affine | None, unit: bool) -> Prediction:
    """The prediction of a look, with a sketch of what was seen.

    Arguments:
        look: at an image.
        affine: from cells of its map to level-0 pixels; None where there is no map to show.
        unit: whether views are in the unit range, not normalised.
    """
    view = look.started.batch.views[look.row : look.row + 1]
    rows, columns = look.started.batch.view_sizes[look.row]
    if max(view.shape[2:]) == 1:  # of a model without a view
        unit, small = True, look.opened.view(shrunk_size(look.opened.size, SIDE))
    else:
        shown = functional.interpolate(view[:, :, :rows, :columns], shrunk_size((rows, columns), SIDE), mode="area")
        small = shown[0].permute(1, 2, 0).cpu().numpy()
    sketch = Sketch(picture_jpeg(small, unit), look.opened.size)
    attention = look.output.attention
    if affine is not None and attention is not None:
        a, _, left, _, e, top = affine
        block = -(-max(attention.shape[1:]) // MOST_CELLS)
        blocks = functional.max_pool2d(attention.detach().float()[:, None], block, ceil_mode=True)[0, 0]
        extent = (top, left, top + e * block * blocks.shape[0], left + a * block * blocks.shape[1])
        sketch = replace(sketch, attention=blocks.cpu().numpy(), extent=extent)
    return replace(look.prediction, sketch=sketch)


def _look(model: Looker, begun: LookStarted, output: Output, row: int, values: Sequence[float], shared: float) -> Look:
    sight, images = begun.sights[row], len(begun.sights)
    own = output if images == 1 else _rows(output, row, images)
    boxes = tuple(sight.source.to_file(box) for box in _read_boxes(own))
    stages = sight.stages | {stage: spent / images for stage, spent in output.seconds.items()}
    patches = int(own.patches_read.sum())
    read, rule = sight.opened.bytes_read - sight.before, model.decision
    prediction = Prediction(
        path=sight.source.name,
        predicted=model.kind.named(model.classes, values),
        probabilities={} if model.kind.numeric else dict(zip(model.classes, values, strict=True)),
        patches=patches,
        bytes_read=read,
        seconds=sum(sight.stages.values()) + shared,
        boxes=boxes,
        receipt=Receipt(
            patches=patches,
            patches_of=None if model.patch is None else covering(sight.source.size, model.patch),
            bytes_read=read,
            bytes_of=sight.opened.file_bytes,
            seconds=stages,
            peak_memory=peak_memory(),
        ),
        decision=rule.decide(model.classes, values, model.multi_label) if rule.decides else None,
        spread=None if own.spread is None else float(own.spread[0]),
        settled=None if own.settled is None else bool(own.settled[0]),
        value=values[0] if model.kind.numeric else None,
    )
    return Look(prediction, sight.opened, sight.source, sight.size, own, begun.started, row)


def _rows(value: Kept, row: int, images: int) -> Kept:
    """What belongs to one of the images of a batch, in everything that has rows for all of them."""
    if isinstance(value, Tensor):
        each = len(value) // images
        return value[row * each : (row + 1) * each]  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(_rows(one, row, images) for one in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _rows(getattr(value, one.name), row, images) for one in fields(value)})
    return value


def _read_boxes(output: Output) -> tuple[Box, ...]:
    others = tuple(box for one in output.others for box in _read_boxes(one))
    if output.boxes is None or output.read is None:
        return others
    return others + tuple(Box(*row) for row in output.boxes[output.read.to(output.boxes.device)].tolist())
