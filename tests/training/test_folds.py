"""Folds that cannot be begun leave nothing in the way, and the record of their splits is whole or named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.config.training import RunSettings
from foveate.errors import ConfigError, Interrupted, RunError
from foveate.training.folds import SPLITS, read_splits, train_folds, write_splits
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
