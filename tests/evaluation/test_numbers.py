"""Figures of answers that are numbers, against NumPy by hand; their intervals by groups; and the verdict."""

import itertools

import numpy as np
import pytest

from foveate.datasets.types import Example
from foveate.evaluation.number_verdict import NumberVerdict, fit_p
from foveate.evaluation.numbers import NumberEvaluation


def evaluation(n: int = 40, groups: tuple[str | None, ...] = (), noise: float = 1.0) -> NumberEvaluation:
    random = np.random.default_rng(3)
    labels = random.normal(10, 3, n)
    return NumberEvaluation(
        ids=tuple(f"{number:02d}.png" for number in range(n)),
        labels=labels,
        answers=labels + random.normal(0.5, noise, n),
        centres=np.full(n, 9.0),
        losses=random.random(n),
        groups=groups or (None,) * n,
        indices=tuple(range(n)),
    )


def test_figures_are_those_of_numpy() -> None:
    result = evaluation()
    off = result.answers - result.labels
    assert result.error == pytest.approx(np.abs(off).mean(), abs=1e-12)
    assert result.root_mean_squared_error.value == pytest.approx(np.sqrt((off**2).mean()), abs=1e-12)
    assert result.r_squared is not None
    other = result.labels - 9.0  # the mean of the training labels, not of these
    assert result.r_squared.value == pytest.approx(1 - (off**2).sum() / (other**2).sum(), abs=1e-12)
    assert result.constant_error == pytest.approx(np.abs(other).mean(), abs=1e-12)
    assert result.loss == pytest.approx(result.losses.mean(), abs=1e-12)
    for figure in result.figures().values():
        assert figure is not None
        assert figure.interval[0] < figure.value < figure.interval[1]


def test_always_answering_the_mean_of_the_training_labels_has_r_squared_0() -> None:
    labels = np.array([1.0, 4.0, 7.0])
    result = NumberEvaluation(("a", "b", "c"), labels, np.full(3, 2.5), np.full(3, 2.5), labels, (None,) * 3)
    assert result.r_squared is not None
    assert result.r_squared.value == 0
    assert result.error == result.constant_error == 2.5
    assert result.constant
    alike = NumberEvaluation(("a", "b"), np.full(2, 2.5), np.ones(2), np.full(2, 2.5), np.ones(2), (None,) * 2)
    assert (alike.r_squared, alike.constant, alike.plain()["r_squared"]) == (None, False, None)


def test_intervals_draw_whole_groups_again() -> None:
    """Three groups: all 27 draws of three, by hand; 4,000 resamples lie within these, and reach their ends."""
    labels, answers = np.array([0.0, 0.0, 4.0, 9.0, 9.0, 9.0]), np.array([1.0, 0.0, 2.0, 9.0, 4.0, 9.0])
    groups = ("p", "p", None, "q", "q", "q")
    result = NumberEvaluation(tuple("abcdef"), labels, answers, np.full(6, 5.0), np.zeros(6), groups)
    units = ([0, 1], [2], [3, 4, 5])
    means = []
    for drawn in itertools.product(units, repeat=3):
        rows = [row for unit in drawn for row in unit]
        means.append(np.abs(answers - labels)[rows].mean())
    assert result.interval == pytest.approx((min(means), max(means)), abs=1e-12)  # each is drawn 148 times on average


def test_groups_are_taken_together_by_their_mean_answer() -> None:
    labels, answers = np.array([3.0, 7.0, 3.0, 1.0]), np.array([1.0, 6.0, 4.0, 0.0])
    centres, losses = np.array([5.0, 5.0, 4.0, 5.0]), np.array([0.5, 1.0, 1.5, 2.0])
    one = NumberEvaluation(("a", "b", "c", "d"), labels, answers, centres, losses, ("q", None, "q", "p"), (0, 1, 2, 3))
    result = one.of_groups()
    assert result.ids == ("b", "p", "q")
    assert result.labels.tolist() == [7.0, 1.0, 3.0]
    assert result.answers.tolist() == [6.0, 0.0, 2.5]
    assert result.centres.tolist() == [5.0, 5.0, 4.5]
    assert result.losses.tolist() == [1.0, 2.0, 1.0]
    assert (result.by_group, result.plain()["images"], result.n) == (True, 4, 3)
    with pytest.raises(ValueError, match="q"):
        NumberEvaluation(("a", "b"), labels[:2], answers[:2], centres[:2], losses[:2], ("q", "q")).of_groups()


def test_shuffles_tell_what_goes_with_the_labels_from_what_does_not() -> None:
    random = np.random.default_rng(0)
    labels = random.normal(size=30)
    assert fit_p(labels, labels + 0.5 * random.normal(size=30), [None] * 30) == pytest.approx(0.0005)
    assert fit_p(labels, 1e6 - 0.001 * labels, [None] * 30) == 1.0  # the wrong way round
    assert fit_p(labels, 1e6 + 0.001 * labels, [None] * 30) == 0.0005  # neither scale nor mean matters
    assert (fit_p(labels, np.ones(30), [None] * 30), fit_p(np.ones(30), labels, [None] * 30)) == (1.0, None)


def test_p_is_that_of_all_permutations() -> None:
    """Of 5 labels: each of 120 orders; 1,999 shuffles are off by less than 0.04 but for one seed in 1,000."""
    labels, answers = np.array([1.0, 2.0, 4.0, 8.0, 9.0]), np.array([2.0, 1.0, 3.0, 9.0, 6.0])
    fits = [float(np.dot(order, answers)) for order in itertools.permutations(labels)]
    exact = np.mean([one >= np.dot(labels, answers) - 1e-9 for one in fits])
    assert fit_p(labels, answers, [None] * 5) == pytest.approx(exact, abs=0.04)


def test_groups_of_one_label_change_labels_together() -> None:
    """Two groups of ten: of their two orders one is the true one, however many images they have."""
    labels, groups = np.repeat([0.0, 1.0], 10), ["p"] * 10 + ["q"] * 10
    assert fit_p(labels, labels, groups) == pytest.approx(0.5, abs=0.05)
    assert fit_p(labels, labels, [None] * 20) == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("answers", "learnt", "lines"),
    [
        (
            [1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
            True,
            [
                "something was learnt: of 8 validation images it is off by 0.75 in the mean (95 %: 0.5 to 1), and "
                "by 2 if 4, the mean of the training labels, is always answered",
                "  R² 0.864 against that mean, 0 if it is answered; of 1,999 shuffles of the labels none goes with its "
                "answers as well (p = 0.0005)",
                "  these images chose the model, too: the 1 test images have not (foveate evaluate)",
            ],
        ),
        (
            [101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0, 108.0],
            True,
            ["something was learnt, but answers are no better for it: of 8 validation images it is off by 100 in the "],
        ),
        (
            [4.0, 1.0, 3.0, 4.0, 2.0, 4.0, 3.0, 4.0],
            False,
            ["nothing that shows was learnt: of 8 validation images it is off by "],
        ),
    ],
)
def test_the_verdict_is_against_always_the_mean(answers: list[float], learnt: bool, lines: list[str]) -> None:
    labels = np.arange(1.0, 9.0)
    result = NumberEvaluation(tuple("abcdefgh"), labels, np.array(answers), np.full(8, 4.0), np.zeros(8), (None,) * 8)
    verdict = NumberVerdict.of(result, [Example("i", 0.5, "test"), Example("a", 1.0, "validation")])
    assert verdict.learnt is learnt
    assert all(found.startswith(line) for found, line in zip(verdict.lines(), lines, strict=False)), verdict.lines()


def test_few_images_and_equal_labels_cannot_tell() -> None:
    few = NumberEvaluation(("a", "b"), np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.ones(2), np.zeros(2), (None,) * 2)
    verdict = NumberVerdict.of(few, [])
    assert verdict.learnt is None
    assert verdict.lines()[0].startswith("whether anything was learnt cannot be told: of 2 validation images")
    alike = NumberEvaluation(("a", "b"), np.ones(2), np.array([1.0, 2.0]), np.zeros(2), np.zeros(2), (None,) * 2)
    told = NumberVerdict.of(alike, []).lines()
    assert told[1] == "  they all have one label, and so no model could show anything by them"
