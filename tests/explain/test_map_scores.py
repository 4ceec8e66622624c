"""Scores of maps: by hand, at their extremes, and on data sets that tell what is there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foveate.config.settings import AttentionSettings, DataSettings, PriorSettings, ViewSettings
from foveate.datasets import colon_cancer, german_speed_limits, megapixel_mnist, read_manifest
from foveate.datasets.types import Resplit
from foveate.errors import ConfigError, DataError
from foveate.explain import (
    attention_on_truth,
    cell_average_precision,
    cells_of,
    delete_patches,
    explain,
    hit_rates,
    known_objects,
    pointing_game,
    score_map,
    score_maps,
)
from foveate.explain.deletion import Occluded
from foveate.images import ArraySource, open_image
from foveate.models import DrawOptions, Model
from foveate.types import Box

DATA = Path(__file__).parents[3] / "shared/data"

Make = Callable[..., Model]
Draw = Callable[..., np.ndarray]


def test_cells_that_show_something() -> None:
    affine = (8.0, 0.0, 4.0, 0.0, 5.0, 10.0)  # cells of 5 × 8 pixels, the first at row 10, column 4
    found = cells_of([Box(15, 12, 5, 8)], affine, (4, 5))
    assert np.argwhere(found).tolist() == [[1, 1]]  # exactly one cell: touching is not overlapping
    assert np.argwhere(cells_of([Box(14, 11, 7, 1)], affine, (4, 5))).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert not cells_of([Box(0, 0, 10, 100), Box(11, 44, 3, 3)], affine, (4, 5)).any()
    assert not cells_of([], affine, (4, 5)).any()


def test_points_are_in_the_cell_that_geometry_says() -> None:
    import torch

    from foveate.sampling.geometry import Grid

    grid, view, image = Grid(3), (40, 60), (411, 703)
    points = np.random.default_rng(0).uniform(0, 1, (50, 2)) * image
    cells = grid.cells(torch.from_numpy(points), view, image)
    shape = grid.shape(view)
    for (row, column), cell in zip(np.floor(points), cells.tolist(), strict=True):
        found = cells_of([Box(int(row), int(column), 1, 1)], grid.affine(view, image), shape)
        assert found[tuple(cell)]


def test_attention_on_truth_and_pointing() -> None:
    attention = np.array([[0.1, 0.4, 0.2], [0.05, 0.2, 0.05]])
    truth = np.array([[False, True, False], [True, False, True]])
    assert attention_on_truth(attention, truth) == pytest.approx(0.5, abs=1e-12)
    assert pointing_game(attention, truth)
    assert not pointing_game(attention, ~truth)


def test_average_precision_by_hand() -> None:
    attention = np.array([[0.4, 0.3, 0.2], [0.05, 0.04, 0.01]])
    truth = np.array([[True, False, True], [False, False, True]])
    assert cell_average_precision(attention, truth) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3, abs=1e-12)
    mask = np.array([[True, True, True], [False, False, False]])
    assert cell_average_precision(attention, truth, mask) == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert cell_average_precision(attention, np.zeros((2, 3), bool)) is None
    flat = np.full((2, 3), 1 / 6)
    assert cell_average_precision(flat, truth) == pytest.approx(0.5, abs=1e-12)


def test_hit_rates_by_hand() -> None:
    objects = [Box(10, 10, 4, 4), Box(100, 100, 4, 4), Box(30, 30, 1, 1)]  # middles 12, 102 and 30.5
    boxes = [Box(0, 0, 12, 12), Box(0, 0, 13, 13), Box(12, 12, 30, 30), Box(60, 60, 10, 10), Box(12, 12, 1, 1)]
    assert hit_rates(boxes, objects) == (3 / 5, 2 / 3)  # the first ends where a middle is, and does not hold it
    assert hit_rates(boxes[:1], objects) == (0.0, 0.0)


def test_scores_of_a_map_that_points(pointing: Make, canvas: Draw) -> None:
    model = pointing(patch=(56, 72))
    seen = explain(model, model.look(canvas((417, 605), (120, 430)), DrawOptions(3)))
    found, missed = score_map(seen, [Box(106, 416, 28, 28)]), score_map(seen, [Box(330, 60, 28, 28)])
    assert found is not None
    assert missed is not None
    assert found.chance is not None
    assert found.chance < 0.05
    assert found.mass is not None
    assert found.mass > 0.5
    assert (found.pointing, missed.pointing) == (True, False)
    assert missed.mass is not None
    assert missed.mass < 0.01
    assert found.average_precision is not None
    assert found.average_precision > 0.5
    assert found.draws_that_hit is not None
    assert found.draws_that_hit > 0.3
    assert (found.objects_hit, missed.objects_hit) == (1.0, 0.0)
    assert score_map(seen, []) is None


def test_what_cannot_be_scored_is_none(pointing: Make, canvas: Draw) -> None:
    pixels, truth = canvas((217, 305), (60, 170)), [Box(50, 160, 20, 20)]
    for name, mapped, drawn in (("cnn", False, False), ("uniform", False, True), ("deep-mil", True, False)):
        model = pointing(name=name)
        found = score_map(explain(model, model.look(pixels)), truth)
        assert found is not None
        assert (found.mass is not None, found.draws_that_hit is not None) == (mapped, drawn)


def test_digits_of_generated_canvases(pointing: Make) -> None:
    data = megapixel_mnist(DataSettings(canvas=(420, 510), train_images=6, test_images=1, noise=0))
    assert known_objects(data, 2) == tuple(box for _, box in data.digits(2))
    model = pointing(view=ViewSettings(scale=0.25), patch=(50, 40), patches=10)
    scored = dict(score_maps(model, data, range(6), samples=2))
    assert list(scored) == list(range(6))
    for one in scored.values():
        assert one.objects == 5
        assert one.pointing
        assert one.mass is not None
        assert one.chance is not None
        assert one.mass > 0.8 > 10 * one.chance - 0.8


@pytest.mark.skipif(not (DATA / "gtsdb").is_dir(), reason="shared/data/gtsdb is not here")
def test_signs_of_real_scenes(pointing: Make) -> None:
    data = german_speed_limits(DATA / "gtsdb")
    with_limit = [index for index in range(len(data)) if data.signs(index)][:4]
    without = next(index for index in range(len(data)) if not data.signs(index))
    view, attention = ViewSettings(scale=0.25), AttentionSettings(widths=(4,), stride=8)
    model = pointing(channels=3, view=view, attention=attention, prior=PriorSettings(contrast=1.0), patch=(64, 64))
    scored = dict(score_maps(model, data, [*with_limit, without]))
    assert list(scored) == with_limit
    assert all(one.mass is not None and 0 < one.mass < 1 for one in scored.values())


@pytest.mark.skipif(
    not (DATA / "CRCHistoPhenotypes_2016_04_28.zip").is_file(), reason="the colon cancer images are not here"
)
def test_nuclei_of_real_tissue(pointing: Make) -> None:
    data = colon_cancer(DATA / "CRCHistoPhenotypes_2016_04_28.zip")
    positive = next(index for index, example in enumerate(data.examples) if example.label == 1)
    objects = known_objects(data, positive)
    assert len(objects) == len(data.nuclei(positive))
    assert known_objects(Resplit(data, data.examples), positive) == objects
    model = pointing(channels=3, name="deep-mil", patch=(27, 27))
    ((index, scores),) = score_maps(model, data, [positive])
    assert index == positive
    assert scores.mass is not None
    assert scores.chance is not None
    assert scores.mass == pytest.approx(scores.chance, abs=0.2)  # an untrained model knows nothing


def test_a_data_set_that_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("path,label\na.png,x\nb.png,y\n")
    data = read_manifest(tmp_path / "images.csv", check_files=False)
    with pytest.raises(DataError, match="maps can be scored where the truth is known: put an objects"):
        known_objects(data, 0)


def test_a_covered_image_is_covered_at_every_level(tmp_path: Path) -> None:
    from tiffs import write_pyramid

    pixels = np.random.default_rng(0).integers(0, 255, (200, 333, 3), dtype=np.uint8)
    write_pyramid(tmp_path / "image.tif", pixels, tile=(64, 48), compression="deflate")
    plain = open_image(tmp_path / "image.tif")
    box, fill = Box(40, 81, 61, 90), np.array([1, 2, 3], np.uint8)
    source = Occluded(plain, [box, Box(-5, 320, 20, 50)], fill)
    expected = pixels.copy()
    expected[40:101, 81:171] = fill
    expected[:15, 320:] = fill
    np.testing.assert_array_equal(source.read(Box(0, 0, 200, 333)), expected)
    np.testing.assert_array_equal(source.read(Box(30, 70, 50, 60)), expected[30:80, 70:130])
    half = source.read(Box(0, 0, *source.levels[1].size), 1)
    assert (half[21:50, 42:85] == fill).all()
    assert not (half[:19, :160] == fill).all(2).any()
    assert source.to_file(box) == box


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", [(10, 17), (37, 60), (200, 333), (1, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_view_of_a_covered_image_is_that_of_its_pixels(size: tuple[int, int], dtype: str) -> None:
    random = np.random.default_rng(3)
    pixels = (random.random((200, 333, 2)) * (1 if dtype == "float32" else 250)).astype(dtype)
    boxes = [Box(40, 81, 61, 90), Box(-5, 320, 20, 50), Box(60, 100, 70, 33), Box(41, 82, 5, 5), Box(199, 0, 9, 400)]
    plain = ArraySource(pixels)
    covered = Occluded(plain, boxes, np.array([7, 1], dtype))
    whole = ArraySource(covered.read(Box(0, 0, 200, 333)))
    for region in (None, (0, 0, 200, 333), (-10.5, 3.25, 150.75, 333), (100, 50, 260, 400)):
        np.testing.assert_allclose(covered.view(size, region), whole.view(size, region), atol=3e-7, rtol=0)


def test_covering_what_the_attention_points_at_changes_the_answer_more(pointing: Make, canvas: Draw) -> None:
    model = pointing(patch=(56, 72))
    source = ArraySource(canvas((417, 605), (120, 430)))
    told = delete_patches(model, source, (1, 3, 9), DrawOptions(4))
    assert told.covered == (0, 1, 3, 9)
    first = model.predict(source, samples=4)
    assert told.by_attention[0] == told.by_chance[0] == max(first.probabilities.values())
    moved = abs(told.by_attention[-1] - told.by_attention[0])
    assert moved > 3 * abs(told.by_chance[1] - told.by_chance[0])
    again = delete_patches(model, source, (1, 3, 9), DrawOptions(4))
    assert again == told
    assert told.drop == pytest.approx(np.mean(told.by_chance[1:]) - np.mean(told.by_attention[1:]))


def test_deletion_is_refused_where_it_means_nothing(pointing: Make, canvas: Draw) -> None:
    source = ArraySource(canvas((117, 205), (60, 100)))
    with pytest.raises(ConfigError, match="a cnn model has no attention to cover by"):
        delete_patches(pointing(name="cnn"), source)
    with pytest.raises(ConfigError, match="steps of at least one patch"):
        delete_patches(pointing(), source, (0, 1))
