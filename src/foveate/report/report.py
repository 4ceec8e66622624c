"""Report page: what is told of a run, put together; how it is said stands in the template."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveate.atomic import whole_file
from foveate.config.serial import to_plain
from foveate.config.training import RunSettings
from foveate.datasets.types import Example, ImageDataset
from foveate.errors import FoveateError
from foveate.evaluation.calibration import reliability
from foveate.evaluation.decisions import Share, judge_decisions
from foveate.evaluation.evaluate import Evaluation
from foveate.evaluation.permutation import Verdict
from foveate.evaluation.scores import decisions, one_hot, wrong_shares
from foveate.explain import draw_evolution, explain
from foveate.explain.page import data_uri, environment
from foveate.explain.picture import Rendering, Scale, jpeg, write_overlay
from foveate.images.view import shrunk_size
from foveate.models import Decision, DrawOptions, Model
from foveate.models.types import ONE_DRAW
from foveate.report import figures
from foveate.training.run_folder import read_metrics

SVG = "svg+xml"

SIDE, MOST_BYTES = 640, 90_000
"""Longest side of the picture of a mistake, in pixels, and the most bytes that it takes."""


@dataclass(frozen=True)
class Mistake:
    """Mistake of a model: an image that it answers wrongly, and what it saw.

    Attributes:
        id: of the image.
        truth: its label, or labels.
        answer: what the model says.
        probability: of the wrong answer; with several labels, the largest error of a class's probability.
        picture: JPEG of the image with the attention map and the patches; None if it cannot be read any more.
    """

    id: str
    truth: str
    answer: str
    probability: float
    picture: bytes | None


def write_report(
    path: Path,
    rule: Decision,
    examples: Sequence[Example],
    result: Evaluation,
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
        rule: by which the model that was evaluated decides.
        examples: of the data set, in which `result.indices` are places.
        result: of `foveate.evaluation.evaluate.evaluate`.
        name: of the run.
        split: that was evaluated.
        settings: of the run; None of a model without one.
        run: its folder, whose learning curves are shown.
        dataset: its images, of which attention maps are shown if the run kept any; None shows none.
        mistakes: of `worst_mistakes`.
    """
    epochs = _epochs(run)
    known = epochs[-1].get("training_error") if epochs else None
    verdict = Verdict.of(result, examples, known)
    if split != "validation":
        verdict = replace(verdict, split=split, others=0)
    calibrated = reliability(result.labels, result.probabilities, result.groups)
    fields = {
        "name": name,
        "split": split,
        "result": result,
        "verdict": verdict,
        "curves": data_uri(figures.learning_curves(epochs, result.constant_error), SVG) if epochs else None,
        "thresholds": data_uri(figures.threshold_curves(result), SVG),
        "reliability": calibrated,
        "reliability_curve": data_uri(figures.reliability_curve(calibrated), SVG),
        "rule": rule,
        "decisions": _decided(rule, result),
        "counts": _counts(result),
        "evolution": _evolution(run, dataset),
        "mistakes": [(one, None if one.picture is None else data_uri(one.picture, "jpeg")) for one in mistakes],
        "wrong": int((wrong_shares(result.labels, result.probabilities) > 0).sum()),
        "settings": _settings(settings),
    }
    text = environment("foveate.report").get_template("report.html").render(fields)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def worst_mistakes(
    model: Model, dataset: ImageDataset, result: Evaluation, count: int, options: DrawOptions = ONE_DRAW
) -> list[Mistake]:
    """Worst mistakes: of the images that are answered wrongly, those that the model is surest of, and what it saw.

    Arguments:
        model: on its device.
        dataset: the images.
        result: evaluation of the model on some of them, image by image.
        count: how many mistakes, at most.
        options: how to draw.
    """
    if result.by_group:
        return []
    wrong = np.flatnonzero(wrong_shares(result.labels, result.probabilities) > 0)
    answers = decisions(result.probabilities, result.several)
    if result.several:
        surety = np.abs(result.probabilities - result.labels).max(1)
    else:
        surety = np.take_along_axis(result.probabilities, answers[:, None], 1)[:, 0]
    rows = wrong[np.argsort(-surety[wrong], kind="stable")][:count]
    return [
        Mistake(
            id=result.ids[row],
            truth=_called(result, result.labels[row]),
            answer=_called(result, answers[row]),
            probability=float(surety[row]),
            picture=_picture(model, dataset, result.indices[row], options),
        )
        for row in rows.tolist()
    ]


def _called(result: Evaluation, label: Any) -> str:
    if not result.several:
        return result.classes[int(label)]
    return ", ".join(name for name, has in zip(result.classes, label, strict=True) if has) or "none of them"


def _picture(model: Model, dataset: ImageDataset, index: int, options: DrawOptions) -> bytes | None:
    """JPEG of an image with its map and patches, or None if it cannot be read."""
    try:
        look = model.look(dataset.open(index), options)
        view = look.opened.view(shrunk_size(look.opened.size, SIDE))
        seen = explain(model, look)
        picture = Rendering.of(look.opened, view, model.settings.input.bands)(view)
    except FoveateError:
        return None
    overlay = BytesIO()
    write_overlay(overlay, seen, picture, Scale.over(seen))
    with Image.open(overlay) as drawn:
        return jpeg(np.asarray(drawn.convert("RGB")), MOST_BYTES)


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
