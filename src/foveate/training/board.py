"""A run in TensorBoard while it goes: its figures as curves, the maps it keeps as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.errors import MissingExtra
from foveate.training.state import Position
from foveate.training.watched import Arrays, map_colours, watched_images

__all__ = ["Board", "require_tensorboard"]

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


class Board:
    """Writes what TensorBoard shows of a run; a disabled one writes and imports nothing.

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
        for writer in self._writers.values():
            writer.close()

    def _show(self, run: str, record: dict[str, Any], names: Sequence[str]) -> None:
        for name in names if self._writers else ():
            if record.get(name) is not None:
                self._writers[run].add_scalar(name, record[name], record["step"])


def require_tensorboard() -> Any:
    """Torch's writer for TensorBoard, a class.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("training.tensorboard needs TensorBoard: pip install 'tensorboard>=2.18'") from error
    return SummaryWriter
