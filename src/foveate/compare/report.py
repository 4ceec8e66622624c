"""Results of a comparison: results.json, and the tables for a terminal and for a Markdown report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.compare.cost import MethodCost
from foveate.compare.summary import Difference, Quality
from foveate.errors import RunError

__all__ = [
    "COLUMNS",
    "Comparison",
    "MethodResult",
    "markdown_report",
    "read_results",
    "table_rows",
    "write_results",
]


@dataclass(frozen=True)
class MethodResult:
    """Result of one method.

    Attributes:
        quality: how good it was.
        cost: what it costs; None where that was not measured.
    """

    quality: Quality
    cost: MethodCost | None

    @property
    def name(self) -> str:
        """Of the method."""
        return self.quality.name


@dataclass(frozen=True)
class Comparison:
    """Results of all methods.

    Attributes:
        methods: one result each, in order.
        classes: names of the classes.
        reference: method that the others are compared with.
        relative_to: method by whose cost that of the others is divided.
        folds: number of folds, or None.
        judged: "images" or "groups".
        machine: where and when the costs were measured; None where they were not.
    """

    methods: tuple[MethodResult, ...]
    classes: tuple[str, ...]
    reference: str
    relative_to: str
    folds: int | None = None
    judged: str = "images"
    machine: dict[str, Any] | None = None

    def result(self, name: str) -> MethodResult:
        """Result of a method."""
        return next(one for one in self.methods if one.name == name)


def write_results(path: Path | str, comparison: Comparison) -> None:
    """JSON of a comparison, written in one go: a flat mapping per method under "methods", costs null if unmeasured."""
    plain = asdict(comparison)
    empty: dict[str, Any] = {one.name: None for one in fields(MethodCost)}
    plain["methods"] = [{**one["quality"], **(one["cost"] or empty)} for one in plain["methods"]]
    replace_file(Path(path), (json.dumps(plain, indent=2) + "\n").encode())


def read_results(path: Path | str) -> Comparison:
    """JSON of a comparison, read back as `write_results` wrote it.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        plain["methods"] = tuple(_method(one) for one in plain["methods"])
        plain["classes"] = tuple(plain["classes"])
        plain.pop("reported", None)  # older versions wrote it
        return Comparison(**plain)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: give the folder of a finished comparison") from error
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} is damaged or of an older foveate: compare again, which trains nothing twice"
        ) from error


def _method(plain: dict[str, Any]) -> MethodResult:
    values = {key: _tuples(value) for key, value in plain.items()}
    of_cost = {one.name for one in fields(MethodCost)}
    quality = {key: value for key, value in values.items() if key not in of_cost}
    if quality["difference"] is not None:
        quality["difference"] = Difference(**{key: _tuples(value) for key, value in quality["difference"].items()})
    cost = {key: value for key, value in values.items() if key in of_cost}
    return MethodResult(Quality(**quality), None if cost["parameters"] is None else MethodCost(**cost))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


COLUMNS = (
    "method",
    "test error (95 %)",
    "train ms/image",
    "predict ms/image",
    "activations MB/image",
    "pixels read",
    "training s",
)
"""Headings of the table on the terminal, in order."""

UNKNOWN = "–"

Rows = Sequence[Sequence[str]]


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Table on the terminal: its cells, a tuple per method in the order of `COLUMNS`."""
    return [
        (
            one.name,
            _with_interval(one.quality),
            UNKNOWN if one.cost is None else f"{one.cost.train_ms_per_image:.1f}",
            UNKNOWN if one.cost is None else f"{one.cost.predict_ms_per_image:.1f}",
            UNKNOWN if one.cost is None else f"{one.cost.activation_mb_per_image:.3g}",
            UNKNOWN if one.cost is None else f"{100 * one.cost.pixels_read_share:.1f} %",
            f"{one.quality.train_seconds:.0f}",
        )
        for one in comparison.methods
    ]


def markdown_report(comparison: Comparison) -> str:
    """Report in Markdown: quality, the seeds, learning, cost, and a confusion table per method."""
    parts = ["# Comparison\n", _quality(comparison), _spread(comparison), _cost(comparison)]
    parts.insert(3, _learning(comparison))
    parts.append(_confusions(comparison))
    return "\n".join(part for part in parts if part)


def _quality(comparison: Comparison) -> str:
    headings = ["method", "test error (95 %)", f"minus {comparison.reference} (95 %)", "share better", "AUC"]
    headings += ["balanced error", "test loss", "train loss", "train error", "epochs", "training s"]
    rows = []
    for one in (result.quality for result in comparison.methods):
        found = one.difference
        low_high = "" if found is None else f"{found.error:+.3f} ({found.interval[0]:+.3f} – {found.interval[1]:+.3f})"
        deviation = "" if one.train_loss_deviation is None else f" ± {one.train_loss_deviation:.3f}"
        rows.append(
            [
                one.name,
                _with_interval(one),
                low_high or UNKNOWN,
                UNKNOWN if found is None else f"{found.share_below:.3f}",
                _number(one.auc),
                _number(one.balanced_error),
                _number(one.loss),
                f"{one.train_loss:.3f}{deviation}",
                _number(one.train_error),
                f"{one.epochs:.4g}",
                f"{one.train_seconds:.0f}",
            ]
        )
    first = comparison.methods[0].quality
    runs = sum(result.quality.runs for result in comparison.methods)
    hours = sum(result.quality.total_seconds for result in comparison.methods) / 3600
    how = f"{comparison.folds} folds" if comparison.folds else "one split"
    text = (
        f"{first.n} test {comparison.judged}, {how}; {runs} runs, {hours:.2f} hours of training and testing in all. "
        "Error: mean over seeds, folds pooled; intervals by bootstrap over images, or groups where there are groups "
        "(Wilson's where each image was tested once, and where none or all are wrong). Difference: on the same images "
        "and seeds, by paired bootstrap; share better: of the bootstrap samples in which the method is wrong less "
        "often.\n"
    )
    return f"## Quality\n\n{text}\n{_table(headings, rows)}"


def _spread(comparison: Comparison) -> str:
    """Every seed's error, and the standard errors, where there are several runs."""
    if all(result.quality.runs == 1 for result in comparison.methods):
        return ""
    headings = ["method", "error of each seed", "standard error over seeds", "over folds", "errors of the folds"]
    rows = []
    for one in (result.quality for result in comparison.methods):
        seeds = ", ".join(f"{seed}: {error:.3f}" for seed, error in zip(one.seeds, one.seed_errors, strict=True))
        folds = " · ".join(" ".join(f"{error:.2f}" for error in errors) for errors in one.fold_errors)
        errors = [_number(one.standard_error_seeds), _number(one.standard_error_folds)]
        rows.append([one.name, seeds, *errors, folds if comparison.folds else UNKNOWN])
    return f"## Seeds and folds\n\n{_table(headings, rows)}"


def _learning(comparison: Comparison) -> str:
    """When each run began to learn and what its draws covered, where that is known."""
    qualities = [result.quality for result in comparison.methods]
    columns: list[tuple[str, list[str]]] = []
    if any(one.begun_steps is not None for one in qualities):
        columns.append(("steps until it began to learn, by run", [_steps(one.begun_steps) for one in qualities]))
    if any(one.objects_covered is not None for one in qualities):
        covered = [
            UNKNOWN if one.objects_covered is None else f"{one.objects_covered:.2f} of {one.objects or 0:.2f}"
            for one in qualities
        ]
        columns += [("objects covered", covered), ("error floor", [_number(one.error_floor) for one in qualities])]
    if not columns:
        return ""
    rows = [[one.name, *(cells[number] for _, cells in columns)] for number, one in enumerate(qualities)]
    text = (
        "Began to learn: the smoothed training error fell below the limit set for that. Covered: different objects per "
        "test image that a patch read for its answer holds by half or more. Floor: the error that this leaves to a "
        "reader who knows the covered objects for certain and nothing else.\n"
    )
    return f"## Learning and coverage\n\n{text}\n{_table(['method', *(name for name, _ in columns)], rows)}"


def _steps(found: Sequence[int | None] | None) -> str:
    return UNKNOWN if found is None else ", ".join("never" if one is None else str(one) for one in found)


def _cost(comparison: Comparison) -> str:
    if comparison.machine is None:
        return "## Cost\n\nNot measured; `foveate compare` without `--part` measures it.\n"
    base = comparison.result(comparison.relative_to).cost
    assert base is not None
    headings = ["method", "train ms/image (quartiles)", f"{comparison.relative_to} ÷ it"]
    headings += ["predict ms/image (quartiles)", f"{comparison.relative_to} ÷ it"]
    headings += ["activations MB/image", f"{comparison.relative_to} ÷ it", "process peak MB (batch)"]
    headings += ["patches", "pixels read", "kB read/image", "parameters"]
    rows = []
    for one in comparison.methods:
        cost = one.cost
        assert cost is not None
        rows.append(
            [
                one.name,
                _timed(cost.train_ms_per_image, cost.train_ms_quartiles),
                _ratio(base.train_ms_per_image, cost.train_ms_per_image),
                _timed(cost.predict_ms_per_image, cost.predict_ms_quartiles),
                _ratio(base.predict_ms_per_image, cost.predict_ms_per_image),
                f"{cost.activation_mb_per_image:.3g}",
                _ratio(base.activation_mb_per_image, cost.activation_mb_per_image),
                UNKNOWN if cost.peak_mb is None else f"{cost.peak_mb:.0f} ({cost.batch})",
                f"{cost.patches_per_image:.4g}",
                f"{100 * cost.pixels_read_share:.1f} %",
                f"{cost.bytes_read_per_image / 1e3:.1f}",
                f"{cost.parameters:,}",
            ]
        )
    place = comparison.machine
    text = (
        f"Measured on {place['date']}, methods in turn in one process: {place['processor']}, {place['cores']} cores, "
        f"{place['threads']} threads, device {place['device']}, torch {place['packages']['torch']}.\n"
    )
    return f"## Cost\n\n{text}\n{_table(headings, rows)}"


def _confusions(comparison: Comparison) -> str:
    tables = []
    for one in (result.quality for result in comparison.methods):
        rows = [
            [name, *map(str, counts), _number(one.recalls[name])]
            for name, counts in zip(comparison.classes, one.confusion or (), strict=bool(one.confusion))
        ]
        headings = ["true class", *(f"said {name}" for name in comparison.classes), "recall"]
        if one.confusion is None:
            headings, rows = ["class", "recall"], [[name, _number(recall)] for name, recall in one.recalls.items()]
        tables.append(f"### {one.name}\n\n{_table(headings, rows)}")
    text = "Counts over all seeds and folds; a row per true class.\n"
    return f"## Confusion\n\n{text}\n" + "\n".join(tables)


def _table(headings: Sequence[str], rows: Rows, left: Sequence[int] = (0,)) -> str:
    """A Markdown table, numbers aligned right."""
    lines = ["| " + " | ".join(headings) + " |"]
    lines.append("|" + "".join("---|" if number in left else "---:|" for number in range(len(headings))))
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _with_interval(one: Quality) -> str:
    return f"{one.error:.3f} ({one.interval[0]:.3f}–{one.interval[1]:.3f})"


def _timed(median: float, quartiles: tuple[float, float]) -> str:
    return f"{median:.1f} ({quartiles[0]:.1f}–{quartiles[1]:.1f})"


def _ratio(base: float, value: float) -> str:
    return f"{base / value:.3g}×" if value > 0 else UNKNOWN


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"
