"""foveate compare on the command line: the table, the parts, and mistakes in one line."""

import json
from pathlib import Path

import pytest
import yaml

from foveate.cli.compare import _check_folder
from foveate.cli.dispatch import main
from foveate.errors import RunError


def write_images(folder: Path) -> Path:
    """A manifest of 16 small images of two classes."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rows = ["path,label"]
    for number in range(16):
        low = 120 * (number % 2)
        pixels = np.random.default_rng(number).integers(low, low + 100, (44, 52), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'bright' if number % 2 else 'dark'}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    return folder / "images.csv"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    plain = {
        "base": {
            "data": {"manifest": str(write_images(tmp_path / "images")), "validation": 0},
            "model": {
                "view": {"scale": 0.5},
                "patch": [24, 22],
                "patches": 2,
                "attention": {"widths": [4], "stride": 3},
                "features": {"width": 4},
            },
            "training": {"epochs": 1, "batch": 6},
        },
        "folds": 2,
        "methods": {"ats-2": None, "u-2": {"settings": {"model": {"name": "uniform"}}}},
        "cost": {"batch": 2, "rounds": 1, "warm_up": 0, "process": False},
        "resamples": 100,
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def test_two_parts_then_the_cost_and_the_table(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["compare", "--config", str(config), "--out", str(out)]
    assert main([*words, "--part", "1/2"]) == 0
    assert "part 1/2: 2 runs done, 2 of 4 still missing elsewhere" in capsys.readouterr().out
    assert main([*words, "--part", "2/2"]) == 0
    methods = json.loads((out / "results.json").read_text())["methods"]
    assert [(one["name"], one["n"], one["train_ms_per_image"]) for one in methods] == [
        ("ats-2", 16, None),
        ("u-2", 16, None),
    ]
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "training" not in printed.split("┏")[0]
    assert f"all tables: {out / 'results.md'}" in printed
    again = json.loads((out / "results.json").read_text())["methods"]
    assert [one["error"] for one in again] == [one["error"] for one in methods]
    assert all(one["train_ms_per_image"] > 0 for one in again)
    assert yaml.safe_load((out / "comparison.yaml").read_text())["reference"] == "ats-2"
    assert main(["evaluate", str(out / "u-2" / "fold-2")]) == 0


def test_kept_predictions_make_a_folder_a_comparisons(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(RunError, match="is in the way"):
        _check_folder(tmp_path)
    (tmp_path / "u-2" / "fold-1").mkdir(parents=True)
    (tmp_path / "u-2" / "fold-1" / "predictions.json").write_text("{}")
    _check_folder(tmp_path)
    _check_folder(tmp_path / "new")


def test_mistakes_are_one_line(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("precious")
    typo = tmp_path / "typo.yaml"
    typo.write_text(config.read_text().replace("folds:", "foldes:"))
    nowhere = tmp_path / "nowhere.yaml"
    nowhere.write_text("methods: {a: {}}\n")
    for words, message in (
        (["--config", str(typo)], "unknown key foldes: did you mean folds?"),
        (["--config", str(config), "--part", "3/2"], "a part is I/K with I from 1 to K, got '3/2'"),
        (["--config", str(config), "--out", str(tmp_path / "taken")], "is in the way and not a comparison's folder"),
        (["--config", str(nowhere), "--out", str(tmp_path / "new")], "no images to train on"),
        ([], "missing --config"),
    ):
        assert main(["compare", *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("foveate: error: ")
        assert message in said
        assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_the_images_may_lie_elsewhere(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from foveate.compare import CompareSettings

    asked: list[tuple[CompareSettings, str]] = []

    def compare(settings: CompareSettings, out: Path, *, remedy: str, **_: object) -> None:
        asked.append((settings, remedy))

    monkeypatch.setattr("foveate.compare.compare", compare)
    monkeypatch.chdir(tmp_path)
    published = tmp_path / "published.yaml"
    published.write_text("base: {data: {source: colon-cancer}}\nmethods: {a: null}\n")
    assert main(["compare", "--config", "two.yaml", "--data", "my images/all.csv", "--out", "an out"]) == 0
    assert main(["compare", "--config", str(published), "--data", "colon.zip", "--part", "1/2"]) == 0
    (own, remedy), (given, _) = asked
    data = own.resolved()[1].settings.data
    assert (data.source, data.manifest, data.validation) == ("manifest", f"{tmp_path}/my images/all.csv", 0)
    data = given.resolved()[0].settings.data
    assert (data.source, data.published, data.manifest) == ("colon-cancer", f"{tmp_path}/colon.zip", None)
    assert remedy == ("to continue: foveate compare --config two.yaml --out 'an out' --data 'my images/all.csv'")
    assert asked[1][1].endswith(" --data colon.zip --part 1/2")
    made = tmp_path / "made.yaml"
    made.write_text("preset: demo\nmethods: {a: null}\n")
    assert main(["compare", "--config", str(made), "--data", "all.csv"]) == 2
    assert capsys.readouterr().err == (
        "foveate: error: --data all.csv is of no use where images are generated (base.data.source megapixel-mnist): "
        "leave one of them out\n"
    )
