"""Folds that cannot be begun leave nothing in the way, and the record of their splits is whole or named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.config.training import RunSettings
from foveate.datasets.types import Example
from foveate.errors import ConfigError, DataError, Interrupted, RunError
from foveate.evaluation.evaluate import evaluate
from foveate.models import DrawOptions, load_model
from foveate.pipeline.loader import split_indices
from foveate.training.folds import SPLITS, HeldOut, held_out, read_splits, train_folds, write_splits
from foveate.training.progress import SilentProgress

Settings = Callable[..., RunSettings]


class Stopped(SilentProgress):
    """Stops at the first step."""

    def step(self, record: dict[str, Any]) -> None:  # noqa: ARG002
        raise Interrupted("enough", 2)


def test_settings_that_cannot_be_built_do_not_stand_in_the_way_of_better_ones(
    squares: Any, settings_of: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    wrong = settings_of(model={"patch": [3, 2]})
    with pytest.raises(ConfigError, match="patch"):
        train_folds(wrong, out, 2, dataset=squares, progress=SilentProgress())
    with pytest.raises(Interrupted, match="enough"):
        train_folds(settings_of(), out, 3, dataset=squares, progress=Stopped())
    with pytest.raises(RunError, match=r"cv is not empty: add --resume to continue the folds there, or choose another"):
        train_folds(settings_of(), out, 3, dataset=squares, progress=Stopped())
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file is a file, folds need a folder: choose another --out$"):
        train_folds(settings_of(), tmp_path / "file", 3, dataset=squares, progress=Stopped(), resume=True)


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff"])
def test_damaged_splits_are_one_line(squares: Any, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / SPLITS).write_bytes(damage)
    said = f"{tmp_path / SPLITS} is damaged: restore a copy, or choose another --out to train anew"
    with pytest.raises(RunError) as caught:
        read_splits(tmp_path, squares)
    assert str(caught.value) == said
    with pytest.raises(RunError) as caught:
        write_splits(tmp_path, squares.examples, "train with the images")
    assert str(caught.value) == said


def held(several: bool = False) -> HeldOut:
    labels: list[Any] = [(0, 2), (), (1,)] if several else [0, 2, 1]
    examples = tuple(
        Example(f"b|{i}.png", label, None, group) for i, (label, group) in enumerate(zip(labels, "pqp", strict=True))
    )
    values = np.random.default_rng(0).random((3, 3))
    return HeldOut(examples, (1, 0, 2), values, ("cat, small", "dög", "owl"), several)


@pytest.mark.parametrize("several", [False, True])
def test_tables_of_held_out_predictions_survive_to_the_bit(several: bool, tmp_path: Path) -> None:
    told = held(several)
    told.write(tmp_path / "table.csv")
    back = HeldOut.read(tmp_path / "table.csv", several)
    assert np.array_equal(back.probabilities, told.probabilities)
    assert (back.examples, back.folds, back.classes) == (told.examples, told.folds, told.classes)
    assert back.judged().error == told.judged().error
    assert told.judged().groups == ("p", "q", "p")
    with pytest.raises(DataError, match=r"the images of group .* have different labels: evaluate image by image"):
        told.judged(by_group=True)
    (tmp_path / "table.csv").write_text("path,label,fold,group,p_a\nx,b,1,,0.5\n")
    with pytest.raises(RunError, match="is damaged: foveate train --resume --folds K writes it again"):
        HeldOut.read(tmp_path / "table.csv", several)
    with pytest.raises(RunError, match=r"folds.json is missing, damaged or of an older foveate"):
        held_out(tmp_path)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("named", [False, True])
def test_every_image_is_predicted_by_models_that_never_saw_it(
    squares: Any, settings_of: Settings, tmp_path: Path, named: bool
) -> None:
    images = squares if named else replace(squares, examples=tuple(replace(e, split=None) for e in squares.examples))
    settings = settings_of(training={"epochs": 1})
    summary = train_folds(settings, tmp_path / "cv", 2, dataset=images, progress=SilentProgress())
    tested, validated = held_out(tmp_path / "cv")
    test = {one.id for one in squares.examples if one.split == "test"}
    assert {one.id for one in validated.examples} == {one.id for one in squares.examples} - (test if named else set())
    assert len(validated.examples) == len(set(validated.examples))
    for number in (1, 2):
        folder = tmp_path / "cv" / f"fold-{number}"
        splits = {one.id: one.split for one in read_splits(folder, images).examples}
        own = [place for place, fold in enumerate(validated.folds) if fold == number]
        assert {splits[validated.examples[place].id] for place in own} == {"validation" if named else "test"}
        numbers = {one.id: index for index, one in enumerate(images.examples)}
        indices = [numbers[validated.examples[place].id] for place in own]
        again = evaluate(load_model(folder), images, indices, DrawOptions(seed=settings.seed))
        assert np.array_equal(again.probabilities, validated.probabilities[own])
    pooled = summary["pooled"]
    assert pooled["error"] == tested.judged().error
    assert pooled["n"] == (len(test) if named else len(images.examples))
    assert (tmp_path / "cv" / "test.csv").exists() is named
    if named:
        assert tested.folds == (0,) * len(test)
        folds = [load_model(tmp_path / "cv" / f"fold-{number}") for number in (1, 2)]
        both = load_model(tmp_path / "cv")
        indices = split_indices(images, "test")
        options = DrawOptions(seed=settings.seed)
        together = evaluate(both, images, indices, options).probabilities
        alone = [evaluate(one, images, indices, options).probabilities for one in folds]
        assert tested.probabilities == pytest.approx(np.mean(alone, 0), abs=1e-9)
        assert together == pytest.approx(tested.probabilities, abs=1e-6)
