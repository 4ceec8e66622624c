"""Whether anything was learnt: the permutation test against enumeration, and every verdict word by word."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from foveate.datasets.types import Example
from foveate.evaluation.evaluate import Evaluation
from foveate.evaluation.intervals import error_interval
from foveate.evaluation.permutation import SHUFFLES, Verdict, permutation_p
from foveate.evaluation.scores import auc, wrong_shares


def answers(scores: list[float]) -> np.ndarray:
    """(n, 2) probabilities of two classes."""
    return np.stack([1 - np.array(scores), np.array(scores)], 1)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        ([0, 1, 0, 1, 1, 0, 0], [0.1, 0.2, 0.5, 0.5, 0.9, 0.5, 0.3]),
        ([1, 1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_shuffles_reach_the_auc_as_often_as_enumeration_says(labels: list[int], scores: list[float]) -> None:
    """2,000 shuffles: four standard errors, 1 in 16,000 failures were the seed not fixed."""
    true, chances = np.array(labels), answers(scores)
    reference = auc(true, chances)
    assert reference is not None
    every = [auc(np.array(one), chances) or 0.0 for one in set(permutations(labels))]
    exact = float(np.mean([one >= reference - 1e-12 for one in every]))
    found = permutation_p(true, chances, [None] * len(labels))
    assert found == pytest.approx(exact, abs=4 * (exact * (1 - exact) / SHUFFLES) ** 0.5 + 1 / SHUFFLES)


def test_several_classes_and_several_labels_against_enumeration() -> None:
    random = np.random.default_rng(1)
    labels, chances = np.array([0, 1, 2, 0, 1, 2]), random.dirichlet([1, 1, 1], 6)
    hot = np.eye(3, dtype=np.int64)[labels]
    reference = auc(labels, chances)
    assert reference is not None
    every = [auc(np.array(one), chances) or 0.0 for one in set(permutations(labels.tolist()))]
    exact = float(np.mean([one >= reference - 1e-12 for one in every]))
    for true in (labels, hot):
        assert permutation_p(true, chances, [None] * 6) == pytest.approx(exact, abs=0.05)


def test_images_of_a_group_change_labels_together() -> None:
    """Ten images of each of six patients: without groups 60 images would prove what six patients cannot."""
    labels, groups = np.repeat([0, 0, 0, 1, 1, 1], 10), [f"patient {n}" for n in np.repeat(range(6), 10)]
    chances = answers(np.repeat([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], 10).tolist())
    alone, together = (permutation_p(labels, chances, some) for some in ([None] * 60, groups))
    assert alone == 1 / (1 + SHUFFLES)
    assert together == pytest.approx(1 / 20, abs=0.02)
    mixed = labels.copy()
    mixed[0] = 1
    assert permutation_p(mixed, chances, groups) == pytest.approx(permutation_p(mixed, chances, [None] * 60), abs=1e-9)


def test_chance_is_believed_no_more_often_than_the_level_says() -> None:
    """Of a hundred models that know nothing, about five are called learnt; four standard errors (fixed seed)."""
    random = np.random.default_rng(7)
    labels = np.array([0] * 20 + [1] * 10)
    believed = [
        (permutation_p(labels, answers(random.random(30).tolist()), [None] * 30, shuffles=199) or 1) <= 0.05
        for _ in range(100)
    ]
    assert abs(np.mean(believed) - 0.05) < 4 * (0.05 * 0.95 / 100) ** 0.5


def test_images_of_one_class_tell_nothing() -> None:
    assert permutation_p(np.array([1, 1, 1]), answers([0.1, 0.2, 0.3]), [None] * 3) is None


def verdict(labels: list[int], scores: list[float], known: float | None = None, tests: int = 0) -> Verdict:
    true, chances = np.array(labels), answers(scores)
    wrong = wrong_shares(true, chances).tolist()
    result = Evaluation(
        indices=tuple(range(len(labels))),
        labels=true,
        probabilities=chances,
        error=float(np.mean(wrong)),
        loss=0.5,
        interval=error_interval(wrong, [None] * len(labels)),
        patches_per_image=4.0,
        view_size=(24, 32),
        ids=tuple(map(str, range(len(labels)))),
        classes=("intact", "damaged"),
    )
    examples = [Example(str(i), label, "validation") for i, label in enumerate(labels)]
    return Verdict.of(result, [*examples, *(Example(f"t{i}", 0, "test") for i in range(tests))], known)


def test_a_model_that_has_learnt() -> None:
    found = verdict([0] * 12 + [1] * 8, [0.1] * 11 + [0.6] + [0.9] * 8, tests=9)
    assert found.learnt
    assert found.lines() == [
        "something was learnt: of 20 validation images it errs on 0.050 (95 %: 0.009–0.236), and on 0.400 if "
        '"intact" is always answered',
        "  AUC 1.000, 0.5 by chance; of 1,999 shuffles of the labels none reached it (p = 0.0005)",
        "  these images chose the model, too: the 9 test images have not (foveate evaluate)",
    ]


def test_a_model_that_knows_nothing_and_one_that_has_learnt_by_heart() -> None:
    scores = [0.2, 0.6, 0.4, 0.7, 0.3, 0.6, 0.1, 0.8, 0.5, 0.3] * 2
    found = verdict([0, 1, 1, 0, 1, 0, 0, 1, 0, 1] * 2, scores)
    assert found.learnt is False
    head, test, *rest = found.lines()
    assert head.startswith("nothing that shows was learnt: of 20 validation images it errs on 0.")
    assert head.endswith('and on 0.500 if "intact" is always answered')
    assert " shuffles of the labels " in test
    assert [line[:6] for line in rest] == ["  try:"] * 3
    known = verdict([0, 1, 1, 0, 1, 0, 0, 1, 0, 1] * 2, scores, known=0.02)
    assert known.lines()[2] == (
        "  try: what keeps it from learning images by heart (it errs on 0.020 of those it trained on): more images, "
        "model.features.frozen true, stronger changes (augment.patch_…)"
    )


def test_a_constant_answer_that_ranks_well_has_learnt_something() -> None:
    found = verdict([0] * 30 + [1] * 6, [0.01 * n for n in range(36)])
    assert (found.learnt, found.pays) == (True, False)
    head, _, advice = found.lines()
    assert head.startswith("something was learnt, but answers are no better for it: of 36 validation images it errs on")
    assert "class_weights balanced" in advice


def test_six_images_that_cannot_tell() -> None:
    found = verdict([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert found.learnt is None
    head, _, few, *rest = found.lines()
    assert head.startswith(
        "whether anything was learnt cannot be told: of 4 validation images it errs on 0.000 (95 %: "
    )
    assert few.startswith("  so few images cannot tell: without a fault p would be 0.1")
    assert rest == [
        "  try: more validation images (a larger data.validation, or the manifest's column split)",
        "  try: --folds 5, by which every image is tested once",
    ]
    (judged,) = (line for line in replace(found, split="test").lines() if "more" in line)
    assert judged == "  try: more test images (a larger data.test, or the manifest's column split)"
    assert replace(found, split="held-out").lines()[3:] == ["  try: more images with labels"]
    one = verdict([1, 1], [0.7, 0.8])
    assert one.learnt is None
    assert one.lines()[1] == "  they are all of one class, and so no model could show anything by them"
