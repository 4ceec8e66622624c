"""Data loader: batches of images, views made by worker processes, and which process sees which images.

The order of an epoch and everything random about an image depend on the run's seed, the epoch and the image's id;
neither the number of workers nor of processes, nor the order of the manifest, changes them.
"""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from foveate.config.settings import AugmentSettings, ViewSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import DataError, FoveateError
from foveate.images import Source, augment
from foveate.images.tensors import make_guide, make_view
from foveate.models import make_batch, prediction_seed
from foveate.models.preprocess import SeenView
from foveate.models.types import Batch
from foveate.pipeline.source_cache import SourceCache
from foveate.seeds import derive_seed


def split_indices(dataset: ImageDataset, split: str | None) -> tuple[int, ...]:
    """Split of a data set: indices of its examples, sorted by id.

    Arguments:
        dataset: the images.
        split: "train", "validation" or "test"; None takes all.

    Raises:
        DataError: an example of the split has no label.
    """
    chosen = [index for index, example in enumerate(dataset.examples) if split in (None, example.split)]
    for index in chosen:
        if dataset.examples[index].label is None:
            name = dataset.examples[index].id
            raise DataError(f"{name} has no label: give it one, or take it out of the manifest")
    return tuple(sorted(chosen, key=lambda index: dataset.examples[index].id))


def fingerprint(dataset: ImageDataset, indices: Sequence[int]) -> int:
    """Hash of examples: a number that changes when ids, labels or splits of these examples do."""
    examples = (dataset.examples[index] for index in indices)
    return derive_seed(*(f"{one.id}\n{one.label}\n{one.split}" for one in examples))


def epoch_order(indices: Sequence[int], seed: int, epoch: int) -> tuple[int, ...]:
    """Shuffling: the images of an epoch in the order they are trained on.

    Arguments:
        indices: example numbers, sorted by id.
        seed: seed of the run.
        epoch: counted from 1.

    Example:
        >>> sorted(epoch_order((4, 7, 9), seed=0, epoch=1))
        [4, 7, 9]
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return tuple(indices[position] for position in torch.randperm(len(indices), generator=generator).tolist())


@dataclass(frozen=True)
class Share:
    """Share of a global batch: one process' part of it.

    Attributes:
        indices: example numbers; never empty, since every process must take part in every step.
        counted: how many of `indices`, from the first, count; 0 where the process only lends its presence.
        whole: number of images in the global batch.
    """

    indices: tuple[int, ...]
    counted: int
    whole: int


def shares(order: Sequence[int], batch: int, rank: int = 0, world: int = 1) -> list[Share]:
    """Sharding: cut an epoch into global batches, and these into contiguous, nearly equal shares, one per process.

    Arguments:
        order: example numbers.
        batch: images per global batch; the last one may be smaller.
        rank: number of the process.
        world: number of processes.

    Returns:
        This process' share of every batch.

    Example:
        >>> [share.indices for share in shares(range(5), batch=4, rank=1, world=2)]
        [(2, 3), (4,)]
        >>> [share.counted for share in shares(range(5), batch=4, rank=1, world=2)]
        [2, 0]
    """
    result = []
    for start in range(0, len(order), batch):
        whole = order[start : start + batch]
        size, larger = divmod(len(whole), world)
        first = rank * size + min(rank, larger)
        part = tuple(whole[first : first + size + (rank < larger)])
        result.append(Share(part or (whole[0],), len(part), len(whole)))
    return result


@dataclass(frozen=True)
class LoadOptions:
    """Loading options: how images come to a model, which changes no result.

    Attributes:
        batch: images at a time, over all processes together.
        workers: processes that make views; 0 makes them here.
        opened: where images stay open from one pass over them to the next.
    """

    batch: int = 32
    workers: int = 0
    opened: SourceCache | None = None


ALONE = LoadOptions()
"""32 images at a time, and nothing that outlives the pass."""


class Loader:
    """Data loader: turns shares into batches; worker processes make the views, this process holds the sources.

    Arguments:
        dataset: the images.
        view: the view the model wants; None if it wants none, and then there is no work for other processes.
        seed: seed of the run.
        intake: gives an image as the model wants it, or raises (`Model.intake`); None takes it as it is.
        augment: random changes, for training.
        loading: number of workers, and where images stay open, as `intake` gives them; a cache of its own if None.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        view: ViewSettings | None,
        seed: int,
        intake: Callable[[Source], Source] | None = None,
        augment: AugmentSettings | None = None,
        loading: LoadOptions = ALONE,
    ) -> None:
        self.dataset, self.view, self.seed, self.intake, self.augment = dataset, view, seed, intake, augment
        self.workers = loading.workers
        self.opened = SourceCache(dataset, intake) if loading.opened is None else loading.opened

    def training(self, epoch: int, plan: Sequence[Share]) -> Generator[Batch, None, None]:
        """The batches of an epoch, one per share."""
        return self._batches(plan, epoch, lambda name: derive_seed(self.seed, "draw", epoch, name))

    def evaluation(self, plan: Sequence[Share]) -> Generator[Batch, None, None]:
        """Batches for evaluation: unchanged images, and the draws that prediction with the same seed has for them."""
        return self._batches(plan, 0, lambda name: prediction_seed(self.seed, name))

    def source(self, index: int, epoch: int) -> Source:
        """The image of an example as the model wants it, with this epoch's random change."""
        source = self.opened.open(index)
        if self.augment is None or self.augment == AugmentSettings():
            return source
        seed = derive_seed(self.seed, "augment", epoch, self.dataset.examples[index].id)
        return augment.Augmented(source, augment.draw_change(self.augment, source.size, seed))

    def _batches(
        self, plan: Sequence[Share], epoch: int, seed_of: Callable[[str], int]
    ) -> Generator[Batch, None, None]:
        if self.workers == 0 or self.view is None:
            for share in plan:
                yield self._batch(share.indices, epoch, seed_of)
            return
        methods = multiprocessing.get_all_start_methods()
        loader: DataLoader[Any] = DataLoader(
            # A loader of its own: what is open here is not for another process.
            _Views(Loader(self.dataset, self.view, self.seed, self.intake, self.augment), epoch),
            batch_sampler=[list(share.indices) for share in plan],
            num_workers=self.workers,
            collate_fn=list,
            generator=torch.Generator(),  # the default one would draw from the global generator
            worker_init_fn=_ignore_signals,
            multiprocessing_context="fork" if "fork" in methods else methods[0],
        )
        working: Any = iter(loader)
        try:
            for share in plan:
                made = next(working)
                for one in made:
                    if isinstance(one, FoveateError):
                        raise one
                yield self._batch(share.indices, epoch, seed_of, made)
        finally:
            working._shutdown_workers()  # not left to chance: Python's exit would wait for who ignores its SIGTERM

    def _batch(
        self,
        indices: Sequence[int],
        epoch: int,
        seed_of: Callable[[str], int],
        made: Sequence[tuple[np.ndarray, np.ndarray | None]] | None = None,
    ) -> Batch:
        examples = [self.dataset.examples[index] for index in indices]
        return make_batch(
            [self.source(index, epoch) for index in indices],
            self.view,
            seeds=[seed_of(one.id) for one in examples],
            labels=[one.label for one in examples],
            ids=[one.id for one in examples],
            made=None if made is None else [_tensors(*one) for one in made],
            multi_label_classes=len(self.dataset.classes) if self.dataset.multi_label else None,
        )


def _tensors(view: np.ndarray, guide: np.ndarray | None) -> SeenView:
    return torch.from_numpy(view), None if guide is None else torch.from_numpy(guide)


class _Views(Dataset[Any]):
    """Example number → its view and its guide (or None) as arrays, or the error that says why there is no view."""

    def __init__(self, loader: Loader, epoch: int) -> None:
        assert loader.view is not None
        self._loader, self._view, self._epoch = loader, loader.view, epoch

    def __getitem__(self, index: int) -> Any:
        try:
            source = self._loader.source(index, self._epoch)
            guide = make_guide(source, self._view)
            return make_view(source, self._view).numpy(), None if guide is None else guide.numpy()
        except FoveateError as error:  # a worker's traceback would hide the one line
            return error


def _ignore_signals(worker: int) -> None:  # noqa: ARG001
    """Leave signals to the main process, which still needs this worker to finish its step; launchers tell everyone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
