import csv
import errno
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from foveate.cli import VERBS, data
from foveate.cli.parser import Parser
from foveate.datasets import megapixel_mnist, read_manifest
from foveate.errors import ConfigError, DataError, RunError
from foveate.settings import DataSettings
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


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve images of two classes and six patients, no two alike."""
    lines = ["path,label,group,stain"]
    for i in range(12):
        Image.fromarray(np.full((4, 6), i, np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},p{i // 2},s{i}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_check_of_a_sound_manifest(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", manifest) == 0
    assert capsys.readouterr().out == "label  no split\na             6\nb             6\n12 images, no problems\n"


def test_check_lists_everything_that_is_wrong(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest.parent
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:45])
    (folder / "4.png").write_text("not an image")
    (folder / "5.png").unlink()
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    text = manifest.read_text().replace("label,group,stain", "label,group,split")
    text = "\n".join(
        line.rsplit(",", 1)[0] + (",train" if line[0].isdigit() else ",split") for line in text.splitlines()
    )
    manifest.write_text(text + "\ncopy.png,a,p1,test\nbad.png,a,p1,tset\n6.png,a,,\n")
    assert run("check", manifest) == 2
    out = capsys.readouterr().out
    assert "line 15: unknown split 'tset', use train, validation or test\n" in out
    assert "line 16: path '6.png' is already on line 8, remove one of the two\n" in out
    assert f"missing: {folder}/5.png\n" in out
    assert f"unreadable: {folder}/3.png" in out
    assert f"unreadable: {folder}/4.png" in out
    assert "same content, different labels and different splits: 1.png, copy.png\n" in out
    assert "group p1 crosses splits: test, train\n" in out
    assert out.endswith("13 images, 7 problems\n")
    assert out.startswith("label  test  train\na         1      6\nb         0      6\n")


def test_a_file_that_fails_halfway_does_not_lose_the_report(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.file_digest

    def fail(content: BinaryIO, name: str) -> object:
        if content.name.endswith("4.png"):
            raise OSError(errno.EIO, "Input/output error")
        return digest(content, name)  # type: ignore[arg-type]

    (manifest.parent / "copy.png").write_bytes((manifest.parent / "1.png").read_bytes())
    manifest.write_text(manifest.read_text() + "copy.png,b,p0,\n")
    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert run("check", manifest) == 2
    out = capsys.readouterr().out
    assert f"unreadable: {manifest.parent}/4.png: cannot be read (Input/output error): check the path" in out
    assert "same content: 1.png, copy.png\n" in out
    assert out.endswith("13 images, 2 problems\n")


def test_a_file_nobody_may_read_is_reported_once(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path_open = Path.open

    def fail(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "4.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return path_open(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", fail)
    assert run("check", manifest) == 2
    out = capsys.readouterr().out
    assert out.count("4.png") == 1
    assert out.endswith("12 images, 1 problem\n")


def test_check_reports_masks(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = manifest.read_text().replace("stain", "mask").replace("4.png,a,p2,s4", "4.png,a,p2,5.png").splitlines()
    manifest.write_text("\n".join(re.sub(",s[0-9]+$", ",", line) for line in lines))
    assert run("check", manifest) == 2
    assert "line 6 names a mask (5.png), but masks are not applied yet: remove the column mask\n12 images, 1 prob" in (
        capsys.readouterr().out
    )


def test_a_quick_check_reads_headers_only(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifest.parent / "copy.png").write_bytes((manifest.parent / "1.png").read_bytes())
    manifest.write_text(manifest.read_text() + "copy.png,b,p0,\n")
    assert run("check", manifest, "--quick") == 0
    assert run("check", manifest) == 2
    assert "same content: 1.png, copy.png" in capsys.readouterr().out


def test_check_of_no_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: check the path"):
        run("check", tmp_path / "no.csv")


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
    with pytest.raises(ConfigError, match="--folds holds out every image once: leave --test and --validation out"):
        run("split", manifest, "--out", manifest.with_name("x.csv"), "--folds", 3, "--test", 0.1)


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
