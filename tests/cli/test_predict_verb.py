"""`foveate predict`, as a user runs it."""

import csv
import json
import os
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.__main__ import main
from foveate.cli import Parser
from foveate.cli.predict import EPILOG, add_arguments, progress
from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.models import build_model, save_model

RECEIPT = (
    r"[0-9]+ of [0-9]+ patches · [0-9.]+ of [0-9.]+ MB \([0-9.]+ %\) · [0-9.]+ s: open [0-9.]+, view [0-9.]+, "
    r"attention [0-9.]+, draw [0-9.]+, read [0-9.]+, features [0-9.]+, classify [0-9.]+, other [0-9.]+ "
    r"· peak memory [0-9]+ MB"
)
COLUMNS = ["path", "predicted", "p_left", "p_right", "patches", "bytes_read", "seconds"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder and three images of different sizes, one of them broken."""
    root = tmp_path_factory.mktemp("predict")
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), root / "model", None)
    noise = np.random.default_rng(4)
    for name, size in {"a.png": (70, 113), "b.png": (131, 64)}.items():
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return root


def table(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def test_rows_go_to_a_pipe_as_csv(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(house / "model"), str(house / "a.png"), str(house / "b.png")]) == 0
    header, *rows = table(capsys.readouterr().out)
    assert header == COLUMNS
    assert [Path(row[0]).name for row in rows] == ["a.png", "b.png"]
    for row in rows:
        assert row[1] in ("left", "right")
        assert float(row[2]) + float(row[3]) == pytest.approx(1, abs=1e-6)
        assert int(row[4]) == 3


def test_a_terminal_gets_a_table(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["predict", str(house / "model"), str(house / "a.png")]) == 0
    printed = capsys.readouterr().out
    assert "probability" in printed
    assert "a.png" in printed


def test_a_receipt_for_every_image(house: Path, tmp_path: Path) -> None:
    receipts, out = tmp_path / "receipts.jsonl", tmp_path / "p.csv"
    words = ["predict", str(house / "model"), *(str(house / name) for name in ("a.png", "b.png", "broken.png"))]
    assert main([*words, "--out", str(out), "--receipts", str(receipts)]) == 3
    lines = [json.loads(line) for line in receipts.read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a.png", "b.png"]
    for line, (height, width), row in zip(lines, ((70, 113), (131, 64)), table(out.read_text())[1:], strict=True):
        assert line["patches"] == int(row[4]) == 3
        assert line["patches_of"] == -(-height // 29) * -(-width // 24)
        assert line["bytes_read"] == int(row[5]) == line["bytes_of"] == Path(line["path"]).stat().st_size
        assert sum(line["seconds"].values()) == pytest.approx(float(row[6]), abs=1e-3)
        assert line["peak_memory"] > 10**7


def test_out_is_a_file_and_the_same_rows(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "predict",
        str(house / "model"),
        str(house / "a.png"),
        str(house / "b.png"),
        "--samples",
        "2",
        "--seed",
        "7",
    ]
    assert main(words) == 0
    printed = table(capsys.readouterr().out)
    out = tmp_path / "new" / "predictions.csv"
    assert main([*words, "--out", str(out)]) == 0
    first, receipt = capsys.readouterr().out.splitlines()
    assert first == f"2 predictions in {out}"
    assert re.fullmatch(RECEIPT, receipt)
    assert [row[:-1] for row in table(out.read_text())] == [row[:-1] for row in printed]


def test_some_failed_is_code_3_and_a_list(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.csv"
    words = ["predict", str(house / "model"), str(house), str(house / "missing.png"), "--out", str(out)]
    assert main(words) == 3
    said = capsys.readouterr()
    assert said.err == (
        f"foveate: note: {house}: 3 files that are no images by their names are passed over: README.md, config.json, "
        f"model.safetensors\nfoveate: 2 of 4 images failed: see {tmp_path / 'errors.csv'}\n"
    )
    assert len(table(out.read_text())) == 1 + 2
    header, *errors = table((tmp_path / "errors.csv").read_text())
    assert header == ["path", "stage", "message"]
    assert [Path(row[0]).name for row in errors] == ["broken.png", "missing.png"]


def test_some_failed_without_out_is_said_on_stderr(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(house / "model"), str(house / "a.png"), str(house / "broken.png")]) == 3
    printed = capsys.readouterr()
    assert len(table(printed.out)) == 2
    (line,) = printed.err.splitlines()
    assert line.count("broken.png") == 1


@pytest.mark.parametrize("name", ["missing.png", "broken.png", "missing.csv"])
@pytest.mark.parametrize("to_file", [False, True])
def test_one_bad_image_is_code_2_and_one_line(
    name: str, to_file: bool, house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "p.csv")] if to_file else []
    assert main(["predict", str(house / "model"), str(house / name), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("foveate: error: ")
    assert name in line
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    "words",
    [["--samples", "0"], ["--device", "banana"], ["--device", "mps"], ["--method", "best"], ["--out", "errors.csv"]],
    ids=" ".join,
)
def test_a_wrong_setting_is_code_2_and_one_line(
    words: list[str], house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(house / "model"), str(house / "a.png"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words[1] in line


def test_a_folder_is_no_output_file(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(house / "model"), str(house / "a.png"), "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path} is a folder: give a file" in capsys.readouterr().err


def test_an_errors_file_of_the_users_is_seen_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "errors.csv").write_text("measurement,error\n")
    assert main(["predict", "no-such-run", "a.png", "--out", str(tmp_path / "p.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foveate: error: {tmp_path / 'errors.csv'} is in the way, ")
    assert (tmp_path / "errors.csv").read_text() == "measurement,error\n"


def test_the_errors_lie_beside_the_file_a_link_leads_to(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "elsewhere" / "real.csv")
    words = [str(house / "a.png"), str(house / "broken.png"), "--out", str(link)]
    assert main(["predict", str(house / "model"), *words]) == 3
    errors = tmp_path / "elsewhere" / "errors.csv"
    assert capsys.readouterr().err.endswith(f"see {errors}\n")
    assert errors.exists()


def test_the_examples_of_its_help_are_understood() -> None:
    lines = re.findall(r"^  foveate predict (.+?)   ", EPILOG, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        parser = Parser("foveate predict")
        add_arguments(parser)
        parser.parse_arguments(shlex.split(line))


def test_a_pipe_is_written_to_and_a_link_followed(house: Path, tmp_path: Path) -> None:
    words = ["predict", str(house / "model"), str(house / "a.png"), "--out"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        text = reader.submit(pipe.read_text)
        assert main([*words, str(pipe)]) == 0
        assert table(text.result(timeout=60))[0] == COLUMNS
    assert pipe.is_fifo()
    (tmp_path / "elsewhere").mkdir()
    link, real = tmp_path / "link.csv", tmp_path / "elsewhere" / "real.csv"
    link.symlink_to(real)
    assert main([*words, str(link)]) == 0
    assert link.is_symlink()
    assert table(real.read_text())[0] == COLUMNS


@pytest.mark.parametrize("name", ["nothing-here", "."])
def test_a_run_that_is_not_one(
    name: str, house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", name, str(house / "a.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("foveate: error: ")


def test_a_name_that_is_not_utf_8_comes_back_as_it_was(house: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        shutil.copy(os.fsencode(house / "a.png"), odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    out = tmp_path / "p.csv"
    assert main(["predict", str(house / "model"), str(tmp_path), "--out", str(out)]) == 0
    assert odd in out.read_bytes()


@pytest.fixture
def patients(house: Path, tmp_path: Path) -> Path:
    """A manifest: a patient of two images, one of a broken image alone, and an image of nobody."""
    for name in ("a.png", "b.png", "broken.png"):
        shutil.copy(house / name, tmp_path / name)
    shutil.copy(house / "a.png", tmp_path / "c.png")
    rows = ["path,label,group", "a.png,left,p2", "broken.png,left,p1", "c.png,left,", "b.png,right,p2"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    return tmp_path / "list.csv"


def test_groups_are_averaged_beside_the_predictions(
    house: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.csv"
    words = ["predict", str(house / "model"), str(patients), "--out", str(out), "--by-group"]
    assert main(words) == 3
    first, receipt, last = capsys.readouterr().out.splitlines()
    assert (first, last) == (f"3 predictions in {out}", f"2 groups in {tmp_path / 'groups.csv'}")
    assert re.fullmatch(RECEIPT, receipt)
    image = {row[0]: [float(share) for share in row[2:4]] for row in table(out.read_text())[1:]}
    header, *groups = table((tmp_path / "groups.csv").read_text())
    assert header == ["group", "predicted", "p_left", "p_right", "images"]
    assert [(row[0], row[4]) for row in groups] == [("p2", "2"), ("c.png", "1")]
    means = [np.mean([image["a.png"], image["b.png"]], axis=0), image["c.png"]]
    for row, mean in zip(groups, means, strict=True):
        assert np.allclose([float(share) for share in row[2:4]], mean, atol=1e-8)
        assert row[1] == ("left", "right")[int(np.argmax(mean))]
    assert main(words) == 3, "what foveate wrote, it may replace"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list.csv"], "--by-group writes groups.csv beside the predictions: add --out FILE, e.g. predictions.csv"),
        (
            ["a.png", "--out", "p.csv"],
            "--by-group needs to know which images belong together: give a manifest with a column group",
        ),
        (["list.csv", "--out", "groups.csv"], "groups.csv is where the groups go: name the file otherwise"),
    ],
)
def test_groups_need_a_manifest_that_names_them_and_a_place(
    words: list[str],
    message: str,
    house: Path,
    patients: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(patients.parent)
    assert main(["predict", str(house / "model"), "--by-group", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foveate: error: {message}")


def test_a_strangers_table_of_groups_is_left_alone(
    house: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "groups.csv").write_text("group,leader\n")
    assert main(["predict", "no-such-run", str(patients), "--by-group", "--out", str(tmp_path / "p.csv")]) == 2
    assert "groups.csv is in the way, it does not start with group,predicted" in capsys.readouterr().err
    assert (tmp_path / "groups.csv").read_text() == "group,leader\n"


def test_several_labels_in_a_table_and_on_a_terminal(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(name="cnn", view=ViewSettings(longest_side=40), features=FeatureSettings(width=8))
    model = build_model(settings, ("cat", "dog", "owl"), channels=3, multi_label=True)
    for name, weight in model.head.named_parameters():
        weight.data.copy_(torch.tensor([2.0, -2.0, 1.0]) if name == "bias" else torch.zeros(()))
    save_model(model, tmp_path / "model")
    words = ["predict", str(tmp_path / "model"), str(house / "a.png")]
    assert main(words) == 0
    header, row = table(capsys.readouterr().out)
    assert header[2:5] == ["p_cat", "p_dog", "p_owl"]
    assert row[1] == "cat|owl"
    assert [float(share) for share in row[2:5]] == pytest.approx([0.880797, 0.119203, 0.731059], abs=1e-6)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "cat|owl" in printed
    assert "0.881 0.731" in printed


def test_a_log_gets_a_line_of_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images, their rate and the time left, every half minute, and at the end if there was a line before."""
    clock = iter([0.0, 1.0, 20.0, 30.0, 59.0, 65.0])
    monkeypatch.setattr("foveate.cli.predict.perf_counter", lambda: next(clock))
    with progress(5) as bar:
        for _ in range(5):
            bar()
    assert capsys.readouterr().err.splitlines() == [
        "foveate: predicting, 3 of 5 images, 0.10/s, 20 s left",
        "foveate: predicting, 5 of 5 images, 0.08/s",
    ]
    monkeypatch.setattr("foveate.cli.predict.perf_counter", lambda: 9.0)
    with progress(5) as bar:
        for _ in range(5):
            bar()
    assert capsys.readouterr().err == "", "what is over soon says nothing"
