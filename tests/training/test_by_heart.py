"""A model that knows its training images and no others is told apart from one that learns."""

from typing import Any

import numpy as np
import pytest

from foveate.evaluation.evaluate import Evaluation
from foveate.training.checkpoint import Position
from foveate.training.run_folder import epoch_record


def evaluation(labels: list[Any], error: float) -> Evaluation:
    several = isinstance(labels[0], list)
    return Evaluation(
        indices=tuple(range(len(labels))),
        labels=np.array(labels),
        probabilities=np.full((len(labels), 2 if several else max(labels) + 1), 0.5),
        error=error,
        loss=0.7,
        interval=(0.0, 1.0),
        patches_per_image=4.0,
        view_size=(24, 32),
        ids=tuple(map(str, range(len(labels)))),
        classes=("a", "b"),
    )


def warnings(known: float, result: Evaluation | None) -> dict[str, str]:
    sums = {"loss": 5.0, "cross_entropy": 5.0, "errors": 100 * known, "entropy": 0.0, "images": 100.0, "patches": 9.0}
    position = Position(sums=sums | {"seconds": 1.0})
    record = epoch_record(position, result, rate=1e-3, better=False, complete=True)
    found: dict[str, str] = record["attention_warnings"]
    return found


@pytest.mark.parametrize(
    ("labels", "known", "error", "warned"),
    [
        ([0] * 6 + [1] * 4, 0.02, 0.45, True),  # 0.4 if one class is always answered
        ([0] * 6 + [1] * 4, 0.19, 0.37, True),
        ([0] * 6 + [1] * 4, 0.21, 0.45, False),  # not yet known
        ([0] * 6 + [1] * 4, 0.02, 0.35, False),  # others are told better than by chance
        ([0] * 5 + [1] * 3 + [2] * 2, 0.02, 0.46, True),
        ([0] * 9 + [1], 0.02, 0.08, False),
        ([0] * 9 + [1], 0.02, 0.1, True),
        ([1] * 10, 0.0, 0.0, False),  # validation images of one class tell nothing
    ],
)
def test_images_learnt_by_heart_are_said_to_be(labels: list[int], known: float, error: float, warned: bool) -> None:
    found = warnings(known, evaluation(labels, error))
    assert list(found) == (["by heart"] if warned else [])
    chance = 1 - max(labels.count(label) for label in set(labels)) / len(labels)
    assert evaluation(labels, error).constant_error == pytest.approx(chance)
    for line in found.values():
        assert line.startswith(
            f"images are learnt by heart: the training error is {known:.2f}, that of validation images {error:.2f}, "
            f"and {chance:.2f} if one class is always answered; "
        )
        assert "\n" not in line


def test_nothing_is_said_of_several_labels_or_without_a_validation() -> None:
    several = evaluation([[0, 1], [1, 0]], 0.5)
    assert several.constant_error is None
    assert warnings(0.0, several) == {}
    assert warnings(0.0, None) == {}
