"""`foveate evaluate` as a user meets it, after `foveate train`."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import command
from PIL import Image

from foveate.cli import main
from foveate.config.files import load_settings


def test_train_then_evaluate(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert main(command("train", "--config", config, "--data", images, "--out", run, "--model.patches", 2)) == 0
    told = capsys.readouterr().out.splitlines()
    (best,) = (line for line in told if line.startswith("best validation error "))
    assert f"in {run / 'model'}" in best
    settings = load_settings(run / "config.yaml")
    assert (settings.model.patches, settings.data.source, settings.training.epochs) == (2, "manifest", 2)

    assert main(command("evaluate", run)) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((run / "metrics.json").read_text())
    assert (figures["n"], figures["patches_per_image"], figures["view_size"]) == (4, 2, [14, 24])
    low, high = figures["interval"]
    assert low <= figures["error"] <= high

    assert main(command("evaluate", run, "--data", images, "--out", tmp_path / "own.json")) == 0
    assert json.loads((tmp_path / "own.json").read_text())["n"] == 4, "the run's own manifest keeps the run's split"
    capsys.readouterr()
    copy = tmp_path / "copy.csv"
    copy.write_text(images.read_text() + "more.png,red\n")
    Image.new("RGB", (90, 52)).save(tmp_path / "more.png")
    assert main(command("evaluate", run, "--data", copy)) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 4 + 1, "its training images are known by their ids"
    assert main(command("evaluate", run, "--data", copy, "--split", "train")) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 14
    other = tmp_path / "other.csv"
    others = images.read_text().splitlines()
    others[1:] = [f"{tmp_path}/{row}" for row in others[1:]]
    other.write_text("\n".join(others))
    assert main(command("evaluate", run, "--data", other, "--samples", 2, "--method", "iid")) == 0
    capsys.readouterr()
    everything = json.loads((run / "metrics.json").read_text())
    assert (everything["n"], everything["split"], everything["patches_per_image"]) == (20, "all", 4)
    assert main(command("evaluate", run, "--data", other, "--split", "test")) == 2
    assert "names no splits: leave out --split to take all its images" in capsys.readouterr().err


def test_evaluate_says_what_it_misses(images: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(command("evaluate", tmp_path)) == 2
    assert "is not a run or model folder" in capsys.readouterr().err
    assert main(command("evaluate", "no-such-run")) == 2
    assert "no folder and no shipped model is called no-such-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("batch", 0, "leave it out, or give 1 or more"),
        ("samples", 0, "1 is one draw, 4 averages four"),
        ("threads", -1, "leave it out, or give 1 or more"),
    ],
)
def test_evaluate_counts_from_somewhere(option: str, value: int, remedy: str, capsys: Any) -> None:
    assert main(command("evaluate", "no-such-run", f"--{option}={value}")) == 2
    assert capsys.readouterr().err == f"foveate: error: --{option} must be at least 1, got {value}: {remedy}\n"


def test_evaluate_refuses_a_split_without_images(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert main(command("train", "--config", config, "--data", images, "--out", run, "--training.epochs=1")) == 0
    assert main(command("evaluate", run, "--split", "tset")) == 2
    assert "no image is in the tset split: choose another --split" in capsys.readouterr().err


def test_evaluate_by_group_and_on_a_terminal(
    images: Path, config: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, manifest = tmp_path / "run", tmp_path / "patients.csv"
    words = command("train", "--config", config, "--data", images, "--out", run, "--training.epochs=1")
    assert main(words) == 0
    rows = [f"{tmp_path}/{i}.png,{('red', 'green')[i % 2]},{f'p{i % 4}' if i < 16 else ''}" for i in range(20)]
    manifest.write_text("\n".join(["path,label,group", *rows]))
    capsys.readouterr()
    assert main(command("evaluate", run, "--data", manifest, "--by-group")) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["images"], figures["by_group"]) == (8, 20, True)
    assert set(figures["recalls"]) == {"green", "red"}
    assert sum(map(sum, figures["confusion"])) == 8
    assert 0 <= figures["balanced_error"] <= 1
    assert 0 <= figures["auc"] <= 1
    assert main(command("evaluate", run, "--by-group")) == 2
    assert capsys.readouterr().err == (
        "foveate: error: --by-group needs to know which images belong together: give --data with a column group\n"
    )
    manifest.write_text(manifest.read_text().replace("0.png,red,p0", "0.png,green,p0", 1))
    assert main(command("evaluate", run, "--data", manifest, "--by-group")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("foveate: error: the images of group 'p0' have different labels (")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(command("evaluate", run, "--data", manifest)) == 0
    printed = capsys.readouterr().out
    for word in ("balanced error", "AUC", "recall", "as green", "as red"):
        assert word in printed


def test_it_says_how_many_objects_were_covered(
    config: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = [
        "--data.source=megapixel-mnist",
        "--data.canvas",
        150,
        180,
        "--data.train_images=20",
        "--data.test_images=9",
    ]
    assert main(command("train", "--config", config, "--out", run, "--training.epochs=1", *words)) == 0
    capsys.readouterr()
    assert main(command("evaluate", run)) == 0
    found = json.loads(capsys.readouterr().out)["coverage"]
    assert (found["images"], found["objects_per_image"]) == (9, 5.0)
    assert 0 <= found["covered_per_image"] <= 5
    assert 0 <= found["error_floor"] <= 1
    assert json.loads((run / "metrics.json").read_text())["coverage"] == found
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(command("evaluate", run)) == 0
    printed = capsys.readouterr().out
    assert f"{found['covered_per_image']:.2f} of 5.00" in printed
    assert "error that this leaves" in printed


DIGITS = ["--data.source=megapixel-mnist", "--data.canvas", 150, 180, "--data.train_images=20", "--data.test_images=6"]


@pytest.mark.parametrize("name", ["attention-sampling", pytest.param("deep-mil", marks=pytest.mark.slow)])
def test_maps_are_scored_and_covered(
    name: str, config: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = command("train", "--config", config, "--out", run, "--training.epochs=1", f"--model.name={name}", *DIGITS)
    assert main(words) == 0
    capsys.readouterr()
    assert main(command("evaluate", run)) == 0
    plain = json.loads(capsys.readouterr().out)
    words = command("evaluate", run, "--localisation", "--deletion", "--samples", 2)
    assert main([*words, "--out", str(tmp_path / "own.json")]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "own.json").read_text())
    assert set(figures) - set(plain) == {"localisation", "deletion"}
    found, covered = figures["localisation"], figures["deletion"]
    assert (found["images"], found["objects_per_image"]) == (6, 5.0)
    for score in ("chance", "mass", "pointing", "average_precision"):
        low, high = found[score]["interval"]
        assert 0 <= low <= found[score]["mean"] <= high <= 1
    assert (found["objects_hit"] is None) == (name == "deep-mil")
    assert covered["covered"] == [0, 1, 2, 5, 10, 20]
    assert covered["by_attention"][0] == covered["by_chance"][0]
    assert covered["drop"]["images"] == 6
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(words) == 0
    printed = capsys.readouterr().out
    for word in ("5.00 objects in each of 6 images", "pointing game", f"{found['mass']['mean']:.4f}", "by chance"):
        assert word in printed
    assert ("patches that hit one" in printed) == (name != "deep-mil")


def test_maps_are_scored_only_where_it_is_known_what_is_there(
    images: Path, config: Path, tmp_path: Path, capsys: Any
) -> None:
    for name, asked, said in (
        ("cnn", "--deletion", "a cnn model has no attention to cover by"),
        ("cnn", "--localisation", "a cnn model has neither a map nor patches to score"),
        (
            "uniform",
            "--localisation",
            "maps can be scored where the truth is known: put an objects.csv beside the manifest",
        ),
    ):
        run = tmp_path / name
        if not run.exists():
            words = ["train", "--config", config, "--data", images, "--training.epochs=1", f"--model.name={name}"]
            assert main(command(*words, "--out", run)) == 0
        capsys.readouterr()
        assert main(command("evaluate", run, asked)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not (run / "metrics.json").exists()


def test_several_labels_from_manifest_to_figures(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    run, manifest = tmp_path / "run", tmp_path / "tags.csv"
    rows = [f"{i}.png,{('red', 'green|blue', '', 'red|blue')[i % 4]}" for i in range(20)]
    manifest.write_text("\n".join(["path,label", *rows]))
    words = command("train", "--config", config, "--data", manifest, "--out", run, "--training.epochs=1")
    assert main([*words, "--data.multi_label=true", "--training.class_weights=balanced"]) == 0
    capsys.readouterr()
    assert main(command("evaluate", run)) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["confusion"] is None
    assert set(figures["recalls"]) == {"blue", "green", "red"}
    assert figures["error"] <= figures["exact_match_error"]
    assert main(command("evaluate", run, "--data", manifest, "--split", "train")) == 0
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["path,label", *(f"{tmp_path}/{row}" for row in rows)]))
    capsys.readouterr()
    assert main(command("evaluate", run, "--data", other)) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 20
