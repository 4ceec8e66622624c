"""What a run leaves in its folder while it goes: its state, its best model, its attention maps."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from foveate.config.serial import to_plain
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.evaluation.evaluate import Evaluation
from foveate.models import save_model
from foveate.pipeline.distributed import agreed
from foveate.training.attention_log import Arrays, keep_watched, watch_attention
from foveate.training.checkpoint import Best, Position, State, pack_tensors, save_state, unpack_tensors
from foveate.training.optimisation import WeightAverage
from foveate.training.step import Stepper

__all__ = ["Keeper"]


class Keeper:
    """Writes for all processes, in the first of them.

    Arguments:
        folder: of the run.
        settings: of the run.
        stepper: its model, optimizer and accelerator.
        average: of its weights.
        fingerprint: of its images.
    """

    def __init__(
        self, folder: Path, settings: RunSettings, stepper: Stepper, average: WeightAverage, fingerprint: int
    ) -> None:
        self.folder, self.settings, self.stepper = folder, settings, stepper
        self.average, self.fingerprint = average, fingerprint

    def restore(self, state: State) -> Position:
        """Bring model, optimizer and average back to where a state left them.

        Raises:
            RunError: the state is of another model.
        """
        stepper = self.stepper
        unpack_tensors(state, stepper.model, stepper.optimizer, self.average)
        if stepper.accelerator.scaler is not None:
            stepper.accelerator.scaler.load_state_dict(state.plain["scaler"])
        return Position.from_plain(state.plain["position"])

    def save(self, position: Position, journal: int) -> None:
        """Replace the state in the folder.

        Arguments:
            position: how far the run has come.
            journal: bytes of metrics.jsonl that belong to it.
        """
        accelerator = self.stepper.accelerator
        if not accelerator.is_main_process:
            return
        scaler = accelerator.scaler
        tensors, numbers = pack_tensors(self.stepper.model, self.stepper.optimizer, self.average)
        plain = {
            "position": position.plain(),
            "optimizer": numbers,
            "scaler": None if scaler is None else scaler.state_dict(),
            "journal": journal,
            "settings": to_plain(self.settings),
            "fingerprint": self.fingerprint,
        }
        save_state(self.folder / "state", State(tensors, plain))

    def keep(self, position: Position, result: Evaluation | None) -> bool:
        """Save the model if it is the best so far, or the latest where nothing tells; True if it was saved."""
        card: dict[str, Any] = {"epoch": position.epoch, "step": position.step, "seed": self.settings.seed}
        if result is not None:
            best = position.best
            if best is not None and (best.error, best.loss) <= (result.error, result.loss):
                return False
            card |= {"metrics": {"validation error": result.error, "validation images": result.n}}
        if self.stepper.accelerator.is_main_process:
            save_model(self.stepper.model, self.folder / "model", card)
        if result is not None:
            position.best = Best(result.error, result.loss, position.epoch, position.step)
        return True

    def watch(self, dataset: ImageDataset, indices: Sequence[int], epoch: int, show: Callable[[Arrays], None]) -> None:
        """Keep the attention maps of a few images, as the averaged weights make them.

        Arguments:
            dataset: the images.
            indices: example numbers; none is fine.
            epoch: after which; 0 before training.
            show: called with them, in the first process.
        """
        if indices:
            agreed(self.stepper.accelerator, partial(self._keep_maps, dataset, indices, epoch, show))

    def _keep_maps(
        self, dataset: ImageDataset, indices: Sequence[int], epoch: int, show: Callable[[Arrays], None]
    ) -> None:
        with self.average.applied():
            arrays = watch_attention(self.stepper.model, dataset, indices, self.settings.seed)
        keep_watched(self.folder, epoch, arrays)
        show(arrays)
