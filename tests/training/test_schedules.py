"""Learning rates at the points that define each schedule."""

import pytest

from foveate.training.config import TrainingSettings
from foveate.training.schedule import learning_rate, total_steps


def rates(total: int = 101, steps_per_epoch: int = 10, **settings: object) -> list[float]:
    chosen = TrainingSettings(learning_rate=2.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(chosen, step, total, steps_per_epoch) for step in range(total)]


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing() -> None:
    found = rates(schedule="one-cycle", warm_up=0.25)
    assert found[0] == pytest.approx(2 / 25)
    assert found[25] == max(found) == pytest.approx(2.0)
    assert found[-1] == pytest.approx(2 / 25 * 1e-4)
    assert sorted(found[:26]) == found[:26]
    assert sorted(found[25:], reverse=True) == found[25:]


def test_cosine_is_half_way_in_the_middle_of_its_fall() -> None:
    found = rates(schedule="cosine", warm_up=0.2)
    assert found[20] == pytest.approx(2.0)
    assert found[60] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(0.0)


def test_constant_warms_up_to_a_plateau() -> None:
    found = rates(schedule="constant", warm_up=0.1)
    assert found[0] == pytest.approx(2 / 11)
    assert set(found[10:]) == {2.0}


def test_step_drops_after_its_epoch() -> None:
    found = rates(schedule="step", drop_epoch=3, drop=0.1)
    assert set(found[:30]) == {2.0}
    assert found[30:] == [pytest.approx(0.2)] * 71


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant", "step"])
def test_a_run_of_one_step_has_a_rate(schedule: str) -> None:
    assert rates(total=1, schedule=schedule)[0] > 0


def test_max_steps_ends_the_schedule() -> None:
    assert total_steps(TrainingSettings(epochs=5), 10) == 50
    assert total_steps(TrainingSettings(epochs=5, max_steps=70), 10) == 50
