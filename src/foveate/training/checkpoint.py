"""Checkpoints of a run: its state, all that resuming needs, in one file that is always old or new; its best model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from foveate.atomic import replace_file
from foveate.config.serial import to_plain
from foveate.config.training import RunSettings
from foveate.errors import RunError
from foveate.evaluation.numbers import AnyEvaluation, NumberEvaluation
from foveate.models import Model, save_model
from foveate.training.optimisation import WeightAverage

if TYPE_CHECKING:
    from accelerate import Accelerator

FEW = 100
"""Validation images fewer than which their loss chooses the model, for their error is a matter of single ones."""

FEW_OTHERS = 50
"""Likewise, of those that are not of the commonest class."""

FILE = "state.safetensors"
"""Name of the state's file in RUN/state."""


@dataclass(frozen=True)
class Best:
    """Best validation so far: the one the saved model comes from.

    Attributes:
        error: share of validation images that are wrong, or mean absolute error of numbers.
        loss: mean cross-entropy in nats, which decides between equal errors, and of few images alone; of numbers that
            in squared deviations, which always decides alone.
        epoch: counted from 1; 0 for evidence, before the first.
        step: steps taken.
        lowest: epoch of the lowest loss so far, where the loss chooses; else `epoch`.
        losses: of each image in that validation, in nats; empty where the error chooses.
    """

    error: float
    loss: float
    epoch: int
    step: int
    lowest: int = 0
    losses: tuple[float, ...] = ()


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
        stale: epochs since the lowest loss, or error, for early stopping.
        begun: seconds before the first step.
        share: of the time that the run has, if that is limited; as the first process saw it after the last step.
        at: where the schedule was in the last step; see `foveate.training.optimisation.scheduled_step`.
    """

    epoch: int = 1
    done: int = 0
    step: int = 0
    closed: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    stale: int = 0
    begun: float = 0.0
    share: float = 0.0
    at: int = 0

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
        best = plain["best"]
        best = None if best is None else Best(**{"lowest": best["epoch"], **best})  # as states had it before
        return cls(**{"at": max(0, plain["step"] - 1), **plain, "best": best})


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

    def keep_best(self, position: Position, result: AnyEvaluation | None, model: Model | None = None) -> bool:
        """Save the model if it is the best so far, or the latest where nothing tells; True if it was saved.

        Arguments:
            position: how far the run has come.
            result: of the validation, or None.
            model: what was validated; that of the run if None.
        """
        data = self.settings.data
        card: dict[str, Any] = {"epoch": position.epoch, "step": position.step, "seed": self.settings.seed}
        card["data"] = f"Trained on {data.source if data.manifest is None else Path(data.manifest).name}."
        epoch = position.epoch if model is None else 0
        if result is not None:
            best, lowest = position.best, (epoch, _losses(result) if few(result) else ())
            if best is not None:
                if _lower(result, best):
                    position.best = best = replace(best, lowest=lowest[0], losses=lowest[1])
                lowest = best.lowest, best.losses
                if not _takes_over(result, best):
                    return False
            card |= {"metrics": {"validation error": result.error, "validation images": result.n}}
        if self.accelerator.is_main_process:
            save_model(self.judged if model is None else model, self.folder / "model", card)
        if result is not None:
            position.best = Best(result.error, result.loss, epoch, position.step, *lowest)
        return True


def few(result: AnyEvaluation) -> bool:
    """Whether an error is a matter of single images: there are few in all, or beside those of the commonest class."""
    if isinstance(result, NumberEvaluation):
        return result.n < FEW
    others = FEW_OTHERS if result.several else result.n - int(np.unique(result.labels, return_counts=True)[1].max())
    return result.n < FEW or others < FEW_OTHERS


def _losses(result: AnyEvaluation) -> tuple[float, ...]:
    """Cross-entropy of each image in nats; with several labels, the mean over the classes; squared error of numbers."""
    if isinstance(result, NumberEvaluation):
        return tuple(result.losses.tolist())
    chances = result.probabilities
    if result.several:
        chances = np.where(result.labels == 1, chances, 1 - chances)
    else:
        chances = np.take_along_axis(chances, result.labels[:, None], 1)
    return tuple((-np.log(np.maximum(chances, np.finfo(np.float64).tiny))).mean(1).tolist())


def _less(result: AnyEvaluation, best: Best) -> bool:
    """Whether a validation of many images is better: by its error, then by its loss; of numbers by its loss."""
    if isinstance(result, NumberEvaluation):
        return result.loss < best.loss
    return (result.error, result.loss) < (best.error, best.loss)


def _lower(result: AnyEvaluation, best: Best) -> bool:
    """Whether a validation is the lowest so far: by its error, of few images by its loss."""
    if not few(result):
        return _less(result, best)
    return not best.losses or float(np.mean(_losses(result))) < float(np.mean(best.losses))


def _takes_over(result: AnyEvaluation, best: Best) -> bool:
    r"""Whether a model takes the place of the one that is kept.

    Of many validation images the error says so. Few can be fooled, by a model that has learnt nothing and dares
    nothing, or by the luck of an epoch: there the later model is kept unless it is worse than the lowest loss so far by
    more than the standard error of the difference; and images of one class say nothing at all. Evidence, which reads no
    patch and is the simpler model, stays unless the loss of a later one is lower.

    .. math:: \bar d \le \sqrt{\tfrac1{n(n-1)} \textstyle\sum_i (d_i - \bar d)^2}, \qquad d_i = L_i - L_i^{\min}

    The rule of one standard error: Breiman, Friedman, Olshen & Stone, "Classification and Regression Trees", 1984,
    section 3.4.3; here of paired differences, and in favour of the model that was trained longer.
    """
    if not few(result):
        return _less(result, best)
    losses = _losses(result)
    if best.epoch == 0 or len(losses) != len(best.losses):  # it is evidence; images were skipped, or came back
        return result.loss < best.loss
    excess = np.subtract(losses, best.losses)
    tells = (not isinstance(result, NumberEvaluation) and result.several) or len(np.unique(result.labels)) > 1
    return not tells or len(excess) < 2 or bool(excess.mean() <= excess.std(ddof=1) / len(excess) ** 0.5)


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
