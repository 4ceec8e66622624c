"""Masks and priors of images reach the draws; images of known scale are read at the scale the model wants."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from foveate.config.settings import AttentionSettings, GuideSettings, InputSettings, PriorSettings, ViewSettings
from foveate.errors import ImageError
from foveate.images import ArraySource, Source
from foveate.images.wrappers.base import Unchanged
from foveate.models import Model, make_batch
from foveate.models.preprocess import Intake
from foveate.sampling.geometry import Grid
from foveate.types import Size

Models = Callable[..., Model]
Sources = Callable[..., ArraySource]


class Weighted(Unchanged):
    """An image of whose left share something is known."""

    def __init__(self, source: Source, weight: float, share: float = 0.5) -> None:
        super().__init__(source)
        self.weight, self.share = weight, share

    def guide(self, size: Size, region: object = None) -> np.ndarray:  # noqa: ARG002
        result = np.zeros(size, np.float32)
        result[:, : round(size[1] * self.share)] = self.weight
        return result


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "deep-mil", "ips"])
def test_nothing_is_read_where_a_mask_forbids(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name, patches=5).eval()
    sources = [Weighted(make_source((120, 200)), -torch.inf), make_source((100, 90))]
    batch = make_batch(sources, model.view, [1, 2])
    assert batch.prior is None
    with torch.no_grad():
        output = model(batch, samples=1)
    boxes = output.boxes[0][output.read[0].cpu()]
    assert len(boxes) > 0
    assert (boxes[:, 1] + boxes[:, 3] / 2 >= 100).all()
    assert output.attention[0, :, : output.attention.shape[2] // 2].sum() < 1e-6
    assert output.attention.sum((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-5)
    alone = model(make_batch(sources[1:], model.view, [2]))
    torch.testing.assert_close(output.logits[1], alone.logits[0], rtol=0, atol=1e-5)


def test_a_mask_of_everything_is_refused(make_model: Models, make_source: Sources) -> None:
    model = make_model()
    with pytest.raises(ImageError, match=r"^image-0-120x200\.png: there is nothing to look at"):
        make_batch([Weighted(make_source((120, 200)), -torch.inf, 1.0)], model.view, [1], ids=["a.png"])


def test_a_prior_multiplies_the_attention(make_model: Models, make_source: Sources) -> None:
    model = make_model(
        attention=AttentionSettings(widths=(4,), stride=2, smoothing=0.0), prior=PriorSettings(contrast=0.0)
    ).eval()
    plain = make_source((120, 200))
    with torch.no_grad():
        before = model(make_batch([plain, plain], model.view, [1, 2])).attention
        batch = make_batch([Weighted(plain, -1.5, 0.48), plain], model.view, [1, 2])
        after = model(batch).attention
    assert batch.prior is not None
    factor = torch.ones(25)
    factor[:12] = np.exp(-1.5)  # a view of 50 columns, two of them to a cell
    expected = before[0] * factor
    torch.testing.assert_close(after[0], expected / expected.sum(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(after[1], before[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("stride", "field"), [(1, 1), (2, 1), ((3, 2), 1), (2, 3), (4, 5)])
def test_means_over_cells_by_enumeration(stride: int | Size, field: int) -> None:
    grid, generator = Grid(stride, field), torch.Generator().manual_seed(5)
    values, mask = torch.rand(2, 11, 14, generator=generator), torch.rand(2, 11, 14, generator=generator) > 0.4
    sizes = [(11, 14), (9, 8)]
    means = grid.cell_means(values, mask, sizes)
    (down, along), half = grid.strides, field // 2
    for image, (height, width) in enumerate(sizes):
        for row in range(means.shape[1]):
            for column in range(means.shape[2]):
                seen = [
                    values[image, i + half, j + half].item()
                    for i in range(row * down, min((row + 1) * down, height - field + 1))
                    for j in range(column * along, min((column + 1) * along, width - field + 1))
                    if mask[image, i + half, j + half]
                ]
                expected = sum(seen) / len(seen) if seen else 0
                assert means[image, row, column].item() == pytest.approx(expected, abs=1e-6)


def test_images_are_brought_to_the_models_scale(make_model: Models) -> None:
    """A slide scanned at 0.25 and one at 0.5 microns per pixel give the same answer at 0.5."""
    coarse = np.random.default_rng(0).integers(0, 256, (90, 120, 2), np.uint8)
    fine = coarse.repeat(2, 0).repeat(2, 1)
    settings = InputSettings(mpp=0.5)
    model = make_model(input=settings, method="top").eval()
    predictions = [model.predict(ArraySource(fine, mpp=0.25)), model.predict(ArraySource(coarse, mpp=0.5))]
    for name, probability in predictions[0].probabilities.items():
        assert probability == pytest.approx(predictions[1].probabilities[name], abs=1e-5)
    for finer, coarser in zip(predictions[0].boxes, predictions[1].boxes, strict=True):
        assert (finer.top, finer.left, *finer.size) == (2 * coarser.top, 2 * coarser.left, 44, 52)
    with pytest.raises(ImageError, match=r"to bring it to 0\.5 microns per pixel its own are needed"):
        model.predict(ArraySource(coarse))


def test_an_intake_guides_only_when_it_is_told_to() -> None:
    source = ArraySource(np.zeros((8, 9, 3), np.uint8))
    assert Intake(InputSettings(), 3)(source) is source
    guided = Intake(InputSettings(guide=GuideSettings(tissue="prior")), 3)(source)
    assert guided is not source
    assert guided.guide((2, 2)) is None  # black: no colour, no telling


def test_a_view_and_its_guide_are_of_one_size(make_source: Sources) -> None:
    batch = make_batch([Weighted(make_source((61, 100)), -2.0)], ViewSettings(longest_side=50), [0])
    assert batch.views.shape[2:] == batch.mask.shape[1:] == batch.prior.shape[1:] == (31, 50)
    assert batch.mask.all()
    moved = batch.to("cpu")
    assert torch.equal(moved.prior, batch.prior)
