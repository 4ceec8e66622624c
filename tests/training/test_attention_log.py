"""The maps that a run keeps: what is in them, and that reading gives it back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.errors import RunError
from foveate.models import Model, build_model
from foveate.training.attention_log import keep_watched, map_colours, read_watched, watch_attention, watched_images


@pytest.fixture
def model(settings_of: Callable[..., Any]) -> Model:
    return build_model(settings_of().model, ("blue", "red"), channels=3, seed=1)


def test_watched_maps_are_distributions_and_boxes_are_patches(model: Model, squares: Any) -> None:
    arrays = watch_attention(model, squares, (3, 4, 5), seed=1)
    assert arrays["ids"].tolist() == [squares.examples[index].id for index in (3, 4, 5)]
    assert np.allclose(arrays["attention"].sum((1, 2)), 1, atol=1e-5)
    assert arrays["boxes"].shape == (3, 3, 4)
    assert (arrays["boxes"][..., 2:] == (26, 28)).all()
    for image, whole in zip(watched_images(arrays), arrays["attention"], strict=True):
        assert image.attention.sum() == pytest.approx(whole.sum(), abs=1e-6), "all of it lies in the image's own cells"
        assert (image.attention > 0).all()


def test_places_are_those_of_an_explanation(model: Model, squares: Any) -> None:
    from foveate.explain import explain

    for index, image in zip((0, 1), watched_images(watch_attention(model, squares, (0, 1))), strict=True):
        seen = explain(model, model.look(squares.open(index)))
        assert seen.affine is not None
        assert seen.attention is not None
        a, _, c, _, e, f = seen.affine
        rows, columns = seen.attention.shape
        assert image.attention.shape == (rows, columns)
        assert image.extent == pytest.approx((f, c, f + e * rows, c + a * columns))


def test_a_model_that_reads_every_patch_has_a_map_of_its_grid(settings_of: Callable[..., Any], squares: Any) -> None:
    model = build_model(settings_of(model={"name": "deep-mil"}).model, ("blue", "red"), channels=3, seed=1)
    arrays = watch_attention(model, squares, (0, 1))
    assert set(arrays) == {"ids", "attention", "cells", "extent"}
    assert arrays["cells"].tolist() == [[3, 3], [2, 4]], "of 60 × 80 and 52 × 90 in 26 × 28"
    assert arrays["extent"].tolist() == [[0, 0, 78, 84], [0, 0, 52, 112]]


def test_what_was_kept_is_read_in_order_of_epoch(model: Model, squares: Any, tmp_path: Path) -> None:
    arrays = watch_attention(model, squares, (0, 1))
    for epoch in (1000, 0, 999):
        keep_watched(tmp_path, epoch, arrays)
    found = read_watched(tmp_path)
    assert [epoch for epoch, _ in found] == [0, 999, 1000]
    for _, images in found:
        for image, expected in zip(images, watched_images(arrays), strict=True):
            assert (image.id, image.extent) == (expected.id, expected.extent)
            np.testing.assert_array_equal(image.attention, expected.attention)
            np.testing.assert_array_equal(image.boxes, expected.boxes)


@pytest.mark.parametrize("name", ["uniform", "cnn"])
def test_a_model_without_a_map_keeps_none(
    name: str, settings_of: Callable[..., Any], squares: Any, tmp_path: Path
) -> None:
    model = build_model(settings_of(model={"name": name}).model, ("blue", "red"), channels=3, seed=1)
    arrays = watch_attention(model, squares, (0, 1))
    assert watched_images(arrays) == []
    keep_watched(tmp_path, 0, arrays)
    with pytest.raises(RunError, match=r"holds no attention maps: train a model that attends with --training.watch 4"):
        read_watched(tmp_path)


def test_colours_go_from_nothing_to_the_largest() -> None:
    ramp = np.linspace(0, 0.01, 11, dtype=np.float32).reshape(1, 11)
    brightness = map_colours(ramp).astype(int).sum(2)
    assert (np.diff(brightness) > 0).all()
    np.testing.assert_array_equal(map_colours(ramp), map_colours(7 * ramp))
    assert map_colours(np.zeros((2, 3), np.float32)).shape == (2, 3, 3)
