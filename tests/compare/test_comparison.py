"""The harness: the same images for all, nothing run twice, parts that make up the whole, and the files it leaves."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from foveate.compare import Comparison, MethodResult, Part, compare, read_results
from foveate.compare.store import seconds_per_step
from foveate.errors import ConfigError, DataError, Interrupted, RunError
from foveate.models import load_model
from foveate.training.run_folder import read_metrics

CNN = {"settings": {"model": {"name": "cnn"}}}
FOLDED: dict[str, Any] = {"folds": 2, "seeds": [0, 1], "methods": {"ats-3": {}, "cnn": {**CNN, "seeds": [1]}}}


def silent(line: str) -> None:
    """Say nothing."""


def without_time(one: MethodResult) -> Any:
    return replace(one.quality, train_seconds=0, total_seconds=0)


@pytest.fixture(scope="module")
def folded(
    tmp_path_factory: pytest.TempPathFactory, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> Path:
    out = tmp_path_factory.mktemp("folded") / "comparison"
    compare(settings_of(**FOLDED), out, dataset=spots_of(), tell=silent)
    return out


def test_every_run_of_a_seed_tests_the_same_images_and_folds_test_all(folded: Path) -> None:
    kept = {path.parent: json.loads(path.read_text()) for path in folded.rglob("predictions.json")}
    assert sorted(str(path.relative_to(folded)) for path in kept) == [
        "ats-3/seed-0/fold-1", "ats-3/seed-0/fold-2", "ats-3/seed-1/fold-1", "ats-3/seed-1/fold-2",
        "cnn/seed-1/fold-1", "cnn/seed-1/fold-2",
    ]  # fmt: skip
    for fold in ("fold-1", "fold-2"):
        first, second = (folded / method / "seed-1" / fold for method in ("ats-3", "cnn"))
        assert kept[first]["ids"] == kept[second]["ids"]
        assert (first / "splits.json").read_text() == (second / "splits.json").read_text()
    tested = kept[folded / "ats-3/seed-0/fold-1"]["ids"] + kept[folded / "ats-3/seed-0/fold-2"]["ids"]
    assert sorted(tested) == sorted(f"image{17 * i % 101}" for i in range(18))
    assert kept[folded / "ats-3/seed-0/fold-1"]["ids"] != kept[folded / "ats-3/seed-1/fold-1"]["ids"]


def test_twins_come_out_alike(tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]) -> None:
    """Two methods of the same settings see the same images in the same order, with the same draws."""
    settings = settings_of(methods={"one": {}, "two": {}})
    comparison = compare(settings, tmp_path, dataset=spots_of(splits=True), part=Part(1, 1), tell=silent)
    assert comparison is not None
    one, two = (replace(without_time(result), name="", difference=None) for result in comparison.methods)
    assert one == two
    kept = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("one", "two")]
    assert kept[0]["probabilities"] == kept[1]["probabilities"]


def test_the_results_are_files_of_every_kind(folded: Path) -> None:
    plain = json.loads((folded / "results.json").read_text())
    promised = {
        "name", "error", "interval", "train_seconds", "train_ms_per_image", "predict_ms_per_image",
        "activation_mb_per_image", "pixels_read_share", "auc", "balanced_error", "recalls", "confusion", "train_loss",
        "bytes_read_per_image", "patches_per_image", "peak_mb", "difference", "seed_errors", "fold_errors",
    }  # fmt: skip
    for method in plain["methods"]:
        assert promised <= method.keys()
    ats, cnn = read_results(folded / "results.json").methods
    assert (ats.quality.n, ats.quality.runs, cnn.quality.runs) == (18, 4, 2)
    assert cnn.quality.difference is not None
    assert cnn.quality.difference.seeds == (1,)
    assert ats.cost is not None
    assert cnn.cost is not None
    assert (ats.cost.patches_per_image, cnn.cost.patches_per_image) == (3, 0)
    # A view of 30×35 of 60×70 pixels; three patches of 24×22.
    assert cnn.cost.pixels_read_share == pytest.approx(30 * 35 / (60 * 70))
    assert ats.cost.pixels_read_share == pytest.approx((30 * 35 + 3 * 24 * 22) / (60 * 70))
    assert (folded / "results.png").read_bytes().startswith(b"\x89PNG\r\n")
    report = (folded / "results.md").read_text()
    for heading in ("## Quality", "## Seeds and folds", "## Cost", "## Confusion"):
        assert heading in report
    tables = [block.splitlines() for block in report.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1
    assert json.loads((folded / "cost.json").read_text())["machine"]["packages"]["torch"]


def test_a_run_is_a_run_folder(folded: Path) -> None:
    assert load_model(folded / "cnn/seed-1/fold-2").classes == ("bright", "dark")


def test_nothing_is_run_or_measured_twice(
    folded: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folded.rglob("*") if path.is_file() and path.name != "results.png"}
    monkeypatch.setattr("foveate.compare.trial.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("foveate.compare.run.measure_costs", lambda *_, **__: pytest.fail("measured again"))
    compare(settings_of(**FOLDED), folded, dataset=spots_of(), tell=silent)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_runs_kept_before_a_setting_existed_still_count(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, images = settings_of(methods={"ats-3": {}}), spots_of(splits=True)
    compare(settings, tmp_path, dataset=images, tell=silent)
    path = tmp_path / "ats-3" / "predictions.json"
    kept = json.loads(path.read_text())
    assert kept["settings"]["model"]["input"].pop("guide")["given"] == "mask"
    path.write_text(json.dumps(kept))
    monkeypatch.setattr("foveate.compare.trial.train", lambda *_, **__: pytest.fail("trained again"))
    compare(settings, tmp_path, dataset=images, tell=silent)
    kept["settings"]["model"]["gone"] = 1  # a setting that there is no more may have mattered
    path.write_text(json.dumps(kept))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        compare(settings, tmp_path, dataset=images, tell=silent)


def test_costs_are_measured_again_if_forced_or_if_asked_otherwise(
    folded: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {one.name: one.cost for one in read_results(folded / "results.json").methods}
    measured: list[tuple[list[str], int]] = []

    def measure(trials: Any, images: Any, settings: Any, check: Any, tell: Any) -> Any:
        measured.append(([one.method.name for one in trials], settings.batch))
        return known

    monkeypatch.setattr("foveate.compare.run.measure_costs", measure)
    monkeypatch.setattr("foveate.compare.run.draw_comparison", lambda *_: None)
    other = {**FOLDED, "cost": {"batch": 3, "rounds": 2, "warm_up": 0, "process": False}}
    for settings, force in ((FOLDED, True), (other, False), (FOLDED, False), (FOLDED, False)):
        compare(settings_of(**settings), folded, dataset=spots_of(), tell=silent, force_cost=force)
    assert measured == [(["ats-3", "cnn"], 4), (["ats-3", "cnn"], 3), (["ats-3", "cnn"], 4)]


@pytest.mark.slow
def test_parts_make_up_the_whole(
    folded: Path, tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    told: list[str] = []
    settings = settings_of(**FOLDED)
    assert compare(settings, tmp_path, dataset=spots_of(), part=Part(2, 2), tell=told.append) is None
    assert told[-1] == "part 2/2: 3 runs done, 3 of 6 still missing elsewhere"
    assert not (tmp_path / "results.json").exists()
    assert len(list(tmp_path.rglob("predictions.json"))) == 3
    together = compare(settings, tmp_path, dataset=spots_of(), part=Part(1, 2), tell=told.append)
    assert told[-1] == "cost is not measured in parts: to add it, compare once more without --part"
    whole = compare(settings, folded, dataset=spots_of(), tell=silent)
    assert isinstance(whole, Comparison)
    assert isinstance(together, Comparison)
    assert [without_time(one) for one in together.methods] == [without_time(one) for one in whole.methods]
    assert together.methods[0].cost is None
    assert read_results(tmp_path / "results.json") == together
    assert "Not measured" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_run_in_another_process_is_left_alone(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    (tmp_path / "cnn").mkdir()
    with FileLock(tmp_path / "cnn" / ".lock"):
        told: list[str] = []
        message = "1 of 2 runs are under way elsewhere, cnn first: compare again when they are done"
        with pytest.raises(RunError) as caught:
            compare(settings_of(), tmp_path, dataset=spots_of(splits=True), tell=told.append)
    assert str(caught.value) == message
    assert told[-1] == "run 2 of 2: cnn is under way elsewhere and left alone"
    assert [path.name for path in (tmp_path / "cnn").iterdir()] == [".lock"]
    assert (tmp_path / "ats-3" / "predictions.json").is_file()


@dataclass(frozen=True)
class Stopping:
    """Images at the n-th opening of which a signal arrives."""

    images: Any
    examples: Any
    classes: tuple[str, ...]
    opened: list[int]
    nth: int
    multi_label: bool = False

    def open(self, index: int) -> Any:
        self.opened.append(index)
        if len(self.opened) == self.nth:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.images.open(index)


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    spots, settings = spots_of(splits=True), settings_of(methods={"ats-3": {}, "two": {}})
    opened: list[int] = []
    counting = Stopping(spots, spots.examples, spots.classes, opened, nth=0)
    whole = compare(settings, tmp_path / "whole", dataset=counting, part=Part(1, 1), tell=silent)
    stopping = Stopping(spots, spots.examples, spots.classes, [], nth=len(opened) // 2 + 18)
    out, remedy = tmp_path / "stopped", "to continue: foveate compare --config c.yaml --out runs/c"
    with pytest.raises(Interrupted) as caught:
        compare(settings, out, dataset=stopping, tell=silent, remedy=remedy)
    assert caught.value.signal == signal.SIGTERM
    assert str(caught.value).startswith("stopped by SIGTERM ")
    assert str(caught.value).endswith(f", the state is saved; {remedy}")
    assert [path.parent.name for path in out.rglob("predictions.json")] == ["ats-3"]
    again = compare(settings, out, dataset=spots, part=Part(1, 1), tell=silent)
    assert isinstance(whole, Comparison)
    assert isinstance(again, Comparison)
    assert [without_time(one) for one in again.methods] == [without_time(one) for one in whole.methods]


def test_changed_images_and_settings_are_noticed(
    folded: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    with pytest.raises(RunError, match=r"ats-3/seed-0/fold-1 was split otherwise: compare with the images, folds and"):
        compare(settings_of(**FOLDED), folded, dataset=spots_of(20), tell=silent)
    other = {**FOLDED, "methods": {"ats-3": {"settings": {"model": {"patches": 2}}}}}
    with pytest.raises(RunError, match=r"ats-3/seed-0/fold-1 was trained with another model\.patches: leave it"):
        compare(settings_of(**other), folded, dataset=spots_of(), tell=silent)
    with pytest.raises(DataError, match=r"^there is no test image to compare on: check the manifest's split column"):
        compare(settings_of(), folded, dataset=spots_of(), tell=silent)


def test_predictions_are_made_again_where_they_are_missing_and_a_damaged_file_is_named(
    folded: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    path = folded / "cnn" / "seed-1" / "fold-2" / "predictions.json"
    content = json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(RunError, match=r"predictions\.json is damaged: delete it to predict the test images again$"):
        compare(settings_of(**FOLDED), folded, dataset=spots_of(), tell=silent)
    path.unlink()
    compare(settings_of(**FOLDED), folded, dataset=spots_of(), tell=silent)
    again = json.loads(path.read_text())
    differing = {key for key in content if content[key] != again[key]}
    assert differing <= {"seconds", "test_seconds"}


@pytest.mark.slow
def test_the_method_that_is_to_train_as_long_does(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    settings = settings_of(methods={"ats-3": {}, "cnn": {**CNN, "as_long_as": "ats-3"}})
    comparison = compare(settings, tmp_path, dataset=spots_of(splits=True), part=Part(1, 1), tell=silent)
    assert comparison is not None
    ats, cnn = (one.quality for one in comparison.methods)
    assert cnn.train_seconds >= ats.train_seconds
    assert cnn.epochs >= ats.epochs
    assert compare(settings, tmp_path, dataset=spots_of(splits=True), part=Part(1, 1), tell=silent) == comparison
    assert len(read_metrics(tmp_path / "cnn" / "metrics.jsonl", "epoch")) == cnn.epochs


@pytest.mark.slow
def test_all_get_the_same_time_by_the_pace_of_a_trial(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from foveate.compare.trial import Budget, Trial, read_budget
    from foveate.config.files import load_settings

    paces = {"ats-3": 0.5, "cnn": 0.25}
    timed: list[str] = []

    def pace(trial: Trial) -> float:
        timed.append(trial.method.name)
        return paces[trial.method.name]

    settings, images = settings_of(minutes=5 / 60), spots_of(splits=True)  # 9 training images, 2 steps an epoch
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "_pace", pace)
        comparison = compare(settings, tmp_path, dataset=images, part=Part(1, 1), tell=silent)
        assert compare(settings, tmp_path, dataset=images, part=Part(1, 1), tell=silent) == comparison
    assert timed == ["ats-3", "cnn"], "settled once"
    for name, steps in (("ats-3", 10), ("cnn", 20)):
        assert read_budget(tmp_path / name) == Budget(5 / 60, paces[name], steps)
        training = load_settings(tmp_path / name / "config.yaml").training
        assert (training.max_steps, training.epochs) == (steps, steps // 2)
        last = read_metrics(tmp_path / name / "metrics.jsonl", "step")[-1]
        assert last["step"] == steps
        assert last["learning_rate"] < 1e-3 * training.learning_rate, "its schedule has ended"
    (tmp_path / "cnn" / "predictions.json").unlink()  # stopped before it was tested, say: by the budget that is there
    assert compare(settings, tmp_path, dataset=images, part=Part(1, 1), tell=silent) is not None
    with pytest.raises(RunError) as caught:
        compare(settings_of(minutes=6.0), tmp_path, dataset=images, part=Part(1, 1), tell=silent)
    assert str(caught.value) == (
        f"{tmp_path / 'ats-3'} was given 0.0833333 minutes to train, not 6 minutes: leave minutes as it was to go on, "
        "or choose another --out"
    )
    with pytest.raises(RunError, match="minutes to train, not the epochs of its settings: leave minutes as it was"):
        compare(settings_of(), tmp_path, dataset=images, part=Part(1, 1), tell=silent)
    (tmp_path / "cnn" / "budget.json").write_text("{")
    with pytest.raises(RunError, match=r"budget\.json is damaged: delete .*cnn to train that run from the start"):
        compare(settings, tmp_path, dataset=images, part=Part(1, 1), tell=silent)


def test_the_pace_is_that_of_real_steps(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    from foveate.compare.trial import read_budget

    settings = settings_of(methods={"ats-3": {}}, minutes=0.002)
    assert compare(settings, tmp_path, dataset=spots_of(splits=True), part=Part(1, 1), tell=silent) is not None
    budget = read_budget(tmp_path / "ats-3")
    assert budget is not None
    assert 0 < budget.pace < 1
    assert len(read_metrics(tmp_path / "ats-3" / "metrics.jsonl", "step")) == budget.steps


def test_a_step_is_timed_between_two_of_the_same_epoch_or_else_over_epochs(tmp_path: Path) -> None:
    steps = [(1, 1, 10.0), (2, 1, 12.0), (3, 1, 14.0), (4, 2, 90.0), (6, 2, 96.0)]
    epochs = [(3, 15.0), (6, 12.0), (6, 0.0)]
    lines = [json.dumps({"kind": "step", "step": s, "epoch": e, "seconds": t}) for s, e, t in steps]
    lines += [json.dumps({"kind": "epoch", "step": s, "training_seconds": t}) for s, t in epochs]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert seconds_per_step(tmp_path) == 2.0
    assert seconds_per_step(tmp_path, skip=3) == 3.0
    assert seconds_per_step(tmp_path, skip=4) == 4.5  # 15 s / 3 steps and 12 s / 3 steps


def test_a_refused_configuration_and_damaged_splits_change_nothing(
    folded: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    before = (folded / "comparison.yaml").read_bytes()
    other = {**FOLDED, "methods": {"ats-3": {}, "cnn": {"settings": {"model": {"name": "uniform"}}, "seeds": [1]}}}
    with pytest.raises(RunError, match=r"cnn/seed-1/fold-1 was trained with another model\.name: leave it as it was"):
        compare(settings_of(**other), folded, dataset=spots_of(), tell=silent)
    assert (folded / "comparison.yaml").read_bytes() == before
    wrong = {**FOLDED, "methods": {**FOLDED["methods"], "new": {"settings": {"model": {"patch": [3, 2]}}}}}
    with pytest.raises(ConfigError, match="patch"):
        compare(settings_of(**wrong), folded, dataset=spots_of(), tell=silent)
    assert (folded / "comparison.yaml").read_bytes() == before
    path = folded / "cnn" / "seed-1" / "fold-2" / "splits.json"
    kept = path.read_bytes()
    for damage in (b"{", b"[]", b"\xff"):
        path.write_bytes(damage)
        with pytest.raises(
            RunError, match=r"splits\.json is damaged: restore a copy, or choose another --out to train"
        ):
            compare(settings_of(**FOLDED), folded, dataset=spots_of(), tell=silent)
    path.write_bytes(kept)
