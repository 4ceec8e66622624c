"""`foveate explain`, as a user runs it."""

import csv
import html
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.__main__ import main
from foveate.cli import Parser
from foveate.cli.explain import EPILOG, add_arguments
from foveate.config.files import merge_settings
from foveate.config.settings import FeatureSettings, InputSettings, ModelSettings, ViewSettings
from foveate.config.training import RunSettings
from foveate.models import build_model, save_model
from foveate.training.loop import train
from foveate.training.progress import SilentProgress


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folders and three images of different sizes, one of them broken."""
    root = tmp_path_factory.mktemp("explain")
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), root / "model", None)
    fine = ModelSettings(
        input=InputSettings(mpp=1.0), view=settings.view, patch=(29, 24), patches=3, features=settings.features
    )
    save_model(build_model(fine, ("left", "right"), channels=3), root / "scaled", None)
    noise = np.random.default_rng(4)
    for name, size in {"a.png": (70, 113), "b.png": (131, 64)}.items():
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (root / "images.csv").write_text("path,mpp\na.png,0.5\nb.png,2\n")
    return root


def table(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("model", ["model", "scaled"])
@pytest.mark.parametrize("options", [[], ["--samples", "3"], ["--seed", "9", "--method", "top"]], ids=" ".join)
def test_the_answers_are_those_of_predict(model: str, options: list[str], house: Path, tmp_path: Path) -> None:
    words = [str(house / model), str(house / "images.csv"), *options]
    assert main(["predict", *words, "--out", str(tmp_path / "predictions.csv")]) == 0
    assert main(["explain", *words, "--out", str(tmp_path / "seen")]) == 0
    predicted, explained = table(tmp_path / "predictions.csv"), table(tmp_path / "seen" / "predictions.csv")
    assert [row[:-1] for row in predicted] == [row[:-1] for row in explained]
    from foveate.datasets import read_manifest
    from foveate.models import load_model

    loaded, manifest = load_model(str(house / model)), read_manifest(house / "images.csv", require_labels=False)
    for index, name in enumerate("ab"):
        record = json.loads((tmp_path / "seen" / name / "explanation.json").read_text())
        assert [f"{value:.9g}" for value in record["probabilities"].values()] == predicted[1 + index][2:4]
        given = dict(zip(("samples", "seed", "method"), (1, 0, None), strict=True))
        given |= {"samples": 3} if "--samples" in options else {"seed": 9, "method": "top"} if options else {}
        direct = loaded.predict(manifest.open(index), **given)  # type: ignore[arg-type]
        boxes = [[box.top, box.left, box.height, box.width] for box in direct.boxes]
        assert [patch["box"] for patch in record["patches"]] == boxes


def test_what_is_written_and_said(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "seen"
    assert main(["explain", str(house / "model"), str(house), "--out", str(out), "--what-if", "2"]) == 3
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"2 predictions in {out / 'predictions.csv'}"
    assert lines[-1] == f"2 explanations: open {out / 'index.html'}"
    assert lines[-2].startswith("6 of ")
    warned = [line for line in lines if line.startswith("warning: ")]
    (line,) = warned  # an untrained model looks anywhere; said once, but for the numbers
    assert "attention is as good as uniform" in line
    assert line.endswith(" (and 1 more like it)")
    assert "1 of 3 images failed" in said.err
    index = (out / "index.html").read_text()
    (failed,) = re.findall(r'<tr><th scope="row">(.+?)</th><td class="warned">(.+?)</td></tr>', index)
    assert tuple(map(html.unescape, failed)) == (table(out / "errors.csv")[1][0], table(out / "errors.csv")[1][2])
    assert index.index("b/explanation.html") < index.index(failed[0])
    assert "2 images, 2 to look twice at, 1 failed" in index
    assert [row[1] for row in table(out / "errors.csv")] == ["stage", "open"]
    files = {file.name for file in (out / "a").iterdir()}
    assert files == {
        "attention.npz",
        "attention.tif",
        "explanation.html",
        "explanation.json",
        "heatmap.geojson",
        "overlay.png",
        "patches",
        "patches.geojson",
        "thumbnail.jpg",
    }
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def test_the_truth_is_shown_where_it_is_known(house: Path, tmp_path: Path) -> None:
    """By the labels of a manifest and by class folders; of classes that the model does not have nothing is said."""
    for name in ("left", "right", "else"):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        shutil.copy(house / "a.png", tmp_path / "sorted" / name / f"{name}.png")
    (tmp_path / "listed.csv").write_text(f"path,label\n{house / 'a.png'},right\n{house / 'b.png'},\n")
    words = [str(tmp_path / "sorted"), str(tmp_path / "listed.csv")]
    assert main(["explain", str(house / "model"), *words, "--out", str(tmp_path / "seen")]) == 0
    truths = {"left": ["left"], "right": ["right"], "else": None, "a": ["right"], "b": None}
    index = (tmp_path / "seen" / "index.html").read_text()
    rows = re.findall(r'<a href="(\w+)/.*?</th>(.*?)</tr>', index, re.DOTALL)
    assert [name for name, _ in rows] == ["else", "left", "right", "a", "b"]
    wrong = 0
    for name, row in rows:
        record = json.loads((tmp_path / "seen" / name / "explanation.json").read_text())
        page = (tmp_path / "seen" / name / "explanation.html").read_text()
        assert record["truth"] == (truth := truths[name])
        answer, _, told, right = re.findall(r"<td[^>]*>(.*?)</td>", row)[:4]
        assert (answer, told) == (record["predicted"], "" if truth is None else truth[0])
        assert right == ("" if truth is None else "yes" if truth == [answer] else "no")
        wrong += right == "no"
        said = {"yes": f"Right: in truth it is {told}<", "no": f"Wrong: in truth it is {told}<", "": "</h1>"}[right]
        assert said in page
        assert ("in truth" in page) == (truth is not None)
    assert f"5 images, {wrong} of 3 answered wrongly" in index
    assert main(["explain", str(house / "model"), str(house / "b.png"), "--out", str(tmp_path / "unknown")]) == 0
    assert "in truth" not in (tmp_path / "unknown" / "index.html").read_text()


def test_explaining_again_replaces_what_was_there(house: Path, tmp_path: Path) -> None:
    words = ["explain", str(house / "model"), str(house / "a.png"), "--out", str(tmp_path)]
    assert main([*words, "--samples", "3"]) == 0
    assert main(words) == 0
    assert len(list((tmp_path / "a" / "patches").iterdir())) == 3


def test_a_folder_of_something_else_is_not_replaced(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("three years")
    assert main(["explain", str(house / "model"), str(house / "a.png"), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is in the way, it holds no explanation: rename it, or give another --out")
    assert (tmp_path / "a" / "thesis.txt").read_text() == "three years"


@pytest.mark.parametrize("words", [["--samples", "0"], ["--what-if", "-1"], ["--device", "banana"]], ids=" ".join)
def test_a_wrong_setting_is_code_2_and_one_line(
    words: list[str], house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["explain", str(house / "model"), str(house / "a.png"), "--out", str(tmp_path / "seen")]
    assert main([*given, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words[1] in line
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize("name", ["missing.png", "broken.png"])
def test_one_bad_image_is_code_2_and_one_line(
    name: str, house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(house / "model"), str(house / name), "--out", str(tmp_path / "seen")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line


def test_a_file_is_not_a_folder(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", str(house / "model"), str(house / "a.png"), "--out", str(house / "b.png")]
    assert main(words) == 2
    assert "is a file: explanations go to a folder, name another" in capsys.readouterr().err


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept maps before training and after its only epoch."""
    run = tmp_path_factory.mktemp("watched") / "run"
    data = {"source": "megapixel-mnist", "canvas": [120, 170], "train_images": 12, "test_images": 2, "noise": 1}
    model = {"view": {"longest_side": 40}, "patch": [30, 26], "patches": 3, "features": {"width": 6}}
    training = {"epochs": 1, "batch": 6, "watch": 1}
    plain = {"data": data, "model": model, "training": training}
    train(merge_settings(RunSettings(), plain), run, progress=SilentProgress())
    return run


@pytest.mark.parametrize("model", ["", "model"], ids=["run", "its model"])
def test_the_evolution_of_a_run(model: str, watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "seen"
    assert main(["explain", str(watched / model), "--evolution", "--out", str(out)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"how the attention moved: {out / 'evolution.png'} and, epoch by epoch, {out / 'evolution.gif'}"
    with Image.open(out / "evolution.gif") as animation:
        assert animation.n_frames == 2  # type: ignore[attr-defined]
    with Image.open(out / "evolution.png") as picture:
        assert picture.width > picture.height


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing PATH. See foveate explain --help"),
        (["--evolution", "a.png"], "watched, got a.png: leave out PATH"),
        (["--evolution", "--samples", "4"], "--evolution shows maps as they were kept: leave out --samples, --method"),
        (
            ["--evolution"],
            "model is not a run folder (it has no config.yaml): give the folder that foveate train wrote",
        ),
    ],
    ids=["no path", "a path", "samples", "no run"],
)
def test_what_evolution_does_not_go_with_is_code_2_and_one_line(
    words: list[str], said: str, house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(house / "model"), *words, "--out", str(tmp_path / "seen")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "seen").exists()


def test_images_may_be_named_after_options() -> None:
    parser = Parser("foveate explain")
    add_arguments(parser)
    told = parser.parse_arguments(["runs/mine", "--samples", "2", "--out", "seen", "a.png", "b.png"])
    assert (told.run, told.paths, told.samples, told.evolution) == ("runs/mine", ["a.png", "b.png"], 2, False)


def test_the_examples_are_understood() -> None:
    examples = [line.split("   ")[0].strip() for line in EPILOG.splitlines() if line.startswith("  foveate explain")]
    assert len(examples) == 4
    for example in examples:
        parser = Parser("foveate explain")
        add_arguments(parser)
        parser.parse_arguments(shlex.split(example)[2:])
