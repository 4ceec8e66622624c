"""Deep MIL against a loop over patches, and its two ways with memory against each other."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.config.heads import MilSettings
from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError, FoveateError
from foveate.images import ArraySource
from foveate.images.augment.image import Augmented, Change
from foveate.models import Model, make_batch
from foveate.models.types import Batch
from foveate.types import Box

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]

SIZES = [(66, 78), (50, 104), (21, 27)]
"""Images of 3×3, 3×4 and 1×2 patches of 22×26: sides that divide, that do not, and one less than a patch."""


def batch_of(model: Model, make_source: Sources, rows: tuple[int, ...] = (0, 1, 2)) -> Batch:
    sources = [make_source(SIZES[row], seed=row) for row in rows]
    return make_batch(sources, model.view, [0] * len(rows), ids=[str(row) for row in rows])


def stirred(model: Any) -> Any:
    """Weights with which attention differs from patch to patch."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return model


def one_by_one(model: Model, source: ArraySource, strides: tuple[int, int]) -> tuple[Tensor, Tensor, list[Box]]:
    """Logits, attention and boxes of one image, patch after patch, written from the paper."""
    features, scores, boxes = [], [], []
    for top in range(0, source.size[0], strides[0]):
        for left in range(0, source.size[1], strides[1]):
            cell = min(strides[0], source.size[0] - top), min(strides[1], source.size[1] - left)
            # The patch's first pixel is that nearest to centre − ½ side; halves go up.
            box = Box((2 * top + cell[0] - 22 + 1) // 2, (2 * left + cell[1] - 26 + 1) // 2, 22, 26)
            pixels = torch.from_numpy(source.read(box).astype(np.float32) / 255).permute(2, 0, 1)[None]
            feature = model.features(pixels)[0]
            hidden = torch.tanh(model.attention.value.weight @ feature + model.attention.value.bias)
            if model.attention.gate is not None:
                hidden = hidden * torch.sigmoid(model.attention.gate.weight @ feature + model.attention.gate.bias)
            scores.append((model.attention.score.weight @ hidden + model.attention.score.bias)[0])
            features.append(feature)
            boxes.append(box)
    weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    total = sum((weight * feature for weight, feature in zip(weights, features, strict=True)), torch.zeros(6))
    return model.head(total), weights, boxes


@pytest.mark.parametrize(
    ("pooling", "memory", "stride"),
    [("attention", "plain", 31), ("attention", "chunked", None), ("gated", "plain", None), ("gated", "chunked", 31)],
)
def test_is_the_papers_sum_over_all_patches(
    pooling: Any, memory: Any, stride: int | None, make_model: Models, make_source: Sources
) -> None:
    model = stirred(make_model("deep-mil", mil=MilSettings(pooling, 5, stride, memory, chunk=4)))
    strides = (stride, stride) if stride else (22, 26)
    batch = batch_of(model, make_source)
    output = model(batch)
    naive = [one_by_one(model, source, strides) for source in batch.sources]
    expected = torch.stack([logits for logits, _, _ in naive])
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=2e-5)
    for row, (_, weights, boxes) in enumerate(naive):
        read = output.read[row]
        torch.testing.assert_close(output.attention[row].flatten()[read], weights, rtol=0, atol=1e-5)
        assert output.attention[row].flatten()[~read].abs().sum() == 0
        assert [Box(*box) for box in output.boxes[row][read].tolist()] == boxes
    found = torch.autograd.grad(output.logits.square().sum(), list(model.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    rounding = 1e-5 * max(float(gradient.abs().max()) for gradient in wanted)
    for (key, _), one, other in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=rounding, msg=key)


def test_patches_side_by_side_read_every_pixel_once(make_model: Models, make_source: Sources) -> None:
    model = make_model("deep-mil")
    batch = batch_of(model, make_source, (0,))
    model(batch)
    assert batch.sources[0].bytes_read == 66 * 78 * 2


def step(model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    output = model.train()(batch)
    loss = functional.cross_entropy(output.logits, torch.arange(len(batch)) % 3)
    (loss - 0.05 * torch.special.entr(output.attention).sum()).backward()
    return output.logits.detach(), {key: one.grad.clone() for key, one in model.named_parameters()}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("chunk", "features"), [(1, "convolutional"), (5, "convolutional"), (5, "residual"), (100, "convolutional")]
)
def test_chunked_is_plain(chunk: int, features: str, make_model: Models, make_source: Sources) -> None:
    """Logits, and the gradient of every parameter, of a loss that looks at the attention too."""
    results = []
    for memory in ("plain", "chunked"):
        mil = MilSettings("gated", 5, stride=23, memory=memory, chunk=chunk)  # type: ignore[arg-type]
        model = stirred(make_model("deep-mil", mil=mil, features=FeatureSettings(features, width=6)))
        batch = batch_of(model, make_source)
        turned = Augmented(batch.sources[0], Change(flip_rows=True, quarter_turns=1, shift=(3, -2), gain=1.2))
        results.append(step(model, replace(batch, sources=(turned, *batch.sources[1:]))))
    (plain, gradients), (chunked, others) = results
    torch.testing.assert_close(chunked, plain, rtol=0, atol=2e-5)
    rounding = 1e-5 * max(float(gradient.abs().max()) for gradient in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, rtol=1e-4, atol=rounding, msg=key)


@pytest.mark.slow
def test_evaluation_is_the_same_in_any_chunks(make_model: Models, make_source: Sources) -> None:
    """In float64, for how float32 rounds a chunk of some size depends on the processor."""
    outputs = []
    for memory, chunk in (("plain", 1), ("chunked", 8), ("plain", 1000)):
        model = stirred(make_model("deep-mil", mil=MilSettings(hidden=5, stride=15, memory=memory, chunk=chunk)))  # type: ignore[arg-type]
        model.double().features.register_forward_pre_hook(lambda _, patches: patches[0].double())
        with model.evaluating():
            outputs.append(model(batch_of(model, make_source)))
    for output in outputs[1:]:
        torch.testing.assert_close(output.logits, outputs[0].logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(output.features, outputs[0].features, rtol=0, atol=1e-12)
    features, read = outputs[0].features, outputs[0].read
    assert features[~read].abs().sum() == 0
    assert features.shape == (3, 5 * 7, 6)
    assert features[read].abs().sum() > 0


@pytest.mark.parametrize("memory", ["plain", "chunked"])
def test_images_of_different_sizes_are_as_alone(memory: Any, make_model: Models, make_source: Sources) -> None:
    model = stirred(make_model("deep-mil", mil=MilSettings(hidden=5, stride=13, memory=memory, chunk=4)))
    batch = batch_of(model, make_source)
    together = model(batch)
    pixels = sum(source.bytes_read for source in batch.sources)
    for row in range(3):
        single = batch_of(model, make_source, (row,))
        alone = model(single)
        pixels -= single.sources[0].bytes_read
        torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-5)
        rows, columns = alone.attention.shape[1:]
        torch.testing.assert_close(together.attention[row, :rows, :columns], alone.attention[0], rtol=0, atol=1e-6)
        assert torch.equal(together.boxes[row][together.read[row]], alone.boxes[0])
        assert int(together.read[row].sum()) == rows * columns
    assert pixels == 0  # cells that only pad a smaller image are never read


def test_only_what_a_mask_allows_is_read(make_model: Models, make_source: Sources) -> None:
    model = make_model("deep-mil")
    batch = batch_of(model, make_source, (0, 1))
    tissue = torch.zeros(2, 6, 8, dtype=torch.bool)
    tissue[0, 2:4, 2:4] = True  # the middle third of 66×78 in a mask of 6×6, of which the second third is cell (1, 1)
    tissue[1] = True
    output = model(replace(batch, mask=tissue, view_sizes=((6, 6), (5, 8))))
    assert output.read[0].nonzero().flatten().tolist() == [5]  # of rows of 4
    assert output.attention[0, 1, 1] == 1
    assert int(output.read[1].sum()) == 12
    functional.cross_entropy(output.logits, torch.tensor([0, 1])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_empty_mask_is_refused_before_anything_is_read(make_model: Models, make_source: Sources) -> None:
    model = make_model("deep-mil")
    batch = batch_of(model, make_source)
    mask = batch.mask.clone()
    mask[2] = False
    with pytest.raises(FoveateError, match=r"^image 2 of the batch \(2\) has no cell to look at"):
        model(replace(batch, mask=mask))
    assert all(source.bytes_read == 0 for source in batch.sources)


def test_its_batches_have_no_view_and_read_nothing(make_model: Models, make_source: Sources) -> None:
    model = make_model("deep-mil")
    batch = batch_of(model, make_source)
    assert model.view is None
    assert batch.views.shape == (3, 2, 1, 1)
    assert batch.views.abs().sum() == 0
    assert batch.mask.all()
    assert batch.view_sizes == ((1, 1),) * 3
    assert all(source.bytes_read == 0 for source in batch.sources)


class LiveBytes(TorchDispatchMode):
    """Largest number of bytes alive at a time in tensors made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._take(tensor)
        return result

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Bytes of every tensor saved for a backward pass, as it is saved."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def costs(memory: str, side: int, make_model: Models, make_source: Sources) -> tuple[int, int]:
    """Peak of a training step, and what its forward pass leaves saved outside of the chunks, in bytes."""
    mil = MilSettings(hidden=5, memory=memory, chunk=4)  # type: ignore[arg-type]
    model = make_model("deep-mil", mil=mil, patch=(22, 22)).train()
    batch = make_batch([make_source((side, side))], model.view, [0])
    with LiveBytes() as live:
        model(batch).logits.square().sum().backward()
    with saved_bytes() as sizes:
        model(batch)
    return live.peak, sum(sizes)


@pytest.mark.slow
def test_memory_of_a_chunked_step_does_not_grow_with_the_patches(make_model: Models, make_source: Sources) -> None:
    """16 and 64 patches in chunks of 4: all but a few numbers per patch, and a vector per chunk, is forgotten."""
    small, large = 4 * 22, 8 * 22
    plain = [costs("plain", side, make_model, make_source) for side in (small, large)]
    chunked = [costs("chunked", side, make_model, make_source) for side in (small, large)]
    more = 64 - 16
    per_patch = [(two - one) / more for one, two in zip(*plain, strict=True)]
    per_patch_chunked = [(two - one) / more for one, two in zip(*chunked, strict=True)]
    assert per_patch[0] > 22 * 22 * 2 * 4  # its pixels at the very least
    assert per_patch[1] > 22 * 22 * 2 * 4
    # A few numbers for a box, attention and masks, of up to 8 bytes each; 6 features of 4 bytes for each 4 patches.
    assert per_patch_chunked[0] < 500
    assert per_patch_chunked[1] < 200
    assert chunked[1][0] < 1.2 * chunked[0][0]
    assert chunked[1][0] < plain[1][0] / 5


class Noisy(nn.Module):
    """Layers with batch statistics and dropout, both of which chunks that are computed twice could spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6)
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, patches: Tensor) -> Tensor:
        return self.dropout(self.layers(patches))


def test_what_is_computed_again_is_the_same_and_counted_once(make_model: Models, make_source: Sources) -> None:
    extras = {"features": stirred(Noisy())}
    model = make_model("deep-mil", extras=extras, mil=MilSettings(hidden=5, memory="chunked", chunk=9)).train()
    batch = batch_of(model, make_source, (0,))  # one chunk, so plain has the same batch statistics
    gradients, buffers = [], []
    for memory in ("plain", "chunked"):
        model.settings = replace(model.settings, mil=replace(model.settings.mil, memory=memory))
        extras["features"].layers[3].reset_running_stats()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            gradients.append(step(model, batch)[1])
        buffers.append({key: buffer.clone() for key, buffer in model.named_buffers()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-4, msg=key)
    assert buffers[0].keys() == buffers[1].keys()
    assert any(key.endswith("running_mean") for key in buffers[0])
    for key, buffer in buffers[0].items():
        torch.testing.assert_close(buffers[1][key], buffer, rtol=1e-6, atol=1e-7, msg=key)
    assert extras["features"].layers[3].momentum == 0.1


@pytest.mark.parametrize(
    ("mil", "message"),
    [
        (MilSettings(hidden=0), "model.mil.hidden must be at least 1, got 0: set it to a positive number"),
        (MilSettings(stride=0), "model.mil.stride must be at least 1, got 0: set it to a positive number"),
        (MilSettings(chunk=-3), "model.mil.chunk must be at least 1, got -3: set it to a positive number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(mil: MilSettings, message: str, make_model: Models) -> None:
    with pytest.raises(ConfigError) as caught:
        make_model("deep-mil", mil=mil)
    assert str(caught.value) == message
