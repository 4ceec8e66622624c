"""One answer per group of images (a patient): the mean of their probabilities."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path

import numpy as np

from foveate.errors import ConfigError
from foveate.models.probabilities import name_predicted
from foveate.predict.rows import Failure, Row
from foveate.predict.tables import starts_with
from foveate.training.replace import replace_file
from foveate.training.scores import group_means
from foveate.types import Prediction

__all__ = ["GroupTally", "check_groups", "group_columns"]

GROUPS = "groups.csv"


def check_groups(rows: Iterable[Row], out: Path) -> Path:
    """Refuse images without groups, and a place where `groups.csv` would overwrite what foveate did not write.

    Arguments:
        rows: of `find_rows`.
        out: the CSV file that the predictions go to.

    Returns:
        The `groups.csv` beside it.

    Raises:
        ConfigError: no row has a group, or the file cannot be written.
    """
    if all(row.group is None for row in rows):
        raise ConfigError("--by-group needs to know which images belong together: give a manifest with a column group")
    path = out.resolve().parent / GROUPS
    if out.resolve().name.lower() == GROUPS:
        raise ConfigError(f"{out} is where the groups go: name the file otherwise, e.g. predictions.csv")
    if path.exists() and not starts_with(path, ("group", "predicted")):
        raise ConfigError(
            f"{path} is in the way, it does not start with group,predicted: rename it, or write the predictions to "
            "another folder"
        )
    return path


def group_columns(classes: Sequence[str]) -> list[str]:
    """The columns of a table of groups.

    Example:
        >>> group_columns(["cat", "dog"])
        ['group', 'predicted', 'p_cat', 'p_dog', 'images']
    """
    return ["group", "predicted", *(f"p_{name}" for name in classes), "images"]


class GroupTally:
    """Takes predictions together by group; an image without a group stands alone, under its path.

    Arguments:
        classes: names of the classes.
        multi_label: whether an image may have several labels.
    """

    def __init__(self, classes: Sequence[str], multi_label: bool = False) -> None:
        self._classes, self._multi_label = tuple(classes), multi_label
        self._keys: list[tuple[bool, str]] = []
        self._probabilities: list[list[float]] = []

    def watch(self, rows: Iterable[Row], outcomes: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
        """Hand on the outcomes of some rows, one each in their order, and remember them by group; failures are not."""
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                self._keys.append((False, row.path) if row.group is None else (True, row.group))
                self._probabilities.append([outcome.probabilities[name] for name in self._classes])
            yield outcome

    def table(self) -> list[list[object]]:
        """A row per group, in order of their first image: its name, the answer, the mean probabilities, its images."""
        if not self._keys:
            return []
        groups, means, _ = group_means(self._keys, np.array(self._probabilities))
        counts = Counter(self._keys)
        return [
            [key[1], name_predicted(self._classes, mean, self._multi_label), *mean, counts[key]]
            for key, mean in zip(groups, means.tolist(), strict=True)
        ]

    def write(self, path: Path) -> int:
        """Write the table as CSV, all at once; nothing where every image failed.

        Returns:
            The number of groups.
        """
        rows = self.table()
        if rows:
            stream = StringIO(newline="")
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(group_columns(self._classes))
            for name, predicted, *shares, count in rows:
                table.writerow([name, predicted, *(format(share, ".9g") for share in shares), count])
            replace_file(path, stream.getvalue().encode(errors="surrogateescape"))
        return len(rows)
