"""Learning curves: means by hand, kept with the predictions, drawn; files that were kept without them."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.compare import compare, read_results
from foveate.compare.figures import draw_curves
from foveate.compare.plan import Part
from foveate.compare.store import (
    EARLY,
    LATE,
    SMOOTHED,
    Curve,
    Step,
    begun,
    curve_from_plain,
    read_curve,
    read_predictions,
)


def silent(line: str) -> None:
    """Say nothing."""


def journal(folder: Path, errors: list[float], epochs: list[dict[str, Any]]) -> Path:
    steps = [
        {"kind": "step", "step": 3 * n, "seconds": n / 2, "loss": 2 * error, "error": error}
        for n, error in enumerate(errors, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*steps, *epochs]))
    return folder


EPOCH = {"kind": "epoch", "step": 9, "epoch": 1, "seconds": 7.5, "training_loss": 1.0, "training_error": 0.75}


def test_points_are_means_over_the_steps_before(tmp_path: Path) -> None:
    errors = [0.9, 0.7] * (SMOOTHED // 2) + [0.5] * SMOOTHED + [0.1] * 3
    epochs = [{**EPOCH, "validation_error": 0.5, "validation_covered": 3.25}, {**EPOCH, "validation_error": None}]
    curve = read_curve(journal(tmp_path, errors, epochs))
    assert curve.steps == (
        (3 * SMOOTHED, SMOOTHED / 2, pytest.approx(1.6), pytest.approx(0.8)),
        (6 * SMOOTHED, SMOOTHED, 1.0, 0.5),
    )
    assert curve.epochs == ((9, 1, 7.5, 1.0, 0.75, 0.5, 3.25), (9, 1, 7.5, 1.0, 0.75, None, None))
    assert curve_from_plain(json.loads(json.dumps(asdict(curve)))) == curve


def test_a_long_run_is_fine_at_first_then_coarse_and_an_old_one_has_no_points(tmp_path: Path) -> None:
    errors = [0.5] * ((EARLY + 3 * LATE) * SMOOTHED + 7)
    curve = read_curve(journal(tmp_path, errors, [EPOCH | {"validation_error": 0.1}]))
    steps = [step for step, *_ in curve.steps]
    first, *_, middle = np.diff(steps[:EARLY])
    assert first == middle == steps[0] == 3 * SMOOTHED
    coarse = 3 * SMOOTHED + 1
    assert set(np.diff(steps[EARLY:])) == {3 * coarse}
    assert len(steps) == EARLY + (3 * LATE * SMOOTHED + 7) // coarse  # what is left over at the end makes no point
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 1, "seconds": 1.0, "loss": 2.0}\n' * 40)
    assert read_curve(tmp_path) == Curve((), ())


def test_begun_is_the_first_point_below() -> None:
    curve = Curve(
        tuple(Step(10 * n, 1.0, 1.0, error) for n, error in enumerate((0.9, 0.8, 0.79, 0.85, 0.2), start=1)), ()
    )
    assert begun(curve, 0.8) == 30
    assert begun(curve, 0.2) is None


@pytest.fixture(scope="module")
def kept(
    tmp_path_factory: pytest.TempPathFactory, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> Path:
    out = tmp_path_factory.mktemp("curves") / "comparison"
    settings = settings_of(methods={"ats-3": {}, "two": {}}, seeds=[0, 1], begun_below=1.1)
    steps = {"epochs": 8, "batch": 4, "log_every": 1}
    settings = replace(settings, base={**settings.base, "training": steps})
    compare(settings, out, dataset=spots_of(splits=True), part=Part(1, 1), tell=silent)
    return out


@pytest.mark.slow
def test_a_comparison_keeps_and_shows_how_its_runs_learnt(kept: Path) -> None:
    run = read_predictions(kept / "two" / "seed-1")
    assert run is not None
    assert run.curve is not None
    assert [epoch[1] for epoch in run.curve.epochs] == list(range(1, 9))
    assert all(isinstance(epoch[5], float) for epoch in run.curve.epochs), "there are validation images"
    assert len(run.curve.steps) == 24 // SMOOTHED
    assert run.coverage is None, "nobody knows of objects here"
    quality = read_results(kept / "results.json").methods[1].quality
    assert quality.begun_steps == (SMOOTHED, SMOOTHED)
    assert quality.objects_covered is quality.error_floor is None
    report = (kept / "results.md").read_text()
    assert "| method | steps until it began to learn, by run |" in report
    assert f"| two | {SMOOTHED}, {SMOOTHED} |" in report
    assert (kept / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.slow
def test_runs_kept_without_a_curve_count_and_are_not_drawn(
    kept: Path,
    tmp_path: Path,
    spots_of: Callable[..., Any],
    settings_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(methods={"ats-3": {}}, begun_below=0.8)
    images = spots_of(splits=True)
    compare(settings, tmp_path, dataset=images, part=Part(1, 1), tell=silent)
    (tmp_path / "curves.png").unlink()
    path = tmp_path / "ats-3" / "predictions.json"
    plain = json.loads(path.read_text())
    del plain["curve"], plain["coverage"]
    path.write_text(json.dumps(plain))
    monkeypatch.setattr("foveate.compare.trial.train", lambda *_, **__: pytest.fail("trained again"))
    comparison = compare(settings, tmp_path, dataset=images, part=Part(1, 1), tell=silent)
    assert comparison is not None
    assert comparison.methods[0].quality.begun_steps is None
    assert not (tmp_path / "curves.png").exists()
    older = json.loads((tmp_path / "results.json").read_text())
    for one in older["methods"]:
        for key in ("begun_steps", "objects_covered", "objects", "error_floor"):
            del one[key]
    (tmp_path / "results.json").write_text(json.dumps(older))
    assert read_results(tmp_path / "results.json") == comparison


@pytest.mark.slow
def test_the_picture_shows_every_run_and_says_whose_error_it_is(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[list[float], list[float]]] = []
    labels: list[str] = []
    plot, set_label = Axes.plot, Axes.set_ylabel

    def watched(self: Axes, x: Any, y: Any, *given: Any, **named: Any) -> Any:
        drawn.append((list(x), list(y)))
        return plot(self, x, y, *given, **named)

    def labelled(self: Axes, text: str, *given: Any, **named: Any) -> Any:
        labels.append(text)
        return set_label(self, text, *given, **named)

    monkeypatch.setattr(Axes, "plot", watched)
    monkeypatch.setattr(Axes, "set_ylabel", labelled)
    run = read_predictions(kept / "two" / "seed-1")
    assert run is not None
    assert run.curve is not None
    slow = replace(
        run,
        curve=replace(
            run.curve,
            epochs=tuple(
                e._replace(seconds=60.0 * e.epoch, validation_error=0.1 * e.epoch, validation_covered=None)
                for e in run.curve.epochs
            ),
        ),
    )
    fast = replace(
        slow, curve=replace(slow.curve, epochs=tuple(e._replace(seconds=e.seconds / 2) for e in slow.curve.epochs))
    )
    assert draw_curves({"m": [slow, fast]}, tmp_path / "curves.png")
    minutes, errors = drawn[0]
    assert minutes == [float(n) for n in range(1, 9)]
    assert errors == pytest.approx([0.1 * n for n in range(1, 9)])
    middle, mean = drawn[-1]
    assert (middle[0], middle[-1]) == (1.0, 4.0), "the minutes that both span"
    assert mean[0] == pytest.approx((0.1 + 0.2) / 2)
    assert ([run.seconds / 60], [run.error]) in drawn
    blind = replace(
        slow,
        curve=replace(
            slow.curve,
            epochs=tuple(e._replace(validation_error=None, validation_covered=None) for e in slow.curve.epochs),
        ),
    )
    assert draw_curves({"m": [blind]}, tmp_path / "blind.png")
    assert labels == ["validation error (lines), test error (circles)", "training error (lines), test error (circles)"]
    assert not draw_curves({"m": [replace(run, curve=None)]}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
