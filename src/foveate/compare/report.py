"""Results of a comparison: results.json, the table for a terminal, and a Markdown report.

How the report reads stands in the Jinja2 template `report.md`; what its cells hold is told by the filters below.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from foveate.atomic import replace_file
from foveate.compare.cost import MethodCost
from foveate.compare.summary import Difference, Quality
from foveate.errors import RunError


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


_RANKED = ("AUC (95 %)", "balanced error")
_COSTS = ("train ms/image", "predict ms/image", "activations MB/image", "pixels read", "training s")

UNKNOWN = "–"

UNEQUAL_TIMES = 1.5
"""Training times apart by more than this factor are said to be unequal."""


def table_columns(comparison: Comparison) -> tuple[str, ...]:
    """Table on the terminal: its headings. Where classes are unequal the error says little, and others lead."""
    if comparison.methods[0].quality.unequal:
        return ("method", *_RANKED, "test error (95 %)", *_COSTS)
    return ("method", "test error (95 %)", *_COSTS)


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Table on the terminal: its cells, a tuple per method in the order of `table_columns`."""
    rows = []
    for one in comparison.methods:
        cells = {
            "method": one.name,
            "test error (95 %)": _error(one.quality),
            "AUC (95 %)": _area(one.quality),
            "balanced error": _balanced(one.quality),
            "train ms/image": UNKNOWN if one.cost is None else f"{one.cost.train_ms_per_image:.1f}",
            "predict ms/image": UNKNOWN if one.cost is None else f"{one.cost.predict_ms_per_image:.1f}",
            "activations MB/image": UNKNOWN if one.cost is None else f"{one.cost.activation_mb_per_image:.3g}",
            "pixels read": UNKNOWN if one.cost is None else f"{100 * one.cost.pixels_read_share:.1f} %",
            "training s": f"{one.quality.train_seconds:.0f}",
        }
        rows.append(tuple(cells[name] for name in table_columns(comparison)))
    return rows


def remarks(comparison: Comparison) -> list[str]:
    """Remarks on a comparison: methods that give one answer to all images, and times of training that differ."""
    found = []
    for one in (method.quality for method in comparison.methods):
        if one.constant_runs:
            runs = "" if len(one.seeds) == 1 else f" with {one.constant_runs} of {len(one.seeds)} seeds"
            found.append(f"{one.name} gives the same answer to all images{runs}: it tells no classes apart")
    times = {one.name: one.quality.train_seconds for one in comparison.methods}
    least, most = min(times, key=times.__getitem__), max(times, key=times.__getitem__)
    if times[most] > UNEQUAL_TIMES * times[least]:
        found.append(
            f"times of training are unequal: {most} {times[most]:.0f} s, {least} {times[least]:.0f} s; minutes: in the "
            "configuration makes them equal"
        )
    return found


def markdown_report(comparison: Comparison) -> str:
    """Report in Markdown: quality, the seeds, learning, cost, and a confusion table per method."""
    measured = {one.name: one.cost for one in comparison.methods}
    shown = {
        "qualities": [one.quality for one in comparison.methods],
        "costs": measured.items(),
        "base": measured[comparison.relative_to],
        "remarks": remarks(comparison),
        "unequal": comparison.methods[0].quality.unequal,
    }
    return _templates().get_template("report.md").render(vars(comparison) | shown)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("foveate.compare", ""), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    for fill in (_area, _balanced, _covered, _difference, _error, _folds, _number, _ratio, _seeds, _steps, _timed):
        made.filters[fill.__name__[1:]] = fill
    made.globals["UNKNOWN"] = UNKNOWN
    return made


def _error(one: Quality) -> str:
    return f"{one.error:.3f} ({one.interval[0]:.3f}–{one.interval[1]:.3f})"


def _area(one: Quality) -> str:
    if one.auc is None or one.auc_interval is None:
        return UNKNOWN
    return f"{one.auc:.3f} ({one.auc_interval[0]:.3f}–{one.auc_interval[1]:.3f})"


def _balanced(one: Quality) -> str:
    return f"{one.balanced_error:.3f}"


def _difference(found: Difference | None) -> str:
    if found is None:
        return UNKNOWN
    return f"{found.error:+.3f} ({found.interval[0]:+.3f} – {found.interval[1]:+.3f})"


def _seeds(one: Quality) -> str:
    return ", ".join(f"{seed}: {error:.3f}" for seed, error in zip(one.seeds, one.seed_errors, strict=True))


def _folds(one: Quality) -> str:
    return " · ".join(" ".join(f"{error:.2f}" for error in errors) for errors in one.fold_errors)


def _covered(one: Quality) -> str:
    return UNKNOWN if one.objects_covered is None else f"{one.objects_covered:.2f} of {one.objects or 0:.2f}"


def _steps(found: Sequence[int | None] | None) -> str:
    return UNKNOWN if found is None else ", ".join("never" if one is None else str(one) for one in found)


def _timed(median: float, quartiles: tuple[float, float]) -> str:
    return f"{median:.1f} ({quartiles[0]:.1f}–{quartiles[1]:.1f})"


def _ratio(base: float, value: float) -> str:
    return f"{base / value:.3g}×" if value > 0 else UNKNOWN


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"
