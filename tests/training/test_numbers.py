"""Runs that learn numbers: what they reach, repeat and keep; cross-validation; labels and settings that are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from squares import Brightness, make_brightness

from foveate.config.heads import HeadSettings
from foveate.config.serial import from_plain, to_plain
from foveate.config.training import RunSettings
from foveate.datasets.types import Example
from foveate.errors import ConfigError, DataError, Interrupted, RunError
from foveate.evaluation.evaluate import evaluate
from foveate.evaluation.number_verdict import NumberVerdict
from foveate.evaluation.numbers import NumberEvaluation, evaluate_numbers
from foveate.models import DrawOptions, load_model
from foveate.pipeline.loader import split_indices
from foveate.training.checkpoint import Best, few
from foveate.training.checkpoint import _less as less
from foveate.training.checkpoint import _takes_over as takes_over
from foveate.training.find import finds
from foveate.training.folds import any_held_out, held_out, train_folds
from foveate.training.loop import train
from foveate.training.progress import LineProgress, SilentProgress, epoch_line
from foveate.training.run_folder import read_metrics

Settings = Callable[..., RunSettings]


def settings_for(settings_of: Settings, head: Any = (), **changes: Any) -> RunSettings:
    """Of a small model that answers with a number, with nothing changed at random that says it."""
    plain = to_plain(settings_of(augment={"gain": [1.0, 1.0]}, **changes))
    plain["model"]["head"] |= {"kind": "number"} | dict(head)
    return from_plain(RunSettings, plain)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_brightness_is_learnt(settings_of: Settings, tmp_path: Path, capsys: Any) -> None:
    """R² above 0.8 where always the mean has 0, of images that chose the model and of others."""
    data = make_brightness(train=60, validation=20, test=20)
    training = {"epochs": 25, "batch": 8, "learning_rate": 1e-2, "watch": 0, "validate_every": 5}
    model = {"view": {"longest_side": 48}, "patches": 6, "features": {"width": 16}}
    settings = settings_for(settings_of, training=training, model=model)
    result = train(settings, tmp_path / "run", dataset=data, progress=LineProgress())
    verdict = result.verdict
    assert isinstance(verdict, NumberVerdict)
    assert verdict.learnt
    assert verdict.r_squared is not None
    assert verdict.r_squared > 0.8
    tested = evaluate_numbers(load_model(tmp_path / "run"), data, split_indices(data, "test"))
    assert tested.r_squared is not None
    assert tested.r_squared.value > 0.8
    labels = [one.label for one in data.examples if one.split == "train"]
    told = capsys.readouterr().out
    mean, deviation = np.mean(labels), np.std(labels)
    assert (
        f"numbers: {min(labels):.4g} to {max(labels):.4g}, mean {mean:.4g}, standard deviation {deviation:.4g};" in told
    )
    last = read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch")[-1]
    assert last["validation_r_squared"] > 0.8
    assert last["validation_error"] < 0.7 * verdict.constant
    assert f"validation error {last['validation_error']:.4g} · R² {last['validation_r_squared']:.3f}" in epoch_line(
        last
    )
    assert result.history is not None


@pytest.mark.usefixtures("unchecked")
def test_an_interrupted_run_goes_on_to_the_bit(settings_of: Settings, tmp_path: Path, tensors_of: Any) -> None:
    settings, data = settings_for(settings_of, {"huber": 1.0}), make_brightness(train=10, validation=4)
    train(settings, tmp_path / "whole", dataset=data, progress=SilentProgress())

    class Stop(SilentProgress):
        def step(self, record: dict[str, Any]) -> None:
            if record["step"] == 4:
                raise Interrupted("enough", 2)

    with pytest.raises(Interrupted):
        train(settings, tmp_path / "broken", dataset=data, progress=Stop())
    train(settings, tmp_path / "broken", dataset=data, progress=SilentProgress(), resume=True)
    whole, broken = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert {"model.head.mean", "model.head.deviation"} <= whole.keys()
    assert all(np.array_equal(one, broken[name]) for name, one in whole.items())
    labels = [one.label for one in data.examples if one.split == "train"]
    assert float(whole["model.head.mean"]) == pytest.approx(np.mean(labels), abs=1e-9)
    others = replace(data, examples=(replace(data.examples[0], label=1.0), *data.examples[1:]))
    with pytest.raises(RunError, match="the images or labels of"):
        train(settings, tmp_path / "broken", dataset=others, progress=SilentProgress(), resume=True)


def test_figures_of_an_epoch_are_those_of_the_model_it_leaves(settings_of: Settings, tmp_path: Path) -> None:
    settings = settings_for(settings_of, training={"epochs": 1, "entropy": 0.0})
    data = make_brightness(train=8)
    train(settings, tmp_path / "run", dataset=data, progress=SilentProgress())
    model = load_model(tmp_path / "run")
    result = evaluate_numbers(model, data, split_indices(data, "validation"), DrawOptions(seed=settings.seed))
    labels = np.array([one.label for one in data.examples if one.split == "train"])
    assert np.ptp(result.answers) > 0
    expected = (result.answers - result.labels) / labels.std()
    np.testing.assert_allclose(result.losses, expected**2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.centres, labels.mean(), rtol=0, atol=1e-9)
    (record,) = read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert record["validation_loss"] == pytest.approx(result.loss, abs=1e-6)
    assert record["validation_error"] == pytest.approx(result.error, abs=1e-4)
    assert record["loss"] == pytest.approx(record["training_loss"], abs=1e-6)


def test_folds_are_pooled_and_judged(settings_of: Settings, tmp_path: Path) -> None:
    settings, data = settings_for(settings_of, training={"epochs": 1}), make_brightness(train=12, validation=0, test=0)
    data = replace(data, examples=tuple(replace(one, split=None) for one in data.examples))
    summary = train_folds(settings, tmp_path / "cv", 2, dataset=data, progress=SilentProgress())
    tested, validated = any_held_out(tmp_path / "cv")
    result = tested.judged()
    assert isinstance(result, NumberEvaluation)
    assert result.labels.tolist() == [one.label for one in sorted(data.examples, key=lambda one: one.id)]
    assert summary["pooled"]["mean_absolute_error"] == pytest.approx(np.abs(result.answers - result.labels).mean())
    assert summary["mean"] == pytest.approx(np.mean([one["mean_absolute_error"] for one in summary["folds"]]))
    assert validated.judged().answers.tolist() == result.answers.tolist()
    means = {round(float(one), 6) for one in result.centres}
    assert len(means) == 2, "each fold answers better or worse than the mean of its own training labels"
    assert json.loads((tmp_path / "cv" / "folds.json").read_text())["numbers"] is True
    both = load_model(tmp_path / "cv").predict(data.open(0)).value
    alone = [load_model(tmp_path / "cv" / f"fold-{fold}").predict(data.open(0)).value for fold in (1, 2)]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-6)
    with pytest.raises(ConfigError, match="answers with numbers, and this is for classes: see foveate evaluate"):
        held_out(tmp_path / "cv")


@pytest.mark.parametrize(
    ("head", "labels", "training", "error", "message"),
    [
        (
            {},
            [0, 1, 2],
            {},
            DataError,
            "the label of image0 is 0, no number (float), which model.head.kind number needs: correct it, or set "
            "model.head.kind to classes",
        ),
        (
            {},
            [2.5, 2.5, 2.5],
            {},
            DataError,
            "all 3 training images have the number 2.5, of which nothing can be learnt: check the column label",
        ),
        (
            {"kind": "classes"},
            [1.0, 2.0, 3.5],
            {},
            ConfigError,
            "labels are numbers, but model.head.kind is classes: set it to number, or give classes as integers",
        ),
        (
            {},
            [1.0, 2.0, 3.5],
            {"class_weights": "balanced"},
            ConfigError,
            "training.class_weights balanced is for classes, and model.head.kind number answers with a number: leave "
            "it out",
        ),
        (
            {},
            [1.0, 2.0, 3.5],
            {"calibrate": True},
            ConfigError,
            "training.calibrate is for classes, and model.head.kind number answers with a number: leave it out",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_anything_is_written(
    head: Any, labels: Any, training: Any, error: type[Exception], message: str, settings_of: Settings, tmp_path: Path
) -> None:
    examples = tuple(Example(f"image{number}", label, "train") for number, label in enumerate(labels))
    settings = settings_for(settings_of, head, training=training)
    classes = ("a", "b", "c") if head.get("kind") == "classes" else ()
    with pytest.raises(error) as caught:
        train(settings, tmp_path / "run", dataset=Brightness(examples, classes), progress=SilentProgress())
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


def test_an_evaluation_of_classes_refuses_numbers(settings_of: Settings, tmp_path: Path) -> None:
    data = make_brightness(train=4, validation=0)
    train(settings_for(settings_of, training={"epochs": 1}), tmp_path / "run", dataset=data, progress=SilentProgress())
    message = "^this evaluation is for classes, and model.head.kind number answers with a number: leave it out$"
    with pytest.raises(ConfigError, match=message):
        evaluate(load_model(tmp_path / "run"), data, split_indices(data, "test"))


def test_no_evidence_is_sought_for_numbers(settings_of: Settings) -> None:
    model = {"attention": {"name": "timm:test_resnet", "stages": [2, 3], "stride": 6}}
    assert finds(settings_of(model=model))
    assert not finds(settings_for(settings_of, model=model))


def judged(losses: list[float], errors: list[float]) -> NumberEvaluation:
    n = len(losses)
    ids = tuple(str(number) for number in range(n))
    labels = np.arange(float(n))
    return NumberEvaluation(ids, labels, labels + np.array(errors), np.zeros(n), np.array(losses), (None,) * n)


def test_the_best_epoch_is_that_of_the_lowest_loss() -> None:
    """Of many images the loss decides, though the mean absolute error says otherwise; of few, unless clearly worse."""
    many = judged([0.5] * 200, [2.0] * 200)
    assert not few(many)
    assert less(many, Best(error=1.0, loss=0.6, epoch=1, step=1))
    assert not less(many, Best(error=3.0, loss=0.4, epoch=1, step=1))
    assert takes_over(many, Best(error=1.0, loss=0.6, epoch=1, step=1))
    one = judged([0.1, 0.5, 0.2, 0.3], [1.0] * 4)
    assert few(one)
    best = Best(error=1.0, loss=0.275, epoch=1, step=1, losses=(0.1, 0.5, 0.2, 0.3))
    assert takes_over(judged([0.2, 0.3, 0.3, 0.3], [1.0] * 4), best)
    assert not takes_over(judged([0.6, 1.0, 0.7, 0.8], [1.0] * 4), best)


def test_settings_of_the_head_survive_a_file(settings_of: Settings) -> None:
    settings = settings_for(settings_of, {"huber": 1.5})
    assert from_plain(RunSettings, to_plain(settings)) == settings
    assert settings.model.head == HeadSettings(kind="number", huber=1.5)
