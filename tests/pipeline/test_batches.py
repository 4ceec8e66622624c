"""What reaches the model: views from wherever, sources that show the same change, draws that follow the id."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
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
from foveate.threads import set_reading_threads

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


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of reading threads, until the test is over."""
    yield set_reading_threads
    set_reading_threads(None)


def test_neither_threads_nor_what_is_read_ahead_change_a_bit(
    squares: Any, settings_of: Callable[..., Any], threads: Callable[[int], None]
) -> None:
    settings = settings_of()
    plan = shares(split_indices(squares, "train"), 5)
    batches = []
    for count, ahead in ((1, 0), (1, 1), (2, 2), (5, 1), (3, 7)):
        threads(count)
        loading = LoadOptions(ahead=ahead)
        loader = Loader(squares, settings.model.view, seed=1, augment=settings.augment, loading=loading)
        batches.append(list(loader.training(1, plan)))
    assert len(batches[0]) == 3
    for alone, *others in zip(*batches, strict=True):
        for other in others:
            assert alone.ids == other.ids
            assert alone.seeds == other.seeds
            assert torch.equal(alone.views, other.views)
            assert torch.equal(alone.mask, other.mask)


def test_draws_follow_seed_epoch_and_id(squares: Any, settings_of: Callable[..., Any]) -> None:
    loader = Loader(squares, settings_of().model.view, seed=9)
    index = split_indices(squares, "train")[:1]
    (images,) = loader.training(4, shares(index, 1))
    assert images.seeds == (derive_seed(9, "draw", 4, images.ids[0]),)
    (images,) = loader.evaluation(shares(index, 1))
    assert images.seeds == (prediction_seed(9, images.ids[0]),), "the draws of prediction"


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_no_image_is_opened_twice(squares: Any, settings_of: Callable[..., Any], ahead: int) -> None:
    class Counted:
        classes, examples, multi_label, count = squares.classes, squares.examples, False, 0

        def open(self, index: int) -> Source:
            self.count += 1
            return squares.open(index)

    dataset = Counted()
    loader = Loader(dataset, settings_of().model.view, seed=9, loading=LoadOptions(ahead=ahead))
    for images in loader.training(1, shares(range(4), 2)):
        assert len(images) == 2
    assert dataset.count == 4


def test_no_more_is_prepared_than_asked_for(squares: Any, settings_of: Callable[..., Any]) -> None:
    begun: list[str] = []

    def noted(source: Source) -> Source:
        begun.append(source.name)
        return source

    loader = Loader(squares, settings_of().model.view, 9, noted, loading=LoadOptions(ahead=1))
    plan = shares(range(12), 2)
    with closing(loader.training(1, plan)) as batches:
        next(batches)
        time.sleep(0.3)
        assert 2 <= len(begun) <= 6, "one batch is there, the next is prepared, and images of a third wait for it"


def test_an_image_is_refused_before_its_pixels_are_read(squares: Any, settings_of: Callable[..., Any]) -> None:
    sources: list[Source] = []

    def refuse(source: Source) -> Source:
        sources.append(source)
        raise ImageError("grey: save it as RGB")

    loader = Loader(squares, settings_of().model.view, seed=9, intake=refuse)
    with pytest.raises(FAILURES, match="grey: save it as RGB"):
        list(loader.training(1, shares(range(4), 2)))
    assert {source.bytes_read for source in sources} == {0}


def test_a_loader_left_early_leaves_no_thread_and_no_process(squares: Any, settings_of: Callable[..., Any]) -> None:
    plan = shares(split_indices(squares, "train"), 2)
    with closing(Loader(squares, settings_of().model.view, seed=9).training(1, plan)) as batches:
        next(batches)
        assert multiprocessing.active_children() == []
    assert not [one for one in threading.enumerate() if one.name.startswith("foveate-ahead")]


def test_the_global_random_state_is_left_alone(squares: Any, settings_of: Callable[..., Any]) -> None:
    before = torch.random.get_rng_state()
    list(Loader(squares, settings_of().model.view, seed=9).evaluation(shares(range(4), 2)))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_unreadable_image_is_one_line(squares: Any, settings_of: Callable[..., Any], ahead: int) -> None:
    broken = replace(squares, broken=squares.examples[2].id)
    loader = Loader(broken, settings_of().model.view, seed=9, loading=LoadOptions(ahead=ahead))
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


@pytest.mark.parametrize("ahead", [0, 2])
def test_images_come_as_the_model_wants_them(files: Any, ahead: int) -> None:
    view, plan = ViewSettings(longest_side=20), shares(range(5), 2)
    grey = Intake(InputSettings(colour="grey"), 1)
    for images in Loader(files, view, 1, grey, loading=LoadOptions(ahead=ahead)).training(1, plan):
        assert images.views.shape[1] == 1
        for place, source in enumerate(images.sources):
            assert source.channels == 1
            height, width = images.view_sizes[place]
            assert torch.equal(images.views[place, :, :height, :width], make_view(source, view))


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_model_without_view_reads_no_pixel(ahead: int) -> None:
    class Arrays:
        classes, multi_label = ("a", "b"), False
        examples = tuple(Example(f"{number}", number % 2) for number in range(3))

        def open(self, index: int) -> Source:
            return ArraySource(np.ones((40 + index, 30, 2), np.uint8))

    batches = list(Loader(Arrays(), None, 1, loading=LoadOptions(ahead=ahead)).training(1, shares(range(3), 2)))
    assert [images.views.shape for images in batches] == [(2, 2, 1, 1), (1, 2, 1, 1)]
    assert not any(images.views.any() or not images.mask.all() for images in batches)
    assert [source.bytes_read for images in batches for source in images.sources] == [0] * 3


def test_several_labels_are_a_row_of_ones_and_zeros(colours: Any) -> None:
    (images,) = Loader(colours, ViewSettings(longest_side=20), 1).evaluation(shares((0, 2, 4, 6), 4))
    assert images.labels is not None
    assert images.labels.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]]
