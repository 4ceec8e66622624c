"""Zoom: the draw is that of the product over all cells of the last level, and little is read for it."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import batch_of, sharp, small_settings
from torch import nn

from foveate.config.resolutions import ZoomSettings
from foveate.config.settings import (
    AttentionSettings,
    GuideSettings,
    InputSettings,
    ModelSettings,
    PriorSettings,
    ViewSettings,
)
from foveate.errors import ConfigError, FoveateError
from foveate.images import ArraySource
from foveate.images.wrappers.mask import Masked
from foveate.models import Model, build_model, load_model, make_batch, save_model
from foveate.models.types import Output
from foveate.sampling.geometry import Grid
from foveate.sampling.nested import NestedGrid

Models = Callable[..., Model]
Sources = Callable[..., ArraySource]
SETTINGS: dict[str, Any] = {
    "view": ViewSettings(scale=0.125),
    "zoom": ZoomSettings(levels=3, scale=(4, 2)),
    "prior": ModelSettings().prior,
}


def whole_attention(model: Model, source: ArraySource) -> torch.Tensor:
    """Log attention over all cells of the last level, from whole views of every level: what is never made."""
    nested, view = model.nested, make_batch([source], model.view, [0]).view_sizes[0]
    total = None
    for level in range(nested.levels):
        size = nested.size(level, view)
        shown = torch.from_numpy(source.view(size)).permute(2, 0, 1)[None]
        logits = (model.attention if level == 0 else model.further[level - 1])(shown)[0]
        if total is None:
            total = logits.flatten().double().log_softmax(0).view(logits.shape)
            continue
        factor, finer = nested.factors[level - 1], torch.empty(logits.shape, dtype=torch.float64)
        for row, column in np.ndindex(*total.shape):
            own = (slice(row * factor, (row + 1) * factor), slice(column * factor, (column + 1) * factor))
            within = logits[own].flatten().double().log_softmax(0).view(logits[own].shape)
            finer[own] = total[row, column] + within
        total = finer
    return total


@pytest.mark.parametrize("shared", [False, True])
def test_patches_are_drawn_from_the_product_of_what_whole_views_say(
    shared: bool, make_model: Models, make_source: Sources
) -> None:
    """With a margin of a cell, of 2 pixels, two layers of 3×3 see in a region what they would see in the whole view."""
    zoom = replace(SETTINGS["zoom"], shared=shared)
    attention = AttentionSettings(widths=(4,), stride=2, smoothing=0.0)
    model = sharp(make_model("zoom", **SETTINGS | {"zoom": zoom, "attention": attention}, patches=6)).eval()
    if shared:
        model.further = nn.ModuleList([model.attention, model.attention])
    source = make_source((150, 100))
    with torch.no_grad():
        output = model(batch_of(model, [source]), samples=3)
        truth = whole_attention(model, source).flatten()
    assert truth.exp().sum().item() == pytest.approx(1)
    torch.testing.assert_close(output.draw.log_prob, truth[output.draw.index].float(), rtol=1e-4, atol=1e-4)
    rest = truth.expand(3, -1).scatter(1, output.draw.index, -torch.inf).logsumexp(1)
    torch.testing.assert_close(output.draw.log_rest, rest, rtol=1e-4, atol=1e-4)


def test_where_all_cells_are_drawn_everything_is_exact(make_model: Models, make_source: Sources) -> None:
    model = sharp(make_model("zoom", **SETTINGS, patches=200)).eval()
    source = make_source((30, 20))
    with torch.no_grad():
        output = model(batch_of(model, [source]))
    nested, view = model.nested, make_batch([source], model.view, [0]).view_sizes[0]
    cells = nested.shape(2, view)
    index = output.draw.index[0][output.draw.valid[0]]
    assert sorted(index.tolist()) == list(range(cells[0] * cells[1]))
    assert output.draw.weight[0][output.draw.valid[0]].unique().tolist() == [1.0]
    assert output.draw.log_prob[output.draw.valid].exp().sum().item() == pytest.approx(1, abs=1e-5)
    boxes = Grid(nested.stride).boxes(index[None], cells[1], [nested.size(2, view)], [source.size], model.patch)
    assert torch.equal(output.boxes[0][output.draw.valid[0]], boxes[0])
    leaves = output.draw.log_prob[output.draw.valid]
    assert output.entropy.item() == pytest.approx(float(torch.special.entr(leaves.exp()).sum()), abs=1e-4)


def test_the_contrast_prior_leads_to_what_stands_out_on_every_level(make_model: Models) -> None:
    """In a flat image with a spot, to the patches around the spot; without a prior, to all alike."""
    pixels = np.full((144, 96, 2), 120, np.uint8)
    pixels[73:77, 49:53:2] = 250
    shares = {}
    for contrast in (0.0, 4.0):
        changes = {"prior": PriorSettings(contrast=contrast), "attention": AttentionSettings(widths=(4,), stride=6)}
        model = make_model("zoom", **SETTINGS | changes, patch=(24, 26), patches=400).eval()
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            output = model(batch_of(model, [ArraySource(pixels)]))
        there = output.draw.valid[0]
        boxes, share = output.boxes[0][there], output.draw.log_prob[0][there].exp()
        assert float(share.sum()) == pytest.approx(1, abs=1e-4)
        end = boxes[:, :2] + boxes[:, 2:]
        shows = (boxes[:, :2] < torch.tensor([77, 53])).all(1) & (end > torch.tensor([73, 49])).all(1)
        shares[contrast] = float(share[shows].sum()), float(shows.float().mean())
    flat, led = shares[0.0], shares[4.0]
    assert flat[0] == pytest.approx(flat[1], abs=0.03)
    assert led[0] > 0.9 > 4 * led[1]


def test_patches_lie_in_the_regions_on_their_way(make_model: Models, make_source: Sources) -> None:
    model = sharp(make_model("zoom", **SETTINGS, patches=8)).eval()
    sources = [make_source((301, 180), seed=1), make_source((90, 333), seed=2)]
    with torch.no_grad():
        output = model(batch_of(model, sources), samples=2)
    assert output.regions.shape == (4, 8, 2, 4)
    for row in range(4):
        height, width = sources[row // 2].size
        for box, way in zip(output.boxes[row].tolist(), output.regions[row].tolist(), strict=True):
            middle = box[0] + box[2] / 2, box[1] + box[3] / 2
            for top, left, high, wide in way:
                assert top - 1 <= middle[0] <= top + high + 1
                assert left - 1 <= middle[1] <= left + wide + 1
                assert 0 <= top < top + high <= height
                assert 0 <= left < left + wide <= width
            (top, left, high, wide), (inner_top, inner_left, inner_high, inner_wide) = way
            assert top <= inner_top + 1
            assert inner_top + inner_high <= top + high + 1
            assert left <= inner_left + 1
            assert inner_left + inner_wide <= left + wide + 1


class Counted(ArraySource):
    """An image that notes which regions of it are looked at."""

    def view(self, size: Any, region: Any = None) -> Any:
        self.__dict__.setdefault("seen", []).append(region)
        return super().view(size, region)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_few_regions_are_looked_at_each_once(levels: int, make_model: Models) -> None:
    """At most N + 1 a level, of 256, 65,536 and 16,777,216 cells of the last one, and each of them once."""
    zoom = ZoomSettings(levels=levels, scale=(16,))
    changes = {"view": ViewSettings(longest_side=32), "zoom": zoom, "prior": ModelSettings().prior, "patches": 5}
    model = sharp(make_model("zoom", **changes)).eval()
    source = Counted(np.random.default_rng(0).integers(0, 255, (256, 200, 2), np.uint8), name="counted.png")
    with torch.no_grad():
        output = model(make_batch([source], model.view, [1]), samples=2)
    regions = [region for region in source.__dict__["seen"] if region is not None]
    assert levels - 1 <= len(regions) <= 2 * 6 * (levels - 1)
    assert len(set(regions)) == len(regions)
    assert output.patches_read.tolist() == [10]


def test_every_levels_network_learns_and_entropy_reaches_it(make_model: Models, make_source: Sources) -> None:
    model = sharp(make_model("zoom", **SETTINGS)).train()
    output = model(batch_of(model, [make_source((150, 100)), make_source((90, 200))]))
    parts = {"logits": output.logits[:, 0].sum(), "entropy": output.entropy.sum()}
    for name, value in parts.items():
        grads = torch.autograd.grad(value, [*model.attention.parameters(), *model.further.parameters()],
                                    retain_graph=True, allow_unused=True)  # fmt: skip
        for level in range(3):
            assert grads[4 * level].abs().max() > 0, (name, level)
            assert grads[4 * level].isfinite().all()


@pytest.mark.parametrize("tissue", ["ignore", "prior"])
def test_masked_parts_are_never_looked_at(
    tissue: str, tmp_path: Path, make_model: Models, make_source: Sources
) -> None:
    mask = np.zeros((160, 120), np.uint8)
    mask[40:80, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    guide = GuideSettings(tissue=tissue)  # type: ignore[arg-type]
    model = sharp(make_model("zoom", **SETTINGS, patches=7, input=InputSettings(guide=guide))).eval()
    source = model.intake(Masked(make_source((160, 120)), tmp_path / "mask.png"))
    with torch.no_grad():
        output = model(batch_of(model, [source]))
    rows, columns = (output.boxes[0][output.draw.valid[0]][:, :2] + torch.tensor([11, 13])).T
    assert ((rows >= 40) & (rows <= 80) & (columns >= 30) & (columns <= 60)).all()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", ["murthy", "des_raj", "priority", "iid", "top"])
def test_the_same_seed_is_the_same_answer(method: str, make_model: Models, make_source: Sources) -> None:
    model, image = sharp(make_model("zoom", **SETTINGS)).eval(), make_source((150, 100))
    first, again = (model.predict(image, method=method, seed=4) for _ in range(2))  # type: ignore[arg-type]
    assert first.probabilities == again.probabilities
    assert first.boxes == again.boxes
    assert first.patches == 4


def test_rounds_are_the_beginning_of_one_order(make_model: Models, make_source: Sources) -> None:
    image = make_source((150, 100))
    model = sharp(make_model("zoom", **SETTINGS)).eval()
    for most in (4, 8):
        found = model.predict(image, seed=3, max_patches=most, confidence=1 - 1e-12)
        fixed = sharp(make_model("zoom", **SETTINGS, patches=most)).eval().predict(image, seed=3)
        assert found.patches == most
        assert found.probabilities == pytest.approx(fixed.probabilities, abs=1e-6)
        assert found.boxes == fixed.boxes


def test_a_saved_model_is_the_same(tmp_path: Path, make_model: Models, make_source: Sources) -> None:
    model = sharp(make_model("zoom", **SETTINGS)).eval()
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.settings == model.settings
    image = make_source((150, 100))
    assert loaded.predict(image).probabilities == model.predict(image).probabilities


def test_the_stride_is_half_a_patch_at_the_last_level() -> None:
    settings = small_settings("zoom", attention=AttentionSettings(), view=ViewSettings(longest_side=512),
                              zoom=ZoomSettings(levels=3, scale=(8, 4)), patch=(100, 100))  # fmt: skip
    model = build_model(settings, ("a", "b"), 3, image_size=(32_768, 30_000))
    assert model.settings.attention.stride == 25  # 1/64 · 32 is half of full size
    assert model.nested == NestedGrid(25, (8, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zoom": ZoomSettings(levels=1)}, r"model.zoom.levels must be 2 to 4, got 1: of one level is model.name "),
        ({"zoom": ZoomSettings(levels=3, scale=(4, 4, 4))}, r"model.zoom.scale must be one number from 2 to 64, or 2"),
        ({"zoom": ZoomSettings(margin=-1)}, r"model.zoom.margin must be at least 0 cells, got -1: 1 is usual"),
        ({"method": "uniform"}, r"the model zoom cannot draw by model.method uniform: set it to one of iid, "),
        ({"attention": AttentionSettings(padding="valid")}, r"the model zoom needs model.attention.padding same"),
        ({"view": ViewSettings(scale=0.5)}, r"the last level of model.zoom would be 2 times as fine as the images"),
        ({"control": True}, r"model.control foretells features"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build_model(small_settings("zoom", **changes), ("a", "b"), 2)


def test_drawing_uniformly_is_refused_when_it_is_asked_for(make_model: Models, make_source: Sources) -> None:
    with pytest.raises(FoveateError, match=r"^method 'uniform' draws no leaves of a tree: choose one of "):
        make_model("zoom", **SETTINGS).predict(make_source((150, 100)), method="uniform")


def test_output_without_zoom_has_no_regions(make_model: Models, make_source: Sources) -> None:
    model = make_model()
    output: Output = model(batch_of(model, [make_source((150, 100))]))
    assert output.regions is None
    assert output.entropy is None


@pytest.mark.slow
def test_a_hundred_gigapixels_cost_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same model, in CPU time of one thread; and memory of less than a gigabyte."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    benchmark = import_module("zoom")
    found = benchmark.compare(tmp_path, repeats=1)
    print({case: runs[0] for case, runs in found.items()})
    large, small = found["100", 8][0], found["1", 8][0]
    assert large["peak_mb"] < 1000
    assert large["next_s"] < 2 * small["next_s"]
    assert large["regions"] == small["regions"]
    assert all(regions <= benchmark.PATCHES + 1 for regions in large["regions"])
