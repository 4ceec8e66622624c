"""Inference pipeline: networks work on one image while others are read, on a GPU by batches, on a CPU by images.

On a GPU, threads make the views of the next batches, and patches of one batch are read while the feature network works
on the batch before. A CPU has nothing to wait for: there every thread takes some images from the file to the answer,
with networks on one core each, so that no core waits for another.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from foveate.errors import UNREADABLE, FoveateError, RunError, one_line
from foveate.models import Model
from foveate.models.probabilities import too_large
from foveate.models.types import Batch, Output, Started
from foveate.pipeline.loader import Loader, Share, shares
from foveate.threads import one_ahead, read_ahead, reading_threads

TOGETHER = 4
"""Images that a thread works on together on a CPU: more save no time there."""

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Processes:
    """Processes that share images among them, each of which predicts on its own; of `join_processes`.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        local: number of this process on its machine, by which it has its GPU; None if it is alone.
    """

    rank: int = 0
    world: int = 1
    local: int | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0

    def together(self, work: Callable[[], Out]) -> Out:
        """Joint failure: what `work` gives here; where it fails anywhere, none goes on.

        Arguments:
            work: this process' part; must not wait for the other processes.

        Raises:
            FoveateError: what `work` raised, in the first process alone, which says it.
            SystemExit: in the others, with code 2.
        """
        if self.world == 1:
            return work()
        from accelerate.utils import gather_object

        found: list[Out] = []
        errors: list[FoveateError] = []
        try:
            found = [work()]
        except FoveateError as error:
            errors = [error]
        everywhere = gather_object(errors)
        if everywhere and self.first:
            raise everywhere[0]
        if everywhere:
            sys.exit(2)
        return found[0]

    def ending_together(self) -> AbstractContextManager[None]:
        """Failure detection: see `foveate.pipeline.distributed.ending_together`."""
        if self.world == 1:
            return nullcontext()
        from foveate.pipeline.distributed import ending_together

        return ending_together()

    def wait(self) -> None:
        """Barrier: wait until all processes are here.

        Raises:
            RunError: one of them is no more.
        """
        if self.world > 1:
            from accelerate import PartialState

            try:
                PartialState().wait_for_everyone()
            except RuntimeError as error:
                lost = f"one of {self.world} processes ended before its work was done ({one_line(error)})"
                raise RunError(f"{lost}: see what it said, and go on with --resume") from error


def join_processes() -> Processes:
    """Process group that a launcher started (torchrun, accelerate): RANK and WORLD_SIZE of the environment say so.

    Tensors never travel between them: they meet over TCP (gloo), GPUs or not.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    from accelerate import PartialState

    from foveate.pipeline.distributed import LONGEST_WAIT

    state = PartialState(cpu=True, timeout=LONGEST_WAIT)
    return Processes(state.process_index, state.num_processes, state.local_process_index)


def classify(
    model: Model, loader: Loader, plan: Sequence[Share], samples: int = 1
) -> Generator[tuple[Share, Batch, Output], None, None]:
    """Outputs of a model for the batches of an evaluation, in order.

    Arguments:
        model: on the device to work on, within `Model.evaluating`.
        loader: of the images.
        plan: shares whose images all count; on a CPU they are cut into smaller ones.
        samples: draws per image.

    Yields:
        Each share, its batch and what the model says, without the images that failed, if these are told.

    Raises:
        ImageError: an image cannot be read, and no failures are told (`LoadOptions.failed`).
    """
    if model.device.type == "cpu":
        small = [part for share in plan for part in shares(share.indices, TOGETHER)]

        def whole(share: Share) -> list[tuple[Share, Batch, Output]]:
            batch = loader.evaluation_batch(share.indices)
            return list(answered(loader, share, batch, lambda some: model(some, samples)))

        for answers in on_cores(whole, small):
            yield from answers
        return

    def begun(batch: Batch) -> tuple[Batch, Started | None]:
        try:
            return batch, model.start(batch.to(model.device, non_blocking=True), samples) if len(batch) else None
        except UNREADABLE:
            return batch, None  # and once more, when it is its turn: then it is known which image

    with closing(loader.evaluation(plan)) as batches:
        for share, (batch, started) in zip(plan, one_ahead(map(begun, batches)), strict=True):

            def ask(some: Batch, batch: Batch = batch, started: Started | None = started) -> Output:
                if some is batch and started is not None:
                    return model.finish(started)
                output: Output = model(some.to(model.device), samples)
                return output

            yield from answered(loader, share, batch, ask)


def answered(
    loader: Loader, share: Share, batch: Batch, ask: Callable[[Batch], Output]
) -> Iterator[tuple[Share, Batch, Output]]:
    """Answers to a batch: to all of it at once or, if one of its images fails and others go on, to each by itself.

    Arguments:
        loader: that made the batch.
        share: that it is of.
        batch: which may lack some of the images.
        ask: what answers.

    Yields:
        A share of exactly the images answered, their batch, and what the model says.

    Raises:
        ImageError: an image cannot be read, and no failures are told.
    """
    if not len(batch):
        return
    left = [share.indices[place] for place in batch.places] if batch.places else list(share.indices)
    try:
        output = ask(batch)
        if loader.failed is not None and not bool(output.logits.isfinite().all()):
            raise too_large(batch.ids[0])
    except UNREADABLE as error:
        if loader.failed is None:
            raise
        if len(batch) == 1:
            loader.failed(left[0], error)
            return
        for row in range(len(batch)):
            yield from answered(loader, share, batch.rows([row]), ask)
        return
    yield (share if len(left) == len(share.indices) else Share(tuple(left), len(left), len(left))), batch, output


def on_cores(work: Callable[[In], Out], items: Sequence[In]) -> Generator[Out, None, None]:
    """Work without gradients on every item, an item a core at a time; in order.

    Arguments:
        work: networks in it compute on one core each; where there is one item, on all.
        items: at least one.

    Raises:
        Exception: of the first item whose work fails, when its turn comes.
    """

    def inferred(item: In) -> Out:
        with torch.inference_mode():
            return work(item)

    if len(items) < 2:
        yield from map(inferred, items)
        return
    threads = reading_threads()
    with _one_core_each() as begin, closing(read_ahead(inferred, items, threads, 2 * threads, begin)) as results:
        yield from results


@contextmanager
def _one_core_each() -> Iterator[Callable[[], None]]:
    """What a thread is to call first, to compute on one core; the number of torch's threads here stays as it is."""
    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)  # the latest call holds for threads that have not computed yet
