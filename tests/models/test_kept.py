"""Features of a frozen network are kept, and neither a loss nor a draw can tell."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foveate.config.settings import FeatureSettings
from foveate.images import ArraySource
from foveate.images.source import Known
from foveate.models import Model, make_batch
from foveate.models.kept import KeptFeatures
from foveate.models.patch_reading import PatchReading
from foveate.models.types import Batch, Output
from foveate.types import Box

Models = Callable[..., Model]
SIZES = ((60, 90), (72, 50), (75, 64))
SMALL = ((60, 90), (16, 12), (75, 64))
"""The second has fewer cells than patches are drawn."""


class Counted(ArraySource):
    """An image that counts what is read of it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.patches = 0

    def read_known(self, boxes: Sequence[Box], level: int = 0, threads: int = 1) -> list[Known]:
        self.patches += len(boxes)
        return super().read_known(boxes, level, threads)


def images(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Counted]:
    random = np.random.default_rng(3)
    return [Counted(random.integers(0, 256, (*size, 2), dtype=np.uint8), None, f"{size[0]}.png") for size in sizes]


def frozen(make_model: Models, **changes: object) -> Model:
    features = FeatureSettings(width=6, frozen=True, project=5)
    return make_model(**{"features": features, "patches": 6} | changes)


def batch_of(model: Model, sources: Sequence[Counted], seed: int, keys: Sequence[object] = ()) -> Batch:
    batch = make_batch(sources, model.view, [seed, seed + 1, seed + 2], labels=[0, 2, 1])
    return replace(batch, keys=tuple(keys))  # type: ignore[arg-type]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("name", "method", "training"),
    [
        ("attention-sampling", "murthy", True),
        ("attention-sampling", "murthy", False),
        ("attention-sampling", "iid", True),
        ("attention-sampling", "top", False),
        ("uniform", "uniform", True),
    ],
)
def test_losses_and_gradients_are_those_without(name: str, method: str, training: bool, make_model: Models) -> None:
    model = frozen(make_model, name=name, method=method, patches=9).train(training)
    kept, sources = KeptFeatures(10**6), images(SMALL)
    for epoch in range(2):
        found = []
        for features, keys in ((None, ()), (kept, ("a", "b", "c"))):
            model.keep_features(features)
            output = model(batch_of(model, sources, 10 * epoch, keys), samples=2)
            loss = output.logits.square().sum()
            trained = [one for one in model.parameters() if one.requires_grad]
            found.append((output, torch.autograd.grad(loss, trained, allow_unused=True)))
        (plain, wanted), (with_kept, gradients) = found
        torch.testing.assert_close(with_kept.logits, plain.logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(with_kept.boxes, plain.boxes)
        assert torch.equal(with_kept.read, plain.read)
        assert method == "iid" or not plain.read.all(), "some draws are void"
        for one, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert len(kept)


def patches_read(model: Model, sources: Sequence[Counted], batch: Batch) -> list[int]:
    before = [source.patches for source in sources]
    with torch.no_grad():
        model(batch)
    return [source.patches - old for source, old in zip(sources, before, strict=True)]


def test_what_is_known_is_not_read_again(make_model: Models) -> None:
    model, sources, kept = frozen(make_model).eval(), images(), KeptFeatures(10**6)
    assert patches_read(model, sources, batch_of(model, sources, 1, "abc")) == [6, 6, 6], "nothing is kept yet"
    model.keep_features(kept)
    first = patches_read(model, sources, batch_of(model, sources, 1, "abc"))
    assert first == [6, 6, 6]
    assert len(kept) == 18
    assert patches_read(model, sources, batch_of(model, sources, 1, "abc")) == [0, 0, 0]
    for seed in range(10, 60, 10):  # neighbours may be read at once
        before = len(kept)
        read = sum(patches_read(model, sources, batch_of(model, sources, seed, "abc")))
        assert read <= len(kept) - before < 18


def test_a_batch_of_which_a_half_is_known(make_model: Models) -> None:
    model, sources, kept = frozen(make_model).eval(), images(), KeptFeatures(10**6)
    model.keep_features(kept)
    with torch.no_grad():
        plain = model(batch_of(model, sources, 1))
    assert len(kept) == 0, "images without keys leave nothing behind"
    assert patches_read(model, sources, batch_of(model, sources, 1, ["a", None, "c"])) == [6, 6, 6]
    assert len(kept) == 12
    assert patches_read(model, sources, batch_of(model, sources, 1, ["a", "b", None])) == [0, 6, 6]
    assert len(kept) == 18
    with torch.no_grad():
        mixed = model(batch_of(model, sources, 1, ["a", None, "other"]))
    torch.testing.assert_close(mixed.logits, plain.logits, rtol=1e-5, atol=1e-5)
    assert isinstance(mixed, Output)


def test_what_is_kept_of_an_evaluation_can_be_trained_on(make_model: Models) -> None:
    model, sources, kept = frozen(make_model), images(), KeptFeatures(10**6)
    model.keep_features(kept)
    with model.evaluating(), torch.inference_mode():
        model(batch_of(model, sources, 1, "abc"))
    model.train()(batch_of(model, sources, 1, "abc")).logits.square().sum().backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.any()


def test_no_more_is_kept_than_may_be() -> None:
    kept = KeptFeatures(4 * 3 * 10)  # ten patches of three features
    cells = torch.arange(14).view(2, 7)
    features = torch.arange(42.0).view(2, 7, 3)
    everything = torch.ones(2, 7, dtype=torch.bool)
    assert torch.equal(kept.completed(["a", "b"], cells, everything, features), features)
    assert len(kept) == 10
    assert kept.known(["a", "b"], cells).flatten().tolist() == [True] * 10 + [False] * 4
    kept.completed(["c", "c"], cells, everything, features)
    assert len(kept) == 10
    assert kept._blocks.numel() * 4 <= kept.limit
    found = kept.completed(["a", "b"], cells, ~kept.known(["a", "b"], cells), torch.full_like(features, -1.0))
    assert torch.equal(found.view(14, 3)[:10], features.view(14, 3)[:10])
    assert (found.view(14, 3)[10:] == -1).all()
    nothing = KeptFeatures(0)
    assert torch.equal(nothing.completed(["a", "b"], cells, everything, features), features)
    assert len(nothing) == 0


def test_they_are_found_by_image_and_cell() -> None:
    kept, random = KeptFeatures(10**6), np.random.default_rng(2)
    truth: dict[tuple[str, int], Tensor] = {}
    for _ in range(40):
        keys = [str(random.choice(list("abcdef"))) for _ in range(3)]
        cells = torch.from_numpy(random.integers(0, 900, (3, 50)))
        known = kept.known(keys, cells)
        names = [[(key, cell) for cell in row] for key, row in zip(keys, cells.tolist(), strict=True)]
        assert known.tolist() == [[name in truth for name in row] for row in names]
        for row in names:
            for name in row:
                truth.setdefault(name, torch.from_numpy(random.normal(size=4)).float())
        whole = torch.stack([torch.stack([truth[name] for name in row]) for row in names])
        given = whole.masked_fill(known[..., None], torch.nan)
        assert torch.equal(kept.completed(keys, cells, ~known, given), whole)
    assert len(kept) == len(truth) > 1024, "the block has grown"


def test_where_nothing_is_wanted_there_are_zeros_of_the_right_width() -> None:
    boxes = torch.tensor([[[0, 0, 5, 4], [9, 9, 5, 4]]] * 2)
    for valid in (torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[False, True], [False, False]])):
        sources = [Counted(np.full((20, 30), 255, np.uint8)) for _ in range(2)]
        seen: list[int] = []

        def layers(patches: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(len(patches))
            return nn.functional.pad(patches.flatten(1), (0, 2), value=3.0)

        found = PatchReading(sources, boxes, valid, torch.device("cpu")).features(layers)
        assert found.shape == (2, 2, 22)
        assert torch.equal(found.any(2), valid)
        assert sum(source.patches for source in sources) == int(valid.sum())
        assert seen == [1], "one at least, which says how many features there are"


def test_patches_whose_features_are_kept_are_not_said_to_be_read(make_model: Models) -> None:
    model, sources, kept = frozen(make_model).eval(), images(), KeptFeatures(10**6)
    model.keep_features(kept)
    batch = batch_of(model, sources, 1, "abc")
    with model.evaluating():
        first, second = model(batch), model(batch)
    assert first.kept is not None
    assert second.kept is not None
    assert first.kept.tolist() == [0] * len(sources)
    assert second.kept.tolist() == second.patches_read.tolist()
