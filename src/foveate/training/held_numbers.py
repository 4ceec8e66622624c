"""Held-out numbers of a cross-validation: what each fold foretold of images that it was not trained on, as a table."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from foveate.atomic import replace_file
from foveate.datasets.types import Example, ImageDataset
from foveate.errors import DataError, RunError
from foveate.evaluation.numbers import AnyEvaluation, Floats, NumberEvaluation
from foveate.evaluation.scores import group_means

HEADER = ("path", "label", "fold", "group", "predicted", "training_mean", "loss")
"""Columns of the table."""


def pooled(
    images: ImageDataset, tested: Sequence[AnyEvaluation], values: Sequence[Floats], together: bool
) -> tuple[tuple[Example, ...], tuple[int, ...], Floats]:
    """Rows of all folds, sorted by id; those of one image are averaged, if all folds tested it together.

    Arguments:
        images: the data set.
        tested: a fold's evaluation after the other.
        values: of each fold a row for every image it tested.
        together: whether every fold tested the same images.

    Returns:
        The images; the fold of each, 0 where all folds tested it; and their (n, …) rows.
    """
    pairs = [(index, fold) for fold, one in enumerate(tested, start=1) for index in one.indices]
    rows = np.concatenate(values)
    if together:
        indices, rows, _ = group_means([index for index, _ in pairs], rows)
        pairs = [(index, 0) for index in indices]
    order = sorted(range(len(pairs)), key=lambda place: images.examples[pairs[place][0]].id)
    return (
        tuple(images.examples[pairs[place][0]] for place in order),
        tuple(pairs[place][1] for place in order),
        rows[order],
    )


@dataclass(frozen=True)
class HeldNumbers:
    """Held-out numbers of a cross-validation: each image once, by models that were not trained on it.

    Attributes:
        examples: n images, sorted by id, with their labels and groups.
        folds: fold of the model that answered for each; 0 where all models did, and their mean counts.
        values: (n, 3) of each the number foretold, the mean of the labels that the model was trained on, and the loss.
    """

    examples: tuple[Example, ...]
    folds: tuple[int, ...]
    values: Floats

    @classmethod
    def of(cls, images: ImageDataset, evaluations: Sequence[NumberEvaluation], together: bool = False) -> "HeldNumbers":
        """Numbers of all folds, sorted by id; those of one image are averaged, if all folds tested it together."""
        values = [np.stack([one.answers, one.centres, one.losses], 1) for one in evaluations]
        return cls(*pooled(images, evaluations, values, together))

    def judged(self, by_group: bool = False) -> NumberEvaluation:
        """Evaluation of them all, pooled.

        Raises:
            DataError: groups are judged, and the images of one differ in their labels.
        """
        answers, centres, losses = self.values.T
        whole = NumberEvaluation(
            ids=tuple(one.id for one in self.examples),
            labels=np.array([one.label for one in self.examples], dtype=np.float64),
            answers=answers,
            centres=centres,
            losses=losses,
            groups=tuple(one.group for one in self.examples),
            indices=tuple(range(len(self.examples))),
        )
        try:
            return whole.of_groups() if by_group else whole
        except ValueError as error:
            raise DataError(f"the images of group {error} have different labels: evaluate image by image") from error

    def write(self, path: Path) -> None:
        """Write them as CSV, with the columns `HEADER`."""
        text = StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(HEADER)
        for one, fold, values in zip(self.examples, self.folds, self.values.tolist(), strict=True):
            rows.writerow([one.id, repr(one.label), fold or "all", one.group or "", *(repr(value) for value in values)])
        replace_file(path, text.getvalue().encode(errors="surrogateescape"))

    @classmethod
    def read(cls, path: Path) -> "HeldNumbers":
        """The inverse of `write`.

        Raises:
            RunError: the table is missing or damaged.
        """
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                _, *rows = csv.reader(file)
            examples = tuple(Example(row[0], float(row[1]), None, row[3] or None) for row in rows)
            folds = tuple(0 if row[2] == "all" else int(row[2]) for row in rows)
            return cls(examples, folds, np.array([[float(value) for value in row[4:7]] for row in rows]).reshape(-1, 3))
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing: foveate train --resume --folds K writes it") from error
        except (ValueError, IndexError) as error:
            raise RunError(f"{path} is damaged: foveate train --resume --folds K writes it again") from error
