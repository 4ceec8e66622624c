"""What resuming needs, in one file that is always either the old or the new one."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveate.atomic import replace_file
from foveate.errors import RunError
from foveate.training.optimisation import WeightAverage

__all__ = ["Best", "Position", "State", "has_state", "load_state", "pack_tensors", "save_state", "unpack_tensors"]

FILE = "state.safetensors"
"""Name of the state's file in RUN/state."""


@dataclass(frozen=True)
class Best:
    """The validation the saved model comes from.

    Attributes:
        error: share of validation images that are wrong.
        loss: mean cross-entropy in nats, which decides between equal errors.
        epoch: counted from 1.
        step: steps taken.
    """

    error: float
    loss: float
    epoch: int
    step: int


@dataclass
class Position:
    """How far a run has come; the only thing the loop changes besides weights and optimizer.

    Attributes:
        epoch: the epoch under way, counted from 1.
        done: steps taken in it.
        step: steps taken in all.
        closed: value of `step` when metrics and validation were last written.
        seconds: of training and validation so far.
        sums: over the epoch under way, keyed by what was added up.
        best: the best validation so far.
        stale: epochs since it.
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
    """A state as it lies on disk.

    Attributes:
        tensors: weights, optimizer moments and weight average, by name.
        plain: position, settings, optimizer numbers, length of the journal.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]


def save_state(folder: Path, state: State) -> None:
    """Replace the state in `folder`."""
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
    """The state in `folder`, or None where there is none.

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


def pack_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Everything that changes with a step.

    Returns:
        Tensors by name, and the optimizer's numbers as JSON takes them.
    """
    tensors = {f"model.{name}": one for name, one in model.state_dict().items()}
    tensors |= {f"average.{name}": one for name, one in average.tensors.items()}
    numbers = optimizer.state_dict()
    for index, moments in numbers["state"].items():
        tensors |= {f"optimizer.{index}.{name}": one for name, one in moments.items() if one is not None}
    return tensors, numbers["param_groups"]


def unpack_tensors(state: State, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage) -> None:
    """Bring model, optimizer and average back to what `pack_tensors` saw.

    Raises:
        RunError: the state is of another model.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, one in state.tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = one
    groups = state.plain["optimizer"]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    try:
        model.load_state_dict(parts["model"])
        for name, one in parts["average"].items():
            average.tensors[name].copy_(one)
        optimizer.load_state_dict({"state": _moments(parts["optimizer"], parameters), "param_groups": groups})
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        raise RunError("the state is of another version of the model: train anew in another --out folder") from error


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
