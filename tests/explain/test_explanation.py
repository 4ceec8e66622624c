"""What is shown is what was used: the same answer, the same boxes, and contributions that add up to the logits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.config.settings import InputSettings
from foveate.explain import explain
from foveate.images import ArraySource, Masked
from foveate.models import DrawOptions, Model
from foveate.types import Box

NAMES = ("attention-sampling", "uniform", "deep-mil", "top-k", "perturbed-top-k", "ips", "gmic", "cnn")
Make = Callable[..., Model]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("samples", "method"), [(1, None), (3, None), (2, "iid"), (1, "top"), (2, "des_raj")])
def test_the_answer_is_that_of_predict(
    name: str, samples: int, method: str | None, pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model, pixels = pointing(name=name), canvas((173, 260), (60, 170))
    source = ArraySource(pixels, name="folder/canvas.png")
    given = {"samples": samples, "method": method, "seed": 5}
    predicted = model.predict(source, **given)  # type: ignore[arg-type]
    seen = explain(model, model.look(source, DrawOptions(**given)))  # type: ignore[arg-type]
    assert seen.prediction.probabilities == predicted.probabilities
    assert seen.prediction.boxes == predicted.boxes
    if seen.patches and name != "deep-mil":
        assert tuple(patch.box for patch in seen.patches) == predicted.boxes
    mean = dict(zip(seen.classes, seen.probabilities.mean(0), strict=True))
    assert mean == pytest.approx(predicted.probabilities, abs=1e-6)


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.parametrize("samples", [1, 3])
def test_bias_and_contributions_sum_to_the_logits(
    name: str, samples: int, pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model = pointing(name=name)
    look = model.look(canvas((373, 460), (60, 170)), DrawOptions(samples))
    seen = explain(model, look)
    assert seen.bias is not None
    assert seen.rest is not None
    for draw, logits in enumerate(seen.logits):
        parts = np.array([patch.contributions for patch in seen.patches if patch.draw == draw])
        np.testing.assert_allclose(seen.bias + parts.sum(0) + seen.rest[draw], logits, atol=1e-12)
    if len(seen.logits) == 1:
        np.testing.assert_allclose(seen.logits, look.output.logits.double().numpy(), atol=2e-5)
    if name == "deep-mil":
        assert len(seen.patches) == 24
        assert np.abs(seen.rest).max() > 0
        attention = [patch.attention for patch in seen.patches]
        assert attention == sorted(attention, reverse=True)
    else:
        assert np.abs(seen.rest).max() == 0


def test_several_labels_have_contributions_too(pointing: Make, canvas: Callable[..., np.ndarray]) -> None:
    from foveate.models import build_model

    model = build_model(pointing().settings, ("a", "b"), 1, multi_label=True).eval()
    seen = explain(model, model.look(canvas((173, 260), (60, 170)), DrawOptions(2)))
    mean = 1 / (1 + np.exp(-seen.logits))
    assert seen.prediction.probabilities == pytest.approx(dict(zip("ab", mean.mean(0), strict=True)), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cnn", "it has no map, reads no patches"),
        ("uniform", "no attention map to show"),
        ("deep-mil", "draws none"),
        ("ips", "patches that it has chosen"),
    ],
)
def test_what_is_not_shown_is_said(name: str, words: str, pointing: Make, canvas: Callable[..., np.ndarray]) -> None:
    model = pointing(name=name)
    seen = explain(model, model.look(canvas((173, 260), (60, 170))))
    assert words in seen.note
    assert (seen.attention is None) == (name not in ("deep-mil", "ips"))
    assert (seen.health is None) == (name not in ("deep-mil", "ips"))


@pytest.mark.parametrize("name", ["attention-sampling", "top-k", "perturbed-top-k", "gmic"])
def test_patches_that_are_taken_are_no_biased_draw_of_a_model_that_takes_them(
    name: str, pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model = pointing(name=name)
    seen = explain(model, model.look(canvas((173, 260), (60, 170)), DrawOptions(method="top")))
    biased = "The most attended cells were taken, not drawn: the answer is biased, and the same whatever the seed."
    own = f"A {name} model takes the patches that it scores highest and draws none, so no seed changes its answer."
    assert seen.note == (biased if name == "attention-sampling" else own)


@pytest.mark.parametrize(
    ("size", "centre"),
    [((173, 260), (60, 170)), ((411, 203), (333, 31)), ((97, 1009), (50, 800)), ((60, 90), (30, 60))],
)
@pytest.mark.parametrize("name", ["attention-sampling"])
def test_the_map_peaks_within_half_a_cell_of_the_digit(
    name: str, size: tuple[int, int], centre: tuple[int, int], pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model = pointing(name=name)
    seen = explain(model, model.look(canvas(size, centre)))
    assert seen.attention is not None
    assert seen.affine is not None
    row, column = np.unravel_index(seen.attention.argmax(), seen.attention.shape)
    a, _, c, _, e, f = seen.affine
    peak = e * (row + 0.5) + f, a * (column + 0.5) + c
    for found, true, cell in zip(peak, centre, (e, a), strict=True):
        assert abs(found - true) <= cell / 2 + 14  # the digit is 28 pixels wide, and any part of it may be the peak


def test_places_are_in_the_files_pixels_when_the_model_takes_another_scale(
    pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    pixels = canvas((301, 460), (120, 330), side=56)
    source = ArraySource(pixels, mpp=0.5)
    model = pointing(input=InputSettings(mpp=1.0))
    look = model.look(source)
    assert look.source.size == (151, 230)
    seen = explain(model, look)
    assert seen.size == (301, 460)
    assert seen.attention is not None
    assert seen.affine is not None
    a, _, c, _, e, f = seen.affine
    assert model.grid is not None
    rows, columns = model.grid.shape(look.grid_size)
    assert e == pytest.approx(3 * 301 / look.grid_size[0], rel=1e-12)
    assert a == pytest.approx(3 * 460 / look.grid_size[1], rel=1e-12)
    assert (c, f) == (0, 0)
    assert seen.attention.shape == (rows, columns)
    row, column = np.unravel_index(seen.attention.argmax(), seen.attention.shape)
    assert abs(e * (row + 0.5) - 120) <= e / 2 + 28
    assert abs(a * (column + 0.5) - 330) <= a / 2 + 28
    first = seen.patches[0].box
    assert first.size == pytest.approx((56, 72), abs=1)
    # the box is centred on the cell it was drawn for
    at = ((first.top + first.bottom) / 2 / e - 0.5, (first.left + first.right) / 2 / a - 0.5)
    cell = tuple(round(one) for one in at)
    assert seen.attention[cell] == pytest.approx(seen.patches[0].attention, rel=1e-5)


def test_masked_cells_and_health(pointing: Make, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (120, 180, 1), dtype=np.uint8)
    where = np.zeros((120, 180), np.uint8)
    where[:60] = 1
    Image.fromarray(where).save(tmp_path / "mask.png")
    model = pointing()
    seen = explain(model, model.look(Masked(ArraySource(pixels), tmp_path / "mask.png")))
    assert seen.cell_mask is not None
    assert seen.attention is not None
    assert seen.health is not None
    assert seen.health.cells == seen.cell_mask.sum() < seen.cell_mask.size
    assert seen.attention[~seen.cell_mask].max() == 0


def test_a_flat_image_is_diagnosed_as_uniform(pointing: Make) -> None:
    model = pointing()
    seen = explain(model, model.look(np.full((120, 180), 7, np.uint8)))
    assert seen.health is not None
    assert seen.health.findings == ("uniform",)
    assert seen.warnings[0].startswith("attention is as good as uniform")


def test_fewer_cells_than_patches(pointing: Make) -> None:
    model = pointing(patches=50)
    look = model.look(np.random.default_rng(0).integers(0, 255, (12, 20), dtype=np.uint8))
    seen = explain(model, look)
    assert seen.attention is not None
    assert len(seen.patches) == look.prediction.patches == seen.attention.size == 28
    assert isinstance(seen.patches[0].box, Box)
    assert torch.isfinite(torch.from_numpy(seen.logits)).all()
