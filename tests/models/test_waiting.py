"""A model as on an accelerator: what is fetched from it is checked, and is what is read."""

from collections.abc import Callable
from importlib import import_module

import pytest
import torch

from foveate.errors import FoveateError
from foveate.images import ArraySource
from foveate.models import Model, make_batch
from foveate.models.types import Batch

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


def _batch(model: Model, make_source: Sources) -> Batch:
    sources = [make_source(size, seed=seed) for seed, size in enumerate([(60, 80), (44, 52), (60, 80)])]
    return make_batch(sources, model.view, [1, 2, 3], ids=["a.png", "b.png", "c.png"])


@pytest.fixture
def _as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("foveate.sampling.draw"), "on_host", lambda _: False)
    monkeypatch.setattr("foveate.networks.attention.count_cells", lambda mask, _: mask.flatten(1).sum(1))


@pytest.mark.usefixtures("_as_on_an_accelerator")
def test_an_image_with_nothing_to_look_at_is_named(make_model: Models, make_source: Sources) -> None:
    model = make_model()
    batch = _batch(model, make_source)
    batch.mask[1] = False
    with pytest.raises(FoveateError, match=r"image 1 \(b.png\) has no valid cell to draw from: .*widen its mask"):
        model(batch, samples=2)


@pytest.mark.usefixtures("_as_on_an_accelerator")
def test_what_is_drawn_as_on_an_accelerator_is_what_is_read(make_model: Models, make_source: Sources) -> None:
    model = make_model(patches=3)
    batch = _batch(model, make_source)
    output = model(batch)
    assert output.draw is not None
    assert output.boxes is not None
    columns = output.attention.shape[2]
    sizes = [source.size for source in batch.sources]
    expected = model.grid.boxes(output.draw.index, columns, batch.view_sizes, sizes, model.settings.patch)
    assert torch.equal(output.boxes, expected)
    again = model(batch)
    assert torch.equal(again.logits, output.logits)
