"""Group means of predictions: images of a patient or a scene taken together, as groups.csv."""

import csv
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np

from foveate.atomic import replace_file
from foveate.errors import ConfigError
from foveate.evaluation.scores import group_means
from foveate.models.probabilities import UNDECIDED, Decision, LabelKind, OfClasses
from foveate.models.types import Prediction
from foveate.predict.predict import Failure, Row
from foveate.predict.sinks import refuse_others

GROUPS = "groups.csv"


def check_groups(rows: Sequence[Row], out: Path) -> Path:
    """Output check of groups: refuse images without any, and a `groups.csv` that foveate did not write.

    Returns:
        The `groups.csv` beside `out`, the CSV file that the predictions go to.

    Raises:
        ConfigError: no row has a group, or the file cannot be written.
    """
    if all(row.group is None for row in rows):
        raise ConfigError("--by-group needs to know which images belong together: give a manifest with a column group")
    path = out.resolve().parent / GROUPS
    if out.resolve().name.lower() == GROUPS:
        raise ConfigError(f"{out} is where the groups go: name the file otherwise, e.g. predictions.csv")
    refuse_others(path, ("group", "predicted"))
    return path


class GroupTally:
    """Group means: predictions taken together by group; an image without a group stands alone, under its path.

    Arguments:
        classes: names of the classes.
        kind: of the labels.
        rule: what decides on the means; where it does more than name the most probable class, there is a column for it.
    """

    def __init__(self, classes: Sequence[str], kind: LabelKind | None = None, rule: Decision = UNDECIDED) -> None:
        self._classes, self._kind, self._rule = tuple(classes), kind or OfClasses(), rule
        self._keys: list[tuple[bool, str]] = []
        self._answers: list[list[float]] = []

    def __call__(self, row: Row, outcome: Prediction | Failure) -> None:
        """Remember a prediction by its row's group."""
        if isinstance(outcome, Prediction):
            self._keys.append((False, row.path) if row.group is None else (True, row.group))
            shares = [outcome.probabilities[name] for name in self._classes]
            self._answers.append(shares if outcome.value is None else [outcome.value])

    def write(self, path: Path) -> int:
        """Write the groups as CSV: `group, predicted, p_<class> …, images[, decision]`, in order of first images.

        Returns:
            The number of groups; 0 where every image failed, and then nothing is written.
        """
        if not self._keys:
            return 0
        stream, counts = StringIO(newline=""), Counter(self._keys)
        writer, more = csv.writer(stream, lineterminator="\n"), ["decision"] if self._rule.decides else []
        writer.writerow(["group", "predicted", *(f"p_{name}" for name in self._classes), "images", *more])
        groups, means, _ = group_means(self._keys, np.array(self._answers))
        for key, mean in zip(groups, means.tolist(), strict=True):
            predicted, several = self._kind.named(self._classes, mean), self._kind == OfClasses(several=True)
            decision = [self._rule.decide(self._classes, mean, several)] if more else []
            shares = [] if self._kind.numeric else [format(share, ".9g") for share in mean]
            writer.writerow([key[1], predicted, *shares, counts[key], *decision])
        replace_file(path, stream.getvalue().encode(errors="surrogateescape"))
        return len(groups)
