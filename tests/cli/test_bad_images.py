"""One image is one image: whatever is wrong with it, it is named, the others are answered, and the exit code is 3."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from spoilt import SPOILT, small_model, spoilt_images, write

from foveate.__main__ import main

Records = list[dict[str, str]]


def records(path: Path) -> Records:
    with path.open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_once(words: list[str], journal: Path, rows: int) -> None:
    """The command, ended by SIGKILL when so many rows are in its journal."""
    process = subprocess.Popen([sys.executable, "-m", "foveate", *words], stdout=subprocess.DEVNULL)
    while lines_of(journal) < rows and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, "it was done before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert lines_of(journal) >= rows


def check_answers(folder: Path, rows: int, every: int, stop_after: int) -> None:
    manifest, bad = spoilt_images(folder, rows, every)
    model, whole, stopped = small_model(folder / "model"), folder / "whole.csv", folder / "stopped" / "all.csv"
    assert main(["predict", str(model), str(manifest), "--out", str(whole)]) == 3
    answered, failed = records(whole), records(folder / "errors.csv")
    assert [row["path"] for row in answered] == [f"images/{i:04d}.tif" for i in range(rows) if i % every != 1]
    assert [row["path"] for row in failed] == list(bad)
    assert {row["path"] for row in failed if row["path"] not in row["message"]} <= set(bad)
    words = ["predict", str(model), str(manifest), "--out", str(stopped)]
    killed_once(words, stopped.with_name("all.csv.partial"), stop_after)
    assert not stopped.exists()
    assert main([*words, "--resume"]) == 3
    assert records(stopped) == answered
    assert records(stopped.with_name("errors.csv")) == failed
    assert sorted(file.name for file in stopped.parent.iterdir()) == ["all.csv", "errors.csv"]


def test_every_image_is_answered_or_named_and_a_killed_call_goes_on(tmp_path: Path) -> None:
    check_answers(tmp_path, rows=40, every=4, stop_after=9)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_images_are_answered_or_named_and_a_killed_call_goes_on(tmp_path: Path) -> None:
    check_answers(tmp_path, rows=1000, every=4, stop_after=300)


@pytest.mark.parametrize("options", [["--batch", "4"], ["--samples", "2"], ["--by-group"]])
def test_options_of_predict_do_not_let_one_take_the_others_along(tmp_path: Path, options: list[str]) -> None:
    manifest, bad = spoilt_images(tmp_path, 8 * len(SPOILT) // 2, every=4)
    rows = [f"{line},p{number // 3}" for number, line in enumerate(manifest.read_text().splitlines()[1:])]
    manifest.write_text("\n".join(["path,label,mask,group", *rows]) + "\n")
    out = tmp_path / "out" / "all.csv"
    assert main(["predict", str(small_model(tmp_path / "m")), str(manifest), "--out", str(out), *options]) == 3
    assert [row["path"] for row in records(out.with_name("errors.csv"))] == list(bad)
    assert len(records(out)) == 20 - len(bad)


@pytest.mark.slow
def test_explain_names_each_and_explains_the_others(tmp_path: Path) -> None:
    manifest, bad = spoilt_images(tmp_path, 20)
    assert main(["explain", str(small_model(tmp_path / "m")), str(manifest), "--out", str(tmp_path / "seen")]) == 3
    assert [row["path"] for row in records(tmp_path / "seen" / "errors.csv")] == list(bad)
    assert sum((folder / "explanation.html").is_file() for folder in (tmp_path / "seen").iterdir()) == 15


def test_info_answers_every_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, bad = spoilt_images(tmp_path, 20)
    assert main(["info", "--json", str(manifest), "--model", str(small_model(tmp_path / "m"))]) == 3
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in told] == [f"images/{i:04d}.tif" for i in range(20)]
    header_fails = {name for name, how in bad.items() if how in ("truncated", "absurd", "missing")}
    assert {one["path"] for one in told if "error" in one} <= header_fails  # no pixel is read
    assert {name for name, how in bad.items() if how in ("absurd", "missing")} <= {
        one["path"] for one in told if "error" in one
    }


def test_data_check_names_beforehand_whatever_would_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, bad = spoilt_images(tmp_path, 20)
    assert main(["data", "check", str(manifest), "--json", "--deep"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    for name, how in bad.items():
        kind = {"nodata": "empty", "missing": "missing", "masked": "mask"}.get(how, "unreadable")
        assert [one["kind"] for one in problems if name in one["message"]] == [kind], (name, how)
    assert len(problems) == len(bad)


def test_a_broken_tile_is_found_by_deep_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    for name in ("a.tif", "b.tif"):
        write(tmp_path / name, np.roll(pixels, len(name) + ord(name[0]), 0))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        offset, length = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]  # type: ignore[union-attr]
    with (tmp_path / "b.tif").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    (tmp_path / "m.csv").write_text("path,label\na.tif,x\nb.tif,y\n")
    assert main(["data", "check", str(tmp_path / "m.csv")]) == 0
    assert main(["data", "check", str(tmp_path / "m.csv"), "--deep"]) == 2
    out = capsys.readouterr().out
    assert "b.tif: broken tile at row 1, column 0 of level 0" in out
    assert "a.tif" not in out


def test_values_beyond_float32_are_the_images_fault_and_not_the_weights(tmp_path: Path) -> None:
    values = np.random.default_rng(2).random((60, 80, 3)).astype(np.float32)
    for name, factor in {"a": 1.0, "b": 3.4e38, "c": 1.0}.items():
        write(tmp_path / f"{name}.tif", values * np.float32(factor))
    model, out = str(small_model(tmp_path / "model")), tmp_path / "all.csv"
    paths = [str(tmp_path / f"{name}.tif") for name in "abc"]
    assert main(["predict", model, *paths, "--out", str(out)]) == 3
    (failure,) = records(tmp_path / "errors.csv")
    assert failure["path"] == paths[1]


def test_quick_and_deep_are_not_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = spoilt_images(tmp_path, 1)
    assert main(["data", "check", str(manifest), "--quick", "--deep"]) == 2
    assert capsys.readouterr().err == (
        "foveate: error: --quick reads headers only and --deep all tiles: give one of the two\n"
    )


@pytest.mark.parametrize("options", [[], ["--by-group"]])
def test_evaluation_counts_those_that_can_be_read_and_names_the_others(tmp_path: Path, options: list[str]) -> None:
    manifest, bad = spoilt_images(tmp_path, 20)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([f"{lines[0]},group", *(f"{line},p{line[:11]}" for line in lines[1:])]) + "\n")
    good = tmp_path / "good.csv"
    good.write_text("\n".join(line for line in manifest.read_text().splitlines() if line.split(",")[0] not in bad))
    model, found = str(small_model(tmp_path / "m")), {}
    for name, code in {"images.csv": 3, "good.csv": 0}.items():
        out = tmp_path / "figures" / f"{name}.json"
        out.parent.mkdir(exist_ok=True)
        assert main(["evaluate", model, "--data", str(tmp_path / name), "--out", str(out), *options]) == code
        found[name] = json.loads(out.read_text())
        if code == 3:
            assert [row["path"] for row in records(out.with_name("errors.csv"))] == list(bad)
    assert found["images.csv"].pop("failed") == len(bad)
    losses = [figures.pop("loss") for figures in found.values()]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert found["images.csv"] == found["good.csv"]
    assert not (tmp_path / "figures" / "errors.csv").exists(), "of an earlier call"


def test_training_is_ended_by_one_and_goes_on_without_all(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, bad = spoilt_images(tmp_path / "data", 40)
    words = ["train", "--config", str(config), "--data", str(manifest), "--training.skip_limit", "0.5"]
    assert main([*words, "--out", str(tmp_path / "raise")]) == 2
    assert capsys.readouterr().err.startswith("foveate: error: ")
    assert main([*words, "--out", str(tmp_path / "run"), "--on-error", "skip"]) == 0
    named = [row["path"] for row in records(tmp_path / "run" / "skipped.csv")]
    splits = json.loads((tmp_path / "run" / "state" / "images.json").read_text())["images"]
    assert sorted(named) == sorted(name for name, _, split in splits if split != "test" and name in bad)
    assert len(named) > 5
