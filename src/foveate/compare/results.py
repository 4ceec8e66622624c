"""What came of a comparison, and the file it is kept in."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.compare.cost import MethodCost
from foveate.compare.settings import Reported
from foveate.compare.summary import Difference, Quality
from foveate.errors import RunError

__all__ = ["Comparison", "MethodResult", "read_results", "write_results"]


@dataclass(frozen=True)
class MethodResult:
    """What came of one method.

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
    """What came of all methods.

    Attributes:
        methods: one result each, in order.
        classes: names of the classes.
        reference: method that the others are compared with.
        relative_to: method by whose cost that of the others is divided.
        folds: number of folds, or None.
        judged: "images" or "groups".
        machine: where and when the costs were measured; None where they were not.
        reported: figures of the literature, method → figures.
    """

    methods: tuple[MethodResult, ...]
    classes: tuple[str, ...]
    reference: str
    relative_to: str
    folds: int | None = None
    judged: str = "images"
    machine: dict[str, Any] | None = None
    reported: Mapping[str, Reported] = field(default_factory=dict)

    def result(self, name: str) -> MethodResult:
        """The result of a method."""
        return next(one for one in self.methods if one.name == name)


def write_results(path: Path | str, comparison: Comparison) -> None:
    """Write a comparison as JSON, in one go: a flat mapping per method under "methods", costs null if not measured."""
    plain = asdict(comparison)
    empty: dict[str, Any] = {one.name: None for one in fields(MethodCost)}
    plain["methods"] = [{**one["quality"], **(one["cost"] or empty)} for one in plain["methods"]]
    replace_file(Path(path), (json.dumps(plain, indent=2) + "\n").encode())


def read_results(path: Path | str) -> Comparison:
    """Read the results that `write_results` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        plain["methods"] = tuple(_method(one) for one in plain["methods"])
        plain["classes"] = tuple(plain["classes"])
        plain["reported"] = {name: Reported(**one) for name, one in plain["reported"].items()}
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
