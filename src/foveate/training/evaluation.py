"""How well a model does on labelled images: each counted exactly once, however many processes share the work."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from foveate.errors import DataError, FoveateError
from foveate.settings import Method
from foveate.training.loader import Loader, shares
from foveate.training.metrics import error_interval
from foveate.types import Batch, ImageDataset, Output, Size

if TYPE_CHECKING:
    from foveate.models import Model

__all__ = ["Evaluation", "evaluate", "watch_attention"]


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model on n images.

    Attributes:
        indices: example numbers, sorted by id.
        labels: (n,) int64 class numbers.
        probabilities: (n, classes) float64.
        error: share of images whose most probable class is wrong.
        loss: mean cross-entropy in nats.
        interval: 95 % interval of the error (Wilson; bootstrap by group where groups have several images).
        patches_per_image: mean number of full-resolution patches read.
        view_size: (height, width) of the low-resolution view, the commonest one.
    """

    indices: tuple[int, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    error: float
    loss: float
    interval: tuple[float, float]
    patches_per_image: float
    view_size: Size

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.indices)

    def plain(self) -> dict[str, object]:
        """What `foveate evaluate` writes."""
        return {
            "error": self.error,
            "n": self.n,
            "interval": list(self.interval),
            "loss": self.loss,
            "patches_per_image": self.patches_per_image,
            "view_size": list(self.view_size),
        }


@dataclass(frozen=True)
class _Row:
    index: int
    probabilities: list[float]
    loss: float
    patches: int
    view_size: Size


def evaluate(
    model: "Model",
    dataset: ImageDataset,
    indices: Sequence[int],
    *,
    seed: int = 0,
    samples: int = 1,
    method: Method | None = None,
    batch: int = 32,
    workers: int = 0,
    check: Callable[[], None] | None = None,
) -> Evaluation:
    """Classify labelled images and count the errors.

    Within a process group every process calls this, does its part, and returns the same result.

    Arguments:
        model: on the device to work on; its mode is restored afterwards.
        dataset: the images.
        indices: example numbers, sorted by id.
        seed: draws depend on it, the file's name and the sample alone, so that `Model.predict` with the same seed
            draws the same cells (`foveate.models.prediction_seed`).
        samples: draws per image whose probabilities are averaged.
        method: how cells are drawn; None as the model was set.
        batch: images at a time, over all processes together; the result does not depend on it.
        workers: processes that make views.
        check: called after every batch; may raise to stop.

    Raises:
        DataError: there is no image to evaluate on.
        ImageError: an image cannot be read; raised in every process.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    if not indices:
        raise DataError("there is no labelled image to evaluate on: check the split and the manifest")
    loader = Loader(dataset, model.view, seed, check=model.check_channels, workers=workers)
    state = PartialState()
    plan = [share for share in shares(indices, batch, state.process_index, state.num_processes) if share.counted]
    rows: list[_Row | FoveateError] = []
    try:
        with model.evaluating(method), closing(loader.evaluation(plan)) as batches:
            for share, images in zip(plan, batches, strict=True):
                rows += _rows(model(images.to(model.device), samples=samples), images, share.indices)
                if check is not None:
                    check()
    except FoveateError as error:
        rows = [error]  # the others wait for what this process has to say
    return _summary(dataset, indices, _whole(gather_object(rows)))


def _whole(rows: Sequence[_Row | FoveateError]) -> list[_Row]:
    for row in rows:
        if isinstance(row, FoveateError):
            raise row
    return [row for row in rows if isinstance(row, _Row)]


def _rows(output: Output, images: Batch, indices: Sequence[int]) -> list[_Row]:
    assert images.labels is not None
    logits = output.logits.double().cpu()
    losses = cross_entropy(logits, images.labels, reduction="none").tolist()
    columns = (indices, logits.softmax(1).tolist(), losses, _patches(output, len(images)), images.view_sizes)
    return [_Row(*row) for row in zip(*columns, strict=True)]


def _patches(output: Output, images: int) -> list[int]:
    if output.draw is not None:
        return [int(count) for count in output.draw.valid.view(images, -1).sum(1)]
    return [0 if output.boxes is None else output.boxes.shape[0] * output.boxes.shape[1] // images] * images


def _summary(dataset: ImageDataset, indices: Sequence[int], rows: Sequence[_Row]) -> Evaluation:
    found = {row.index: row for row in rows}
    assert len(found) == len(rows) == len(indices)
    ordered = [found[index] for index in indices]
    labels = np.array([dataset.examples[index].label for index in indices], dtype=np.int64)
    probabilities = np.array([row.probabilities for row in ordered], dtype=np.float64)
    wrong = (probabilities.argmax(1) != labels).tolist()
    return Evaluation(
        indices=tuple(indices),
        labels=labels,
        probabilities=probabilities,
        error=sum(wrong) / len(wrong),
        loss=float(np.mean([row.loss for row in ordered])),
        interval=error_interval(wrong, [dataset.examples[index].group for index in indices]),
        patches_per_image=float(np.mean([row.patches for row in ordered])),
        view_size=Counter(row.view_size for row in ordered).most_common(1)[0][0],
    )


def watch_attention(
    model: "Model", dataset: ImageDataset, indices: Sequence[int], seed: int = 0
) -> dict[str, NDArray[np.generic]]:
    """Where a model looks in a few images.

    Arguments:
        model: on the device to work on.
        dataset: the images.
        indices: example numbers.
        seed: as for `evaluate`, so that these are the very draws of the validation.

    Returns:
        "ids" (n,), and where the model has them "attention" (n, rows, columns) probabilities, zero beyond a smaller
        image's map, and "boxes" (n, N, 4) top, left, height, width of the patches read, in level-0 pixels.
    """
    loader = Loader(dataset, model.view, seed, check=model.check_channels)
    (images,) = loader.evaluation(shares(indices, len(indices)))
    with model.evaluating():
        output = model(images.to(model.device))
    arrays: dict[str, NDArray[np.generic]] = {"ids": np.array(images.ids)}
    if output.attention is not None:
        arrays["attention"] = output.attention.float().cpu().numpy()
    if output.boxes is not None:
        arrays["boxes"] = output.boxes.cpu().numpy()
    return arrays
