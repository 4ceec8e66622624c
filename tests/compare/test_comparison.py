"""The harness: the same images for all, nothing run twice, and costs that are what they claim to be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foveate.compare import Entrant, activation_bytes, compare, markdown_table, pixels_read_share, read_results
from foveate.compare.run import seconds_per_step
from foveate.errors import RunError
from foveate.images import ArraySource
from foveate.models import build_model, make_batch
from foveate.settings import AttentionSettings, DataSettings, FeatureSettings, ModelSettings, ViewSettings
from foveate.training.config import RunSettings, TrainingSettings

MODEL = ModelSettings(
    view=ViewSettings(scale=0.25),
    patch=(30, 26),
    patches=3,
    attention=AttentionSettings(widths=(4,), stride=3),
    features=FeatureSettings(width=8),
)
SETTINGS = RunSettings(
    data=DataSettings(
        source="megapixel-mnist", canvas=(120, 160), train_images=24, test_images=8, noise=2, validation=0.25
    ),
    model=MODEL,
    training=TrainingSettings(epochs=2, batch=6, log_every=1),
)


def as_model(name: str) -> RunSettings:
    return replace(SETTINGS, model=replace(MODEL, name=name))  # type: ignore[arg-type]


def silent(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison")
    methods = [Entrant("ats-3", SETTINGS), Entrant("cnn", as_model("cnn"), as_long_as="ats-3")]
    compare(methods, out, tell=silent)
    return out


def test_every_method_is_tested_on_all_test_images_and_costed(finished: Path) -> None:
    ats, cnn = read_results(finished / "results.json")
    assert (ats.name, cnn.name) == ("ats-3", "cnn")
    assert ats.n == cnn.n == 8
    assert ats.patches_per_image == 3
    assert cnn.patches_per_image == 0
    for result in (ats, cnn):
        assert 0 <= result.interval[0] <= result.error <= result.interval[1] <= 1
        assert result.train_ms_per_image > 0
        assert result.predict_ms_per_image > 0
    # 30×40 of 120×160 pixels are the view; three patches of 30×26.
    assert cnn.pixels_read_share == pytest.approx(30 * 40 / (120 * 160))
    assert ats.pixels_read_share == pytest.approx((30 * 40 + 3 * 30 * 26) / (120 * 160))


def test_the_method_that_is_to_train_as_long_does(finished: Path) -> None:
    ats, cnn = read_results(finished / "results.json")
    assert cnn.train_seconds >= ats.train_seconds
    assert cnn.epochs >= ats.epochs


def test_a_finished_comparison_is_read_not_run_again(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/model/model.safetensors")}
    methods = [Entrant("ats-3", SETTINGS), Entrant("cnn", as_model("cnn"), as_long_as="ats-3")]
    errors = [result.error for result in read_results(finished / "results.json")]
    assert [result.error for result in compare(methods, finished, tell=silent)] == errors
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/model/model.safetensors")} == before


def test_results_json_has_the_promised_keys(finished: Path) -> None:
    plain = json.loads((finished / "results.json").read_text())
    promised = {
        "name", "error", "interval", "train_seconds", "train_ms_per_image", "predict_ms_per_image",
        "activation_mb_per_image", "pixels_read_share",
    }  # fmt: skip
    for method in plain["methods"]:
        assert promised <= method.keys()


def test_the_markdown_table_has_a_row_per_method(finished: Path) -> None:
    lines = markdown_table(read_results(finished / "results.json")).splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["method", "---", "ats-3", "cnn"]
    assert len({line.count("|") for line in lines}) == 1


def test_methods_must_see_the_same_images(tmp_path: Path) -> None:
    other = replace(SETTINGS, data=replace(SETTINGS.data, noise=3))
    with pytest.raises(RunError, match=r"^b differs from a in data\.noise: compare on the same images$"):
        compare([Entrant("a", SETTINGS), Entrant("b", other)], tmp_path)
    with pytest.raises(RunError, match=r"^methods must have different names, got \['a', 'a'\]: rename one$"):
        compare([Entrant("a", SETTINGS), Entrant("a", SETTINGS)], tmp_path)
    with pytest.raises(RunError, match=r"^b is to train as long as 'c': list that method before it$"):
        compare([Entrant("a", SETTINGS), Entrant("b", SETTINGS, as_long_as="c")], tmp_path)


def test_a_step_is_timed_between_two_of_the_same_epoch_or_else_over_epochs(tmp_path: Path) -> None:
    steps = [(1, 1, 10.0), (2, 1, 12.0), (3, 1, 14.0), (4, 2, 90.0), (6, 2, 96.0)]
    epochs = [(3, 15.0), (6, 12.0), (6, 0.0)]
    lines = [json.dumps({"kind": "step", "step": s, "epoch": e, "seconds": t}) for s, e, t in steps]
    lines += [json.dumps({"kind": "epoch", "step": s, "training_seconds": t}) for s, t in epochs]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert seconds_per_step(tmp_path) == 2.0
    assert seconds_per_step(tmp_path, skip=3) == 3.0
    assert seconds_per_step(tmp_path, skip=4) == 4.5  # 15 s / 3 steps and 12 s / 3 steps


def test_activations_are_counted_per_image_and_parameters_are_not() -> None:
    model = build_model(replace(MODEL, name="cnn", view=ViewSettings(scale=1.0)), ("a", "b"), channels=1)
    images = [ArraySource(np.full((40, 50, 1), value, np.uint8)) for value in (0, 90, 180, 255)]
    few, many = (activation_bytes(model, make_batch(images[:n], model.view, seeds=range(n))) for n in (2, 4))
    per_image = (many - few) / 2
    assert few - 2 * per_image == 4  # the loss keeps one float32 for the whole batch
    # The view and what each of the four ReLUs puts out, which is what the convolution after it takes; float32.
    floats = 40 * 50 + 4 * 18 * 23 + 8 * (16 * 21 + 7 * 10 + 5 * 8)
    assert 4 * floats <= per_image < 1.5 * 4 * floats


def test_activations_of_patches_do_not_grow_with_the_image() -> None:
    model = build_model(replace(MODEL, view=ViewSettings(longest_side=40)), ("a", "b"), channels=1)
    sizes = [(200, 250), (800, 1000)]
    small, large = (ArraySource(np.zeros((*size, 1), np.uint8)) for size in sizes)
    costs = [activation_bytes(model, make_batch([one], model.view, seeds=[0])) for one in (small, large)]
    assert costs[0] == costs[1]
    shares = [pixels_read_share(model, make_batch([one], model.view, seeds=[0])) for one in (small, large)]
    assert shares[1] == pytest.approx(shares[0] / 16)
