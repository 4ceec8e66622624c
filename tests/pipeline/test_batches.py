"""What reaches the model: views from wherever, sources that show the same change, draws that follow the id."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.config.settings import InputSettings, ViewSettings
from foveate.datasets import read_manifest
from foveate.datasets.types import Example
from foveate.errors import ImageError
from foveate.images import ArraySource, Source
from foveate.images.augment.image import Augmented
from foveate.images.tensors import make_view
from foveate.models import Intake, prediction_seed
from foveate.pipeline.loader import Loader, LoadOptions, shares, split_indices
from foveate.pipeline.source_cache import SourceCache
from foveate.seeds import derive_seed

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
        list(
            Loader(
                squares, settings.model.view, seed=1, augment=settings.augment, loading=LoadOptions(workers=workers)
            ).training(1, plan)
        )
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
        classes, examples, multi_label, count = squares.classes, squares.examples, False, 0

        def open(self, index: int) -> Source:
            self.count += 1
            return squares.open(index)

    dataset = Counted()  # a worker counts for itself
    for images in Loader(dataset, settings_of().model.view, seed=9, loading=LoadOptions(workers=workers)).training(
        1, shares(range(4), 2)
    ):
        assert len(images) == 2
    assert dataset.count == opened


def test_an_image_is_refused_before_its_pixels_are_read(squares: Any, settings_of: Callable[..., Any]) -> None:
    sources: list[Source] = []

    def refuse(source: Source) -> Source:
        sources.append(source)
        raise ImageError("grey: save it as RGB")

    loader = Loader(squares, settings_of().model.view, seed=9, intake=refuse)
    with pytest.raises(FAILURES, match="grey: save it as RGB"):
        list(loader.training(1, shares(range(4), 2)))
    assert [source.bytes_read for source in sources] == [0]


def test_workers_outlive_the_signals_of_a_launcher(squares: Any, settings_of: Callable[..., Any]) -> None:
    plan = shares(split_indices(squares, "train"), 2)
    with closing(
        Loader(squares, settings_of().model.view, seed=9, loading=LoadOptions(workers=1)).training(1, plan)
    ) as batches:
        count = 1
        next(batches)
        (worker,) = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid or 0, number)
        count += sum(1 for _ in batches)
    assert count == len(plan)


def test_a_loader_left_early_leaves_no_worker(squares: Any, settings_of: Callable[..., Any]) -> None:
    plan = shares(split_indices(squares, "train"), 2)
    with closing(
        Loader(squares, settings_of().model.view, seed=9, loading=LoadOptions(workers=2)).training(1, plan)
    ) as batches:
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
    broken = replace(squares, broken=squares.examples[2].id)
    loader = Loader(broken, settings_of().model.view, seed=9, loading=LoadOptions(workers=workers))
    with pytest.raises(FAILURES, match=r"^image34 cannot be read: replace it$"):
        list(loader.evaluation(shares(range(4), 2)))


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Four PNG files and a JPEG as a data set that counts how often it is asked to open one."""
    noise = np.random.default_rng(5)
    rows = ["path,label,split"]
    for number in range(5):
        name = f"{number}.{'jpg' if number == 4 else 'png'}"
        Image.fromarray(noise.integers(0, 256, (50 + number, 70, 3), dtype=np.uint8)).save(tmp_path / name)
        rows.append(f"{name},{number % 2},train")
    (tmp_path / "images.csv").write_text("\n".join(rows))

    @dataclass
    class Counted:
        images: Any
        count: int = 0
        multi_label: bool = False

        classes = property(lambda self: self.images.classes)
        examples = property(lambda self: self.images.examples)

        def open(self, index: int) -> Source:
            self.count += 1
            return self.images.open(index)

    return Counted(read_manifest(tmp_path / "images.csv"))


def test_files_stay_decoded_from_epoch_to_epoch_and_change_no_bit(files: Any) -> None:
    view, plan = ViewSettings(longest_side=20), shares(range(5), 3)
    loader = Loader(files, view, seed=1)
    epochs = [list(loader.training(epoch, plan)) for epoch in (1, 2, 1)]
    assert files.count == 5
    png = epochs[0][0].sources[0]
    assert png is epochs[1][0].sources[0]
    size = Path(png.name).stat().st_size
    assert 0 < png.bytes_read <= 2 * size, "its header and its pixels, once"
    fresh = list(Loader(files, view, seed=1).training(1, plan))
    for kept, new in zip(epochs[2], fresh, strict=True):
        assert torch.equal(kept.views, new.views)
        assert kept.seeds == new.seeds


def test_only_so_many_stay_open_and_none_in_another_process(files: Any) -> None:
    import pickle

    opened = SourceCache(files.images, limit=2)
    first = opened.open(0)
    opened.open(1)
    assert opened.open(0) is first
    opened.open(2)
    assert len(opened) == 2
    assert opened.open(0) is first, "it was used after the other one"
    assert opened.open(1) is not None
    assert len(pickle.loads(pickle.dumps(opened))) == 0


def test_images_in_memory_are_not_held(squares: Any) -> None:
    opened = SourceCache(squares)
    assert opened.open(0) is not opened.open(0)
    assert len(opened) == 0


def test_a_store_may_be_shared_by_training_and_evaluation(files: Any) -> None:
    opened = SourceCache(files)
    view, plan = ViewSettings(longest_side=20), shares(range(5), 5)
    (trained,) = Loader(files, view, 1, loading=LoadOptions(opened=opened)).training(1, plan)
    (tested,) = Loader(files, view, 1, loading=LoadOptions(opened=opened)).evaluation(plan)
    assert trained.sources == tested.sources
    assert files.count == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_images_come_as_the_model_wants_them(files: Any, workers: int) -> None:
    view, plan = ViewSettings(longest_side=20), shares(range(5), 2)
    grey = Intake(InputSettings(colour="grey"), 1)
    for images in Loader(files, view, 1, grey, loading=LoadOptions(workers=workers)).training(1, plan):
        assert images.views.shape[1] == 1
        for place, source in enumerate(images.sources):
            assert source.channels == 1
            height, width = images.view_sizes[place]
            assert torch.equal(images.views[place, :, :height, :width], make_view(source, view))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_model_without_view_reads_no_pixel(workers: int) -> None:
    class Arrays:
        classes, multi_label = ("a", "b"), False
        examples = tuple(Example(f"{number}", number % 2) for number in range(3))

        def open(self, index: int) -> Source:
            return ArraySource(np.ones((40 + index, 30, 2), np.uint8))

    batches = list(Loader(Arrays(), None, 1, loading=LoadOptions(workers=workers)).training(1, shares(range(3), 2)))
    assert multiprocessing.active_children() == []
    assert [images.views.shape for images in batches] == [(2, 2, 1, 1), (1, 2, 1, 1)]
    assert not any(images.views.any() or not images.mask.all() for images in batches)
    assert [source.bytes_read for images in batches for source in images.sources] == [0] * 3


def test_several_labels_are_a_row_of_ones_and_zeros(colours: Any) -> None:
    (images,) = Loader(colours, ViewSettings(longest_side=20), 1).evaluation(shares((0, 2, 4, 6), 4))
    assert images.labels is not None
    assert images.labels.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]]
