import csv
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.cli import VERBS, data
from foveate.cli.parser import Parser
from foveate.config.settings import DataSettings
from foveate.datasets import megapixel_mnist, read_manifest
from foveate.datasets.manifest.write import claim_folder
from foveate.errors import ConfigError, DataError, RunError
from foveate.types import Box


def run(*words: object) -> int:
    parser = Parser("foveate data")
    data.add_arguments(parser)
    return data.run(parser.parse_arguments([str(word) for word in words]))


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


SMALL = ("--size", 150, 220, "--train", 4, "--test", 2, "--noise", 6)


def test_the_summary_is_the_dispatchers() -> None:
    assert VERBS["data"] == data.SUMMARY


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from foveate.cli import data; from foveate.cli.parser import Parser; p = Parser('x');"
        "data.add_arguments(p); p.format_help();"
        "print([m for m in ('torch', 'numpy', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("form", ["png", "canvas"])
def test_canvases_on_disk_are_the_generated_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    out = tmp_path / "digits"
    assert run("megapixel-mnist", "--out", out, *SMALL, "--noise-under-digits", "--seed", 5, "--format", form) == 0
    assert capsys.readouterr().out == f"6 images; train on them with --data {out}/manifest.csv\n"
    written = read_manifest(out)
    settings = DataSettings(
        canvas=(150, 220), train_images=4, test_images=2, noise=6, noise_over_digits=False, generator_seed=5
    )
    made = megapixel_mnist(settings)
    for i, (a, b) in enumerate(zip(written.examples, made.examples, strict=True)):
        assert (written.classes[a.label], a.split) == (made.classes[b.label], b.split)
        box = Box(0, 0, 150, 220)
        np.testing.assert_array_equal(written.open(i).read(box), made.open(i).read(box))
    assert json.loads((out / "megapixel-mnist.json").read_text())["canvas"] == [150, 220]
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("form", ["png", "canvas"])
@pytest.mark.parametrize("strokes", ["fresh", "varied"])
def test_canvases_on_disk_have_the_strokes_that_are_asked_for(tmp_path: Path, form: str, strokes: Any) -> None:
    out = tmp_path / "digits"
    assert run("megapixel-mnist", "--out", out, *SMALL, "--strokes", strokes, "--format", form) == 0
    written = read_manifest(out)
    settings = DataSettings(canvas=(150, 220), train_images=4, test_images=2, noise=6)
    made, banked = megapixel_mnist(replace(settings, strokes=strokes)), megapixel_mnist(settings)
    for i in range(len(made)):
        box = Box(0, 0, 150, 220)
        np.testing.assert_array_equal(written.open(i).read(box), made.open(i).read(box))
        assert not np.array_equal(written.open(i).read(box), banked.open(i).read(box))
    assert json.loads((out / "megapixel-mnist.json").read_text())["strokes"] == strokes


@pytest.mark.parametrize("form", ["png", "canvas"])
@pytest.mark.parametrize("channels", [1, 3])
def test_canvases_on_disk_keep_their_channels(tmp_path: Path, form: str, channels: int) -> None:
    out = tmp_path / "digits"
    assert run("megapixel-mnist", "--out", out, *SMALL, "--channels", channels, "--format", form) == 0
    written = read_manifest(out).open(0)
    made = megapixel_mnist(DataSettings(canvas=(150, 220), channels=channels, train_images=4, test_images=2, noise=6))
    assert written.channels == channels
    box = Box(0, 0, 150, 220)
    np.testing.assert_array_equal(written.read(box), made.open(0).read(box))
    assert json.loads((out / "megapixel-mnist.json").read_text())["channels"] == channels


def test_a_folder_in_the_way_is_refused_and_resumed_on_request(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    run("megapixel-mnist", "--out", out, *SMALL)
    with pytest.raises(RunError, match="is not empty: give another --out, or --resume to finish what was begun there"):
        run("megapixel-mnist", "--out", out, *SMALL)
    images = sorted((out / "images").iterdir())
    before = images[1].read_bytes()
    images[1].unlink()
    (out / "manifest.csv").unlink()
    images[0].write_bytes(b"kept")
    assert run("megapixel-mnist", "--out", out, *SMALL, "--resume") == 0
    assert images[0].read_bytes() == b"kept"
    assert images[1].read_bytes() == before
    assert len(records(out / "manifest.csv")) == 6
    with pytest.raises(
        RunError, match=r"was begun with canvas \[150, 220\], not \[150, 221\]: give the same options to"
    ):
        run("megapixel-mnist", "--out", out, *SMALL, "--size", 150, 221, "--resume")


def test_resuming_where_nothing_is_starts_afresh_and_strangers_are_left_alone(tmp_path: Path) -> None:
    assert run("megapixel-mnist", "--out", tmp_path / "new", *SMALL, "--resume") == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(RunError, match="full is not empty"):
        run("megapixel-mnist", "--out", tmp_path / "full", *SMALL, "--resume")


def test_split_keeps_columns_groups_and_files(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "elsewhere" / "split.csv"
    assert run("split", manifest, "--out", out, "--test", 0.34, "--validation", 0.25) == 0
    assert capsys.readouterr().out == f"{out}: train 6, validation 2, test 4\n"
    made = records(out)
    assert list(made[0]) == ["path", "label", "split", "group", "stain"]
    assert [row["path"] for row in made] == [f"../{i}.png" for i in range(12)]
    assert [row["stain"] for row in made] == [f"s{i}" for i in range(12)]
    assert len({(row["group"], row["split"]) for row in made}) == 6
    data_ = read_manifest(out)
    assert data_.open(7).size == (4, 6)
    assert [e.split for e in data_.examples] == [row["split"] for row in made]


def test_split_into_folds(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.with_name("folds.csv")
    assert run("split", manifest, "--out", out, "--folds", 3, "--seed", 2) == 0
    assert capsys.readouterr().out == f"{out}: fold 0 4, fold 1 4, fold 2 4\n"
    assert len({(row["group"], row["fold"]) for row in records(out)}) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--folds", 3, "--test", 0.1), "--folds holds out every image once: leave --test and --validation out$"),
        (("--folds", 3, "--validation", 0.1), "--folds holds out every image once: leave --test and --validation out$"),
        (("--fold", 0), "--fold I is one of --folds K folds: give both, e.g. --folds 5 --fold 0$"),
        (("--folds", 3, "--fold", 3), "--fold must be one of 0 to 2 with --folds 3, got 3: counting starts at 0$"),
        (("--folds", 3, "--fold", -1), "--fold must be one of 0 to 2 with --folds 3, got -1: counting starts at 0$"),
        (("--folds", 3, "--fold", 1, "--test", 0.1), "--fold says what is held out for testing: leave --test out$"),
    ],
)
def test_options_of_splitting_that_contradict_each_other(
    manifest: Path, words: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run("split", manifest, "--out", manifest.with_name("x.csv"), *words)
    assert not manifest.with_name("x.csv").exists()


def test_every_fold_can_be_trained_on_and_is_that_of_the_column(manifest: Path) -> None:
    columns = manifest.with_name("folds.csv")
    run("split", manifest, "--out", columns, "--folds", 3, "--seed", 2)
    fold_of = {row["path"]: row["fold"] for row in records(columns)}
    for fold in range(3):
        out = manifest.with_name(f"fold-{fold}.csv")
        run("split", manifest, "--out", out, "--folds", 3, "--fold", fold, "--seed", 2, "--validation", 0.25)
        made = records(out)
        assert list(made[0]) == ["path", "label", "split", "group", "stain"]
        assert {row["path"] for row in made if row["split"] == "test"} == {
            p for p, f in fold_of.items() if f == str(fold)
        }
        assert Counter(row["split"] for row in made) == {"train": 6, "validation": 2, "test": 4}
        assert {row["label"] for row in made if row["split"] == "train"} == {"a", "b"}


def test_folds_beside_a_named_test_split_say_where_all_images_are(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = manifest.read_text().replace("stain", "split").splitlines()
    named = [lines[0], *(line.rsplit(",", 1)[0] + (",test" if i < 2 else ",") for i, line in enumerate(lines[1:]))]
    manifest.write_text("\n".join(named))
    out = manifest.with_name("folds.csv")
    assert run("split", manifest, "--out", out, "--folds", 2) == 0
    assert capsys.readouterr().out == f"{out}: fold 0 6, fold 1 4, test 2\n"
    assert [row["fold"] for row in records(out)][:2] == ["", ""]


def test_images_with_several_labels_are_split(tmp_path: Path) -> None:
    rows = [f"{i}.png,{' | '.join('abc'[j] for j in range(3) if i >> j & 1)}" for i in range(8)] * 5
    lines = [f"{n}-{row}" for n, row in enumerate(rows)]
    source, out = tmp_path / "findings.csv", tmp_path / "split.csv"
    source.write_text("\n".join(["path,label", *lines]))
    with pytest.raises(DataError, match=r"line 5 has several labels \(a \| b\): say so with --d"):
        run("split", source, "--out", out)
    assert run("split", source, "--out", out, "--multi-label", "--validation", 0) == 0
    made = records(out)
    assert made[3]["label"] == "a|b"
    assert {row["split"] for row in made} == {"train", "test"}
    for name in "abc":
        assert sum(name in row["label"] for row in made if row["split"] == "test") == 4


def test_groups_in_several_splits_are_refused_unless_allowed(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = manifest.read_text().replace("stain", "split").splitlines()
    splits = ["test", "train"] + [""] * 10
    lines = [lines[0], *(line.rsplit(",", 1)[0] + f",{split}" for line, split in zip(lines[1:], splits, strict=True))]
    manifest.write_text("\n".join(lines))
    out = manifest.with_name("split.csv")
    with pytest.raises(DataError, match=r"group 'p0' is in the splits test and train, .*allow_crossing_groups true$"):
        run("split", manifest, "--out", out)
    assert run("split", manifest, "--out", out, "--allow-crossing", "--validation", 0) == 0
    assert capsys.readouterr().out == f"{out}: train 11, validation 0, test 1\n"


def test_split_overwrites_nothing(manifest: Path) -> None:
    before = manifest.read_bytes()
    with pytest.raises(RunError, match=r"labels.csv exists: choose another name or remove it"):
        run("split", manifest, "--out", manifest)
    assert manifest.read_bytes() == before


def test_split_of_class_folders_writes_a_manifest(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg").touch()
    assert run("split", tmp_path / "photos", "--out", tmp_path / "new.csv", "--validation", 0) == 0
    made = records(tmp_path / "new.csv")
    assert made[0] == {"path": "photos/a/0.jpg", "label": "a", "split": made[0]["split"]}
    assert sum(row["split"] == "test" for row in made) == 2


def test_a_folder_that_cannot_be_claimed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".made.json.7.part").write_text('{"a')
    for name, damage in (("cut", b'{"seed": '), ("list", b"[]"), ("bytes", b"\xff\xfe")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made.json").write_bytes(damage)
        with pytest.raises(RunError) as caught:
            claim_folder(tmp_path / name, "made.json", {"seed": 1}, resume=True)
        assert str(caught.value) == (
            f"{tmp_path / name}/made.json is damaged: give another --out, or remove {tmp_path / name} to start anew"
        )
    for resume in (False, True):
        with pytest.raises(RunError, match=r"foreign is not empty: give another --out$"):
            claim_folder(tmp_path / "foreign", "made.json", {}, resume)
        with pytest.raises(RunError, match=r"file is a file, images need a folder: choose another --out$"):
            claim_folder(tmp_path / "file", "made.json", {}, resume)
    claim_folder(tmp_path / "half", "made.json", {"size": (1, 2)}, resume=False)
    assert [entry.name for entry in (tmp_path / "half").iterdir()] == ["made.json"]
    claim_folder(tmp_path / "half", "made.json", {"size": (1, 2)}, resume=True)
