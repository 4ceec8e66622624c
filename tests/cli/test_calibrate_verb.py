"""`foveate calibrate` as a user meets it, and what the other verbs make of its decisions."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command
from tiny import write_coloured

from foveate import load_model
from foveate.cli import main
from foveate.config.settings import AttentionSettings, FeatureSettings, ModelSettings, ViewSettings
from foveate.models import Model, build_model, save_model

SETTINGS = ModelSettings(
    view=ViewSettings(longest_side=24),
    patch=(26, 28),
    patches=3,
    attention=AttentionSettings(widths=(4,), stride=2),
    features=FeatureSettings(width=6),
)


def small(seed: int = 0) -> Model:
    model = build_model(SETTINGS, ("green", "red"), 3, seed)
    torch.nn.init.normal_(model.head.weight, std=0.6, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_model(small(), tmp_path / "model", {"data": "squares", "metrics": {"error": 0.25}})


def test_calibrated_decisions_are_kept_and_every_verb_uses_them(run: Path, tmp_path: Path, capsys: Any) -> None:
    manifest = write_coloured(tmp_path, 20)
    assert main(command("predict", run, tmp_path / "1.png")) == 0
    (plain,) = rows(capsys.readouterr().out)
    assert "decision" not in plain
    words = command("calibrate", run, "--data", manifest, "--sensitivity", 0.9, "--positive", "red", "--abstain", 0.55)
    assert main(words) == 0
    told = capsys.readouterr().out
    for part in (
        "temperature ",
        "20 images of ",
        "calibration error ",
        "red from ",
        "sensitivity 0.9",
        "unsure below ",
    ):
        assert part in told
    assert told.splitlines()[-1].startswith(f"kept in {run}: ")
    model, kept = load_model(run), json.loads((run / "calibration.json").read_text())
    assert model.decision.temperature == kept["temperature"] != 1
    assert (model.decision.positive, model.decision.abstain) == (("red",), 0.55)
    assert kept["loss"][1] < kept["loss"][0]
    assert json.loads((run / "config.json").read_text())["card"]["metrics"] == {"error": 0.25}

    assert main(command("predict", run, manifest)) == 0
    table = rows(capsys.readouterr().out)
    threshold = model.decision.thresholds[0]
    for row in table:
        values = {"red": float(row["p_red"]), "green": float(row["p_green"])}
        decided = "red" if values["red"] >= threshold else "green"
        assert row["decision"] == (decided if values[decided] >= 0.55 else "unsure")
    assert len(table) == 20
    own = next(row for row in table if row["path"] == "1.png")
    odds = [np.log(float(one["p_red"]) / float(one["p_green"])) for one in (plain, own)]
    assert odds[0] / kept["temperature"] == pytest.approx(odds[1], abs=1e-5)
    prediction = load_model(run).predict(tmp_path / "1.png")
    assert own["decision"] == prediction.decision

    assert main(command("evaluate", run, "--data", manifest)) == 0
    figures = json.loads(capsys.readouterr().out)
    unsure = np.mean([row["decision"] == "unsure" for row in table])
    assert figures["decisions"]["unsure"] == pytest.approx(unsure) == pytest.approx(kept["decisions"]["unsure"])
    assert figures["calibration"]["error"] == pytest.approx(kept["after"]["error"], abs=1e-6)
    assert main(command("predict", run, manifest, "--abstain", 1)) == 0
    assert {row["decision"] for row in rows(capsys.readouterr().out)} == {"unsure"}
    assert main(command("predict", run, manifest, "--abstain", 1.5)) == 2
    assert "abstain must be a probability above 0, got 1.5" in capsys.readouterr().err


def test_certainty_that_few_images_do_not_bear_out_is_taken_back_and_said_to_be(tmp_path: Path, capsys: Any) -> None:
    sure, manifest = small(), write_coloured(tmp_path, 8)
    sure.head.weight.data.mul_(1000)
    run = save_model(sure, tmp_path / "sure")
    assert main(command("predict", run, manifest)) == 0
    answers = [f"{row['path']},{row['predicted']}" for row in rows(capsys.readouterr().out)]
    (tmp_path / "right.csv").write_text("\n".join(["path,label", *answers]) + "\n")
    assert main(command("calibrate", run, "--data", tmp_path / "right.csv")) == 0
    told = capsys.readouterr().out
    first, last = json.loads((run / "calibration.json").read_text())["loss"]
    assert last > first
    assert "the loss rises, as it is meant to: so few images do not bear out such certainty" in told


def test_groups_are_decided_on_their_means(run: Path, tmp_path: Path, capsys: Any) -> None:
    write_coloured(tmp_path, 6)
    manifest = tmp_path / "patients.csv"
    manifest.write_text("path,label,group\n" + "".join(f"{i}.png,red,p{i // 2}\n" for i in range(6)))
    assert main(command("predict", run, manifest, "--abstain", 0.9, "--by-group", "--out", tmp_path / "all.csv")) == 0
    found = rows((tmp_path / "groups.csv").read_text())
    for row in found:
        sure = max(float(row["p_red"]), float(row["p_green"]))
        assert row["decision"] == ("unsure" if sure < 0.9 else row["predicted"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sensitivity", 0.9, "--cost", "green:red=2"), "decide the same thing: give one of them"),
        (("--positive", "red"), "--positive says what a threshold is about: add --sensitivity"),
        (("--sensitivity", 0.9, "--positive", "blue"), "blue is none of the classes, green, red"),
        (("--cost", "green:blue=2"), "a cost is written SAID:TRUE=COST"),
        (("--abstain", 0), "abstain must be a probability above 0, got 0.0"),
    ],
)
def test_what_cannot_be_decided_is_one_line(
    words: tuple[object, ...], said: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    before = (run / "config.json").read_bytes()
    assert main(command("calibrate", run, "--data", write_coloured(tmp_path, 4), *words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert (run / "config.json").read_bytes() == before


def test_models_of_others_are_left_alone(tmp_path: Path, capsys: Any) -> None:
    assert main(command("calibrate", "megapixel-mnist", "--data", tmp_path)) == 2
    assert "is no folder of yours, it is left as it is: add --out DIR for a copy" in capsys.readouterr().err
    assert main(command("calibrate", tmp_path)) == 2
    assert "is not a run or model folder" in capsys.readouterr().err


def test_folds_are_calibrated_by_what_they_held_out_and_become_one_folder(tmp_path: Path, capsys: Any) -> None:
    cv, manifest = tmp_path / "cv", write_coloured(tmp_path, 12)
    for number in (1, 2):
        save_model(small(number), cv / f"fold-{number}" / "model")
    (cv / "folds.json").write_text('{"multi_label": false}')
    lines = [
        f"{i}.png,{('red', 'green')[i % 2]},{i % 2 + 1},,{0.9 if i % 3 else 0.2},{0.1 if i % 3 else 0.8}"
        for i in range(12)
    ]
    (cv / "out_of_fold.csv").write_text("\n".join(["path,label,fold,group,p_green,p_red", *lines]) + "\n")
    single = load_model(cv).predict(tmp_path / "3.png")
    assert main(command("calibrate", cv, "--cost", "green:red=5", "--out", tmp_path / "one")) == 0
    assert "by held-out predictions of " in (told := capsys.readouterr().out)
    assert "cost " in told
    assert not (cv / "model").exists()
    loaded = load_model(tmp_path / "one")
    assert loaded.decision.costs == ((0.0, 5.0), (1.0, 0.0))
    after = loaded.predict(tmp_path / "3.png")
    odds = [np.log(one.probabilities["red"] / one.probabilities["green"]) for one in (single, after)]
    assert odds[0] / loaded.decision.temperature == pytest.approx(odds[1], abs=1e-6)
    assert main(command("calibrate", cv)) == 0
    assert load_model(cv).decision.temperature == loaded.decision.temperature
    assert main(command("evaluate", cv, "--data", manifest)) == 2
    assert "no image is in the test split" in capsys.readouterr().err, "all were trained on by one fold or the other"


def test_a_run_calibrates_itself_if_asked(images: Path, config: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    words = (
        "train",
        "--config",
        config,
        "--data",
        images,
        "--out",
        run,
        "--training.epochs=1",
        "--data.validation=0.4",
    )
    assert main(command(*words, "--training.calibrate", "true")) == 0
    kept = load_model(run).decision.temperature
    assert kept != 1
    assert main(command("calibrate", run)) == 0
    assert load_model(run).decision.temperature == pytest.approx(kept, rel=1e-6)
    assert "validation images of" in capsys.readouterr().out


def test_predict_draws_until_the_class_is_settled(run: Path, tmp_path: Path, capsys: Any) -> None:
    manifest, out = write_coloured(tmp_path, 8), tmp_path / "all.csv"
    words = command("predict", run, manifest, "--max-patches", 24, "--confidence", 0.9, "--out", out)
    for _ in range(2):  # a finished table is made again
        assert main(words) == 0
    table = rows(out.read_text())
    assert list(table[0])[-3:] == ["seconds", "spread", "settled"]
    model = load_model(run)
    for row in table:
        found = model.predict(tmp_path / row["path"], max_patches=24, confidence=0.9)
        assert (row["settled"], row["patches"]) == ("yes" if found.settled else "no", str(found.patches))
        assert float(row["spread"]) == pytest.approx(found.spread, rel=1e-2, abs=1e-6)
        assert int(row["patches"]) in (3, 6, 12, 24)
        assert found.settled or found.patches == 24
    capsys.readouterr()
    for given, said in [
        (("--confidence", 0.9), "--confidence says when to stop drawing: add --max-patches"),
        (("--max-patches", 8, "--samples", 2), "goes with one sample"),
        (("--max-patches", 8, "--method", "top"), "draws by method murthy, got top"),
    ]:
        assert main(command("predict", run, manifest, *given)) == 2
        assert said in capsys.readouterr().err
