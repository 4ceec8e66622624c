"""Which model of a run is kept: not one by the luck of six validation images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.config.training import RunSettings
from foveate.evaluation.evaluate import Evaluation
from foveate.training import checkpoint
from foveate.training.checkpoint import Best, Checkpoints, Position, few


def judged(labels: list[Any], right: list[float]) -> Evaluation:
    """Validation in which each image's own class has such a probability."""
    true, own = np.array(labels), np.array(right)
    chances = np.stack([np.where(true == 0, own, 1 - own), np.where(true == 1, own, 1 - own)], 1)
    return Evaluation(
        indices=tuple(range(len(labels))),
        labels=true,
        probabilities=chances,
        error=float((own < 0.5).mean()),
        loss=float(-np.log(own).mean()),
        interval=(0.0, 1.0),
        patches_per_image=4.0,
        view_size=(24, 32),
        ids=tuple(map(str, range(len(labels)))),
        classes=("intact", "damaged"),
    )


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Epochs that are kept of a run with such validations, one an epoch; and its position."""
    saved: list[int] = []
    monkeypatch.setattr(checkpoint, "save_model", lambda *given: saved.append(given[2]["epoch"]))

    class Main:
        is_main_process = True

    def choose(validations: list[Evaluation | None]) -> tuple[list[int], Position]:
        position, (model, optimizer, scaler) = Position(), [None] * 3
        keeping = Checkpoints(tmp_path, RunSettings(), 0, Main(), model, optimizer, scaler, None)  # type: ignore[arg-type]
        saved.clear()
        for number, result in enumerate(validations, start=1):
            position.epoch, position.step = number, 10 * number
            keeping.keep_best(position, result)
            position = Position.from_plain(position.plain())  # a state survives a stop
        return list(saved), position

    return choose


SIX = [0, 0, 0, 1, 1, 1]


def test_a_model_that_dares_nothing_does_not_stay_because_a_later_one_is_wrong_once(kept: Any) -> None:
    timid, bold = judged(SIX, [0.51] * 6), judged(SIX, [0.97] * 5 + [0.005])
    assert bold.loss > timid.loss
    epochs, position = kept([timid, bold])
    assert epochs == [1, 2]
    assert (position.best.epoch, position.best.error, position.best.lowest) == (2, pytest.approx(1 / 6), 1)


def test_images_learnt_by_heart_do_not_take_the_place_of_what_was_learnt(kept: Any) -> None:
    good, worse = judged(SIX * 5, [0.8, 0.7, 0.9] * 10), judged(SIX * 5, [0.3, 0.1, 0.9] * 10)
    epochs, position = kept([good, worse, good, worse])
    assert epochs == [1, 3]
    assert position.best.lowest == 1


def test_the_lowest_loss_is_what_later_ones_are_held_to_so_that_small_steps_do_not_add_up(kept: Any) -> None:
    random = np.random.default_rng(0)
    worse = [judged(SIX * 4, (0.9 - 0.03 * k + 0.02 * random.random(24)).tolist()) for k in range(20)]
    epochs, position = kept(worse)
    assert position.best.lowest == 1
    assert max(epochs) < 6


def test_images_of_one_class_choose_nothing(kept: Any) -> None:
    constant, learnt = judged([0] * 6, [0.99] * 6), judged([0] * 6, [0.6] * 6)
    assert kept([constant, learnt])[0] == [1, 2]
    assert kept([None, None])[0] == [1, 2]


def test_many_images_are_judged_by_their_error_and_rare_classes_by_their_loss(kept: Any) -> None:
    labels = [0] * 60 + [1] * 60
    sharp, dull = judged(labels, [0.9] * 119 + [0.01]), judged(labels, [0.6] * 118 + [0.4] * 2)
    assert kept([sharp, dull, sharp])[0] == [1]
    assert not few(sharp)
    rare = judged([0] * 194 + [1] * 6, [0.99] * 194 + [0.02] * 6)
    assert few(rare)
    found = judged([0] * 194 + [1] * 6, [0.9] * 194 + [0.6] * 6)
    assert kept([rare, found])[1].best.epoch == 2
    constant_again = kept([found, rare])[1].best.epoch
    assert constant_again == 2, "within a standard error: six images do not settle it, and the later one stays"


def test_states_of_older_versions_are_read() -> None:
    plain = Position(step=7, best=Best(0.1, 0.2, 3, 6)).plain()
    for name in ("begun", "share", "at"):
        del plain[name]
    for name in ("lowest", "losses"):
        del plain["best"][name]
    position = Position.from_plain(plain)
    assert (position.at, position.best) == (6, Best(0.1, 0.2, 3, 6, lowest=3))
