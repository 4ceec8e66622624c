"""Plan of a comparison: which trials it takes, on which splits, and which part of them each process does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from foveate.compare.settings import CompareSettings
from foveate.compare.trial import Trial
from foveate.config.settings import DataSettings
from foveate.datasets import fill_splits, k_folds, open_dataset
from foveate.datasets.types import ImageDataset, Resplit
from foveate.errors import ConfigError, DataError
from foveate.pipeline.loader import split_indices


class Divider:
    """Splits of the images, by seed and fold.

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
        """Images with their splits.

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


@dataclass(frozen=True)
class Part:
    """Part of the trials: number `number` of `of`, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def read_part(text: str) -> Part:
    """Part of the trials, as it is written on the command line.

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


def plan(
    settings: CompareSettings,
    out: Path = Path(),
    images: Callable[[int, int | None], ImageDataset] | None = None,
    remedy: str = "",
) -> tuple[Trial, ...]:
    """Trials of a comparison in the order they are done: seed by seed, fold by fold, method by method.

    A trial is called METHOD/seed-S/fold-F; seed-S only where a method has several, fold-F only where there are folds.

    Arguments:
        settings: the methods, folds and seeds.
        out: folder of the comparison.
        images: seed and fold → the images, divided for them; of a `Divider` of the settings if None.
        remedy: what to say to whoever stops a trial.
    """
    methods, folds = settings.resolved(), settings.folds
    divided = images or Divider(methods[0].settings.data, folds, settings.split_seed).images
    several = any(len(method.seeds) > 1 for method in methods)
    trials: list[Trial] = []
    for seed in dict.fromkeys(seed for method in methods for seed in method.seeds):
        for fold in [None] if folds is None else range(1, folds + 1):
            here: dict[str, Trial] = {}
            for method in (one for one in methods if seed in one.seeds):
                parts = [f"seed-{seed}"] * several + ([] if fold is None else [f"fold-{fold}"])
                leader = None if method.as_long_as is None else here[method.as_long_as]
                name = Path(method.name, *parts).as_posix()
                here[method.name] = Trial(name, method, seed, fold, out, divided, remedy, settings.minutes, leader)
            trials += here.values()
    return tuple(trials)


def shared_out(trials: Sequence[Trial], part: Part | None) -> tuple[Trial, ...]:
    """Trials of a part, in order.

    Every method's trials are dealt to the parts in turn, one method going on where the one before stopped, so that slow
    methods are spread evenly. A trial that must last as long as another goes to the same part.

    Arguments:
        trials: all of them.
        part: which; None takes all.
    """
    if part is None:
        return tuple(trials)
    names = dict.fromkeys(trial.method.name for trial in trials)
    own = [one for name in names for one in trials if one.method.name == name and one.leader is None]
    dealt = {one.name: number % part.of for number, one in enumerate(own)}
    return tuple(trial for trial in trials if dealt[trial.first.name] == part.number - 1)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """File lock on a trial's folder, held by this process for a while; False if another process has it now.

    The operating system ends it with the process, however that ends.

    Arguments:
        folder: of the trial; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        mine = False
    else:
        mine = True
    try:
        yield mine
    finally:
        lock.release()
