"""SIGKILL at any moment: nothing is lost, the weights are the same. `make soak` goes on for an hour."""

import random
from pathlib import Path

import pytest
from soak import SAVING, Soak


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_over_training_and_twenty_while_a_state_is_written(tmp_path: Path) -> None:
    soak = Soak(tmp_path, random.Random(20261130))
    soak.prepare()
    runs = 0
    while soak.kills.get("train", 0) < 50:
        soak.train(f"run-{runs}", kills=50 - soak.kills.get("train", 0))
        runs += 1
    while soak.kills.get(SAVING, 0) < 20:
        soak.train(f"saved-{runs}", kills=20 - soak.kills.get(SAVING, 0), saving=True)
        runs += 1
    assert soak.faults == []
    assert soak.kills == {"train": 50, SAVING: 20}
