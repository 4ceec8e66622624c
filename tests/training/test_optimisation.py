"""Learning rates and ramps at the points that define each schedule, and in a run; optimizer and weight average."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foveate.config.files import merge_settings
from foveate.config.training import Ramp, RunSettings, TrainingSettings
from foveate.errors import ConfigError
from foveate.models import load_model
from foveate.training.loop import train
from foveate.training.optimisation import (
    WeightAverage,
    annealed,
    build_optimizer,
    learning_rate,
    optimizer_groups,
    ramp_value,
    set_rates,
    total_steps,
)
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics


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


def test_a_ramp_is_held_moves_and_stays() -> None:
    ramp = Ramp(last=1.0, hold=0.2, over=0.5)
    found = [ramp_value(ramp, 3.0, step, 101) for step in range(101)]
    assert set(found[:21]) == {3.0}
    assert found[45] == pytest.approx(2.0)
    assert found[70:] == pytest.approx([1.0] * 31, abs=1e-12)
    assert found[-1] == 1.0
    assert found[20:71] == sorted(found[20:71], reverse=True)
    jump = Ramp(first=25.0, hold=0.5, over=0.0)
    assert [ramp_value(jump, 10.0, step, 5) for step in range(5)] == [25.0, 25.0, 10.0, 10.0, 10.0]
    assert ramp_value(Ramp(first=7.0), 1.0, 0, total=1) == 7.0


def test_ramps_move_what_is_set_and_patches_are_whole() -> None:
    changes = {"prior": {"last": 0.0, "over": 1.0}, "patches": {"first": 25, "over": 1.0}}
    settings = merge_settings(RunSettings(), {"model": {"prior": {"contrast": 2.0}}, "training": {"anneal": changes}})
    assert annealed(settings, 0, 5) == {"prior": 2.0, "patches": 25}
    assert annealed(settings, 1, 5) == {"prior": 1.5, "patches": 21}
    assert annealed(settings, 4, 5) == {"prior": 0.0, "patches": 10}


@pytest.mark.parametrize(
    ("anneal", "message"),
    [
        ({"patches": {"first": 0}}, "training.anneal.patches.first must be at least 1, got 0.0: set it to 1 or more"),
        ({"entropy": {"last": -1}}, "training.anneal.entropy.last must be at least 0, got -1.0: set it to 0 or more"),
        (
            {"entropy": {"hold": 0.7}},
            "training.anneal.entropy must hold and move within the run, got hold 0.7 and over 0.5: "
            "set both to at least 0 and together to at most 1",
        ),
    ],
)
def test_ramps_that_make_no_sense_are_refused(anneal: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge_settings(RunSettings(), {"training": {"anneal": anneal}})
    assert str(caught.value) == message


def test_a_prior_that_is_not_there_is_refused(squares: Any, settings_of: Callable[..., Any], tmp_path: Path) -> None:
    settings = settings_of(training={"anneal": {"prior": {"last": 0.0}}})
    with pytest.raises(ConfigError) as caught:
        train(settings, tmp_path / "run", dataset=squares, progress=SilentProgress())
    assert str(caught.value) == (
        "training.anneal.prior moves the strength of a prior, but model.prior.contrast 0 has none: "
        "set it to e.g. 2, or leave out training.anneal.prior"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_is_annealed_and_keeps_the_strength_it_ended_with(
    squares: Any, settings_of: Callable[..., Any], tmp_path: Path
) -> None:
    anneal = {
        "prior": {"last": 0.5, "over": 1.0},
        "entropy": {"first": 1.0, "last": 0.0, "hold": 0.5, "over": 0.0},
        "patches": {"first": 9, "hold": 0.5, "over": 0.0},
    }
    settings = settings_of(model={"prior": {"contrast": 2.0}}, training={"anneal": anneal, "log_every": 1})
    train(settings, tmp_path / "run", dataset=squares, progress=SilentProgress())
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl", "step")
    assert len(steps) == 8
    assert [one["annealed"]["patches"] for one in steps] == [9] * 4 + [3] * 4
    assert [one["annealed"]["entropy"] for one in steps] == [1.0] * 4 + [0.0] * 4
    assert [one["annealed"]["prior"] for one in steps] == pytest.approx([2 - 1.5 * k / 7 for k in range(8)])
    epochs = read_metrics(tmp_path / "run" / "metrics.jsonl", "epoch")
    images = len([one for one in squares.examples if one.split == "train"])
    assert [epoch["receipt"]["patches"] for epoch in epochs] == [9 * images, 3 * images]
    best = [one for one in epochs if one["best"]][-1]
    model = load_model(tmp_path / "run")
    expected = steps[best["step"] - 1]["annealed"]["prior"]
    assert float(model.prior.strength) == pytest.approx(expected)
    assert model.patches == 3
    for epoch, weight in zip(epochs, (1.0, 0.0), strict=True):
        assert epoch["entropy"] > 0.1
        assert epoch["loss"] == pytest.approx(epoch["training_loss"] - weight * epoch["entropy"], abs=1e-5)


def test_flags_reach_the_ramps() -> None:
    from foveate.cli.train import read_arguments

    words = ["--training.anneal.prior.last", "0", "--training.anneal.patches.first", "25"]
    merged = read_arguments(["smoke", *words])[1].training.anneal
    assert (merged.prior.last, merged.patches.first, merged.prior.first) == (0.0, 25.0, None)


def test_the_documented_ramps_do_what_is_said_of_them() -> None:
    import re

    import yaml

    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (block,) = (one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "anneal" in one)
    settings = merge_settings(
        merge_settings(RunSettings(), {"model": {"prior": {"contrast": 3.0}}}), yaml.safe_load(block)
    )
    found = [annealed(settings, step, 11) for step in range(11)]
    assert [one["prior"] for one in found[:3]] == [3.0] * 3
    assert found[7]["prior"] == pytest.approx(0.0, abs=1e-12)
    assert [one["prior"] for one in found[8:]] == [0.0] * 3
    assert (found[0]["entropy"], found[3]["entropy"]) == (1e-2, pytest.approx(settings.training.entropy))
    assert [one["patches"] for one in found] == [25] * 3 + [10] * 8


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_every_optimizer_goes_downhill(name: str) -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = build_optimizer([weight], TrainingSettings(optimizer=name, learning_rate=0.05))  # type: ignore[arg-type]
    for _ in range(100):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert weight.norm() < 0.2


def test_the_average_is_the_recursion_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, 0.5)
    expected = 1.0
    for step, value in enumerate([4.0, 2.0, 8.0]):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 8.0


def test_averaged_weights_have_averaged_batch_statistics() -> None:
    model = nn.BatchNorm1d(2)
    average, expected = WeightAverage(model, 0.75), model.running_mean.clone()
    for step in range(40):
        model(torch.randn(8, 2, generator=torch.Generator().manual_seed(step)) + 3)
        average.update_parameters(model)
        decay = min(0.75, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.running_mean
    assert torch.allclose(average.module.running_mean, expected, rtol=1e-5)
    assert not torch.equal(average.module.running_mean, model.running_mean)
    assert average.module.num_batches_tracked.dtype == torch.int64


def test_groups_of_one_rate_are_one_in_the_order_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 1))
    first, second, third = (list(part.parameters()) for part in model)
    alike = optimizer_groups(model, [{"params": third + first}, {"params": second, "learning_rate": None}])
    assert [group["learning_rate"] for group in alike] == [None]
    assert all(a is b for a, b in zip(alike[0]["params"], model.parameters(), strict=True))
    apart = optimizer_groups(model, [{"params": third}, {"params": second, "learning_rate": 0.5}])
    assert [(group["learning_rate"], len(group["params"])) for group in apart] == [(0.5, 2), (None, 2)]


def test_a_group_of_its_own_rate_follows_the_same_schedule() -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    settings = TrainingSettings(learning_rate=2e-3)
    groups = [{"params": weights[:1], "learning_rate": None}, {"params": weights[1:], "learning_rate": 5e-4}]
    optimizer = build_optimizer(groups, settings)
    for rate in (2e-3, 1.3e-5):
        set_rates(optimizer, settings, rate)
        assert [group["lr"] for group in optimizer.param_groups] == [rate, pytest.approx(rate / 4, rel=1e-15)]
