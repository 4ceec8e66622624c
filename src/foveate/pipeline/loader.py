"""Data loader: batches of images, views made ahead by threads, and which process sees which images.

The order of an epoch and everything random about an image depend on the run's seed, the epoch and the image's id;
neither the number of threads nor of processes, nor the order of the manifest, changes them.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from foveate.config.augment import AugmentSettings
from foveate.config.settings import ViewSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import UNREADABLE, Absent, DataError
from foveate.images import Source, augment
from foveate.images.tensors import make_view, view_size
from foveate.models import Model, make_batch
from foveate.models.preprocess import SeenView, check_finite, see_source, see_unseen
from foveate.models.types import EMPTY, Batch
from foveate.networks.weights import tensors_digest
from foveate.pipeline.source_cache import CachedViews, SourceCache
from foveate.seeds import derive_seed, prediction_seed
from foveate.threads import read_ahead, reading_threads

Out = TypeVar("Out")


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


Failed = Callable[[int, Exception], None]
"""Told the number of an example that has failed, and why."""


def readable(work: Callable[[], Out], index: int, failed: Failed | None) -> Out | None:
    """What some work on one image gives; None where that cannot be read, and it is gone on without.

    Arguments:
        work: on the image.
        index: its example number.
        failed: as in `LoadOptions`.

    Raises:
        ImageError: it cannot be read, and `failed` is None.

    Example:
        >>> readable(lambda: open("nowhere.png"), 7, lambda index, error: print(index, type(error).__name__))
        7 FileNotFoundError
    """
    try:
        return work()
    except UNREADABLE as error:
        if not isinstance(error, Absent):
            if failed is None:
                raise
            failed(index, error)
        return None


@dataclass(frozen=True)
class LoadOptions:
    """Loading options: how images come to a model, which changes no result.

    Attributes:
        batch: images at a time, over all processes together.
        ahead: batches prepared before they are wanted, by `foveate.threads.reading_threads` threads; 0 prepares each
            when it is wanted.
        opened: where images stay open from one pass over them to the next.
        failed: told, by any thread, of an example that cannot be read: the others go on; None raises what is raised.
    """

    batch: int = 32
    ahead: int = 2
    opened: SourceCache | None = None
    failed: "Failed | None" = None


ALONE = LoadOptions()
"""32 images at a time, and nothing that outlives the pass."""


@dataclass(frozen=True)
class Seen:
    """Image of a batch to be: the source, changed as the epoch has it, and what is seen of it."""

    source: Source
    view: SeenView
    cells: Tensor | None = None


@dataclass(frozen=True)
class Eyes:
    """Eyes of a model: a frozen network whose answers to the same view are the same, and so can be kept.

    Attributes:
        cells_of: (C, h, w) view → (rows, columns, D) float16 features of its cells.
        digest: hash of everything that these depend on.
    """

    cells_of: Callable[[Tensor], Tensor]
    digest: str


def digest(model: Model) -> str:
    """Hash of what a model's eyes are: which maps over which cells, where they compute, all parameters and buffers.

    The weights alone do not tell: a network up to a stage is the same whichever of its earlier maps are looked at.
    """
    own, compiled = model.settings.attention, model.eyes is not None and model.eyes.compiled
    kind = (own.name, own.stages, own.stride, own.maxima, compiled, model.device.type)
    tensors = ("" if network is None else tensors_digest(network) for network in (model.eyes, model.normalise))
    return hashlib.sha256(repr((kind, *tensors)).encode()).hexdigest()


class Loader:
    """Data loader: turns shares into batches, whose images threads open, decode and make views of beforehand.

    Arguments:
        dataset: the images.
        view: the view the model wants; None if it wants none.
        seed: seed of the run.
        intake: gives an image as the model wants it, or raises (`Model.intake`); None takes it as it is.
        augment: random changes, for training.
        loading: what is prepared ahead, and where images stay open, as `intake` gives them; a cache of its own if None.
        reads_patches: whether the model reads patches: then images that can only be decoded whole are, beforehand.
        eyes: what sees the cells of a view, where nothing but these is needed of it; None if views are.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        view: ViewSettings | None,
        seed: int,
        intake: Callable[[Source], Source] | None = None,
        augment: AugmentSettings | None = None,
        loading: LoadOptions = ALONE,
        reads_patches: bool = True,
        eyes: "Eyes | None" = None,
    ) -> None:
        self.eyes = eyes
        self.dataset, self.view, self.seed, self.intake, self.augment = dataset, view, seed, intake, augment
        self.ahead, self.reads_patches, self.failed = loading.ahead, reads_patches, loading.failed
        self.opened = SourceCache(dataset, intake) if loading.opened is None else loading.opened

    @classmethod
    def of(
        cls,
        model: Model,
        dataset: ImageDataset,
        seed: int,
        augment: AugmentSettings | None = None,
        loading: LoadOptions = ALONE,
    ) -> "Loader":
        """Data loader of what a model wants of its images."""
        eyes = None if model.eyes is None else Eyes(model.cells_of, digest(model))
        return cls(dataset, model.view, seed, model.intake, augment, loading, model.reads_patches, eyes)

    def training(self, epoch: int, plan: Sequence[Share]) -> Generator[Batch, None, None]:
        """The batches of an epoch, one per share."""
        return self._batches(plan, epoch, lambda name: derive_seed(self.seed, "draw", epoch, name))

    def evaluation(self, plan: Sequence[Share]) -> Generator[Batch, None, None]:
        """Batches for evaluation: unchanged images, and the draws that prediction with the same seed has for them."""
        return self._batches(plan, 0, self._evaluation_seed)

    def evaluation_batch(self, indices: Sequence[int]) -> Batch:
        """One batch for evaluation, made here and now; may be called from several threads."""
        return self._batch(indices, [self._look(0, index) for index in indices], self._evaluation_seed)

    def source(self, index: int, epoch: int) -> Source:
        """The image of an example as the model wants it, with this epoch's random change."""
        source = self.opened.open(index)
        if self.augment is None or self.augment == AugmentSettings():
            return source
        seed = derive_seed(self.seed, "augment", epoch, self.dataset.examples[index].id)
        return augment.Augmented(source, augment.draw_change(self.augment, source.size, seed))

    def _evaluation_seed(self, name: str) -> int:
        return prediction_seed(self.seed, name)

    def _look(self, epoch: int, index: int) -> Seen | None:
        return readable(lambda: self._see(epoch, index), index, self.failed)

    def _see(self, epoch: int, index: int) -> Seen:
        source = self.source(index, epoch)
        seen = Seen(source, see_source(source, self.view)) if self.eyes is None else self._see_cells(source, self.eyes)
        if self.reads_patches:
            source.prefetch()
        return seen

    def _see_cells(self, source: Source, eyes: "Eyes") -> Seen:
        """What the eyes see of an image, looked up where that was seen before."""
        wanted = self.view
        assert wanted is not None
        size = view_size(wanted, source)
        unchanged = source.source if isinstance(source, augment.Augmented) and source.change.view_stays else source
        looked_at = unchanged.unkept if isinstance(unchanged, CachedViews) else unchanged

        def look() -> np.ndarray:
            check_finite(source, view := make_view(looked_at, wanted))
            return eyes.cells_of(view).numpy()

        if isinstance(unchanged, CachedViews):
            cells = unchanged.kept(f"cells {eyes.digest}", size, look)
        else:
            cells = look()
        return Seen(source, see_unseen(source, wanted, size), torch.from_numpy(cells))

    def _batches(
        self, plan: Sequence[Share], epoch: int, seed_of: Callable[[str], int]
    ) -> Generator[Batch, None, None]:
        see = partial(self._look, epoch)
        if self.ahead == 0:
            for share in plan:
                yield self._batch(share.indices, [see(index) for index in share.indices], seed_of)
            return
        wanted = [index for share in plan for index in share.indices]
        images = self.ahead * max((len(share.indices) for share in plan), default=1)
        with closing(read_ahead(see, wanted, reading_threads(), images)) as seen:

            def put_together(share: Share) -> Batch:
                return self._batch(share.indices, [next(seen) for _ in share.indices], seed_of)

            # By a thread of its own: padding and pinning views is work, too.
            with closing(read_ahead(put_together, plan, 1, self.ahead)) as batches:
                yield from batches

    def _batch(self, indices: Sequence[int], seen: Sequence[Seen | None], seed_of: Callable[[str], int]) -> Batch:
        """A batch of those images that could be seen; empty if none could."""
        there = {place: one for place, one in enumerate(seen) if one is not None}
        places = tuple(place for place, one in there.items() if self._is_sound(indices[place], one))
        if not places:
            return EMPTY
        batch = self._together([indices[place] for place in places], [there[place] for place in places], seed_of)
        return batch if len(places) == len(indices) else replace(batch, places=places)

    def _is_sound(self, index: int, seen: Seen) -> bool:
        """Whether what is seen of an image may stand in a batch; looked at only where there is a choice."""

        def check() -> bool:
            check_finite(seen.source, seen.view[0])
            return True

        return self.failed is None or readable(check, index, self.failed) is not None

    def _together(self, indices: Sequence[int], seen: Sequence[Seen], seed_of: Callable[[str], int]) -> Batch:
        examples = [self.dataset.examples[index] for index in indices]
        unchanged = [isinstance(one.source, CachedViews) for one in seen]
        batch = make_batch(
            [one.source for one in seen],
            self.view,
            seeds=[seed_of(one.id) for one in examples],
            labels=[one.label for one in examples],
            ids=[one.id for one in examples],
            made=[one.view for one in seen],
            multi_label_classes=len(self.dataset.classes) if self.dataset.multi_label else None,
            cells=None if self.eyes is None else [one.cells for one in seen if one.cells is not None],
        )
        keys = [index if stays else None for index, stays in zip(indices, unchanged, strict=True)]
        batch = replace(batch, keys=tuple(keys))
        return batch.pin_memory() if torch.cuda.is_available() else batch
