"""Which runs a comparison takes, which part does which of them, and that nobody does another's."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foveate.compare.settings import Entrant
from foveate.config.settings import DataSettings
from foveate.datasets import fill_splits, k_folds, open_dataset
from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError, DataError
from foveate.pipeline.loader import split_indices
from foveate.training.folds import Resplit

__all__ = ["Divider", "Part", "Task", "claimed", "plan", "read_part", "shared_out"]


class Divider:
    """Gives the images with the splits of a seed and a fold.

    Folds are those of `k_folds`; validation images are held out of what then trains, a share `data.validation` of it.
    Where that is 0, and the data name none, the last model of a run is kept.

    Arguments:
        data: where the images are.
        folds: number of folds; None for one split.
        split_seed: seed of the division; None takes that of the run.
        dataset: the images, opened from `data` if None; without folds they are taken as they are split.
    """

    def __init__(
        self,
        data: DataSettings,
        folds: int | None = None,
        split_seed: int | None = None,
        dataset: ImageDataset | None = None,
    ) -> None:
        self._data, self._folds, self._split_seed, self._given = data, folds, split_seed, dataset
        self._named: ImageDataset | None = dataset
        self._divided: dict[int, list[ImageDataset]] = {}

    def images(self, seed: int, fold: int | None) -> ImageDataset:
        """The images with their splits.

        Arguments:
            seed: of the run.
            fold: which fold tests, counted from 1; None without folds.

        Raises:
            ConfigError, DataError: the images are missing, or cannot be divided so, or none is left to test on.
        """
        seed = seed if self._split_seed is None else self._split_seed
        if seed not in self._divided:
            self._divided[seed] = self._divide(seed)
            for divided in self._divided[seed]:
                if not split_indices(divided, "test"):
                    raise DataError(
                        "there is no test image to compare on: check the manifest's split column, or data.test"
                    )
        return self._divided[seed][0 if fold is None else fold - 1]

    def _divide(self, seed: int) -> list[ImageDataset]:
        if self._folds is None:
            return [open_dataset(self._data, seed) if self._given is None else self._given]
        if self._named is None:  # named test images stay; what is filled in as "train" is dealt into folds
            self._named = open_dataset(replace(self._data, test=0.0, validation=0.0), seed)
        named, crossing = self._named, self._data.allow_crossing_groups
        return [
            Resplit(named, tuple(fill_splits(fold, self._data.validation, 0.0, seed, allow_crossing=crossing)))
            for fold in k_folds(named.examples, self._folds, seed, allow_crossing=crossing)
        ]


fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
"""Locks of POSIX systems; on others, parts are kept apart by their numbers alone."""


@dataclass(frozen=True)
class Task:
    """One run of a comparison.

    Attributes:
        method: name of the entrant.
        seed: of the run.
        fold: which fold tests, counted from 1; None where there are no folds.
        folder: of the run, relative to the comparison's.
    """

    method: str
    seed: int
    fold: int | None
    folder: Path

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class Part:
    """A share of the runs: number `number` of `of`, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def read_part(text: str) -> Part:
    """A part as it is written on the command line.

    Raises:
        ConfigError: it is not I/K with 1 ≤ I ≤ K.

    Example:
        >>> read_part("2/3")
        Part(number=2, of=3)
    """
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Part(int(number), int(of))
    raise ConfigError(f"a part is I/K with I from 1 to K, got {text!r}: write e.g. --part 1/2, and 2/2 elsewhere")


def plan(entrants: Sequence[Entrant], folds: int | None = None) -> tuple[Task, ...]:
    """The runs in the order they are done: seed by seed, fold by fold, method by method.

    A run's folder is METHOD/seed-S/fold-F; seed-S only where a method has several, fold-F only where there are folds.

    Arguments:
        entrants: the methods.
        folds: number of folds; None for one split.
    """
    several = any(len(entrant.seeds) > 1 for entrant in entrants)
    seeds = list(dict.fromkeys(seed for entrant in entrants for seed in entrant.seeds))
    tasks = []
    for seed in seeds:
        for fold in [None] if folds is None else range(1, folds + 1):
            for entrant in entrants:
                if seed in entrant.seeds:
                    parts = [f"seed-{seed}"] * several + ([] if fold is None else [f"fold-{fold}"])
                    tasks.append(Task(entrant.name, seed, fold, Path(entrant.name, *parts)))
    return tuple(tasks)


def shared_out(tasks: Sequence[Task], entrants: Sequence[Entrant], part: Part | None) -> tuple[Task, ...]:
    """The runs of a part, in order.

    Every method's runs are dealt to the parts in turn, one method going on where the one before stopped, so that slow
    methods are spread evenly. A run that must last as long as another goes to the same part.

    Arguments:
        tasks: all runs.
        entrants: the methods.
        part: which; None takes all.
    """
    if part is None:
        return tuple(tasks)
    leader = dict[str, str]()
    for entrant in entrants:
        leader[entrant.name] = entrant.name if entrant.as_long_as is None else leader[entrant.as_long_as]
    number = dict[tuple[str, int, int | None], int]()
    for entrant in entrants:
        for task in tasks:
            if task.method == entrant.name == leader[entrant.name]:
                number[task.method, task.seed, task.fold] = len(number) % part.of
    return tuple(task for task in tasks if number[leader[task.method], task.seed, task.fold] == part.number - 1)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Claim a run's folder for this process for a while; False if another process has it now.

    The claim is a lock of the operating system on a file in the folder, which ends with the process however that ends.

    Arguments:
        folder: of the run; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is None:
            yield True
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
