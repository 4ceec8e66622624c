"""Mistakes that a report shows: which images, what the model says of them, and where it looked."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from foveate.datasets.types import ImageDataset
from foveate.errors import FoveateError
from foveate.evaluation.evaluate import Evaluation
from foveate.evaluation.numbers import AnyEvaluation, NumberEvaluation
from foveate.evaluation.scores import decisions, wrong_shares
from foveate.explain import explain
from foveate.explain.picture import Rendering, Scale, jpeg, write_overlay
from foveate.images.view import shrunk_size
from foveate.models import DrawOptions, Model
from foveate.models.types import ONE_DRAW

SIDE, MOST_BYTES = 640, 90_000
"""Longest side of the picture of a mistake, in pixels, and the most bytes that it takes."""


@dataclass(frozen=True)
class Mistake:
    """Mistake of a model: an image that it answers wrongly, or furthest off, and what it saw.

    Attributes:
        id: of the image.
        truth: its label, or labels.
        answer: what the model says, and how sure it is of that, or how far off.
        picture: JPEG of the image with the attention map and the patches; None if it cannot be read any more.
    """

    id: str
    truth: str
    answer: str
    picture: bytes | None


def worst_mistakes(
    model: Model, dataset: ImageDataset, result: AnyEvaluation, count: int, options: DrawOptions = ONE_DRAW
) -> list[Mistake]:
    """Worst mistakes: of the images that are answered wrongly, those that the model is surest of, and what it saw.

    Of numbers, those that are furthest off.

    Arguments:
        model: on its device.
        dataset: the images.
        result: evaluation of the model on some of them, image by image.
        count: how many mistakes, at most.
        options: how to draw.
    """
    if result.by_group:
        return []
    told = _furthest(result) if isinstance(result, NumberEvaluation) else _surest(result)
    return [
        Mistake(result.ids[row], truth, answer, _picture(model, dataset, result.indices[row], options))
        for row, truth, answer in islice(told, count)
    ]


def _surest(result: Evaluation) -> Iterator[tuple[int, str, str]]:
    """Row, truth and answer of what is answered wrongly, the surest first."""
    wrong = np.flatnonzero(wrong_shares(result.labels, result.probabilities) > 0)
    answers = decisions(result.probabilities, result.several)
    if result.several:  # as sure as its probability of a class is wrong
        surety = np.abs(result.probabilities - result.labels).max(1)
    else:
        surety = np.take_along_axis(result.probabilities, answers[:, None], 1)[:, 0]
    for row in wrong[np.argsort(-surety[wrong], kind="stable")].tolist():
        yield row, _called(result, result.labels[row]), f"{_called(result, answers[row])} ({surety[row]:.3f})"


def _furthest(result: NumberEvaluation) -> Iterator[tuple[int, str, str]]:
    """Likewise of numbers, those that are furthest off first."""
    off = result.answers - result.labels
    for row in np.argsort(-np.abs(off), kind="stable")[: np.count_nonzero(off)].tolist():
        yield row, f"{result.labels[row]:.4g}", f"{result.answers[row]:.4g} ({off[row]:+.4g})"


def _called(result: Evaluation, label: Any) -> str:
    if not result.several:
        return result.classes[int(label)]
    return ", ".join(name for name, has in zip(result.classes, label, strict=True) if has) or "none of them"


def _picture(model: Model, dataset: ImageDataset, index: int, options: DrawOptions) -> bytes | None:
    """JPEG of an image with its map and patches, or None if it cannot be read."""
    try:
        look = model.look(dataset.open(index), options)
        view = look.opened.view(shrunk_size(look.opened.size, SIDE))
        seen = explain(model, look)
        picture = Rendering.of(look.opened, view, model.settings.input.bands)(view)
    except FoveateError:
        return None
    overlay = BytesIO()
    write_overlay(overlay, seen, picture, Scale.over(seen))
    with Image.open(overlay) as drawn:
        return jpeg(np.asarray(drawn.convert("RGB")), MOST_BYTES)
