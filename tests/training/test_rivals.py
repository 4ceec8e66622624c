"""Rivals of attention sampling: they learn a tiny task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics

RIVALS = ["top-k", "perturbed-top-k", "gmic"]


@pytest.mark.one_in(3)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", RIVALS)
def test_a_tiny_task_is_learnt(name: str, squares_of: Any, settings_of: Callable[..., Any], tmp_path: Path) -> None:
    training = {"epochs": 7, "learning_rate": 1e-2, "validate_every": 7, "watch": 0}
    model = {"name": name, "patches": 6, "prior": {"contrast": 2.0}}
    settings = settings_of(training=training, model=model, augment={"translate": [0, 0]})
    train(settings, tmp_path / "run", dataset=squares_of(train=24), progress=SilentProgress())
    epochs = read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert epochs[0]["training_loss"] > 0.4
    assert epochs[-1]["training_loss"] < 0.15
    assert epochs[-1]["validation_error"] <= 1 / 7
