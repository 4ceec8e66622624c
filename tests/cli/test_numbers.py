"""`foveate train`, `evaluate` and `predict` of numbers, as a user meets them; and the verbs that are for classes."""

import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Watched, open_browser
from commands import command
from PIL import Image
from tiny import tiny_config

from foveate.cli import main
from foveate.models import DrawOptions, load_model


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images, none square, in groups of two; their numbers have decimal commas."""
    folder = tmp_path_factory.mktemp("images")
    lines = ["path;label;group"]
    for number in range(20):
        random = np.random.default_rng(number)
        Image.fromarray(random.integers(0, 255, (52, 90, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
        lines.append(f"{number:02d}.png;{100 + number // 2},5;p{number // 2}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


@pytest.fixture(scope="module")
def run(manifest: Path) -> Path:
    folder = manifest.parent
    (folder / "tiny.yaml").write_text(tiny_config(epochs=1))
    words = ("train", "--config", folder / "tiny.yaml", "--data", manifest, "--out", folder / "run")
    assert main(command(*words, "--model.head.kind", "number", "--data.test", 0.3)) == 0
    return folder / "run"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_predictions_has_the_numbers(run: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "all.csv"
    assert main(command("predict", run, manifest, "--out", out, "--by-group", "--samples", 2, "--seed", 4)) == 0
    found = rows(out)
    assert out.read_text().splitlines()[0] == "path,predicted,patches,bytes_read,seconds"
    assert len(found) == 20
    model = load_model(run)
    for row in found[:3]:
        value = model.predict(manifest.parent / row["path"], samples=2, seed=4).value
        assert value is not None
        assert float(row["predicted"]) == pytest.approx(value, rel=1e-6)
    groups = rows(tmp_path / "groups.csv")
    assert list(groups[0]) == ["group", "predicted", "images"]
    assert [row["group"] for row in groups] == [f"p{number}" for number in range(10)]
    for number, row in enumerate(groups):
        both = [float(one["predicted"]) for one in found[2 * number : 2 * number + 2]]
        assert float(row["predicted"]) == pytest.approx(sum(both) / 2, abs=1e-5)
    capsys.readouterr()


def test_figures_are_those_of_the_predictions(run: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    """Against NumPy, from the answers of the model to the run's test images."""
    capsys.readouterr()
    assert main(command("evaluate", run)) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((run / "metrics.json").read_text())
    assert main(command("evaluate", run, "--split", "train")) == 0
    trained = json.loads(capsys.readouterr().out)
    assert {"error", "auc", "calibration", "confusion"} & figures.keys() == set()
    assert figures["n"] == 6
    from foveate.cli.evaluate import settings_of
    from foveate.datasets import open_dataset

    settings = settings_of(run)
    assert settings is not None
    data, model = open_dataset(settings.data, settings.seed, numbers=True), load_model(run)
    known = [index for index, one in enumerate(data.examples) if one.split == "test"]
    labels = np.array([data.examples[index].label for index in known])
    answers = np.array([model.look(data.open(index), DrawOptions(seed=0)).prediction.value for index in known])
    mean = np.mean([one.label for one in data.examples if one.split == "train"])
    off = answers - labels
    assert figures["mean_absolute_error"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    assert figures["root_mean_squared_error"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-5)
    assert figures["r_squared"] == pytest.approx(1 - (off**2).sum() / ((mean - labels) ** 2).sum(), rel=1e-4)
    assert figures["mean_absolute_error_of_the_mean"] == pytest.approx(np.abs(mean - labels).mean(), rel=1e-9)
    for name in ("mean_absolute_error", "root_mean_squared_error", "r_squared"):
        low, high = figures[f"{name}_interval"]
        assert low <= figures[name] <= high
    assert trained["n"] == sum(one.split == "train" for one in data.examples)
    assert main(command("evaluate", run, "--by-group")) == 0
    grouped = json.loads(capsys.readouterr().out)
    assert (grouped["n"], grouped["images"], grouped["by_group"]) == (3, 6, True)


def test_figures_have_a_table_on_a_terminal(run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(command("evaluate", run)) == 0
    told = capsys.readouterr().out
    for name in ("mean absolute error", "root mean squared error", "R²", "mean absolute error of the mean"):
        assert name in told


def test_the_report_says_what_evaluate_says(run: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(command("evaluate", run, "--split", "train")) == 0
    figures = json.loads(capsys.readouterr().out)
    page = tmp_path / "report.html"
    assert main(command("report", run, "--split", "train", "--out", page, "--worst", 2)) == 0
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())
    assert f"{figures['n']} train images" in text
    for name in ("mean_absolute_error", "root_mean_squared_error", "r_squared"):
        low, high = (format(end, ".4g") for end in figures[f"{name}_interval"])
        assert f"{figures[name]:.4g} ({low} to {high})" in text, name
    assert f"{figures['mean_absolute_error_of_the_mean']:.4g}" in text
    assert f"of {figures['n']} train images it is off by {figures['mean_absolute_error']:.4g} in the mean" in text
    (first, off), (second, other) = re.findall(r"(\d\d\.png) \S+ \((\S+)\), in truth", text)
    assert first != second
    assert abs(float(off)) >= abs(float(other)) >= figures["mean_absolute_error"]
    for name in ("ROC", "threshold", "one answer for all", "classes"):
        assert name not in text


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_report_is_shown_and_asks_for_nothing_else(width: int, scheme: str, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(command("report", run, "--out", page, "--worst", 1)) == 0
    with open_browser() as browser:
        sizes = Watched(browser, page, width, scheme).pictures_alone(page, width)
        assert len(sizes) == 3
        assert min(sizes) > 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("predict", "RUN", "IMAGE", "--abstain", 0.9), "--abstain is"),
        (("evaluate", "RUN", "--abstain", 0.9), "--abstain is"),
        (("evaluate", "RUN", "--deletion"), "--deletion is"),
        (("calibrate", "RUN"), "foveate calibrate is"),
        (("export", "RUN", "--out", "x"), "foveate export is"),
    ],
)
def test_what_is_for_classes_says_so_in_a_line(
    words: tuple[Any, ...], what: str, run: Path, manifest: Path, capsys: Any
) -> None:
    capsys.readouterr()
    given = {"RUN": run, "IMAGE": manifest.parent / "00.png"}
    assert main(command(*(given.get(word, word) for word in words))) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"foveate: error: {what} for classes, and model.head.kind number answers with a number: leave it out"
    ]


def test_a_comparison_is_of_classes(tmp_path: Path, manifest: Path, capsys: Any) -> None:
    methods = "methods: {one: {settings: {model: {head: {kind: number}}}}}"
    (tmp_path / "compare.yaml").write_text(f"base: {{data: {{manifest: {manifest}}}}}\n{methods}\n")
    assert main(command("compare", "--config", tmp_path / "compare.yaml", "--out", tmp_path / "out")) == 2
    told = capsys.readouterr().err
    assert "one answers with a number (model.head.kind), and a comparison is of classes: train methods by " in told


def test_a_label_that_is_no_number_is_named(tmp_path: Path, manifest: Path, capsys: Any) -> None:
    lines = manifest.read_text().splitlines()
    lines[4] = "03.png;many;p1"
    (tmp_path / "images.csv").write_text("\n".join(lines))
    words = (
        "train",
        "manifest",
        "--data",
        tmp_path / "images.csv",
        "--images",
        manifest.parent,
        "--out",
        tmp_path / "r",
    )
    assert main(command(*words, "--model.head.kind", "number")) == 2
    assert (
        "1 fault: line 5 (03.png): label 'many' is no finite number, write one such as 12.5" in capsys.readouterr().err
    )
    assert not (tmp_path / "r").exists()
