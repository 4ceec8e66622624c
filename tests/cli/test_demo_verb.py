"""The demo: everything it promises is in its folder, a second call runs nothing, and the bar is met (slow)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foveate import load_model
from foveate.cli import demo
from foveate.cli.dispatch import main
from foveate.config.files import preset
from foveate.config.training import RunSettings


def tiny(name: str) -> RunSettings:
    """The demo's preset, cut down to seconds."""
    full = preset(name)
    data = replace(full.data, canvas=(200, 240), train_images=20, test_images=6, noise=2)
    training = replace(full.training, epochs=2, batch=6, log_every=1)
    model = replace(full.model, features=replace(full.model.features, width=8))
    return replace(full, data=data, training=training, model=model)


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(demo, "preset", tiny)
    return tmp_path / "demo"


def test_a_demo_leaves_table_picture_and_model_and_is_not_run_twice(
    small_demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(small_demo)]) == 0
    printed = capsys.readouterr().out
    results = json.loads((small_demo / "results.json").read_text())
    assert [method["name"] for method in results["methods"]] == ["ats-10", "u-10", "cnn"]
    for word in ("ats-10", "u-10", "cnn", "test error"):
        assert word in printed
    assert (small_demo / "attention.png").stat().st_size > 1000
    assert (small_demo / "results.md").read_text().count("| cnn |") == 3  # quality, coverage and cost
    assert sorted(path.name for path in small_demo.iterdir() if path.is_dir()) == ["ats-10", "cnn", "model", "u-10"]
    model = load_model(str(small_demo))
    assert model.patches == 10
    assert main(["evaluate", str(small_demo)]) == 0
    capsys.readouterr()

    assert main(["demo", "--out", str(small_demo)]) == 0
    assert json.loads((small_demo / "results.json").read_text()) == results


def test_a_folder_in_the_way_is_left_alone(small_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_demo.mkdir()
    (small_demo / "thesis.txt").write_text("precious")
    assert main(["demo", "--out", str(small_demo)]) == 2
    message = capsys.readouterr().err
    assert message == f"foveate: error: {small_demo} is in the way and not a demo's folder: choose another --out\n"
    assert [path.name for path in small_demo.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_meets_its_bar(tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    ats, uniform, cnn = json.loads((tmp_path / "results.json").read_text())["methods"]
    assert ats["error"] <= 0.15
    assert ats["error"] <= uniform["error"] / 4
    assert ats["error"] <= cnn["error"] / 4
    assert cnn["train_seconds"] >= ats["train_seconds"]
