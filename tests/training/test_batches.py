"""What reaches the model: views from wherever, sources that show the same change, draws that follow the id."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import torch

from foveate.errors import ImageError
from foveate.images import Source, make_view
from foveate.images.augment import Augmented
from foveate.models import prediction_seed
from foveate.seeds import derive_seed
from foveate.training.loader import Loader, shares, split_indices

FAILURES = (ImageError,)


def test_view_and_source_show_the_same_change(squares: Any, settings_of: Callable[..., Any]) -> None:
    settings = settings_of()
    loader = Loader(squares, settings.model.view, seed=1, augment=settings.augment)
    indices = split_indices(squares, "train")
    for images in loader.training(2, shares(indices, 4)):
        for position, source in enumerate(images.sources):
            assert isinstance(source, Augmented)
            height, width = images.view_sizes[position]
            expected = make_view(source, settings.model.view)
            assert torch.equal(images.views[position, :, :height, :width], expected)


def test_workers_change_no_bit(squares: Any, settings_of: Callable[..., Any]) -> None:
    settings = settings_of()
    plan = shares(split_indices(squares, "train"), 5)
    batches = [
        list(Loader(squares, settings.model.view, seed=1, augment=settings.augment, workers=workers).training(1, plan))
        for workers in (0, 2)
    ]
    assert len(batches[0]) == 3
    for alone, helped in zip(*batches, strict=True):
        assert alone.ids == helped.ids
        assert alone.seeds == helped.seeds
        assert torch.equal(alone.views, helped.views)
        assert torch.equal(alone.mask, helped.mask)


def test_draws_follow_seed_epoch_and_id(squares: Any, settings_of: Callable[..., Any]) -> None:
    loader = Loader(squares, settings_of().model.view, seed=9)
    index = split_indices(squares, "train")[:1]
    (images,) = loader.training(4, shares(index, 1))
    assert images.seeds == (derive_seed(9, "draw", 4, images.ids[0]),)
    (images,) = loader.evaluation(shares(index, 1))
    assert images.seeds == (prediction_seed(9, images.ids[0]),), "the draws of prediction"


@pytest.mark.parametrize(("workers", "opened"), [(0, 4), (1, 4)])
def test_no_image_is_opened_twice_here(
    squares: Any, settings_of: Callable[..., Any], workers: int, opened: int
) -> None:
    class Counted:
        classes, examples, count = squares.classes, squares.examples, 0

        def open(self, index: int) -> Source:
            self.count += 1
            return squares.open(index)

    dataset = Counted()  # a worker counts for itself
    for images in Loader(dataset, settings_of().model.view, seed=9, workers=workers).training(1, shares(range(4), 2)):
        assert len(images) == 2
    assert dataset.count == opened


def test_channels_are_checked_before_pixels_are_read(squares: Any, settings_of: Callable[..., Any]) -> None:
    sources: list[Source] = []

    def refuse(source: Source) -> None:
        sources.append(source)
        raise ImageError("grey: save it as RGB")

    loader = Loader(squares, settings_of().model.view, seed=9, check=refuse)
    with pytest.raises(FAILURES, match="grey: save it as RGB"):
        list(loader.training(1, shares(range(4), 2)))
    assert [source.bytes_read for source in sources] == [0]


def test_workers_outlive_the_signals_of_a_launcher(squares: Any, settings_of: Callable[..., Any]) -> None:
    plan = shares(split_indices(squares, "train"), 2)
    with closing(Loader(squares, settings_of().model.view, seed=9, workers=1).training(1, plan)) as batches:
        count = 1
        next(batches)
        (worker,) = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid or 0, number)
        count += sum(1 for _ in batches)
    assert count == len(plan)


def test_a_loader_left_early_leaves_no_worker(squares: Any, settings_of: Callable[..., Any]) -> None:
    plan = shares(split_indices(squares, "train"), 2)
    with closing(Loader(squares, settings_of().model.view, seed=9, workers=2).training(1, plan)) as batches:
        next(batches)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)


def test_the_global_random_state_is_left_alone(squares: Any, settings_of: Callable[..., Any]) -> None:
    before = torch.random.get_rng_state()
    list(Loader(squares, settings_of().model.view, seed=9).evaluation(shares(range(4), 2)))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line_with_or_without_workers(
    squares: Any, settings_of: Callable[..., Any], workers: int
) -> None:
    from dataclasses import replace

    broken = replace(squares, broken=squares.examples[2].id)
    loader = Loader(broken, settings_of().model.view, seed=9, workers=workers)
    with pytest.raises(FAILURES, match=r"^image34 cannot be read: replace it$"):
        list(loader.evaluation(shares(range(4), 2)))
