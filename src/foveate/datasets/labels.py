"""Labels of images: encoded as numbers of classes, whatever Python code has them as, and given to the images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ArgumentTypeError, DataError
from foveate.types import Label


def column_of(values: Any) -> list[Any]:
    """A list of what may be a list, an array, a tensor or a column of a table."""
    if hasattr(values, "__array__") and not isinstance(values, Iterable):
        values = np.asarray(values)
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ArgumentTypeError(f"expected a list with one entry an image, got {values!r}")
    column = values.tolist() if hasattr(values, "tolist") else list(values)
    return [one.item() if hasattr(one, "item") and getattr(one, "ndim", 1) == 0 else one for one in column]


def is_missing(value: Any) -> bool:
    """Whether a cell of a table says nothing: None, NaN, NA, or no text."""
    return value is None or bool(isinstance(value, str) and not value.strip()) or str(value) in ("nan", "<NA>", "NaT")


@dataclass(frozen=True)
class Labels:
    """Labels of images, encoded: what the classes are, and which each image has.

    Attributes:
        classes: (classes,) the different labels, sorted; as they were given.
        names: of the classes, as text.
        indices: of each image, the number of its class or, with several labels, those of its classes.
        form: "one" label an image, a "matrix" of 0 and 1, or "sets" of names.
    """

    classes: NDArray[Any]
    names: tuple[str, ...]
    indices: tuple[Label, ...]
    form: str = "one"

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        return self.form != "one"

    @classmethod
    def of(
        cls, given: Any, classes: NDArray[Any] | None = None, called: Callable[[int], str] | None = None
    ) -> "Labels":
        """Labels of what was given: a list, an array, a column; a table of 0 and 1; lists of names.

        Arguments:
            given: text, integers or booleans, one an image; or (images, classes) 0 and 1; or a list or set an image.
            classes: those that a model knows; what occurs, sorted, if None.
            called: what an image is called, for errors.

        Raises:
            DataError: a label is missing, no class, or none of those that are known.
        """
        called = called or "image {}".format
        if getattr(given, "ndim", 1) == 2 and given.shape[1] > 1:
            return cls._of_matrix(given, classes)
        column = np.ravel(given) if getattr(given, "ndim", 1) == 2 else given
        values = column_of(column)
        for number, value in enumerate(values):
            if is_missing(value) and not isinstance(value, str):
                raise DataError(f"the label of {called(number)} is {value}: give it one, or leave the image out")
        several = [isinstance(one, list | tuple | set | frozenset) for one in values]
        if any(several):
            if not all(several):
                raise DataError(f"the label of {called(several.index(False))} is one name, those of others are lists")
            return cls._of_sets(values, classes, called)
        known = _classes(values, called) if classes is None else classes
        number_of = {name: number for number, name in enumerate(known.tolist())}
        return cls(known, _names(known), tuple(_number(one, number_of, called(i)) for i, one in enumerate(values)))

    @classmethod
    def _of_matrix(cls, given: Any, classes: NDArray[Any] | None) -> "Labels":
        table = np.asarray(given)
        if not np.isin(table, (0, 1)).all():
            raise DataError("labels of two axes must be 0 and 1, a column a class: write 1 where an image has a label")
        known = np.array([str(one) for one in getattr(given, "columns", range(table.shape[1]))])
        known = known if classes is None else classes
        if len(known) != table.shape[1]:
            raise DataError(
                f"labels have {table.shape[1]} columns and the model {len(known)} classes: give one a class"
            )
        return cls(known, _names(known), tuple(tuple(np.flatnonzero(row).tolist()) for row in table), "matrix")

    @classmethod
    def _of_sets(cls, values: list[Any], classes: NDArray[Any] | None, called: Callable[[int], str]) -> "Labels":
        known = _classes([name for some in values for name in some], called) if classes is None else classes
        number_of = {name: number for number, name in enumerate(known.tolist())}
        indices = (tuple(sorted({_number(one, number_of, called(i)) for one in some})) for i, some in enumerate(values))
        return cls(known, _names(known), tuple(indices), "sets")


def _classes(values: list[Any], called: Callable[[int], str]) -> NDArray[Any]:
    kinds = {bool: "truth values", int: "integers", float: "numbers", str: "text"}
    found = {next((kind for kind in kinds if isinstance(one, kind)), type(one)) for one in values}
    if len(found) > 1 and not found <= {int, float}:
        names = " and ".join(sorted(kinds.get(kind, kind.__name__) for kind in found))
        raise DataError(f"labels are {names}: give all of one kind, e.g. text")
    if found - kinds.keys():
        raise DataError(f"labels are of type {found.pop().__name__}: give text, integers or truth values")
    for number, one in enumerate(values):
        if isinstance(one, float) and not one.is_integer():
            raise DataError(
                f"the label of {called(number)} is {one}: labels are classes, text or integers (Unknown label type: "
                "continuous)"
            )
    return np.unique(np.array(values)) if values else np.array([], dtype=str)


def _names(classes: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(one) for one in classes.tolist())


def _number(label: Any, number_of: dict[Any, int], called: str) -> int:
    if label not in number_of:
        known = ", ".join(map(str, list(number_of)[:8])) + (", …" if len(number_of) > 8 else "")
        raise DataError(f"the label of {called} is {label!r}, which is none of the classes {known}")
    return number_of[label]
