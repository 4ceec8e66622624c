"""`foveate predict`, `explain` and `evaluate` in two processes, one of which may be killed: as if it were one."""

import csv
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ended, killed, launch
from PIL import Image

from foveate.__main__ import main
from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.models import build_model, save_model

MANY = 400


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and images of several sizes: a few in two folders, some of one name, one broken; many in a third."""
    root = tmp_path_factory.mktemp("processes")
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), root / "model", None)
    noise = np.random.default_rng(4)
    names = [f"{folder}/{i}.png" for folder in ("one", "two") for i in range(4)]
    for i, name in enumerate([*names, *(f"many/{i:03d}.png" for i in range(MANY))]):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (70 + i % 5, 113 - i % 7, 3), dtype=np.uint8)).save(root / name)
    (root / "one" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    labels = [f"{name},{('left', 'right')[i % 2]}" for i, name in enumerate(names) if name != "one/1.png"]
    (root / "labels.csv").write_text("\n".join(["path,label", *labels]))
    return root


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def untimed(path: Path) -> list[list[str]]:
    """Rows of a table without their seconds."""
    return [row[:-1] for row in table(path)]


def records(out: Path) -> list[dict[str, Any]]:
    """Whole lines of what is unfinished."""

    def read() -> Iterator[dict[str, Any]]:
        for file in out.parent.glob(f"{out.name}.partial*"):
            for line in file.read_text().splitlines(keepends=True)[1:]:
                if line.endswith("\n"):
                    yield json.loads(line)

    return list(read())


def until(done: int, out: Path) -> None:
    """Wait until each of two processes has so many outcomes."""
    deadline = time.monotonic() + 120
    files = [out.with_name(f"{out.name}.partial-{rank}") for rank in (0, 1)]
    while not all(file.exists() and file.read_bytes().count(b"\n") > done for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_processes_write_the_table_of_one(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", house / "model", house / "one", house / "two", "--samples", "2", "--out"]
    assert main([*map(str, words), str(tmp_path / "alone" / "p.csv")]) == 3
    alone = capsys.readouterr()
    both = ended(launch(*words, tmp_path / "both" / "p.csv"))
    assert both.returncode != 0, "one image failed"
    assert untimed(tmp_path / "both" / "p.csv") == untimed(tmp_path / "alone" / "p.csv")
    assert table(tmp_path / "both" / "errors.csv") == table(tmp_path / "alone" / "errors.csv")
    assert sorted(file.name for file in (tmp_path / "both").iterdir()) == ["errors.csv", "p.csv"]
    first, receipt = both.stdout.splitlines()
    assert first == alone.out.splitlines()[0].replace("alone", "both")
    assert receipt.startswith("42 of ")
    said = [line for line in both.stderr.splitlines() if line.startswith("foveate: ")]
    assert said == [alone.err.strip().replace("alone", "both")]


@pytest.mark.slow
def test_after_one_of_two_was_killed_one_or_two_go_on(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["predict", house / "model", house / "many"]
    assert main([*map(str, words), "--out", str(tmp_path / "p.csv")]) == 0
    for world in (1, 2):
        out = tmp_path / str(world) / "p.csv"
        launched = launch(*words, "--out", out)
        until(20, out)
        assert killed(launched, 1) < 60
        done = {record["path"]: record["prediction"]["seconds"] for record in records(out)}
        assert 40 <= len(done) == len(records(out)) < MANY
        assert not out.exists()
        if world == 1:
            left = count_predictions(monkeypatch)
            assert main([*map(str, words), "--out", str(out), "--resume"]) == 0
            assert left == [MANY - len(done)]
        else:
            resumed = ended(launch(*words, "--out", out, "--resume"))
            assert (resumed.returncode, resumed.stdout.splitlines()[0]) == (0, f"{MANY} predictions in {out}")
        assert untimed(out) == untimed(tmp_path / "p.csv")
        taken_over = [row for row in table(out) if row[0] in done]
        assert [row[-1] for row in taken_over] == [f"{done[row[0]]:.4f}" for row in taken_over]
        assert [file.name for file in out.parent.iterdir()] == ["p.csv"]


def count_predictions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that are predicted from now on, call by call."""
    from foveate import predict

    counts: list[int] = []
    original = predict.predict_rows

    def counted(model: Any, rows: Any, *rest: Any) -> None:
        counts.append(len(rows))
        original(model, rows, *rest)

    monkeypatch.setattr(predict, "predict_rows", counted)
    return counts


def test_a_call_that_was_stopped_goes_on_with_what_is_left(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(word) for word in ("predict", house / "model", house / "two", "--out", tmp_path / "p.csv")]
    assert main(words) == 0
    whole = untimed(tmp_path / "p.csv")
    (tmp_path / "p.csv").unlink()
    stop_after(2, monkeypatch)
    assert main(words) == 130
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv.partial"]
    assert len(records(tmp_path / "p.csv")) == 2
    monkeypatch.undo()
    assert main([*words, "--resume", "--seed", "3"]) == 2
    assert "is unfinished work with seed 0, and this call has seed 3: " in capsys.readouterr().err
    counts = count_predictions(monkeypatch)
    assert main([*words, "--resume"]) == main([*words, "--resume"]) == main(words) == 0
    assert counts == [2, 4, 4]
    assert untimed(tmp_path / "p.csv") == whole


def stop_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after so many outcomes."""
    from foveate.predict import Journal

    write = Journal.__call__

    def stopped(journal: Journal, *outcome: Any) -> None:
        write(journal, *outcome)
        if len(records(journal._path)) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "__call__", stopped)


def test_explanations_go_on_with_what_is_left(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that has gone is made again; those of images of one name are called as in one call."""
    given = [house / "model", house / "one", house / "two"]
    assert main([str(word) for word in ("explain", *given, "--out", tmp_path / "whole")]) == 3
    said = capsys.readouterr()
    words = [str(word) for word in ("explain", *given, "--out", tmp_path / "seen")]
    stop_after(6, monkeypatch)
    assert main(words) == 130
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "seen" / "3")
    capsys.readouterr()
    counts = count_predictions(monkeypatch)
    assert main([*words, "--resume"]) == 3
    assert counts == [8 - 6 + 2], "the image that failed and the one whose folder is gone are tried again"
    again = capsys.readouterr()
    assert same(again.out) == same(said.out).replace("whole", "seen")
    assert_same_explanations(tmp_path / "whole", tmp_path / "seen")


def same(printed: str) -> str:
    """What was printed, without the receipt, which tells the time."""
    return "\n".join(line for line in printed.splitlines() if " patches · " not in line)


def assert_same_explanations(one: Path, other: Path) -> None:
    assert untimed(one / "predictions.csv") == untimed(other / "predictions.csv")
    assert (one / "index.html").read_text() == (other / "index.html").read_text()
    files = [sorted(str(file.relative_to(folder)) for file in folder.rglob("*")) for folder in (one, other)]
    assert files[0] == files[1]
    told = [name for name in files[0] if name.endswith("explanation.json")]
    assert len(told) == 7
    for name in told:
        first, second = (json.loads((folder / name).read_text()) for folder in (one, other))
        assert first["path"] == second["path"]
        assert first["probabilities"] == second["probabilities"]


@pytest.mark.slow
def test_two_processes_explain_as_one(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [house / "model", house / "two", house / "one", "--what-if", "2", "--out"]
    assert main([str(word) for word in ("explain", *given, tmp_path / "whole")]) == 3
    said = capsys.readouterr()
    both = ended(launch("explain", *given, tmp_path / "seen"))
    assert same(both.stdout) == same(said.out).replace("whole", "seen")
    assert_same_explanations(tmp_path / "whole", tmp_path / "seen")


@pytest.mark.slow
def test_two_processes_evaluate_as_one(house: Path, tmp_path: Path) -> None:
    words = ["evaluate", house / "model", "--data", house / "labels.csv", "--out"]
    assert main([str(word) for word in (*words, tmp_path / "alone.json")]) == 0
    both = ended(launch(*words, tmp_path / "both.json"))
    assert both.returncode == 0, both.stderr
    alone, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "both"))
    assert json.loads(both.stdout) == other
    assert other["n"] == 7
    assert same_figures(alone, other)


def same_figures(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_figures(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_figures, one, other))
    return bool(one == pytest.approx(other, rel=1e-6)) if isinstance(one, float) else bool(one == other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "--resume goes on with what lies beside the predictions: add --out FILE, e.g. predictions.csv"),
        (["--by-group"], "--by-group writes groups.csv beside the predictions: add --out FILE, e.g. predictions.csv"),
    ],
)
def test_what_needs_a_file(words: list[str], message: str, house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(house / "model"), str(house / "two"), *words]) == 2
    assert capsys.readouterr().err == f"foveate: error: {message}\n"


@pytest.mark.slow
def test_what_is_wrong_is_said_once(house: Path, tmp_path: Path) -> None:
    both = ended(launch("predict", house / "model", house / "two"))
    said = [line for line in both.stderr.splitlines() if line.startswith("foveate: ")]
    assert both.returncode != 0
    assert said == ["foveate: error: 2 processes predict for one file: add --out FILE, e.g. predictions.csv"]
    (tmp_path / "errors.csv").write_text("mine")
    both = ended(launch("explain", house / "model", house / "two", "--out", tmp_path))
    said = [line for line in both.stderr.splitlines() if line.startswith("foveate: ")]
    assert both.returncode != 0
    assert len(said) == 1, both.stderr
    assert "is in the way" in said[0]
