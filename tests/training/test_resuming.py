"""A run that was stopped and resumed is the run that never was, to the bit."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foveate.errors import Interrupted, RunError
from foveate.models import Model, build_model
from foveate.training.interrupts import Interrupts
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics

Settings = Callable[..., Any]
CLOCKS = ("seconds", "patches_per_second", "training_seconds", "receipt")


class StopAt(SilentProgress):
    """Sends this process a signal while some step, or some epoch's validation, is reported."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self._step, self._number = step, number

    def step(self, record: dict[str, Any]) -> None:
        if record["step"] == self._step:
            signal.raise_signal(self._number)


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def timeless(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in CLOCKS}
        for record in read_metrics(run / "metrics.jsonl")
    ]


ANNEALED = {
    "prior": {"last": 0.0, "over": 0.9},
    "entropy": {"first": 1e-2},
    "patches": {"first": 7, "hold": 0.3, "over": 0.4},
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("optimizer", "model", "anneal"),
    [
        ("adam", {}, {}),
        ("sgd", {"features": {"learning_rate": 1e-4}}, {}),
        ("adamw", {"features": {"frozen": True}, "input": {"normalise": "bands"}}, {}),
        ("adam", {"prior": {"contrast": 2.0}}, ANNEALED),
        ("adam", {"name": "top-k"}, {}),
        ("adam", {"name": "ips", "head": {"heads": 2}}, {}),
        ("adam", {"head": {"pool": "cross-attention", "heads": 2, "dropout": 0.2}}, {}),
        ("adam", {"name": "perturbed-top-k"}, {}),
        ("adam", {"name": "gmic"}, {}),
    ],
    ids=[
        *("adam", "sgd at two rates", "adamw and frozen", "annealed", "top-k", "ips", "cross-attention"),
        *("perturbed-top-k", "gmic"),
    ],
)
def test_resumed_equals_uninterrupted(
    squares_of: Any,
    settings_of: Settings,
    tensors_of: Any,
    tmp_path: Path,
    optimizer: str,
    model: dict[str, Any],
    anneal: dict[str, Any],
) -> None:
    squares = squares_of(validation=3)
    settings = settings_of(
        model=model, training={"optimizer": optimizer, "averaging": 0.9, "log_every": 2, "anneal": anneal}
    )
    train(settings, tmp_path / "whole", dataset=squares, progress=SilentProgress())
    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path / "parts", dataset=squares, progress=StopAt(3))
    assert caught.value.signal == signal.SIGINT
    assert str(caught.value) == (
        "stopped by Ctrl-C after step 3 of 8, the state is saved; "
        f"to continue: foveate train --resume --out {tmp_path / 'parts'}"
    )
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 6 of 8"):
        train(settings, tmp_path / "parts", dataset=squares, progress=StopAt(6, signal.SIGTERM), resume=True)
    result = train(settings, tmp_path / "parts", dataset=squares, progress=SilentProgress(), resume=True)
    assert result.steps == 8
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "parts")
    for name in ("model.safetensors", "config.json"):
        first, second = (tmp_path / run / "model" / name for run in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes()


def test_a_signal_during_validation_stops_there(
    plain_run: Path, squares: Any, settings_of: Settings, tensors_of: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    import foveate.training.loop as loop

    settings = settings_of()
    evaluate = loop.evaluate_any

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate_any", interrupted)
        with pytest.raises(Interrupted, match="after step 4 of 8"):
            train(settings, tmp_path / "parts", dataset=squares, progress=SilentProgress())
    train(settings, tmp_path / "parts", dataset=squares, progress=SilentProgress(), resume=True)
    assert_same(tensors_of(plain_run), tensors_of(tmp_path / "parts"))
    assert timeless(plain_run) == timeless(tmp_path / "parts")


@pytest.mark.slow
def test_several_labels_resume_to_the_bit(colours: Any, settings_of: Settings, tensors_of: Any, tmp_path: Path) -> None:
    settings = settings_of(training={"class_weights": "balanced"})
    train(settings, tmp_path / "whole", dataset=colours, progress=SilentProgress())
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "parts", dataset=colours, progress=StopAt(4))
    train(settings, tmp_path / "parts", dataset=colours, progress=SilentProgress(), resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "parts")


def test_a_tensor_under_two_names_is_kept(squares: Any, settings_of: Settings, tensors_of: Any, tmp_path: Path) -> None:
    def tied() -> nn.Module:
        layers = nn.Sequential(nn.Conv2d(3, 3, 5), nn.ReLU(), nn.Conv2d(3, 3, 5))
        layers[2].weight = layers[0].weight
        for parameter in layers.parameters():
            nn.init.constant_(parameter, 0.1)
        return layers

    settings = settings_of()
    train(settings, tmp_path / "whole", dataset=squares, progress=SilentProgress(), features=tied())
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "parts", dataset=squares, progress=StopAt(4), features=tied())
    train(settings, tmp_path / "parts", dataset=squares, progress=SilentProgress(), features=tied(), resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))


@pytest.mark.slow
def test_dropout_is_seeded_in_a_run_and_in_its_resumption(
    squares: Any, settings_of: Settings, tensors_of: Any, tmp_path: Path
) -> None:
    def dropping() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 3, 5), nn.Dropout(0.5), nn.ReLU())

    settings = settings_of()
    for name in ("whole", "again"):
        torch.manual_seed(len(name))  # whatever else has drawn from torch's own generator
        train(settings, tmp_path / name, dataset=squares, progress=SilentProgress(), features=dropping())
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "again"))
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "parts", dataset=squares, progress=StopAt(4), features=dropping())
    train(settings, tmp_path / "parts", dataset=squares, progress=SilentProgress(), features=dropping(), resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))


def test_pretrained_weights_are_not_fetched_again(
    squares: Any, settings_of: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def build(*given: Any, **named: Any) -> Model:
        asked.append(named["pretrained"])
        return build_model(*given, **named)

    monkeypatch.setattr("foveate.training.build.build_model", build)
    for resume in (True, True):  # the first time there is nothing to resume
        settings = settings_of(training={"epochs": 1})
        train(settings, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=resume)
    assert asked == [True, False]


def test_the_state_of_another_network_is_named(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    """The settings are the same: a feature network of the user's own has changed in between."""

    def network(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    settings, folder = settings_of(training={"epochs": 1}), tmp_path / "run"
    train(settings, folder, dataset=squares, progress=SilentProgress(), features=network(6))
    with pytest.raises(RunError) as caught:
        train(settings, folder, dataset=squares, progress=SilentProgress(), features=network(7), resume=True)
    assert str(caught.value) == ("the state is of another version of the model: train anew in another --out folder")


def test_lines_written_after_the_state_are_cut(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    settings = settings_of()
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "run", dataset=squares, progress=StopAt(3))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 8}\n{"kind": "st')
    train(settings, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=True)
    steps = [record["step"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl", "step")]
    assert steps == list(range(1, 9))


def test_more_epochs_continue_a_finished_run(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(settings_of(training={"epochs": 1}), folder, dataset=squares, progress=SilentProgress())
    again = train(settings_of(training={"epochs": 1}), folder, dataset=squares, progress=SilentProgress(), resume=True)
    assert again.steps == 4
    more = train(settings_of(training={"epochs": 2}), folder, dataset=squares, progress=SilentProgress(), resume=True)
    assert (more.steps, more.epochs) == (8, 2)


def test_a_run_out_of_time_goes_on_with_more(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    short, long = (settings_of(training={"max_minutes": minutes}) for minutes in (1e-9, 10.0))
    assert train(short, tmp_path / "run", dataset=squares, progress=SilentProgress()).steps == 1
    assert train(short, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=True).steps == 1
    assert train(long, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=True).steps == 8


def test_another_run_cannot_be_continued(
    squares: Any, squares_of: Callable[..., Any], settings_of: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(settings_of(training={"epochs": 1}), folder, dataset=squares, progress=SilentProgress())
    other = settings_of(training={"batch": 5}, model={"patches": 2})
    with pytest.raises(RunError) as caught:
        train(other, folder, dataset=squares, progress=SilentProgress(), resume=True)
    assert str(caught.value) == (
        f"{folder} was trained with another model.patches, training.batch: "
        "leave it as it was to resume, or choose another --out to train anew"
    )
    with pytest.raises(RunError, match=r"the images or labels of .* have changed since: choose another --out"):
        train(settings_of(), folder, dataset=squares_of(train=10), progress=SilentProgress(), resume=True)


def test_whoever_trains_says_how_to_go_on(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    remedy = "to continue: foveate demo"
    with pytest.raises(Interrupted, match=r"^stopped by Ctrl-C after step 3 of 8, the state is saved; (.*)$") as caught:
        train(settings_of(), tmp_path / "run", dataset=squares, progress=StopAt(3), remedy=remedy)
    assert str(caught.value).endswith("; to continue: foveate demo")


def test_folds_go_on_as_folds_and_know_their_splits_from_the_start(
    squares: Any, settings_of: Settings, tmp_path: Path
) -> None:
    from foveate.training.folds import read_splits, train_folds

    out = tmp_path / "cv"
    settings = settings_of(training={"epochs": 1})
    with pytest.raises(Interrupted) as caught:
        train_folds(settings, out, 2, dataset=squares, progress=StopAt(2))
    assert str(caught.value).endswith(f"; to continue: foveate train --resume --folds 2 --out {out}")
    assert {one.split for one in read_splits(out / "fold-1", squares).examples} == {"train", "validation", "test"}
    with pytest.raises(RunError) as refused:
        train_folds(settings, out, 3, dataset=squares, progress=SilentProgress(), resume=True)
    assert str(refused.value) == (
        f"{out / 'fold-1'} was split otherwise: resume with the images and the --folds it was begun with, "
        "or choose another --out"
    )
    assert train_folds(settings, out, 2, dataset=squares, progress=SilentProgress(), resume=True)["k"] == 2


def test_a_manifest_is_the_same_however_it_is_written(
    squares: Any, settings_of: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short, long = (
        settings_of(training={"epochs": 1}, data={"manifest": manifest})
        for manifest in ("mine.csv", str(tmp_path / "mine.csv"))
    )
    train(short, tmp_path / "run", dataset=squares, progress=SilentProgress())
    config = tmp_path / "run" / "config.yaml"
    before = config.stat().st_ino
    train(short, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=True)
    assert config.stat().st_ino == before, "what says the same is left alone"
    train(long, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=True)
    other = settings_of(training={"epochs": 1}, data={"manifest": "other.csv"})
    with pytest.raises(RunError, match=r"was trained with another data\.manifest"):
        train(other, tmp_path / "run", dataset=squares, progress=SilentProgress(), resume=True)


def test_a_damaged_state_is_named(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(settings_of(training={"epochs": 1}), folder, dataset=squares, progress=SilentProgress())
    state = folder / "state" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-40])
    with pytest.raises(RunError) as caught:
        train(settings_of(), folder, dataset=squares, progress=SilentProgress(), resume=True)
    assert str(caught.value) == (
        f"{state} is damaged: delete {state.parent} to train from the start, or restore a copy"
    )


@pytest.fixture
def usual() -> Iterator[None]:
    """Ctrl-C as Python handles it; a shell's background jobs are told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual")
def test_a_second_signal_kills_as_usual() -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interrupts(echoes=True) as patient:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert patient.signal == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
