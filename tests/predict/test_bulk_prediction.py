"""Many images, one prediction each: the same as alone, and none lost to another's fault."""

import csv
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.errors import ConfigError, DataError
from foveate.images import ArraySource
from foveate.models import Model, build_model
from foveate.models.types import Prediction
from foveate.pipeline.distributed import open_accelerator
from foveate.predict import (
    Failure,
    PredictionFile,
    Row,
    Summary,
    choose_device,
    find_rows,
    predict_paths,
)

SIZES = {"a.png": (70, 113), "b.jpg": (131, 64), "deep/c.png": (90, 90 + 1), "deep/d.PNG": (40, 200)}
SETTINGS = ModelSettings(
    view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four colour images of different sizes, a broken one, a hidden one, and a text."""
    root = tmp_path_factory.mktemp("images")
    (root / "deep").mkdir()
    noise = np.random.default_rng(3)
    for name, size in SIZES.items():
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (root / ".hidden.png").write_bytes(b"")
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def model() -> Model:
    return build_model(SETTINGS, ("left", "right"), channels=3, seed=5).eval()


def good(root: Path) -> list[Path]:
    return [root / name for name in SIZES]


def bare(outcome: Prediction | Failure) -> Prediction | Failure:
    """Without what a clock says."""
    return replace(outcome, seconds=0.0, receipt=None) if isinstance(outcome, Prediction) else outcome


def test_a_prediction_is_what_the_model_says_of_the_image_alone(folder: Path, model: Model) -> None:
    for outcome in predict_paths(model, good(folder), samples=2, seed=9):
        assert isinstance(outcome, Prediction)
        alone = model.predict(outcome.path, samples=2, seed=9)
        assert bare(outcome) == bare(alone)
        assert outcome.bytes_read > 0
        assert outcome.seconds > 0
        assert sum(outcome.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_neither_company_nor_order_nor_a_broken_neighbour_changes_a_prediction(folder: Path, model: Model) -> None:
    paths = [*good(folder), folder / "broken.png"]
    reference = {outcome.path: outcome for outcome in predict_paths(model, paths)}
    random.Random(1).shuffle(paths)
    for outcome in predict_paths(model, paths):
        if isinstance(outcome, Prediction):
            assert bare(outcome) == bare(reference[outcome.path])
        else:
            assert outcome == reference[outcome.path]
            assert outcome.path.endswith("broken.png")


def test_an_image_of_pixels_that_are_no_numbers_is_a_failure_of_its_own(folder: Path, model: Model) -> None:
    pixels = np.full((70, 90, 3), np.nan, np.float32)
    rows = [Row("scene.npy", lambda: ArraySource(pixels, name="scene.npy")), *good(folder)[:1]]
    failure, prediction = predict_paths(model, rows)
    assert isinstance(prediction, Prediction)
    assert isinstance(failure, Failure)
    assert failure.message.startswith("scene.npy: its view has pixels that are nan or infinite: ")


def test_the_seed_decides_the_draws(folder: Path, model: Model) -> None:
    def boxes(seed: int) -> list[object]:
        return [o.boxes for o in predict_paths(model, good(folder), seed=seed) if isinstance(o, Prediction)]

    assert boxes(0) == boxes(0)
    assert boxes(0) != boxes(1)


def test_folders_are_searched_and_an_image_named_twice_is_one_row(folder: Path) -> None:
    rows = find_rows([folder / "deep", folder, folder / "a.png"])
    names = [str(Path(row.path).relative_to(folder)) for row in rows]
    assert names == ["deep/c.png", "deep/d.PNG", "a.png", "b.jpg", "broken.png"]


def test_a_manifest_is_rows_under_its_own_names(folder: Path, model: Model, tmp_path: Path) -> None:
    manifest = folder / "some.csv"
    manifest.write_text("path,label\ndeep/c.png,left\na.png,right\n")
    outcomes = list(predict_paths(model, find_rows([manifest])))
    manifest.unlink()
    assert [outcome.path for outcome in outcomes] == ["deep/c.png", "a.png"]
    direct = next(iter(predict_paths(model, [folder / "a.png"])))
    assert isinstance(direct, Prediction)
    assert replace(bare(outcomes[1]), path="") == replace(bare(direct), path="")  # type: ignore[type-var]


def test_two_manifests_may_use_the_same_names_for_different_images(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "list.csv").write_text("path\na.png\n")
    rows = find_rows([tmp_path / "one" / "list.csv", tmp_path / "two" / "list.csv", tmp_path / "one" / "list.csv"])
    assert [row.path for row in rows] == ["a.png", "a.png"]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images .* name the files themselves"):
        find_rows([tmp_path])


@pytest.mark.parametrize("samples", [0, -3])
def test_samples_are_counted_from_one(samples: int, model: Model, folder: Path) -> None:
    with pytest.raises(ConfigError, match=rf"samples must be at least 1, got {samples}"):
        list(predict_paths(model, [folder / "a.png"], samples=samples))


def test_our_own_faults_are_not_blamed_on_an_image(model: Model) -> None:
    def fail() -> object:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(predict_paths(model, [Row("a", fail)]))  # type: ignore[arg-type]


def write_predictions(path: Path, classes: Sequence[str], found: Iterable[Prediction | Failure]) -> Summary:
    with PredictionFile(path, classes) as file:
        for outcome in found:
            file(Row(outcome.path, lambda: ArraySource(np.zeros((2, 3), np.uint8))), outcome)
    return file.summary


def outcomes(*failing: int) -> Iterator[Prediction | Failure]:
    for i in range(4):
        if i in failing:
            yield Failure(f"{i}.png", "open", f"{i} is broken")
        else:
            yield Prediction(f"{i},\n.png", "b", {"b": 0.75, "a": 0.25}, 3, 1000 + i, 0.5)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_are_written_in_the_classes_order(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "p.csv"
    summary = write_predictions(out, ("a", "b"), outcomes(2))
    rows = read(out)
    assert list(rows[0]) == ["path", "predicted", "p_a", "p_b", "patches", "bytes_read", "seconds"]
    assert [row["path"] for row in rows] == ["0,\n.png", "1,\n.png", "3,\n.png"]
    assert rows[2] == {
        "path": "3,\n.png",
        "predicted": "b",
        "p_a": "0.25",
        "p_b": "0.75",
        "patches": "3",
        "bytes_read": "1003",
        "seconds": "0.5000",
    }
    assert read(out.parent / "errors.csv") == [{"path": "2.png", "stage": "open", "message": "2 is broken"}]
    assert (summary.done, [failure.path for failure in summary.failures]) == (3, ["2.png"])
    assert sorted(file.name for file in out.parent.iterdir()) == ["errors.csv", "p.csv"]


def test_an_earlier_error_list_goes_when_nothing_fails(tmp_path: Path) -> None:
    out, errors = tmp_path / "p.csv", tmp_path / "errors.csv"
    write_predictions(out, ("a", "b"), outcomes(0))
    write_predictions(out, ("a", "b"), outcomes())
    assert not errors.exists()
    errors.write_text("")  # of a call that was killed before its first word
    write_predictions(out, ("a", "b"), outcomes(1))
    assert len(read(errors)) == 1


def untouched() -> Iterator[Prediction | Failure]:
    pytest.fail("an image was predicted")
    yield


@pytest.mark.parametrize("content", [b"my,own\n", b"\xff\xfe\x00", b"path,stage\n", None])
def test_a_strangers_errors_file_is_refused_before_any_work(content: bytes | None, tmp_path: Path) -> None:
    errors = tmp_path / "errors.csv"
    if content is None:
        errors.mkdir()
    else:
        errors.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        write_predictions(tmp_path / "p.csv", ("a", "b"), untouched())
    assert str(caught.value) == (
        f"{errors} is in the way, it does not start with path,stage,message: rename it, or write the predictions to "
        "another folder"
    )
    assert list(tmp_path.iterdir()) == [errors]
    assert content is None or errors.read_bytes() == content


@pytest.mark.parametrize("name", ["errors.csv", "Errors.CSV", "link.csv"])
def test_predictions_do_not_go_where_the_errors_go(name: str, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "errors.csv")
    with pytest.raises(ConfigError) as caught:
        write_predictions(tmp_path / name, ("a", "b"), untouched())
    assert str(caught.value) == (
        f"{tmp_path / name} is where the list of failed images goes: name the file otherwise, e.g. "
        f"{tmp_path / 'predictions.csv'}"
    )


def test_when_all_fail_the_earlier_predictions_stay(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    write_predictions(out, ("a", "b"), outcomes())
    before = out.read_text()
    summary = write_predictions(out, ("a", "b"), outcomes(0, 1, 2, 3))
    assert (summary.done, len(summary.failures)) == (0, 4)
    assert out.read_text() == before
    assert len(read(tmp_path / "errors.csv")) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_the_file_is_never_half(tmp_path: Path) -> None:
    def crashing() -> Iterator[Prediction | Failure]:
        yield from list(outcomes(1))[:3]
        raise KeyboardInterrupt

    out = tmp_path / "p.csv"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(out, ("a", "b"), crashing())
    assert len(read(tmp_path / "errors.csv")) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["errors.csv"]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder, predictions go to a file: try .*predictions\.csv"):
        write_predictions(tmp_path, ("a",), [])


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="is a device or a pipe, which cannot be replaced"):
        write_predictions(pipe, ("a", "b"), outcomes())
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["banana", "cuda:99"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device '{name}' cannot be used here .*: use auto or cpu"):
        choose_device(name)


def test_there_is_always_a_device() -> None:
    assert choose_device("auto").type in ("cpu", "cuda")


def test_processes_of_one_machine_share_its_accelerators_out(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [str(choose_device("auto", local)) for local in (0, 1, 2)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [device.index for device in chosen] == [0, 1, 0]
    assert str(choose_device("auto")) == "cuda"
    assert str(choose_device("cpu", 1)) == "cpu"


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose only accelerator is an Apple GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))


@pytest.mark.usefixtures("apple")
@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_an_apple_gpu_is_not_chosen_and_refused(name: str) -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert str(caught.value) == (
        f"device '{name}' has no float64, in which foveate draws and weighs patches: use auto or cpu"
    )


@pytest.mark.parametrize(("kind", "cpu"), [("mps", True), ("cuda", False)])
def test_training_takes_an_accelerator_only_if_it_has_float64(
    kind: str, cpu: bool, apple: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: asked.update(options))
    monkeypatch.setattr("accelerate.state.AcceleratorState._shared_state", {})
    open_accelerator()
    assert asked["cpu"] is cpu
