"""Answers of a model to labelled images, one by one: what an evaluation, of classes or of numbers, is made of."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate.datasets.types import Example, ImageDataset
from foveate.errors import DataError, FoveateError, ImageError
from foveate.evaluation.coverage import covered_objects, object_coverage
from foveate.models.probabilities import check_answers
from foveate.models.types import Batch, DrawOptions, Output
from foveate.pipeline.inference import classify
from foveate.pipeline.loader import Loader, LoadOptions, shares
from foveate.sampling import AttentionHealth, diagnose
from foveate.types import Size

if TYPE_CHECKING:
    from foveate.models import Model


@dataclass(frozen=True)
class ImageAnswer:
    """Answer to one labelled image.

    Attributes:
        index: number of the example.
        example: itself.
        answer: probabilities of the classes, or a number.
        loss: of it.
        patches: full-resolution patches read.
        view_size: (height, width) of the view.
        covered: which of its objects the patches cover; None where none are known.
        attention: figures of the attention map; None without one.
    """

    index: int
    example: Example
    answer: list[float]
    loss: float
    patches: int
    view_size: Size
    covered: tuple[bool, ...] | None
    attention: AttentionHealth | None


def answer_images(
    model: "Model",
    dataset: ImageDataset,
    indices: Sequence[int],
    options: DrawOptions,
    *,
    loading: LoadOptions,
    by_group: bool = False,
    check: Callable[[], None] | None = None,
    told: Callable[[int], None] | None = None,
) -> list[ImageAnswer]:
    """Answers to images, in their order; those that cannot be read are left out, if that is told.

    Arguments, errors: as of `foveate.evaluation.evaluate.evaluate`.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    if not indices:
        raise DataError("there is no labelled image to evaluate on: check the split and the manifest")
    if by_group:
        _check_groups(dataset, indices)
    loader = Loader.of(model, dataset, options.seed, loading=loading)
    state = PartialState()
    plan = [
        share for share in shares(indices, loading.batch, state.process_index, state.num_processes) if share.counted
    ]
    rows: list[ImageAnswer | FoveateError] = []
    try:
        with model.evaluating(options.method), closing(classify(model, loader, plan, options.samples)) as answers:
            for share, images, output in answers:
                seen = covered_objects(dataset, share.indices, images, output)
                rows += _rows(model, output, images, [(one, dataset.examples[one]) for one in share.indices], seen)
                if told is not None:
                    told(len(images))
                if check is not None:
                    check()
    except FoveateError as error:
        rows = [error]  # the others wait for what this process has to say
    return _ordered(_whole(gather_object(rows)), indices)


def seen_of(dataset: ImageDataset, rows: Sequence[ImageAnswer]) -> dict[str, Any]:
    """What was seen for answers: `patches_per_image`, `view_size`, `coverage` and `attention` of an evaluation."""
    return {
        "patches_per_image": float(np.mean([row.patches for row in rows])),
        "view_size": Counter(row.view_size for row in rows).most_common(1)[0][0],
        "coverage": object_coverage(dataset, [row.index for row in rows], [row.covered for row in rows]),
        "attention": tuple(row.attention for row in rows if row.attention is not None),
    }


def _whole(rows: Sequence[ImageAnswer | FoveateError]) -> list[ImageAnswer]:
    for row in rows:
        if isinstance(row, FoveateError):
            raise row
    return [row for row in rows if isinstance(row, ImageAnswer)]


def _ordered(rows: Sequence[ImageAnswer], indices: Sequence[int]) -> list[ImageAnswer]:
    found = {row.index: row for row in rows}
    ordered = [found[index] for index in indices if index in found]
    assert len(found) == len(rows) == len(ordered)
    if not found:
        raise ImageError(
            f"none of {len(indices)} images could be read: see what was said of them, and check their paths"
        )
    answers = np.array([row.answer for row in ordered], dtype=np.float64)
    check_answers([row.example.id for row in ordered], answers, "among its pixels or the model's weights")
    return ordered


def _rows(
    model: "Model",
    output: Output,
    images: Batch,
    examples: Sequence[tuple[int, Example]],
    seen: Sequence[tuple[bool, ...] | None],
) -> list[ImageAnswer]:
    assert images.labels is not None
    logits = output.logits.double().cpu()
    losses = model.kind.losses(model.calibrated(logits), images.labels).tolist()
    patches = output.patches_read.tolist()
    health = _health(model, output, len(images))
    columns = (examples, model.answers(logits).tolist(), losses, patches, images.view_sizes, seen, health)
    return [ImageAnswer(*one, *row) for one, *row in zip(*columns, strict=True)]


def _health(model: "Model", output: Output, images: int) -> Sequence[AttentionHealth | None]:
    if not model.attends or output.attention is None or output.cell_mask is None:
        return [None] * images
    return diagnose(output.attention, output.cell_mask, model.patches)


def _check_groups(dataset: ImageDataset, indices: Sequence[int]) -> None:
    known: dict[str, Example] = {}
    for one in (dataset.examples[index] for index in indices):
        first = one if one.group is None else known.setdefault(one.group, one)
        if first.label != one.label:
            raise DataError(
                f"the images of group {one.group!r} have different labels ({first.id} and {one.id}), so the group as a "
                "whole has none: correct them, or evaluate image by image"
            )
