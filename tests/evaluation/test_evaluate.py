"""Evaluation: each image once, whatever the batch."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.datasets import read_manifest
from foveate.errors import DataError, ImageError
from foveate.evaluation.evaluate import evaluate
from foveate.evaluation.intervals import wilson_interval
from foveate.models import DrawOptions, Model, build_model
from foveate.pipeline.loader import LoadOptions, split_indices


@pytest.fixture
def model(settings_of: Callable[..., Any]) -> Model:
    return build_model(settings_of().model, ("blue", "red"), channels=3, seed=1)


def test_every_image_counts_once_and_the_batch_does_not_matter(model: Model, squares: Any) -> None:
    indices = split_indices(squares, "validation")
    results = [
        evaluate(model, squares, indices, DrawOptions(seed=4), loading=LoadOptions(batch)) for batch in (1, 3, 50)
    ]
    for result in results:
        assert result.indices == indices
        assert result.n == 7
        assert result.patches_per_image == 3
        assert np.allclose(result.probabilities, results[0].probabilities, atol=1e-5)
        assert np.allclose(result.probabilities.sum(1), 1)
        assert result.error == (result.probabilities.argmax(1) != result.labels).mean()
        chosen = result.probabilities[np.arange(7), result.labels]
        assert result.loss == pytest.approx(-np.log(chosen).mean())
        assert result.ids == tuple(squares.examples[index].id for index in indices)
        assert result.confusion is not None
        assert result.confusion.sum() == 7
        assert 1 - result.confusion.trace() / 7 == pytest.approx(result.error)


def test_samples_are_averaged_and_counted(model: Model, squares: Any) -> None:
    indices = split_indices(squares, "test")
    one, four = (evaluate(model, squares, indices, DrawOptions(samples)) for samples in (1, 4))
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
    result = evaluate(model, read_manifest(tmp_path / "images.csv"), (0, 1), DrawOptions(seed=6))
    for name, row in zip("ab", result.probabilities, strict=True):
        alone = model.predict(tmp_path / f"{name}.png", seed=6)
        assert np.allclose(row, list(alone.probabilities.values()), atol=1e-6)
    assert not np.allclose(result.probabilities[0], result.probabilities[1], atol=1e-6), "other cells were drawn"


def test_mode_and_method_are_restored(model: Model, squares: Any) -> None:
    model.train()
    evaluate(model, squares, (0, 1), DrawOptions(method="top"))
    assert model.training
    assert model.method == "murthy"


def test_top_does_not_depend_on_the_seed(model: Model, squares: Any) -> None:
    first, second = (evaluate(model, squares, range(6), DrawOptions(seed=seed, method="top")) for seed in (1, 2))
    drawn = evaluate(model, squares, range(6), DrawOptions(seed=1))
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
    assert together.interval == wilson_interval(together.error, 1), "one scene is one, and an interval has a width"
    assert alone.interval != together.interval


def in_groups(squares: Any) -> Any:
    """Image i is of patient i // 4, and every image of a patient has its label; the last image is on its own."""
    examples = [replace(one, group=f"p{i // 4}", label=i // 4 % 2) for i, one in enumerate(squares.examples)]
    return replace(squares, examples=(*examples[:-1], replace(examples[-1], group=None)))


def test_the_images_of_a_group_are_taken_together(model: Model, squares: Any) -> None:
    data = in_groups(squares)
    indices = split_indices(data, None)
    alone, together = (evaluate(model, data, indices, by_group=by_group) for by_group in (False, True))
    assert together.indices == indices
    assert together.ids == tuple(sorted(("image21", "p0", "p1", "p2", "p3", "p4", "p5", "p6")))
    for name, label, p in zip(together.ids, together.labels, together.probabilities, strict=True):
        mine = [k for k, i in enumerate(indices) if (data.examples[i].group or data.examples[i].id) == name]
        assert np.allclose(p, alone.probabilities[mine].mean(0))
        assert (alone.labels[mine] == label).all()
    chosen = together.probabilities[np.arange(8), together.labels]
    assert together.loss == pytest.approx(-np.log(chosen).mean())
    assert together.error == (together.probabilities.argmax(1) != together.labels).mean()
    assert together.interval == wilson_interval(round(8 * together.error), 8)
    plain = together.plain()
    assert (plain["n"], plain["images"], plain["by_group"]) == (8, 26, True)
    assert "by_group" not in alone.plain()


def test_a_group_of_two_minds_is_named_before_any_work(model: Model, squares: Any) -> None:
    data = in_groups(squares)
    odd = replace(data.examples[6], label=0)
    data = replace(data, examples=(*data.examples[:6], odd, *data.examples[7:]), broken=data.examples[0].id)
    with pytest.raises(DataError) as caught:
        evaluate(model, data, split_indices(data, None), by_group=True)
    assert str(caught.value) == (
        "the images of group 'p1' have different labels (image1 and image18), so the group as a whole has none: "
        "correct them, or evaluate image by image"
    )


def test_several_labels_by_hand(colours: Any, settings_of: Callable[..., Any]) -> None:
    model = build_model(settings_of().model, colours.classes, channels=3, seed=1, multi_label=True)
    indices = split_indices(colours, None)
    result = evaluate(model, colours, indices, DrawOptions(seed=2))
    labels = np.array([[k in colours.examples[i].label for k in range(3)] for i in indices])
    p = result.probabilities
    assert np.array_equal(result.labels, labels)
    assert not np.allclose(p.sum(1), 1)
    wrong = (p >= 0.5) != labels
    assert result.error == pytest.approx(wrong.mean())
    assert result.exact_match_error == wrong.any(1).mean()
    assert result.loss == pytest.approx(-np.where(labels, np.log(p), np.log(1 - p)).mean())
    recalls = [((p[:, k] >= 0.5) & labels[:, k]).sum() / labels[:, k].sum() for k in range(3)]
    assert list(result.recalls.values()) == pytest.approx(recalls)
    low, high = result.interval
    assert low <= result.error <= high
    plain = result.plain()
    assert plain["confusion"] is None
    assert 0 < plain["mean_average_precision"] <= 1
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    grouped = evaluate(model, colours, indices, DrawOptions(seed=2), by_group=True)
    assert grouped.n == 11
    assert np.allclose(grouped.probabilities[0], p[[i for i, k in enumerate(indices) if k in (0, 1)]].mean(0))


def test_an_answer_that_is_no_number_is_named(model: Model, squares: Any) -> None:
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(ImageError, match=r"^the answer to image0 is not a number: look for nan among its pixels"):
        evaluate(model, squares, (0, 1))


def test_a_model_that_reads_every_patch_counts_them_and_keeps_no_boxes(
    squares: Any, settings_of: Callable[..., Any]
) -> None:
    settings = settings_of(model={"name": "deep-mil"})
    model = build_model(settings.model, ("blue", "red"), channels=3, seed=1)
    assert evaluate(model, squares, (0, 2), loading=LoadOptions(1)).patches_per_image == 3 * 3, "of 60 × 80 in 26 × 28"
    both = [evaluate(model, squares, (0, 1, 2), loading=LoadOptions(batch)) for batch in (1, 3)]
    assert both[0].patches_per_image == both[1].patches_per_image
    assert np.allclose(both[0].probabilities, both[1].probabilities, atol=1e-5)
    assert both[0].view_size == (1, 1)
