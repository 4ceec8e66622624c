"""Checkpoints of a run: its state, all that resuming needs, in one file that is always old or new; its best model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from foveate.atomic import replace_file
from foveate.config.serial import to_plain
from foveate.config.training import RunSettings
from foveate.errors import RunError
from foveate.evaluation.evaluate import Evaluation
from foveate.models import Model, save_model
from foveate.training.optimisation import WeightAverage

if TYPE_CHECKING:
    from accelerate import Accelerator

FEW = 100
"""Validation images fewer than which their loss chooses the model, for their error is a matter of single ones."""

FILE = "state.safetensors"
"""Name of the state's file in RUN/state."""


@dataclass(frozen=True)
class Best:
    """Best validation so far: the one the saved model comes from.

    Attributes:
        error: share of validation images that are wrong.
        loss: mean cross-entropy in nats, which decides between equal errors, and of few images alone.
        epoch: counted from 1; 0 for evidence, before the first.
        step: steps taken.
    """

    error: float
    loss: float
    epoch: int
    step: int


@dataclass
class Position:
    """Position of a run: how far it has come; the only thing the loop changes besides weights and optimizer.

    Attributes:
        epoch: the epoch under way, counted from 1.
        done: steps taken in it.
        step: steps taken in all.
        closed: value of `step` when metrics and validation were last written.
        seconds: of training and validation so far.
        sums: over the epoch under way, keyed by what was added up.
        best: the best validation so far.
        stale: epochs since it, for early stopping.
    """

    epoch: int = 1
    done: int = 0
    step: int = 0
    closed: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    stale: int = 0

    def take(self, sums: dict[str, float], seconds: float) -> None:
        """Count one step.

        Arguments:
            sums: what it adds to the epoch's sums.
            seconds: how long it took.
        """
        self.step += 1
        self.done += 1
        for name, value in {**sums, "seconds": seconds}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; floats survive to the bit."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Position":
        """The inverse of `plain`."""
        return cls(**{**plain, "best": None if plain["best"] is None else Best(**plain["best"])})


@dataclass(frozen=True)
class State:
    """State of a run as it lies on disk.

    Attributes:
        tensors: weights, optimizer moments and weight average, by name.
        plain: position, settings, optimizer numbers, length of the metrics log.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]


def save_state(folder: Path, state: State) -> None:
    """Checkpoint: replace the state in `folder`."""
    from safetensors.torch import save

    # Copies: layers of a user's own may share one tensor under two names, which the file format refuses.
    tensors = {
        name: one.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, one in state.tensors.items()
    }
    replace_file(folder / FILE, save(tensors, metadata={"foveate": json.dumps(state.plain)}))


def has_state(folder: Path) -> bool:
    """Whether there is a state in `folder`, whole or damaged."""
    return (folder / FILE).exists()


def load_state(folder: Path) -> State | None:
    """Checkpoint: the state in `folder`, or None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not has_state(folder):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            plain = json.loads(file.metadata()["foveate"])
            return State({name: file.get_tensor(name) for name in file.keys()}, plain)  # noqa: SIM118  not a mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: delete {folder} to train from the start, or restore a copy") from error


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of a run: written by the first process for all of them.

    Attributes:
        folder: of the run.
        settings: of the run.
        fingerprint: of its images.
        accelerator: of this process.
        model: what is trained.
        optimizer: of its parameters.
        scaler: of its loss, in fp16.
        average: of its weights; None where they are not averaged.
    """

    folder: Path
    settings: RunSettings
    fingerprint: int
    accelerator: "Accelerator"
    model: Model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None

    @property
    def judged(self) -> Model:
        """The model that is validated and saved: that of the averaged weights, if they are averaged."""
        return self.model if self.average is None else cast("Model", self.average.module)

    def save(self, position: Position, logged: int) -> None:
        """Replace the state in the folder.

        Arguments:
            position: how far the run has come.
            logged: bytes of metrics.jsonl that belong to it.
        """
        if not self.accelerator.is_main_process:
            return
        numbers = self.optimizer.state_dict()
        tensors = {f"model.{name}": one for name, one in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": one for name, one in self.average.state_dict().items()}
        for index, moments in numbers["state"].items():
            tensors |= {f"optimizer.{index}.{name}": one for name, one in moments.items() if one is not None}
        plain = {
            "position": position.plain(),
            "optimizer": numbers["param_groups"],
            "scaler": self.scaler.state_dict() or None,
            "logged": logged,
            "settings": to_plain(self.settings),
            "fingerprint": self.fingerprint,
        }
        save_state(self.folder / "state", State(tensors, plain))

    def restore(self, state: State) -> Position:
        """Bring model, optimizer and average back to where `save` left them.

        Raises:
            RunError: the state is of another model.
        """
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, one in state.tensors.items():
            part, rest = name.split(".", 1)
            parts[part][rest] = one
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        try:
            self.model.load_state_dict(parts["model"])
            if self.average is not None:
                self.average.load_state_dict(parts["average"])
            moments, groups = _moments(parts["optimizer"], parameters), state.plain["optimizer"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            raise RunError(
                "the state is of another version of the model: train anew in another --out folder"
            ) from error
        if state.plain["scaler"] is not None:
            self.scaler.load_state_dict(state.plain["scaler"])
        return Position.from_plain(state.plain["position"])

    def keep_best(self, position: Position, result: Evaluation | None, model: Model | None = None) -> bool:
        """Save the model if it is the best so far, or the latest where nothing tells; True if it was saved.

        Arguments:
            position: how far the run has come.
            result: of the validation, or None.
            model: what was validated; that of the run if None.
        """
        card: dict[str, Any] = {"epoch": position.epoch, "step": position.step, "seed": self.settings.seed}
        if result is not None:
            best = position.best
            if best is not None and not _better(result, best):
                return False
            card |= {"metrics": {"validation error": result.error, "validation images": result.n}}
        if self.accelerator.is_main_process:
            save_model(self.judged if model is None else model, self.folder / "model", card)
        if result is not None:
            epoch = position.epoch if model is None else 0
            position.best = Best(result.error, result.loss, epoch, position.step)
        return True


def _better(result: Evaluation, best: Best) -> bool:
    """Whether a validation is better: by its error, of few images by its loss, which one of them moves less."""
    if len(result.indices) < FEW:
        return (result.loss, result.error) < (best.loss, best.error)
    return (result.error, result.loss) < (best.error, best.loss)


def _moments(tensors: Mapping[str, Tensor], parameters: list[Tensor]) -> dict[int, dict[str, Tensor]]:
    """Optimizer state by parameter number, each moment laid out in memory like its parameter.

    The layout (channels-last weights) decides how sums are ordered, hence the last bit.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, one in tensors.items():
        index, moment = name.split(".", 1)
        like = parameters[int(index)]
        same = one.shape == like.shape
        state.setdefault(int(index), {})[moment] = torch.empty_like(like, dtype=one.dtype).copy_(one) if same else one
    return state
