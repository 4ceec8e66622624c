"""A training step on an accelerator waits for it once before its loss: where patches are to be read."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from foveate.config.settings import AttentionSettings
from foveate.errors import FoveateError
from foveate.images import ArraySource
from foveate.models import Model, make_batch
from foveate.models.types import Batch
from foveate.types import Draw

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


def _batch(model: Model, make_source: Sources) -> Batch:
    sources = [make_source(size, seed=seed) for seed, size in enumerate([(60, 80), (44, 52), (60, 80)])]
    return make_batch(sources, model.view, [1, 2, 3], ids=["a.png", "b.png", "c.png"])


class _Copies(TorchFunctionMode):
    """Copies from the host that wait for the device: all that are not called non-blocking."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        result = func(*args, **kwargs)
        if name in {"tensor", "as_tensor", "new_tensor"} and result.device.type == "meta":
            self.found.append(name)
        if name in {"to", "copy_"} and not kwargs.get("non_blocking"):
            before, after = args[-1 if name == "copy_" else 0].device.type, result.device.type
            self.found.extend([name] * (before == "cpu" and after == "meta"))
        if name in {"__getitem__", "__setitem__"} and args[0].device.type == "meta":
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            lists = [one for one in indices if isinstance(one, list) or (isinstance(one, Tensor) and not one.is_meta)]
            self.found.extend([name] * len(lists))
        return result


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("pool", ["max", "strided"])
def test_a_step_needs_values_of_the_device_once(
    pool: str, samples: int, make_model: Models, make_source: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    # tensors of the device "meta" have no values, and whatever asks for one is an error; nor has it an autocast
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    attention = AttentionSettings(widths=(4,), stride=2, pool=pool)  # type: ignore[arg-type]
    model = make_model(attention=attention).train().to("meta")
    batch = _batch(model, make_source).to("meta")
    fetched = []

    def fetch(drawn: Draw, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        assert drawn.checks is not None
        fetched.append(names)
        valid = torch.ones(drawn.index.shape, dtype=torch.bool)
        valid[0, 1:] = False
        return torch.zeros(drawn.index.shape, dtype=torch.int64), valid

    monkeypatch.setattr("foveate.models.sampling.fetch", fetch)
    with _Copies() as copies:
        output = model(batch, samples)
        output.logits.float().logsumexp(1).sum().backward()
    assert not copies.found
    assert fetched == [("a.png", "b.png", "c.png")]
    assert all(parameter.grad is not None for parameter in model.parameters())


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
