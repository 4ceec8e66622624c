"""What reaches the model: views from wherever, sources that show the same change, draws that follow the id."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from foveate.errors import ImageError
from foveate.images import make_view
from foveate.images.augment import Augmented
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
    assert images.seeds == (derive_seed(9, "evaluate", images.ids[0]),)


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
