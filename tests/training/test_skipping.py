"""A run goes on without images that cannot be read: named once, within a limit, as if their rows were not there."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from squares import Squares

from foveate.config.files import merge_settings
from foveate.errors import ConfigError, ImageError, RunError
from foveate.images import ArraySource, Source
from foveate.models import build_model, make_batch
from foveate.models.types import Batch
from foveate.pipeline.loader import Share
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics
from foveate.training.step import Stepper
from foveate.types import Box

Settings = Callable[..., Any]
TRAINED, VALIDATED = "image17", f"image{17 * 15 % 101}"
SKIP = {"on_error": "skip", "skip_limit": 0.2}


class _NoPatch(ArraySource):
    """An image that can be looked at, and whose tiles are broken."""

    def _known_many(self, boxes: Any, level: int, threads: int) -> Any:
        del boxes, level, threads
        raise OverflowError("Python int too large to convert to C ssize_t")


@dataclass(frozen=True)
class Spoilt(Squares):
    """Squares, some of which fail, each in a way of its own."""

    bad: tuple[tuple[str, str], ...] = ()

    def open(self, index: int) -> Source:
        name = self.examples[index].id
        whole = super().open(index)
        pixels = whole.read(Box(0, 0, *whole.size))
        source: Source = whole
        how = dict(self.bad).get(name)
        if how == "open":
            raise ImageError(f"{name} is broken: replace it")
        if how == "patches":
            source = _NoPatch(pixels)
        elif how == "nan":
            source = ArraySource(np.full(pixels.shape, np.nan, np.float32))
        elif how == "huge":
            source = ArraySource(np.full(pixels.shape, 3.4e38, np.float32))
        source.name = name
        return source


class Told(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def spoilt(squares: Squares, **bad: str) -> Spoilt:
    return Spoilt(squares.examples, squares.classes, bad=tuple(bad.items()))


def skipped(run: Path) -> list[str]:
    with (run / "skipped.csv").open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def without(squares: Spoilt, name: str) -> Spoilt:
    return replace(squares, examples=tuple(one for one in squares.examples if one.id != name))


def close(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("how", ["open", "patches", "nan", "huge"])
def test_a_run_stopped_by_an_image_goes_on_without_it_or_without_its_row_and_both_are_the_same(
    squares: Squares, settings_of: Settings, tensors_of: Any, tmp_path: Path, how: str
) -> None:
    data, settings = spoilt(squares, **{TRAINED: how}), settings_of(training={"watch": 0})
    skipping = merge_settings(settings, {"training": SKIP})
    with pytest.raises(ImageError, match=r"; the run goes on with --resume and --on-error skip$"):
        train(settings, tmp_path / "skip", dataset=spoilt(squares, **{TRAINED: "patches"}), progress=SilentProgress())
    shutil.copytree(tmp_path / "skip", tmp_path / "gone")
    train(skipping, tmp_path / "skip", dataset=data, resume=True, progress=SilentProgress())
    told = Told()
    train(settings, tmp_path / "gone", dataset=without(data, TRAINED), resume=True, progress=told)
    assert "goes on without 1 of its images, which are no longer there" in told.lines
    close(tensors_of(tmp_path / "skip"), tensors_of(tmp_path / "gone"))
    assert skipped(tmp_path / "skip") == [TRAINED], "once, in two epochs"
    assert not (tmp_path / "gone" / "skipped.csv").exists()
    receipts = [record["receipt"]["patches"] for record in read_metrics(tmp_path / "skip" / "metrics.jsonl", "epoch")]
    assert receipts == [13 * 3, 13 * 3]


@pytest.mark.parametrize("how", ["open", "patches"])
def test_images_to_train_on_validate_on_and_watch_are_skipped(
    squares: Squares, settings_of: Settings, tmp_path: Path, how: str
) -> None:
    data = spoilt(squares, **{TRAINED: how, VALIDATED: how})
    settings = settings_of(training={**SKIP, "watch": 7}, model={"input": {"normalise": "bands"}})
    result = train(settings, tmp_path / "run", dataset=data, progress=SilentProgress())
    assert sorted(skipped(tmp_path / "run")) == sorted([TRAINED, VALIDATED])
    assert result.validation_error is not None
    assert result.validation_error * 6 == pytest.approx(round(result.validation_error * 6)), "of six images"


@pytest.mark.parametrize(
    ("how", "named"), [("patches", r".*skipped\.csv names"), ("open", r"image0, image17, image34")]
)
def test_no_more_are_skipped_than_allowed(
    squares: Squares, settings_of: Settings, tmp_path: Path, how: str, named: str
) -> None:
    bad = {one.id: how for one in squares.examples[:3]}
    settings = settings_of(training=SKIP | {"skip_limit": 0.1})  # of 14 + 7 images
    with pytest.raises(
        RunError,
        match=r"3 of 21 images could not be read, and training\.skip_limit is 0\.1, the last because .*: "
        rf"mend (those that )?{named}, or raise the limit",
    ):
        train(settings, tmp_path / "run", dataset=spoilt(squares, **bad), progress=SilentProgress())


def test_more_rows_gone_than_allowed_are_another_run(squares: Squares, settings_of: Settings, tmp_path: Path) -> None:
    data, settings = spoilt(squares), settings_of(training={"max_steps": 1})
    train(settings, tmp_path / "run", dataset=data, progress=SilentProgress())
    fewer = replace(data, examples=data.examples[2:])
    longer = settings_of()
    with pytest.raises(RunError, match=r"the images or labels of .* have changed since"):
        train(longer, tmp_path / "run", dataset=fewer, resume=True, progress=SilentProgress())


def test_steps_of_single_images_go_on_too(squares: Squares, settings_of: Settings, tmp_path: Path) -> None:
    data = spoilt(squares, **{TRAINED: "patches"})
    settings = settings_of(training={**SKIP, "batch": 1, "epochs": 1, "watch": 0})
    if squares.examples[0].id == TRAINED:
        pytest.fail("it is not to be the first of an epoch")
    train(settings, tmp_path / "run", dataset=data, progress=SilentProgress())
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl", "step")
    assert len(steps) == 14
    assert sum(record["loss"] == 0 for record in steps) == 1


def test_a_batch_keeps_its_images_and_their_order() -> None:
    images = [ArraySource(np.full((6, 8, 1), value, np.uint8), name=str(value)) for value in (3, 4, 5)]
    model = build_model(replace(_settings(), name="cnn"), ("a", "b"), channels=1)
    batch = make_batch(images, model.view, seeds=[7, 8, 9], labels=[0, 1, 0], ids=["x", "y", "z"])
    some = batch.rows([2, 1]).rows([1])
    assert (some.ids, some.seeds, some.places) == (("y",), (8,), (1,))
    assert some.labels is not None
    assert some.labels.tolist() == [1]
    assert torch.equal(some.views, batch.views[1:2])


def test_a_step_without_an_image_is_that_of_the_others_with_its_losses_over_the_whole_batch(
    squares: Squares, settings_of: Settings
) -> None:
    settings = settings_of(training={"clip_norm": 0.0})
    data, told = spoilt(squares, **{TRAINED: "patches"}), list[int]()
    indices = [index for index in range(5) if squares.examples[index].id != TRAINED][:3]
    bad = next(index for index in range(5) if squares.examples[index].id == TRAINED)
    gradients = []
    for chosen in (indices, [*indices, bad]):
        model = build_model(settings.model, data.classes, channels=3, seed=1)
        stepper = Stepper(settings.training, model, failed=lambda index, _: told.append(index))
        share = Share(tuple(chosen), len(chosen), len(chosen))
        sums = stepper.backward(_batch(data, chosen, model), share)
        factor = len(chosen) / len(indices)
        gradients.append([one.grad * factor for one in model.parameters() if one.grad is not None])
        assert sums[4] == 3, "images that count"
    assert told == [bad]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_settings_of_skipping_are_checked(settings_of: Settings) -> None:
    with pytest.raises(
        ConfigError, match=r"training\.skip_limit must be in \[0, 1\], got 5\.0: set it to e\.g\. 0\.05"
    ):
        settings_of(training={"skip_limit": 5.0})


def _settings() -> Any:
    from squares import make_settings

    return make_settings().model


def _batch(data: Spoilt, indices: list[int], model: Any) -> Batch:
    examples = [data.examples[index] for index in indices]
    return make_batch(
        [data.open(index) for index in indices],
        model.view,
        seeds=list(range(len(indices))),
        labels=[one.label for one in examples],
        ids=[one.id for one in examples],
    )
