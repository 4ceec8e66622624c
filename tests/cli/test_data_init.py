"""`foveate data init` and what comes after it, as a user meets them: a folder of pictures, four commands, an answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import command
from missing import raster
from PIL import Image

from foveate.cli import main
from foveate.config.files import load_settings
from foveate.training.rehearsal import Rehearsal, verdicts


def photograph(path: Path, number: int, marked: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    pixels = random.integers(80, 130, (150 + 10 * (number % 2), 200, 3), dtype=np.uint8)
    if marked:
        top, left = random.integers(0, 120), random.integers(0, 170)
        pixels[top : top + 24, left : left + 24] = (230, 60, 60)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty small pictures in two class folders, one of them cut off."""
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        photograph(Path("photos") / ("ok", "spot")[number % 2] / f"{number:02d}.png", number, bool(number % 2))
    broken = Path("photos/ok/04.png")
    broken.write_bytes(broken.read_bytes()[:11])
    return Path("photos")


def test_a_folder_becomes_a_manifest_and_a_configuration_that_trains(photos: Path, capsys: Any) -> None:
    assert main(["data", "init", "photos"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "manifest.csv: 20 images of 2 classes, a row each"
    assert told[1] == "20 images, median 160×200 (height × width), longest sides 200 to 200 pixels"
    assert any(line.startswith("cannot be read: ") and "04.png" in line for line in told)
    assert told[-4].startswith("taken for photographs: ")
    assert told[-4].endswith("; if they are not, --preset pathology or remote-sensing")
    assert told[-2:] == [
        "  foveate doctor --config config.yaml",
        "  foveate train --config config.yaml --out runs/first",
    ]
    settings = load_settings("config.yaml")
    assert settings.data.manifest == str(Path("manifest.csv").resolve())
    assert (settings.data.background, settings.training.on_error) == ("ok", "skip")
    assert main(["data", "init", "photos"]) == 2
    assert capsys.readouterr().err.endswith(
        "config.yaml exists, and may have been edited: remove it, or choose another --out\n"
    )
    quick = ["--training.find.starts", "0", "--training.watch", "0", "--training.max_steps", "1"]
    assert main([*command("train", "--config", "config.yaml", "--out", "runs/first"), *quick]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("images: 12 to train on (") or told[0].startswith("images: 11 to train on (")
    assert any(" was learnt" in line for line in told)
    assert told[-1] == (
        "next: foveate evaluate runs/first · foveate report runs/first · foveate explain runs/first PATH --out seen"
    )
    assert "04.png" in Path("runs/first/skipped.csv").read_text()
    few = ["photos/ok/00.png", "photos/spot/01.png"]
    assert main(["predict", "runs/first", *few, "--out", "predictions.csv"]) == 0
    assert len(Path("predictions.csv").read_text().splitlines()) == 3
    assert main(["explain", "runs/first", *few, "--out", "seen"]) == 0
    assert Path("seen/index.html").is_file()


@pytest.mark.slow
def test_an_advised_configuration_is_dry_run(photos: Path, capsys: Any) -> None:
    assert main(["data", "init", "photos", "--out", "made/quick.yaml", "--minutes", "5"]) == 0
    assert Path("made/quick.csv").is_file()
    capsys.readouterr()
    assert main(["doctor", "--config", "made/quick.yaml", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {"images", "model", "schedule", "memory", "finding", "pace", "time"} <= rows.keys()
    assert " GB at the peak of a step of 4 images on cpu, " in rows["memory"]["found"]
    assert rows["pace"]["found"].startswith("an epoch takes ")
    assert not Path("runs").exists()


def test_the_dry_run_measures_a_step_and_says_what_to_lower(
    images: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    words = command("doctor", "--config", config, "--data", images, "--json")
    assert main(words) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(rows) == ["images", "note", "model", "schedule", "memory", "pace", "time"]
    assert rows["images"]["found"].startswith("14 to train on (")
    assert " GB at the peak of a step of 4 images on cpu, " in rows["memory"]["found"]
    assert rows["pace"]["found"].startswith("an epoch takes ")
    assert rows["time"]["found"].startswith("2 epochs take about ")
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"
    assert main([*words, "--memory", "0.05"]) == 2
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["memory"]["state"] == "wrong"
    assert rows["memory"]["remedy"] == "lower model.view, model.patch or model.patches: not even one image fits"
    short = tmp_path / "short.yaml"
    short.write_text(config.read_text().replace("epochs: 2", "epochs: 90000, max_minutes: 0.01"))
    assert main(command("doctor", "--config", short, "--data", images, "--json")) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert "; training.max_minutes 0.01 ends it after about " in rows["time"]["found"]


def rehearsal(**changes: Any) -> Rehearsal:
    plain: dict[str, Any] = {
        "lines": (), "device": "cpu", "batch": 16, "memory": 10 * 10**9, "per_image": 5 * 10**8,
        "available": 20 * 10**9, "whole": True, "first": 100.0, "epoch": 50.0, "finding": 60.0, "validation": 10.0,
        "stages": {"view": 0.1, "read": 0.7, "learn": 0.2}, "frozen": False, "epochs": 20.0, "minutes": 60.0,
    }  # fmt: skip
    return Rehearsal(**plain | changes)


def test_what_follows_from_a_few_steps() -> None:
    found = rehearsal()
    assert found.total == 60 + 100 + 19 * 50 + 20 * 10
    assert (found.fits, found.largest, found.epochs_in_time) == (True, 32, 20.0)
    tight = rehearsal(available=8 * 10**9, whole=False, minutes=6.0)
    assert (tight.fits, tight.largest) == (False, 10)
    assert tight.epochs_in_time == pytest.approx(1 + (360 - 60 - 100 - 10) / 60)
    rows = {name: (state, told, remedy) for name, state, told, remedy in verdicts(tight)}
    assert rows["memory"] == (
        "wrong",
        "10.0 GB at the peak of a step of 16 images on cpu, 8.0 GB are there; 500 MB an image (foretold from smaller "
        "batches)",
        "set training.batch to 10",
    )
    state, told, remedy = rows["time"]
    assert state == "low"
    assert told == "20 epochs take about 22 min; training.max_minutes 6 ends it after about 4.2 of them"
    assert remedy.startswith("raise training.max_minutes, lower model.view")
    assert rows["pace"][1].endswith("most of the first: read (70%)")
    assert rows["pace"][2].startswith("foveate convert")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["doctor", "--data", "x.csv"],
            "--data and --memory belong to a dry run: give --config FILE, or a preset, too",
        ),
        (
            ["doctor", "--config", "nowhere.yaml"],
            "cannot read the configuration nowhere.yaml: No such file or directory",
        ),
        (
            ["doctor", "--config", "manifest", "--memory", "0"],
            "--memory must be positive, got 0: give gigabytes, e.g. 8",
        ),
        (
            ["data", "init", "photos", "--memory", "-1"],
            "--memory must be positive, got -1: leave it out, or give a number",
        ),
        (["data", "init", "photos", "--out", "x.csv"], "--out is a YAML file, got x.csv: call it e.g. x.yaml"),
        (["data", "init", "photos", "--preset", "smoke"], "invalid choice: 'smoke'"),
        (["data", "init", "nowhere"], "nowhere"),
        (["data", "init", "table.xlsx"], "an Excel or OpenDocument workbook"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], message: str, photos: Path, capsys: Any) -> None:
    Path("table.xlsx").write_bytes(b"PK\x03\x04")
    assert main(words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not Path("config.yaml").exists()


def test_images_without_labels_get_a_table_to_write_them_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        photograph(Path("flat") / f"{number}.png", number, bool(number % 2))
    assert main(["data", "init", "flat"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == (
        "foveate: error: none of 6 images has a label: write the class of each into the column label of manifest.csv, "
        "or sort the images into one folder per class; then foveate data init manifest.csv"
    )
    assert Path("manifest.csv").read_text().splitlines()[:2] == ["path,label", "flat/0.png,"]
    assert not Path("config.yaml").exists()
    assert main(["data", "init", "flat"]) == 2, "again, the table stays"
    rows = [f"flat/{number}.png,{'ab'[number % 2]}" for number in range(6)]
    Path("manifest.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    assert main(["data", "init", "manifest.csv"]) == 0
    assert Path("config.yaml").is_file()


def test_columns_of_another_program_go_into_the_configuration(photos: Path, capsys: Any) -> None:
    rows = [f"{('ok', 'spot')[n % 2]}/{n:02d}.png,{n % 2},p{n // 4}" for n in range(20)]
    Path("theirs.csv").write_text("file,class,patient\n" + "\n".join(rows) + "\n")
    columns = ["--columns", "file=path,class=label", "--columns", "patient=group", "--images", "photos"]
    assert main(["data", "init", "theirs.csv", *columns]) == 0
    settings = load_settings("config.yaml")
    assert settings.data.columns == ("file=path,class=label", "patient=group")
    assert settings.data.images == str(Path("photos").resolve())
    from foveate.datasets import open_dataset

    images = open_dataset(settings.data, check_files=False)
    assert len({one.group for one in images.examples}) == 5


SHORT = {
    "find": {"epochs": 2, "least_steps": 5, "starts": 1, "kind_steps": 5, "linear": False, "tops": [3.0]},
    "max_steps": 1,
    "watch": 0,
}


@pytest.mark.parametrize("kind", [pytest.param("pathology", marks=pytest.mark.slow), "remote-sensing"])
def test_presets_train_on_data_of_their_kind(kind: str, tmp_path: Path, capsys: Any) -> None:
    """Stained tissue on glass; and scenes of four bands and 16 bits, a part of which is no data."""
    random, rows = np.random.default_rng(0), []
    for number in range(10):
        file = tmp_path / f"{number}.{'png' if kind == 'pathology' else 'tif'}"
        if kind == "pathology":
            pixels = random.normal(235, 5, (140, 180, 3))
            pixels[30:110, 40:150] = random.normal((200, 110, 170), 20, (80, 110, 3))
            if number % 2:
                pixels[50:74, 60:84] = random.normal((90, 50, 140), 10, (24, 24, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
        else:
            scene = random.normal(3000, 200, (140, 180, 4))
            if number % 2:
                scene[50:74, 60:84] = (900, 800, 500, 200)
            scene[:20] = 0
            raster(file, scene.clip(0, None).astype(np.uint16), nodata=0)
        rows.append(f"{file.name},{('normal', 'found')[number % 2]}")
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "short.yaml").write_text(yaml.safe_dump({"training": SHORT}))
    words = command("train", kind, "--config", tmp_path / "short.yaml", "--data", tmp_path / "list.csv")
    assert main([*words, *command("--out", tmp_path / "run", "--training.batch", 4)]) == 0
    told = capsys.readouterr().out
    assert "found: evidence against 'normal'" in told
    assert ("each band is normalised by its mean" in told) == (kind == "remote-sensing")
    assert "whether anything was learnt cannot be told: of 1 validation image it errs on" in told
