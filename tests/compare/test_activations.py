"""Memory is what it claims to be: bytes kept for the backward pass, by hand, and the process that grows by them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foveate.compare import activation_bytes, pixels_read_share
from foveate.compare.memory import step_peak
from foveate.config.heads import MilSettings
from foveate.config.settings import (
    AttentionSettings,
    DataSettings,
    FeatureSettings,
    ModelSettings,
    ViewSettings,
)
from foveate.config.training import RunSettings, TrainingSettings
from foveate.datasets import open_dataset
from foveate.images import ArraySource
from foveate.models import build_model, make_batch, save_model
from foveate.models.types import Batch, Output

MODEL = ModelSettings(
    view=ViewSettings(scale=0.25),
    patch=(30, 26),
    patches=3,
    attention=AttentionSettings(widths=(4,), stride=3),
    features=FeatureSettings(width=8),
)


def test_activations_are_counted_per_image_and_parameters_are_not() -> None:
    model = build_model(replace(MODEL, name="cnn", view=ViewSettings(scale=1.0)), ("a", "b"), channels=1)
    images = [ArraySource(np.full((40, 50, 1), value, np.uint8)) for value in (0, 90, 180, 255)]
    few, many = (activation_bytes(model, make_batch(images[:n], model.view, seeds=range(n))) for n in (2, 4))
    per_image = (many - few) / 2
    assert few - 2 * per_image == 4  # the loss keeps one float32 for the whole batch
    # The view and what each of the four ReLUs puts out, which is what the convolution after it takes; float32.
    floats = 40 * 50 + 4 * 18 * 23 + 8 * (16 * 21 + 7 * 10 + 5 * 8)
    assert 4 * floats <= per_image < 1.5 * 4 * floats


def test_activations_of_patches_do_not_grow_with_the_image() -> None:
    model = build_model(replace(MODEL, view=ViewSettings(longest_side=40)), ("a", "b"), channels=1)
    sizes = [(200, 250), (800, 1000)]
    small, large = (ArraySource(np.zeros((*size, 1), np.uint8)) for size in sizes)
    costs = [activation_bytes(model, make_batch([one], model.view, seeds=[0])) for one in (small, large)]
    assert costs[0] == costs[1]
    shares = [pixels_read_share(model, make_batch([one], model.view, seeds=[0])) for one in (small, large)]
    assert shares[1] == pytest.approx(shares[0] / 16)


class Recomputing(nn.Module):
    """Squares twice the view, and its sine, within a checkpoint or without; the head needs no activation."""

    def __init__(self, within: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.within = within

    def forward(self, batch: Batch) -> Output:
        made = batch.views + 1  # kept by the checkpoint, and by nobody else

        def look(pixels: Tensor) -> Tensor:
            hidden = pixels * self.scale  # needs pixels
            return hidden.sin().sum((1, 2, 3))  # needs hidden

        total = checkpoint(look, made, use_reentrant=False) if self.within else look(made)
        return Output(torch.stack([total, -total], 1))


@pytest.mark.parametrize(("within", "tensors"), [(True, 1), (False, 2)])
def test_what_a_checkpoint_keeps_is_counted(within: bool, tensors: int) -> None:
    model: Any = Recomputing(within)
    sizes = [(30, 40), (60, 80)]
    small, large = (ArraySource(np.zeros((*size, 1), np.uint8)) for size in sizes)
    view = ViewSettings(scale=1.0)
    costs = [activation_bytes(model, make_batch([one], view, seeds=[0])) for one in (small, large)]
    assert costs[1] - costs[0] == 4 * tensors * (60 * 80 - 30 * 40)


def test_deep_mil_in_chunks_keeps_vectors_and_plain_keeps_everything() -> None:
    image = ArraySource(np.zeros((120, 130, 1), np.uint8))  # 4 × 5 patches
    keeps = {}
    for memory in ("plain", "chunked"):
        settings = replace(MODEL, name="deep-mil", mil=MilSettings(memory=memory, chunk=4))  # type: ignore[arg-type]
        model = build_model(settings, ("a", "b"), channels=1)
        keeps[memory] = activation_bytes(model, make_batch([image], model.view, seeds=[0]))
    pixels = 4 * 20 * 30 * 26
    assert keeps["plain"] > 2 * pixels
    assert keeps["chunked"] < 0.2 * pixels


def test_deep_mil_looks_at_every_patch_and_at_no_view() -> None:
    image = ArraySource(np.zeros((120, 130, 1), np.uint8))
    model = build_model(replace(MODEL, name="deep-mil"), ("a", "b"), channels=1)
    assert pixels_read_share(model, make_batch([image], model.view, seeds=[0])) == 1.0


@pytest.mark.slow
def test_a_process_grows_by_what_is_kept_and_more(tmp_path: Path) -> None:
    data = DataSettings(
        source="megapixel-mnist", digits="bundled", canvas=(700, 800), train_images=20, test_images=2, noise=1
    )
    model = build_model(replace(MODEL, name="cnn", view=ViewSettings(scale=1.0)), tuple("0123456789"), channels=1)
    save_model(model, tmp_path / "model")
    images = open_dataset(data, 0)
    settings = RunSettings(data=data, model=model.settings, training=TrainingSettings(batch=4))
    sources = [images.open(index) for index in range(4)]
    kept = activation_bytes(model, make_batch(sources, model.view, seeds=range(4)))
    grown = step_peak(tmp_path, settings, images, range(4), 4)
    assert grown is not None
    assert kept > 40_000_000
    assert kept < grown < 10 * kept


def test_mixed_precision_keeps_about_half() -> None:
    model = build_model(replace(MODEL, name="cnn", view=ViewSettings(scale=1.0)), ("a", "b"), channels=1)
    batch = make_batch([ArraySource(np.full((200, 250, 1), 90, np.uint8))] * 2, model.view, seeds=[0, 1])
    whole, half = (activation_bytes(model, batch, precision) for precision in ("no", "bf16"))
    assert 0.4 * whole < half < 0.75 * whole
