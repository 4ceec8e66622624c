"""`foveate train` as a user meets it: words in, exit code and lines out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import command, ended, killed, launch
from seeing import seeing_model, seeing_settings

from foveate.cli import main
from foveate.config.files import preset
from foveate.models import save_model
from foveate.training.run_folder import read_metrics


def test_a_preset_file_and_flags_override_each_other_in_turn(config: Path, tmp_path: Path) -> None:
    from foveate.cli.train import read_arguments

    words = ["smoke", "--config", config, "--training.batch=2", "--model.patch", 24, 30, "--augment.bias", -0.1, 0.1]
    options, settings = read_arguments(command(*words, "--data", "mine.csv", "--resume", "--folds", 3))
    assert (options["out"], options["resume"], options["folds"]) == (Path("runs/smoke"), True, 3)
    assert settings.training.max_steps == 60, "from the preset"
    assert settings.training.epochs == 2, "from the file"
    assert settings.training.batch == 2, "from a flag"
    assert settings.model.patch == (24, 30)
    assert settings.augment.bias == (-0.1, 0.1)
    assert (settings.data.source, settings.data.manifest) == ("manifest", str(Path("mine.csv").resolve()))


def test_code_that_a_file_names_is_allowed_by_name_and_code_that_is_typed_is_meant(tmp_path: Path) -> None:
    from foveate.cli.train import read_arguments
    from foveate.errors import ConfigError

    file, name = tmp_path / "theirs.yaml", "somebodys:network"
    file.write_text(f"model: {{features: {{name: '{name}'}}}}\n")
    with pytest.raises(ConfigError, match=f"^{file} would import and call {name}"):
        read_arguments(command("smoke", "--config", file))
    for words in (["--allow-code", name], ["--model.features.name", name], ["--model.features.name", "residual"]):
        read_arguments(command("smoke", "--config", file, *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smoke", "--model.patchs", "3"], "unknown key model.patchs: did you mean model.patches?"),
        (["smoke", "--patches", "3"], "unknown option patches: did you mean model.patches?"),
        (["smoke", "--resum"], "unknown option resum: did you mean resume?"),
        (["smok"], 'unknown preset "smok": choose one of'),
        (
            ["smoke", "--training.epochs", "many"],
            "training.epochs must be an integer, got 'many'. See foveate train --help",
        ),
        (["smoke", "--training.schedule", "cosin"], "got 'cosin': did you mean cosine? See foveate train --help"),
        (["smoke", "--model.patch", "50"], "model.patch must have 2 values, got 1: [50]. See foveate train --help"),
        ([], "what to train is missing: give a preset ("),
        (["--config", "nowhere.yaml"], "cannot read the configuration nowhere.yaml: No such file or directory"),
        (["manifest"], "no images to train on: give --data MANIFEST"),
        (["manifest", "--data", "nowhere.csv"], "nowhere.csv"),
        (["--resume", "--out", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_and_a_broken_image(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    start = command("train", "--config", config, "--data", images, "--out", tmp_path / "run")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:200])
    assert main([*start, "--data.validation=0.1", "--training.epochs=1"]) == 2
    said = capsys.readouterr().err
    assert "3.png" in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "run" / "state" / "state.safetensors").exists()
    (tmp_path / "3.png").unlink()
    assert main([*start, "--resume"]) == 2
    assert "3.png" in capsys.readouterr().err


def test_the_cache_is_told_and_may_be_deleted(
    images: Path, config: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command("train", "--config", config, "--data", images, "--training.epochs=1", "--out")
    assert main([*words, "run", "--data.cache_folder", "kept"]) == 0
    told = capsys.readouterr().out.splitlines()
    taken = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.npy"))
    where = f"{taken / 1e6:.1f} MB of decoded images and views in {tmp_path / 'kept'}"
    assert f"cache: {where}: delete it freely" in told
    assert taken > 0
    shutil.rmtree(tmp_path / "kept")
    assert main([*words, "again", "--data.cache", "off"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("cache") for line in again)
    first, second = (read_metrics(tmp_path / run / "metrics.jsonl", "step") for run in ("run", "again"))
    assert [record["loss"] for record in first] == [record["loss"] for record in second]


def test_cross_validation(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    words = command("train", "--config", config, "--data", images, "--out", tmp_path / "run", "--folds", 2)
    words.append("--training.epochs=1")
    assert main(words) == 0
    summary = json.loads((tmp_path / "run" / "folds.json").read_text())
    errors = [fold["error"] for fold in summary["folds"]]
    assert [fold["n"] for fold in summary["folds"]] == [10, 10]
    assert summary["mean"] == pytest.approx(sum(errors) / 2)
    assert summary["standard_error"] == pytest.approx(abs(errors[0] - errors[1]) / 2)
    assert main(words) == 2
    assert "is not empty: add --resume to continue the folds there" in capsys.readouterr().err
    assert main(command("train", "--resume", "--out", tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert said.endswith("holds the folds of a cross-validation: add --folds K, with the K it was begun with\n")
    assert len(said.splitlines()) == 1
    before = (tmp_path / "run" / "fold-1" / "model" / "model.safetensors").stat().st_mtime_ns
    assert main([*words, "--resume"]) == 0
    capsys.readouterr()
    assert main(command("evaluate", tmp_path / "run" / "fold-1")) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["n"], again["error"]) == (10, errors[0]), "a fold is evaluated on the images it never saw"
    assert main(command("report", tmp_path / "run")) == 0
    assert "held-out images" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "fold-1" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_published_files_are_found_from_anywhere(config: Path) -> None:
    from foveate.cli.train import read_arguments

    words = command("--config", config, "--data.source", "colon-cancer", "--data.published", "files.zip")
    _, settings = read_arguments(words)
    assert settings.data.published == str(Path("files.zip").resolve())


def test_help_lists_settings_and_loads_no_torch() -> None:
    code = (
        "import sys; from foveate.cli import main; code = main(['train', '--help']); "
        "assert 'torch' not in sys.modules and 'accelerate' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--model.patches" in done.stdout
    assert "Patches read per image and draw." in done.stdout


def start_training(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "foveate", "train", *command(*words)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), pytest.param(signal.SIGTERM, 143, "SIGTERM", marks=pytest.mark.slow)],
)
def test_a_stopped_run_exits_as_told_and_resumes(
    number: int, code: int, name: str, images: Path, config: Path, tmp_path: Path, capsys: Any
) -> None:
    run = tmp_path / "run"
    words = [
        "--config",
        config,
        "--data",
        images,
        "--out",
        run,
        "--training.epochs",
        "100000",
        "--training.threads",
        "1",
    ]
    process = start_training(*words)
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said.startswith(f"foveate: stopped by {name} after step ")
    assert said.rstrip().endswith(f"to continue: foveate train --resume --out {run}")
    assert len(said.splitlines()) == 1
    steps = len(read_metrics(run / "metrics.jsonl", "step"))
    total = str(steps + 3)
    assert main(command("train", "--resume", "--out", run, "--training.max_steps", total, "--training.epochs=2")) == 0
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl", "step")][:steps] == list(
        range(1, steps + 1)
    )


def run_two_processes(*words: object) -> subprocess.CompletedProcess[str]:
    return ended(launch("train", *words))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_in_a_step_takes_the_other_along(
    rank: int, images: Path, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["--config", config, "--data", images, "--out", run, "--training.epochs", "100000"]
    launched = launch("train", *words)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_bytes().count(b"\n") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert killed(launched, rank) < 60
    assert (run / "state" / "state.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_image_broken_for_one_process_stops_both(split: str, images: Path, config: Path, tmp_path: Path) -> None:
    """The second process meets it, in a step or in validation: the first names the file, and saves the state."""
    table = ["path,label,split"]
    table += [f"{i}.png,{('red', 'green')[i % 2]},{('train', 'validation')[i >= 14]}" for i in range(20)]
    images.write_text("\n".join(table) + "\n")
    broken = tmp_path / {"train": "3.png", "validation": "19.png"}[split]  # of the second process
    broken.write_bytes(broken.read_bytes()[:200])
    done = run_two_processes("--config", config, "--data", images, "--out", tmp_path / "run", "--training.batch", "6")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("foveate: ")]
    assert len(said) == 1, done.stderr
    assert broken.name in said[0]
    assert (tmp_path / "run" / "state" / "state.safetensors").exists()


@pytest.mark.slow
def test_two_processes_follow_one(images: Path, config: Path, tmp_path: Path) -> None:
    """A hundred steps, every other one of a single image, which leaves a process idle: the same losses, one writer."""
    changes = ["--data", str(images), "--training.epochs", "50", "--training.batch", "11", "--data.validation", "0.25"]
    changes += ["--model.features.learning_rate", "1e-3", "--model.input.normalise", "bands"]
    alone = start_training("--config", config, *changes, "--out", tmp_path / "alone")
    told_alone, error = alone.communicate(timeout=280)
    assert alone.returncode == 0, error
    both = run_two_processes("--config", config, *changes, "--out", tmp_path / "both")
    assert both.returncode == 0, both.stderr
    assert json.loads((tmp_path / "both" / "environment.json").read_text())["processes"] == 2
    first, second = (read_metrics(tmp_path / run / "metrics.jsonl", "step") for run in ("alone", "both"))
    assert len(first) == len(second) == 100
    assert [b["loss"] for b in second] == pytest.approx([a["loss"] for a in first], rel=1e-5)
    epochs = [read_metrics(tmp_path / run / "metrics.jsonl", "epoch") for run in ("alone", "both")]
    for a, b in zip(*epochs, strict=True):
        assert a["validation_error"] == b["validation_error"]
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], abs=1e-4)
    assert len(both.stdout.splitlines()) == len(told_alone.splitlines())


def test_a_model_that_is_evidence_alone_is_said_to_be(tmp_path: Path) -> None:
    from foveate.cli.train import _kept

    settings, folder = preset("manifest"), save_model(seeing_model(), tmp_path / "model")
    said = (
        "it is evidence alone, which reads no patches: attention-sampling has not been better, or has not had the time"
    )
    assert _kept(settings, folder) == [said]
    assert _kept(replace(settings, model=seeing_settings()), folder) == []


def test_a_stage_of_several_folds_is_refused(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    words = command("train", "--config", config, "--data", images, "--out", tmp_path / "run", "--folds", 2)
    assert main([*words, "--stage", "find"]) == 2
    assert "leave it out, or --folds" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
