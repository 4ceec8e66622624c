"""Attention log and TensorBoard: where a run looks in a few validation images, epoch by epoch (RUN/attention)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray

from foveate.atomic import replace_file, writing
from foveate.datasets.types import ImageDataset
from foveate.errors import MissingExtra, RunError
from foveate.pipeline.inference import answered
from foveate.pipeline.loader import ALONE, Loader, LoadOptions, shares
from foveate.training.checkpoint import Position
from foveate.types import Box

if TYPE_CHECKING:
    from foveate.models import Model

FOLDER = "attention"
"""Of a run, where an .npz file per epoch is kept."""

COLOURS = "magma"
"""Matplotlib's colour map of the maps that are compared from epoch to epoch."""

STEP = ("loss", "error", "entropy", "learning_rate")
EPOCH = (
    "training_loss",
    "training_error",
    "entropy",
    "validation_loss",
    "validation_error",
    "validation_covered",
    "patches_per_second",
)
"""What is shown of the records of metrics.jsonl, under the same names."""

SIDE = 256
"""Longest side of the picture of a map, about, in pixels."""

FLUSH_SECONDS = 10

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class WatchedImage:
    """Attention map of one watched image, and the patches drawn.

    Attributes:
        id: of the image.
        attention: (rows, columns) probability of each cell of its map.
        extent: (top, left, bottom, right) of the map, in level-0 pixels of the file.
        boxes: (n, 4) top, left, height, width of the patches drawn, likewise; none where none are drawn.
    """

    id: str
    attention: Float32[np.ndarray, "row column"]
    extent: tuple[float, float, float, float]
    boxes: Int64[np.ndarray, "patch 4"]


def watch_attention(
    model: "Model", dataset: ImageDataset, indices: Sequence[int], seed: int = 0, loading: LoadOptions = ALONE
) -> dict[str, NDArray[np.generic]]:
    """Attention maps of a few images, as arrays.

    Arguments:
        model: on the device to work on.
        dataset: the images.
        indices: example numbers.
        seed: as for `evaluate`, so that these are the very draws of the validation.
        loading: where images stay open; a cache of its own if it names none.

    Returns:
        "ids" (n,). Where the model has a map, "attention" (n, rows, columns) probabilities, zero beyond a smaller
        image's map; "cells" (n, 2) rows and columns of each image's own map; and "extent" (n, 4) its top, left, bottom
        and right in level-0 pixels of the file. Where it draws, "boxes" (n, N, 4) top, left, height, width of the
        patches read, likewise.
    """
    loader = Loader.of(model, dataset, seed, loading=loading)
    plan = shares(indices, max(1, len(indices)))
    with model.evaluating():
        found = [
            one
            for share, images in zip(plan, loader.evaluation(plan), strict=True)
            for one in answered(loader, share, images, lambda some: model(some.to(model.device)))
        ]
    if not found:
        return {"ids": np.array([], dtype=str)}
    if len(found) > 1:  # some failed, and each of the others was asked by itself
        return watch_attention(model, dataset, [index for one, _, _ in found for index in one.indices], seed, loading)
    ((share, images, output),) = found
    indices = share.indices
    arrays: dict[str, NDArray[np.generic]] = {"ids": np.array(images.ids)}
    if output.attention is not None and model.grid is not None and model.attends:
        seen = [source.size for source in images.sources] if model.view is None else images.view_sizes
        extents = [model.grid.extent(size, dataset.open(index).size) for size, index in zip(seen, indices, strict=True)]
        arrays["attention"] = output.attention.float().cpu().numpy()
        arrays["cells"] = np.array([model.grid.shape(size) for size in seen])
        arrays["extent"] = np.array(extents)
    if output.boxes is not None and output.draw is not None:
        rows = zip(images.sources, output.boxes.tolist(), strict=True)
        own = [[source.to_file(Box(*box)) for box in boxes] for source, boxes in rows]
        arrays["boxes"] = np.array([[(box.top, box.left, *box.size) for box in boxes] for boxes in own])
    return arrays


def keep_watched(folder: Path, epoch: int, arrays: Arrays) -> None:
    """Attention log: keep what was seen in a run's folder.

    Arguments:
        folder: of the run.
        epoch: after which; 0 before training.
        arrays: of `watch_attention`.
    """
    content = BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(content, **named)
    replace_file(folder / FOLDER / f"epoch-{epoch:03d}.npz", content.getvalue())


def read_watched(folder: Path) -> list[tuple[int, list[WatchedImage]]]:
    """Attention log: the maps that a run kept.

    Arguments:
        folder: of the run.

    Returns:
        Epoch, and what was seen after it; in order of epoch.

    Raises:
        RunError: there is none.
    """
    found = []
    for file in (folder / FOLDER).glob("epoch-*.npz"):
        number = re.fullmatch(r"epoch-(\d+)", file.stem)
        if number is None:
            continue
        with np.load(file) as arrays:
            if "extent" in arrays:
                found.append((int(number[1]), watched_images(arrays)))
    if not found:
        raise RunError(f"{folder / FOLDER} holds no attention maps: train a model that attends with --training.watch 4")
    return sorted(found, key=lambda one: one[0])


def watched_images(arrays: Arrays) -> list[WatchedImage]:
    """Attention maps that `watch_attention` found, image by image; none of a model without a map."""
    if "attention" not in arrays:
        return []
    maps, boxes = arrays["attention"], arrays.get("boxes")
    images = []
    for row, (name, (rows, columns)) in enumerate(zip(arrays["ids"], arrays["cells"].tolist(), strict=True)):
        top, left, bottom, right = arrays["extent"][row].tolist()
        own = np.zeros((0, 4)) if boxes is None else boxes[row]
        cells = maps[row, :rows, :columns].astype(np.float32)
        images.append(WatchedImage(str(name), cells, (top, left, bottom, right), own.astype(np.int64)))
    return images


def map_colours(attention: Float32[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column 3"]:
    """Heatmap: a map in colours from 0 to its own largest probability.

    Example:
        >>> map_colours(np.array([[0.0, 0.1, 0.2]], np.float32)).mean(2).round(-1)
        array([[  0., 120., 230.]])
    """
    from matplotlib import colormaps

    largest = max(float(attention.max()), float(np.finfo(np.float32).tiny))
    return np.asarray(colormaps[COLOURS](attention.astype(np.float64) / largest, bytes=True))[:, :, :3]


class Board:
    """TensorBoard of a run: writes what it shows; a disabled one writes and imports nothing.

    In TensorBoard a run is two: "steps" and "epochs", the maps among the latter. What a stopped run wrote after the
    state that it is resumed from is no longer shown.

    Arguments:
        folder: to write to; None to write nothing (unless asked, and in every process but the first).
        resumed: where the run goes on; None where it starts.

    Raises:
        MissingExtra: TensorBoard is needed and not installed.
    """

    def __init__(self, folder: Path | None, resumed: Position | None = None) -> None:
        self._writers: dict[str, Any] = {}
        self._folder = folder
        if folder is None:
            return
        writer = require_tensorboard()
        # the figures of an epoch stand at its last step, which may be saved before them: `closed` is when they were
        kept: dict[str, int | None] = {"steps": None, "epochs": None}
        if resumed is not None:
            kept = {"steps": resumed.step, "epochs": resumed.closed}
        for name, step in kept.items():
            first = None if step is None else step + 1
            self._writers[name] = writer(str(folder / name), purge_step=first, flush_secs=FLUSH_SECONDS)

    def step(self, record: dict[str, Any]) -> None:
        """Show a step's record: loss, error, entropy, learning rate, and what is annealed."""
        moving = {f"annealed/{name}": value for name, value in record.get("annealed", {}).items()}
        self._show("steps", record | moving, (*STEP, *moving))

    def epoch(self, record: dict[str, Any]) -> None:
        """Show an epoch's record: its errors and losses in training and validation; it is on disk when this returns."""
        self._show("epochs", record, EPOCH)
        with writing(self._folder or ""):
            for writer in self._writers.values():
                writer.flush()

    def maps(self, step: int, arrays: Arrays) -> None:
        """Show attention maps, a picture per image, each in colours from 0 to its own largest probability.

        Arguments:
            step: steps taken.
            arrays: of `watch_attention`.
        """
        if not self._writers:
            return
        for image in watched_images(arrays):
            size = max(1, SIDE // max(image.attention.shape))
            picture = map_colours(image.attention).repeat(size, 0).repeat(size, 1)
            self._writers["epochs"].add_image(f"attention/{image.id}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what has not been written yet."""
        with writing(self._folder or ""):
            for writer in self._writers.values():
                writer.close()

    def _show(self, run: str, record: dict[str, Any], names: Sequence[str]) -> None:
        for name in names if self._writers else ():
            if record.get(name) is not None:
                with writing(self._folder or ""):
                    self._writers[run].add_scalar(name, record[name], record["step"])


def require_tensorboard() -> Any:
    """TensorBoard writer of torch, a class.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("training.tensorboard needs TensorBoard: pip install 'tensorboard>=2.18'") from error
    return SummaryWriter
