"""Ensemble of models, such as the folds of a cross-validation: one model whose answer is the mean of theirs."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from foveate.config.settings import Method, ViewSettings
from foveate.errors import ConfigError, RunError
from foveate.models.base import Model
from foveate.models.kept import KeptFeatures
from foveate.models.types import Batch, DrawOptions, Output, Started
from foveate.networks.number import NumberHead

FOLDS = "folds.json"
"""File of a folder of folds that says the cross-validation is done."""


@dataclass(frozen=True)
class StartedMembers(Started):
    """Forward pass under way of every member on the same batch."""

    members: tuple[Started, ...]


class Ensemble(Model):
    r"""Mean of the probabilities, or numbers, of several models that have the same classes and look at the same view.

    .. math:: p = \frac1M \sum_m p_m

    Each member looks, draws and reads for itself, with the same seeds as it would alone, so an answer costs what those
    of all members cost. Where it looked is told of one of them, `seer`: the first that attends.

    Source: Lakshminarayanan, Pritzel & Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles" (NeurIPS 2017).

    Arguments:
        members: at least one model; they are not copied.
        names: what to call them; numbered from 1 if empty.

    Attributes:
        members: the models.
        names: what they are called.

    Raises:
        ConfigError: they differ in classes, channels, in what they make of an image, or in the view they want.

    Example:
        >>> from foveate.config.settings import ModelSettings
        >>> from foveate.models.build import build_model
        >>> settings = ModelSettings(patch=(24, 30), patches=4)
        >>> both = Ensemble([build_model(settings, ("cat", "dog"), 3, seed) for seed in (0, 1)])
        >>> both.patches, both.names
        (8, ('member-1', 'member-2'))
    """

    def __init__(self, members: Sequence[Model], names: Sequence[str] = ()) -> None:
        nn.Module.__init__(self)
        if not members:
            raise ConfigError("an ensemble has at least one member, got none: give it models")
        self.names = tuple(names) or tuple(f"member-{number}" for number in range(1, len(members) + 1))
        first = members[0]
        for name, one in zip(self.names, members, strict=True):
            _check_alike(name, one, self.names[0], first)
        attending = [place for place, one in enumerate(members) if one.attends]
        reading = [place for place, one in enumerate(members) if one.reads_patches]
        self._seer = (attending or reading or [0])[0]
        self.seer_note = (
            f"The answer is the mean of {len(members)} models; the map, the patches and what they add are those of "
            f"one of them, {self.names[self._seer]}."
        )
        self.members = nn.ModuleList(members)
        seer = members[self._seer]
        self.settings, self.classes, self.channels = seer.settings, seer.classes, seer.channels
        self.method, self.grid, self.head = seer.method, seer.grid, seer.head
        self.multi_label = seer.multi_label
        self.patches = self.training_patches = sum(one.patches for one in members)
        self.own_features = any(one.own_features for one in members)
        self.normalise = None
        self.intake = first.intake if first.intake.means is None else replace(first.intake, means=self._means)
        self.eval()

    def _means(self) -> tuple[float, ...]:
        """What missing data become: the mean over the members of what each subtracts."""
        every = [one.intake.means() for one in self.models if one.intake.means is not None]
        return tuple(sum(values) / len(values) for values in zip(*every, strict=True))

    @property
    def models(self) -> tuple[Model, ...]:
        """The members, as models."""
        return tuple(one for one in self.members if isinstance(one, Model))

    @property
    def seer(self) -> Model:
        """The member whose attention, patches and contributions an output shows."""
        return self.models[self._seer]

    @property
    def reads_patches(self) -> bool:
        """Whether any member does."""
        return any(one.reads_patches for one in self.models)

    @property
    def attends(self) -> bool:
        """Whether the member that is shown does."""
        return self.seer.attends

    @property
    def view(self) -> ViewSettings | None:
        """The view that its members want, those that want one."""
        return next((one.view for one in self.models if one.view is not None), None)

    def start(self, batch: Batch, samples: int = 1) -> StartedMembers:
        """Begin with every member; see `Model.start`."""
        return StartedMembers(batch, samples, tuple(one.start(batch, samples) for one in self.models))

    def draw_again(self, started: Started, row: int, seeds: Sequence[int]) -> StartedMembers:
        """Same looks, other draws; see `Model.draw_again`."""
        assert isinstance(started, StartedMembers)
        pairs = zip(self.models, started.members, strict=True)
        again = tuple(model.draw_again(one, row, seeds) for model, one in pairs)
        return StartedMembers(started.batch.repeat(row, seeds), started.samples, again)

    def finish(self, started: Started) -> Output:
        """The output of the member that is shown, with the logits of the mean, and those of the others beside it."""
        assert isinstance(started, StartedMembers)
        outputs = [model.finish(one) for model, one in zip(self.models, started.members, strict=True)]
        logits = [model.calibrated(one.logits) for model, one in zip(self.models, outputs, strict=True)]
        if isinstance(self.head, NumberHead):  # each has standardised its own training labels
            numbers = [model.answers(one.logits) for model, one in zip(self.models, outputs, strict=True)]
            logits = [self.head.standardised(one) for one in numbers]
        mean = self.kind.averaged(torch.stack(logits, 1).flatten(0, 1), len(logits))
        seconds: dict[str, float] = {}
        for stage, spent in (pair for one in outputs for pair in one.seconds.items()):
            seconds[stage] = seconds.get(stage, 0.0) + spent
        others = tuple(one for place, one in enumerate(outputs) if place != self._seer)
        return replace(outputs[self._seer], logits=mean, seconds=seconds, others=others)

    def settle(self, batch: Batch, options: DrawOptions) -> Output:  # noqa: ARG002
        """No such of several models, each of which draws for itself."""
        name = self.names[self._seer]
        raise ConfigError(
            f"the members of an ensemble draw each for itself: leave out max_patches, or predict by one, e.g. {name}"
        )

    def keep_features(self, kept: KeptFeatures | None) -> None:
        """Not of several networks at once."""

    @contextlib.contextmanager
    def in_evaluation_mode(self, method: Method | None = None) -> Iterator[None]:
        """Evaluation mode of all members; see `Model.in_evaluation_mode`."""
        with contextlib.ExitStack() as stack:
            for one in self.models:
                stack.enter_context(one.in_evaluation_mode(method))
            stack.enter_context(super().in_evaluation_mode(method))
            yield


def _check_alike(name: str, one: Model, first_name: str, first: Model) -> None:
    views = [model.view for model in (one, first) if model.view is not None]
    told = {
        "classes": (one.classes, first.classes),
        "channels": (one.channels, first.channels),
        "several labels": (one.multi_label, first.multi_label),
        "model.head.kind": (one.settings.head.kind, first.settings.head.kind),
        "model.input": (one.settings.input, first.settings.input),
        "model.view": (views[0], views[-1]) if views else (None, None),
    }
    for what, (own, its) in told.items():
        if own != its:
            raise ConfigError(
                f"the members of an ensemble must not differ in {what}, but {name} has {own} and {first_name} {its}: "
                "leave one of them out"
            )


def fold_folders(folder: Path) -> list[Path]:
    """Folders of the folds of a cross-validation, in order; empty where a folder holds none.

    Arguments:
        folder: that `foveate train --folds` wrote.

    Raises:
        RunError: the cross-validation is not finished.
    """
    found = [one for one in folder.glob("fold-*") if re.fullmatch(r"fold-\d+", one.name) and one.is_dir()]
    folds = sorted(found, key=lambda one: int(one.name.removeprefix("fold-")))
    if folds and not (folder / FOLDS).is_file():
        raise RunError(
            f"{folder} is a cross-validation that is not finished: go on with foveate train --resume --folds K --out "
            f"{folder}, or give one of its folds, e.g. {folds[0]}"
        )
    return folds
