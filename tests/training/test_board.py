"""TensorBoard shows what metrics.jsonl has, each step once, and the run does not notice."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.errors import Interrupted, MissingExtra
from foveate.training.attention_log import map_colours, read_watched
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics

Settings = Callable[..., Any]


class StopAt(SilentProgress):
    """Sends this process a signal while a step is reported."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, record: dict[str, Any]) -> None:
        if record["step"] == self._step:
            signal.raise_signal(signal.SIGINT)


def events(run: Path, part: str) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard" / part), size_guidance={"images": 0, "scalars": 0})
    return found.Reload()


def assert_shows_the_metrics_log(run: Path) -> None:
    """Every figure of metrics.jsonl is there, at its step, once."""
    for part, kind, names in (
        ("steps", "step", {"loss", "error", "entropy", "learning_rate"}),
        ("epochs", "epoch", {"training_loss", "training_error", "entropy", "validation_loss", "validation_error"}),
    ):
        shown, records = events(run, part), read_metrics(run / "metrics.jsonl", kind)
        assert set(shown.Tags()["scalars"]) >= names
        for name in names:
            told = [(one.step, one.value) for one in shown.Scalars(name)]
            assert told == [(record["step"], float(np.float32(record[name]))) for record in records], name


def test_the_run_is_the_same_and_its_figures_are_shown(
    plain_run: Path, squares: Any, settings_of: Settings, tensors_of: Any, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    train(settings_of(training={"tensorboard": True}), run, dataset=squares, progress=SilentProgress())
    first, second = tensors_of(plain_run), tensors_of(run)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not (plain_run / "tensorboard").exists()
    assert_shows_the_metrics_log(run)
    shown = events(run, "epochs")
    for name in {image.id for _, images in read_watched(run) for image in images}:
        told = shown.Images(f"attention/{name}")
        assert [one.step for one in told] == [0, 4, 8]
        (last,) = [image for image in read_watched(run)[-1][1] if image.id == name]
        (tmp_path / "shown.png").write_bytes(told[-1].encoded_image_string)
        picture = np.asarray(Image.open(tmp_path / "shown.png"))
        size = 256 // max(last.attention.shape)
        assert picture.shape == (*(size * side for side in last.attention.shape), 3)
        np.testing.assert_array_equal(picture[::size, ::size], map_colours(last.attention))


def test_a_resumed_run_shows_every_step_once(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    settings, run = settings_of(training={"tensorboard": True}), tmp_path / "run"
    for step in (3, 4, 6):
        with pytest.raises(Interrupted):
            train(settings, run, dataset=squares, progress=StopAt(step), resume=True)
    state = (run / "state" / "state.safetensors").read_bytes()
    logged = (run / "metrics.jsonl").read_bytes()
    train(settings, run, dataset=squares, progress=SilentProgress(), resume=True)
    assert_shows_the_metrics_log(run)
    (run / "state" / "state.safetensors").write_bytes(state)  # as if the machine had failed after all that was shown
    (run / "metrics.jsonl").write_bytes(logged)
    train(settings, run, dataset=squares, progress=SilentProgress(), resume=True)
    assert_shows_the_metrics_log(run)
    watched = read_watched(run)[0][1][0].id
    assert [one.step for one in events(run, "epochs").Images(f"attention/{watched}")] == [0, 4, 8]


def test_what_is_annealed_is_shown(squares: Any, settings_of: Settings, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    training = {"tensorboard": True, "epochs": 1, "anneal": {"patches": {"first": 7, "over": 0.4}}}
    train(settings_of(training=training), tmp_path / "run", dataset=squares, progress=SilentProgress())
    records = read_metrics(tmp_path / "run" / "metrics.jsonl", "step")
    told = events(tmp_path / "run", "steps").Scalars("annealed/patches")
    assert [one.value for one in told] == [record["annealed"]["patches"] for record in records]


def test_its_absence_is_a_line_to_type_and_no_folder(
    squares: Any, settings_of: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra) as caught:
        train(settings_of(training={"tensorboard": True}), tmp_path / "run", dataset=squares)
    assert str(caught.value) == "training.tensorboard needs TensorBoard: pip install 'tensorboard>=2.18'"
    assert not (tmp_path / "run").exists()


def test_a_board_that_is_not_asked_for_does_nothing() -> None:
    code = (
        "import sys\n"
        "from foveate.training.attention_log import Board\n"
        "board = Board(None)\n"
        "board.step({'step': 1, 'loss': 1.0}); board.epoch({'step': 1}); board.maps(0, {}); board.close()\n"
        "assert not [name for name in sys.modules if 'tensorboard' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
