"""Evaluation: each image once, whatever the batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.datasets import read_manifest
from foveate.errors import DataError
from foveate.models import Model, build_model
from foveate.training.evaluation import evaluate, watch_attention
from foveate.training.loader import split_indices


@pytest.fixture
def model(settings_of: Callable[..., Any]) -> Model:
    return build_model(settings_of().model, ("blue", "red"), channels=3, seed=1)


def test_every_image_counts_once_and_the_batch_does_not_matter(model: Model, squares: Any) -> None:
    indices = split_indices(squares, "validation")
    results = [evaluate(model, squares, indices, seed=4, batch=batch) for batch in (1, 3, 50)]
    for result in results:
        assert result.indices == indices
        assert result.n == 7
        assert result.patches_per_image == 3
        assert np.allclose(result.probabilities, results[0].probabilities, atol=1e-5)
        assert np.allclose(result.probabilities.sum(1), 1)
        assert result.error == (result.probabilities.argmax(1) != result.labels).mean()
        chosen = result.probabilities[np.arange(7), result.labels]
        assert result.loss == pytest.approx(-np.log(chosen).mean())


def test_samples_are_averaged_and_counted(model: Model, squares: Any) -> None:
    indices = split_indices(squares, "test")
    one, four = (evaluate(model, squares, indices, samples=samples) for samples in (1, 4))
    assert four.patches_per_image == 4 * one.patches_per_image
    assert not np.allclose(one.probabilities, four.probabilities)


def test_predicting_with_the_same_seed_gives_the_same(
    model: Model, settings_of: Callable[..., Any], tmp_path: Any
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    rows = ["path,label"]
    for name, label in (("a", "blue"), ("b", "red")):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        rows.append(f"{name}.png,{label}")
    (tmp_path / "images.csv").write_text("\n".join(rows))
    result = evaluate(model, read_manifest(tmp_path / "images.csv"), (0, 1), seed=6)
    for name, row in zip("ab", result.probabilities, strict=True):
        alone = model.predict(tmp_path / f"{name}.png", seed=6)
        assert np.allclose(row, list(alone.probabilities.values()), atol=1e-6)
    assert not np.allclose(result.probabilities[0], result.probabilities[1], atol=1e-6), "other cells were drawn"


def test_mode_and_method_are_restored(model: Model, squares: Any) -> None:
    model.train()
    evaluate(model, squares, (0, 1), method="top")
    assert model.training
    assert model.method == "murthy"


def test_top_does_not_depend_on_the_seed(model: Model, squares: Any) -> None:
    first, second = (evaluate(model, squares, range(6), seed=seed, method="top") for seed in (1, 2))
    drawn = evaluate(model, squares, range(6), seed=1)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert not np.allclose(first.probabilities, drawn.probabilities)


def test_nothing_to_evaluate_on_is_said(model: Model, squares: Any) -> None:
    with pytest.raises(
        DataError, match=r"^there is no labelled image to evaluate on: check the split and the manifest$"
    ):
        evaluate(model, squares, ())


def test_an_image_without_label_is_named(squares: Any) -> None:
    examples = (replace(squares.examples[0], label=None), *squares.examples[1:])
    with pytest.raises(DataError, match=r"^image0 has no label: give it one, or take it out of the manifest$"):
        split_indices(replace(squares, examples=examples), "train")


def test_groups_change_the_interval_and_not_the_error(model: Model, squares: Any) -> None:
    grouped = replace(squares, examples=tuple(replace(one, group="scene") for one in squares.examples))
    indices = split_indices(squares, "train")
    alone, together = evaluate(model, squares, indices), evaluate(model, grouped, indices)
    assert alone.error == together.error
    assert together.interval == (together.error, together.error)
    assert alone.interval != together.interval


def test_watched_maps_are_distributions_and_boxes_are_patches(model: Model, squares: Any) -> None:
    arrays = watch_attention(model, squares, (3, 4, 5), seed=1)
    assert arrays["ids"].tolist() == [squares.examples[index].id for index in (3, 4, 5)]
    assert np.allclose(arrays["attention"].sum((1, 2)), 1, atol=1e-5)
    assert arrays["boxes"].shape == (3, 3, 4)
    assert (arrays["boxes"][..., 2:] == (26, 28)).all()
