"""Disks that are full: a verb ends at once, names the file it could not write, blames no image and loses nothing.

The system's own limit on the size of a file (RLIMIT_FSIZE) makes every writer fail as a full disk does, whatever
language it is of.
"""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import command
from full_disk import limited
from spoilt import small_model

from foveate.__main__ import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "model", ("red", "green"))


def _train(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    words = command("train", "--config", config, "--data", images, "--out", folder / "run", "--training.epochs=1")
    return [*words, "--data.validation=0.2", "--data.cache=off", "--resume"]


def _predict(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    words = command("predict", model, images, "--out", folder / "all.csv", "--receipts", folder / "receipts.jsonl")
    return [*words, "--resume"]


def _explain(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("explain", model, *sorted(images.parent.glob("1?.png"))[:3], "--out", folder / "told", "--resume")


def _evaluate(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("evaluate", model, "--data", images, "--out", folder / "metrics.json")


def _tiff(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("convert", images.parent / "1.png", folder / "a.tif", "--tile", 64)


def _zarr(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    pytest.importorskip("zarr")
    return command("convert", images.parent / "1.png", folder / "a.zarr", "--tile", 64)


def _canvases(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command(
        "data",
        "megapixel-mnist",
        "--out",
        folder / "canvases",
        "--train",
        3,
        "--test",
        2,
        "--size",
        220,
        260,
        "--resume",
    )


def _split(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("data", "split", images, "--out", folder / "split.csv")


def _compare(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    plain = {
        "base": {**yaml.safe_load(config.read_text()), "data": {"manifest": str(images), "validation": 0}},
        "folds": 2,
        "methods": {"ats": None, "uniform": {"settings": {"model": {"name": "uniform"}}}},
        "cost": {"batch": 2, "rounds": 1, "warm_up": 0, "process": False},
        "resamples": 100,
    }
    config.with_name("compare.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    return command("compare", "--config", config.with_name("compare.yaml"), "--out", folder / "compared")


def _report(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("report", model, "--data", images, "--out", folder / "report.html")


def _calibrate(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("calibrate", model, "--data", images, "--out", folder / "calibrated")


def _init(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("data", "init", images, "--out", folder / "advised.yaml")


def _export(folder: Path, config: Path, images: Path, model: Path) -> list[str]:
    return command("export", model, "--out", folder / "exported", "--format", "torch")


SLOW = [pytest.param(verb, marks=pytest.mark.slow) for verb in (_compare, _export)]  # five comparisons or exports
VERBS = (_train, _predict, _explain, _evaluate, _report, _calibrate, _tiff, _zarr, _canvases, _split, _init, *SLOW)


def written(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__[1:])
def test_a_full_disk_ends_a_verb_in_a_line_that_names_the_file_and_nothing_is_lost(
    verb: Callable[..., list[str]],
    tmp_path: Path,
    config: Path,
    images: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "other"  # names of one length: some files hold their own
    for folder in (whole, part):
        folder.mkdir()
    assert main(verb(whole, config, images, model)) == 0, capsys.readouterr().err
    right = written(whole)
    sizes = sorted(set(right.values()))
    words = verb(part, config, images, model)
    for limit in dict.fromkeys((0, sizes[len(sizes) // 2] - 1, sizes[-1] // 2)):
        capsys.readouterr()
        with limited(limit):
            code = main(words)
        said = capsys.readouterr().err
        assert code == 2, said
        *progress, line = said.splitlines()
        assert all("images looked at" in one for one in progress), said
        assert line.startswith(f"foveate: error: {part}")
        assert "cannot be written (File too large): write to another file system" in line
        assert not list(part.rglob("*.part"))
        assert not list(part.rglob("errors.csv")), "no image is at fault"
    assert main(words) == 0, capsys.readouterr().err
    assert written(part).keys() == right.keys()
    if verb in (_predict, _explain):
        tables = [next(folder.rglob("*.csv")) for folder in (whole, part)]
        found, wanted = ([row[:3] for row in csv.reader(table.read_text().splitlines())] for table in tables)
        assert found == wanted


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full_is_named(images: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("predict", model, images, "--out", "/dev/full")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = "/dev/full: cannot be written (No space left on device): free some space or write elsewhere"
    assert line == f"foveate: error: {said}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_standard_output_is_a_line(images: Path) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "foveate", "info", str(images.parent / "1.png")]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    said = "the standard output: cannot be written (No space left on device): free some space or write elsewhere"
    assert line == f"foveate: error: {said}"


def test_a_model_that_could_not_be_written_leaves_the_old_one(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(model)
    shutil.copytree(model, tmp_path / "kept")
    with limited(min(before.values()) - 1), pytest.raises(Exception, match=r"model/.*: cannot be written \(File too"):
        small_model(model)
    assert written(model) == before
    for name in before:
        assert (model / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
