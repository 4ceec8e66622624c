"""A run that must end after so many minutes has come down with its learning rate by then, resumed or not."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import Interrupted
from foveate.training import interrupts
from foveate.training.checkpoint import Position
from foveate.training.interrupts import Clock
from foveate.training.loop import train
from foveate.training.optimisation import annealed, learning_rate, scheduled_step
from foveate.training.progress import LineProgress, Pace, Plan, Progress, SilentProgress
from foveate.training.run_folder import read_metrics

Settings = Callable[..., Any]


class Ticking:
    """Clock that says a second has passed whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "time", Ticking())


def rates(run: Path) -> list[float]:
    return [one["learning_rate"] for one in read_metrics(run / "metrics.jsonl", "step")]


def limited(settings_of: Settings, minutes: float, **training: Any) -> Any:
    wanted = {"epochs": 50, "max_minutes": minutes, "validate_every": 100, "watch": 0, **training}
    return settings_of(training=wanted)


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("ticking", "unchecked")
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_the_rate_has_come_down_when_the_time_is_over(
    squares: Any, settings_of: Settings, tmp_path: Path, schedule: str
) -> None:
    anneal = {"entropy": {"first": 1.0, "last": 0.0, "over": 1.0}}
    settings = limited(settings_of, 0.5, schedule=schedule, anneal=anneal)
    result = train(settings, tmp_path / "run", dataset=squares, progress=SilentProgress())
    found = rates(tmp_path / "run")
    assert 8 < result.steps < 40, "of two hundred"
    peak = found.index(max(found))
    assert max(found) == pytest.approx(5e-3, rel=0.05)
    assert found[-1] < 0.1 * max(found)
    assert found[peak:] == sorted(found[peak:], reverse=True)
    entropies = [one["annealed"]["entropy"] for one in read_metrics(tmp_path / "run" / "metrics.jsonl", "step")]
    assert entropies[0] > 0.9
    assert entropies[-1] < 0.1
    (*_, last) = read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert last["validation_error"] is not None, "the last epoch is validated, whole or not"


@pytest.mark.slow
@pytest.mark.usefixtures("ticking", "unchecked")
def test_a_run_that_is_stopped_and_resumed_has_as_much_time_and_goes_on_where_its_rate_was(
    squares: Any, settings_of: Settings, tmp_path: Path
) -> None:
    class StopAt(SilentProgress):
        def step(self, record: dict[str, Any]) -> None:
            if record["step"] == 7:
                raise Interrupted("enough", 2)

    settings = limited(settings_of, 0.5)
    train(settings, tmp_path / "whole", dataset=squares, progress=SilentProgress())
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "parts", dataset=squares, progress=StopAt())
    train(settings, tmp_path / "parts", dataset=squares, progress=SilentProgress(), resume=True)
    whole, parts = rates(tmp_path / "whole"), rates(tmp_path / "parts")
    assert parts[:7] == whole[:7]
    assert abs(len(whole) - len(parts)) <= 1
    for one, other in zip(whole, parts, strict=False):
        assert other == pytest.approx(one, abs=6e-4)
    assert parts[-1] < 0.1 * max(parts)


def test_a_limit_that_is_not_reached_changes_nothing(
    plain_run: Path, squares: Any, settings_of: Settings, tmp_path: Path
) -> None:
    train(settings_of(training={"max_minutes": 1e4}), tmp_path / "run", dataset=squares, progress=SilentProgress())
    assert rates(tmp_path / "run") == rates(plain_run)
    model = "model/model.safetensors"
    assert (tmp_path / "run" / model).read_bytes() == (plain_run / model).read_bytes()


def test_the_schedule_is_ahead_of_the_steps_where_time_is_short(settings_of: Settings) -> None:
    settings = settings_of(training={"schedule": "step", "drop_epoch": 50, "epochs": 100, "learning_rate": 1.0})
    assert learning_rate(settings.training, scheduled_step(10, 400, 0.49), 400, 4) == 1.0
    assert learning_rate(settings.training, scheduled_step(10, 400, 0.51), 400, 4) == pytest.approx(0.1)
    ramp = settings_of(training={"anneal": {"entropy": {"first": 1.0, "last": 0.0, "over": 1.0}}})
    assert annealed(ramp, scheduled_step(0, 5, 0.5), 5)["entropy"] == pytest.approx(0.5)
    assert scheduled_step(3, 5, 0.0) == 3


@pytest.mark.parametrize(
    ("seconds", "begun", "minutes", "share"),
    [
        (30.0, 0.0, 1.0, 0.5),
        (90.0, 30.0, 2.5, 0.5),
        (10.0, 70.0, 1.0, 1.0),
        (500.0, 0.0, 1.0, 1.0),
        (5.0, 0.0, None, 0.0),
    ],
)
def test_the_share_of_time_begins_with_the_first_step(
    seconds: float, begun: float, minutes: float | None, share: float
) -> None:
    assert Clock(Position(seconds=seconds, begun=begun), minutes).share() == pytest.approx(share)


def told(plan: Plan, records: list[tuple[int, float]], progress: Progress | None = None) -> list[str]:
    stream = io.StringIO()
    progress = LineProgress(stream) if progress is None else progress
    progress.begin(plan)
    for step, seconds in records:
        progress.step({"step": step, "seconds": seconds, "loss": 0.5})
    if isinstance(progress, LineProgress):
        last = {"kind": "epoch", "epoch": 1, "loss": 0.5, "training_error": 0.25}
        progress.epoch({**last, "step": records[-1][0], "seconds": records[-1][1]})
    return stream.getvalue().splitlines()


def test_pace_and_time_left_are_told(settings_of: Settings) -> None:
    training = settings_of(training={"epochs": 20, "batch": 16}).training
    plan = Plan(400, 0, 320, training)
    first, line = told(plan, [(step, 100 + 3.0 * step) for step in range(1, 21)])
    assert first == "pace: 5.3 images a second · 20 epochs of 320 images take about 20 min"
    assert line == "epoch 1 · step 20 · loss 0.5000 · training error 0.250 · 160 s, about 19 min left"
    short = replace(training, max_minutes=10.0)
    first, line = told(replace(plan, training=short), [(step, 3.0 * step) for step in range(1, 21)])
    assert first == (
        "pace: 5.3 images a second · training.max_minutes 10 ends it after about 10 of 20 epochs of 320 images"
    )
    assert line.endswith("60 s, about 9 min left")
    steps = replace(training, max_steps=50)
    first, _ = told(Plan(50, 0, 320, steps), [(step, 3.0 * step) for step in range(1, 21)])
    assert first == "pace: 5.3 images a second · 50 steps take about 2 min"


def test_a_resumed_run_is_timed_from_where_it_goes_on(settings_of: Settings) -> None:
    pace = Pace(Plan(100, 60, 80, settings_of(training={"epochs": 10, "batch": 8}).training))
    for step in range(61, 66):
        pace.see({"step": step, "seconds": 5000.0 + 2.0 * step})
    assert pace.left == pytest.approx(70.0)


def test_a_fold_has_its_name_before_what_it_says() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, name="fold 2 of 5")
    progress.epoch({"epoch": 3, "step": 12, "loss": 0.5, "training_error": 0.25, "seconds": 9.0})
    assert stream.getvalue() == "fold 2 of 5 · epoch 3 · step 12 · loss 0.5000 · training error 0.250 · 9 s\n"


@pytest.mark.usefixtures("ticking", "unchecked")
def test_a_run_whose_time_is_over_before_its_first_step_says_so(
    squares: Any, settings_of: Settings, tmp_path: Path
) -> None:
    stream = io.StringIO()
    settings = limited(settings_of, 1e-3)
    assert train(settings, tmp_path / "run", dataset=squares, progress=LineProgress(stream)).steps == 1
    assert "note: finding took all of training.max_minutes 0.001" in stream.getvalue().splitlines()
