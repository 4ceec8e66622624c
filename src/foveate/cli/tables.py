"""Tables on a terminal: predictions, figures of an evaluation, what is said of each class, and what maps are worth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from foveate.evaluation.calibration import Reliability
    from foveate.evaluation.decisions import DecisionScores
    from foveate.evaluation.evaluate import Evaluation
    from foveate.evaluation.numbers import NumberEvaluation
    from foveate.explain import AverageDeletion, Localisation
    from foveate.models.types import Prediction
    from foveate.predict import Failure, Row, Sink

NAMES = {
    "chance": "share of cells that show one",
    "mass": "attention on them",
    "pointing": "pointing game",
    "average_precision": "average precision of the cells",
    "draws_that_hit": "patches that hit one",
    "objects_hit": "objects that are hit",
}
"""What the scores of maps are called."""


def print_tables(
    result: "Evaluation",
    localisation: "Localisation | None" = None,
    deletion: "AverageDeletion | None" = None,
    decisions: "DecisionScores | None" = None,
) -> None:
    """Tables for a terminal: the figures, a row per class, and what the maps are worth.

    Arguments:
        result: of the evaluation.
        localisation: scores of the maps where the truth is known; None leaves them out.
        deletion: how answers change as patches are covered; likewise.
        decisions: what a decision rule makes of the probabilities; likewise.
    """
    from rich.console import Console

    console = Console()
    console.print(_figures(result))
    if result.constant:
        console.print("the answer is the same for all images: nothing that tells the classes apart was learnt")
    console.print(_classes(result))
    if decisions is not None:
        console.print(_decisions(decisions))
    if localisation is not None:
        console.print(_scores(localisation))
    if deletion is not None:
        console.print(_steps(deletion))


def print_numbers(result: "NumberEvaluation", localisation: "Localisation | None" = None) -> None:
    """Table of the figures of answers that are numbers, for a terminal; and what the maps are worth."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", show_header=False)
    table.add_column(justify="right")
    named = {"mean_absolute_error": "mean absolute error", "root_mean_squared_error": "root mean squared error"}
    for name, figure in result.figures().items():
        if figure is not None:
            low, high = (f"{bound:.4g}" for bound in figure.interval)
            table.add_row(named.get(name, "R²"), f"{figure.value:.4g}  ({low} to {high})")
    table.add_row("mean absolute error of the mean", f"{result.constant_error:.4g}")
    table.add_row("loss", f"{result.loss:.4g}")
    table.add_row("groups" if result.by_group else "images", str(result.n))
    table.add_row("patches per image", f"{result.patches_per_image:.1f}")
    console = Console()
    console.print(table)
    if result.constant:
        console.print("the answer is the same for all images: nothing that tells them apart was learnt")
    if localisation is not None:
        console.print(_scores(localisation))


def print_reliability(found: "Reliability") -> None:
    """Table of how often answers of a probability are right."""
    from rich.console import Console
    from rich.table import Table

    table = Table("probability of the answer", "are right (95 %)", "answers")
    for row in found.bins:
        table.add_row(f"{row.confidence:.3f}", with_interval(row.share, row.interval, 3), str(row.n))
    Console().print(table)


def _figures(result: "Evaluation") -> "Table":
    from rich.table import Table

    figures = Table("figure", show_header=False)
    figures.add_column(justify="right")
    ranked = {"AUC": _area(result), "balanced error": f"{result.balanced_error:.4f}"}
    if result.unequal:  # then the error says little
        _add(figures, ranked)
    figures.add_row("error", with_interval(result.error, result.interval))
    if result.constant_error is not None:
        figures.add_row("of one answer for all", f"{result.constant_error:.4f}")
    if not result.unequal:
        _add(figures, ranked)
    if (grades := result.grades) is not None:
        figures.add_row(
            "error in grades", with_interval(grades.mean_absolute_error, grades.mean_absolute_error_interval)
        )
        if grades.kappa is not None and grades.kappa_interval is not None:
            figures.add_row("quadratic weighted kappa", with_interval(grades.kappa, grades.kappa_interval))
    named = {
        "exact match error": result.exact_match_error,
        "mean average precision": result.mean_average_precision,
        "loss": result.loss,
    }
    _add(figures, {name: None if value is None else f"{value:.4f}" for name, value in named.items()})
    figures.add_row("groups" if result.by_group else "images", str(result.n))
    figures.add_row("patches per image", f"{result.patches_per_image:.1f}")
    seen = result.coverage
    if seen is not None:
        figures.add_row("objects covered", f"{seen.covered_per_image:.2f} of {seen.objects_per_image:.2f}")
        if seen.error_floor is not None:
            figures.add_row("error that this leaves", f"{seen.error_floor:.4f}")
    return figures


def _add(figures: "Table", named: dict[str, str | None]) -> None:
    for name, value in named.items():
        if value is not None:
            figures.add_row(name, value)


def _area(result: "Evaluation") -> str | None:
    area, interval = result.auc, result.auc_interval
    return None if area is None or interval is None else with_interval(area, interval)


def _classes(result: "Evaluation") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    classes = Table("class", "recall")
    counts = result.confusion
    for name in result.classes if counts is not None else ():
        classes.add_column(f"as {escape(name)}", justify="right")
    for number, name in enumerate(result.classes):
        recall = result.recalls[name]
        row = [] if counts is None else [str(count) for count in counts[number]]
        classes.add_row(escape(name), "–" if recall is None else f"{recall:.3f}", *row)
    return classes


def _decisions(found: "DecisionScores") -> "Table":
    from rich.table import Table

    table = Table("decisions", "(95 %)")
    named = {
        "unsure": found.unsure,
        "error of the others": found.error,
        "error if all were decided": found.error_without,
        "sensitivity": found.sensitivity,
        "specificity": found.specificity,
        "cost of a decision": found.cost,
        "without costs": found.cost_without,
    }
    for name, share in named.items():
        if share is not None:
            table.add_row(name, with_interval(*share))
    return table


def _scores(localisation: "Localisation") -> "Table":
    from rich.table import Table

    objects = f"{localisation.objects_per_image:.2f} objects in each of {localisation.images} images"
    table = Table(objects, "mean (95 %)", "images")
    for name, score in localisation.scores.items():
        if score is not None:
            table.add_row(NAMES[name], with_interval(score.mean, score.interval), str(score.images))
    return table


def _steps(deletion: "AverageDeletion") -> "Table":
    from rich.table import Table

    table = Table("patches covered", "probability, most attended first", "by chance")
    for count, attended, anywhere in zip(deletion.covered, deletion.by_attention, deletion.by_chance, strict=True):
        table.add_row(str(count), f"{attended:.4f}", f"{anywhere:.4f}")
    table.add_row("falls further by", with_interval(deletion.drop.mean, deletion.drop.interval), "")
    return table


def with_interval(value: float, interval: tuple[float, float], digits: int = 4) -> str:
    """A figure and its interval, in words."""
    low, high = (f"{bound:.{digits}f}" for bound in interval)
    return f"{value:.{digits}f}  ({low} to {high})" if digits == 4 else f"{value:.{digits}f} ({low} to {high})"


@contextmanager
def prediction_table(more: Sequence[str] = ()) -> "Iterator[Sink]":
    """The short form for a terminal: one probability instead of one a class; and `more` of the predictions."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from foveate.predict import Failure
    from foveate.predict.sinks import cell

    table = Table("path", "predicted")
    for name in ("probability", "patches", "MB read", "seconds", *more):
        table.add_column(name, justify="right")

    def add(row: "Row", outcome: "Prediction | Failure") -> None:  # noqa: ARG001  of a sink
        if isinstance(outcome, Failure):
            return
        shares = outcome.probabilities
        names = [name for name in shares if name == outcome.predicted] or outcome.predicted.split("|")
        probability = " ".join(f"{shares[name]:.3f}" for name in names if name in shares)  # a number has none
        counts = (str(outcome.patches), f"{outcome.bytes_read / 1e6:.2f}", f"{outcome.seconds:.2f}")
        told = (escape(cell(getattr(outcome, name))) for name in more)
        table.add_row(escape(outcome.path), escape(outcome.predicted), probability, *counts, *told)

    yield add
    if table.row_count:
        Console().print(table)
