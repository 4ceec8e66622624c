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


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Table on the terminal: its cells, a tuple per method in the order of `COLUMNS`."""
    return [
        (
            one.name,
            _error(one.quality),
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
    measured = {one.name: one.cost for one in comparison.methods}
    shown = {
        "qualities": [one.quality for one in comparison.methods],
        "costs": measured.items(),
        "base": measured[comparison.relative_to],
    }
    return _templates().get_template("report.md").render(vars(comparison) | shown)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("foveate.compare", ""), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    for fill in (_covered, _difference, _error, _folds, _number, _ratio, _seeds, _steps, _timed):
        made.filters[fill.__name__[1:]] = fill
    made.globals["UNKNOWN"] = UNKNOWN
    return made


def _error(one: Quality) -> str:
    return f"{one.error:.3f} ({one.interval[0]:.3f}–{one.interval[1]:.3f})"


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
