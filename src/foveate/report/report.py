"""Report page: what is told of a run, put together; how it is said stands in the template."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from foveate.atomic import whole_file
from foveate.config.serial import to_plain
from foveate.config.training import RunSettings
from foveate.datasets.types import Example, ImageDataset
from foveate.errors import FoveateError
from foveate.evaluation.calibration import reliability
from foveate.evaluation.decisions import Share, judge_decisions
from foveate.evaluation.evaluate import Evaluation
from foveate.evaluation.number_verdict import verdict_of
from foveate.evaluation.numbers import AnyEvaluation, NumberEvaluation
from foveate.evaluation.scores import one_hot, wrong_shares
from foveate.explain import draw_evolution
from foveate.explain.page import data_uri, environment
from foveate.models import Decision
from foveate.report import figures
from foveate.report.mistakes import Mistake
from foveate.training.run_folder import read_metrics

SVG = "svg+xml"


def write_report(
    path: Path,
    rule: Decision,
    examples: Sequence[Example],
    result: AnyEvaluation,
    *,
    name: str,
    split: str,
    settings: RunSettings | None = None,
    run: Path | None = None,
    dataset: ImageDataset | None = None,
    mistakes: Sequence[Mistake] = (),
) -> None:
    """Write the report of a model: one HTML file that needs nothing beside it.

    Arguments:
        path: file to write.
        rule: by which the model that was evaluated decides; of numbers, none does.
        examples: of the data set, in which `result.indices` are places.
        result: of `foveate.evaluation.numbers.evaluate_any`.
        name: of the run.
        split: that was evaluated.
        settings: of the run; None of a model without one.
        run: its folder, whose learning curves are shown.
        dataset: its images, of which attention maps are shown if the run kept any; None shows none.
        mistakes: of `worst_mistakes`.
    """
    epochs = _epochs(run)
    known = epochs[-1].get("training_error") if epochs else None
    verdict = verdict_of(result, examples, known)
    if split != "validation":
        verdict = replace(verdict, split=split, others=0)
    if isinstance(result, NumberEvaluation):
        template, own, called = "numbers.html", _of_numbers(result), ("mean absolute error", "always the mean")
    else:
        template, own, called = "classes.html", _of_classes(result, rule), ("error", "one answer for all")
    fields = {
        "name": name,
        "split": split,
        "result": result,
        "verdict": verdict,
        "curves": data_uri(figures.learning_curves(epochs, result.constant_error, *called), SVG) if epochs else None,
        "evolution": _evolution(run, dataset),
        "mistakes": [(one, None if one.picture is None else data_uri(one.picture, "jpeg")) for one in mistakes],
        "settings": _settings(settings),
    }
    text = environment("foveate.report").get_template(template).render(fields | own)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def _of_classes(result: Evaluation, rule: Decision) -> dict[str, Any]:
    """What the page says of classes alone."""
    calibrated = reliability(result.labels, result.probabilities, result.groups)
    return {
        "thresholds": data_uri(figures.threshold_curves(result), SVG),
        "reliability": calibrated,
        "reliability_curve": data_uri(figures.reliability_curve(calibrated), SVG),
        "rule": rule,
        "decisions": _decided(rule, result),
        "counts": _counts(result),
        "wrong": int((wrong_shares(result.labels, result.probabilities) > 0).sum()),
    }


def _of_numbers(result: NumberEvaluation) -> dict[str, Any]:
    """What it says of numbers alone."""
    return {
        "centre": float(result.centres.mean()),
        "scatter": data_uri(figures.answers_and_truth(result), SVG),
        "lean": float((result.answers - result.labels).mean()),
    }


def _epochs(run: Path | None) -> list[dict[str, Any]]:
    """Lines of the epochs of a run, the last of those that were repeated; none where it has no log."""
    file = None if run is None else run / "metrics.jsonl"
    if file is None or not file.is_file():
        return []
    return list({line["epoch"]: line for line in read_metrics(file, "epoch")}.values())


def _evolution(run: Path | None, dataset: ImageDataset | None) -> str | None:
    """Picture of the maps in the course of training, if the run kept any and their images are still there."""
    if run is None or dataset is None or not (run / "attention").is_dir():
        return None
    picture = BytesIO()
    try:
        draw_evolution(run, dataset, picture)
    except FoveateError:
        return None
    return data_uri(picture.getvalue(), "png")


def _decided(rule: Decision, result: Evaluation) -> list[tuple[str, Share]]:
    """What a decision rule is worth on the images, each share with its interval; nothing where it decides nothing."""
    if not rule.decides:
        return []
    judged = judge_decisions(rule, result.classes, result.labels, result.probabilities, result.groups)
    named = {
        "undecided": judged.unsure,
        "error of what is decided": judged.error,
        "sensitivity": judged.sensitivity,
        "specificity": judged.specificity,
        "mean cost": judged.cost,
    }
    return [(name, share) for name, share in named.items() if share is not None]


def _counts(result: Evaluation) -> list[tuple[str, int, float | None]]:
    """Class, its images, and the share of them that is recognised."""
    hot = one_hot(result.labels, len(result.classes))
    return [(name, int(number), result.recalls[name]) for name, number in zip(result.classes, hot.sum(0), strict=True)]


def _settings(settings: RunSettings | None) -> list[tuple[str, str]]:
    """Settings that are not what they are where nobody sets them, key and value."""
    if settings is None:
        return []

    def flat(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in plain.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return found

    usual = flat(to_plain(RunSettings()))
    return [(key, str(value)) for key, value in flat(to_plain(settings)).items() if usual.get(key) != value]
