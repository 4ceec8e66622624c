"""Thresholds by enumeration and simulation; decisions by hand."""

import math

import numpy as np
import pytest

from foveate.errors import ConfigError, DataError
from foveate.evaluation.decisions import (
    choose_threshold,
    clopper_pearson,
    judge_decisions,
    positive_classes,
    read_costs,
)
from foveate.models.probabilities import Decision

CLASSES = ("none", "50", "70")


def test_a_threshold_is_the_best_of_all_that_have_what_is_wanted() -> None:
    random = np.random.default_rng(0)
    for _ in range(30):
        scores, positive = random.integers(0, 12, 25) / 12, np.append(random.random(23) < 0.4, [True, False])
        candidates = np.append(np.unique(scores), 1.1)
        of = {t: ((scores >= t)[positive].mean(), (scores < t)[~positive].mean()) for t in candidates}
        for wanted in (0.5, 0.8, 1.0):
            chosen = choose_threshold(scores, positive, [None] * 25, sensitivity=wanted)
            best = max(pair[1] for pair in of.values() if pair[0] >= wanted)
            assert (chosen.sensitivity[0] >= wanted, chosen.specificity[0]) == (True, best)
            chosen = choose_threshold(scores, positive, [None] * 25, specificity=wanted)
            best = max(pair[0] for pair in of.values() if pair[1] >= wanted)
            assert (chosen.specificity[0] >= wanted, chosen.sensitivity[0]) == (True, best)
            told = scores >= chosen.threshold
            assert (told[positive].mean(), (~told)[~positive].mean()) == (
                chosen.sensitivity[0],
                chosen.specificity[0],
            )


def test_the_interval_holds_although_the_threshold_was_chosen_on_the_same_images() -> None:
    """2,000 choices by 40 positives: the true sensitivity lies in the interval in 95 % or more, and never far more."""
    random = np.random.default_rng(1)
    held = []
    for _ in range(2000):
        scores = np.append(random.random(40) ** 0.5, random.random(60))
        chosen = choose_threshold(scores, np.arange(100) < 40, [None] * 100, sensitivity=0.9)
        low, high = chosen.sensitivity[1]
        held.append(low <= 1 - chosen.threshold**2 <= high)  # P(U^½ ≥ t)
    assert 0.945 <= np.mean(held) <= 0.99


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 7), (12, 12)])
def test_clopper_and_pearson_leave_a_fortieth_on_either_side(k: int, n: int) -> None:
    def tail(p: float, counts: range) -> float:
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in counts)

    low, high = clopper_pearson(k, n)
    assert low == 0 if k == 0 else tail(low, range(k, n + 1)) == pytest.approx(0.025, abs=1e-9)
    assert high == 1 if k == n else tail(high, range(k + 1)) == pytest.approx(0.025, abs=1e-9)


def test_groups_have_their_own_interval_and_what_cannot_be_chosen_is_said() -> None:
    scores, positive = np.linspace(0, 1, 20), np.arange(20) % 2 == 1
    chosen = choose_threshold(scores, positive, [f"{i // 4}" for i in range(20)], sensitivity=0.8)
    assert chosen.sensitivity[1][0] < chosen.sensitivity[0] <= chosen.sensitivity[1][1]
    with pytest.raises(DataError, match="needs positive and negative images, but none is positive"):
        choose_threshold(scores, positive & False, [None] * 20, sensitivity=0.8)
    for pair in [(None, None), (0.9, 0.9), (1.2, None)]:
        with pytest.raises(ConfigError, match="one of sensitivity and specificity is wanted"):
            choose_threshold(scores, positive, [None] * 20, *pair)


def test_positive_classes_are_named_or_all_but_the_background() -> None:
    assert positive_classes(CLASSES) == ("50", "70")
    assert positive_classes(CLASSES, ["70"]) == ("70",)
    with pytest.raises(ConfigError, match="60 is none of the classes, none, 50, 70"):
        positive_classes(CLASSES, ["60"])
    with pytest.raises(ConfigError, match="leave out those that are negative"):
        positive_classes(CLASSES, CLASSES)
    with pytest.raises(ConfigError, match="name them with --positive"):
        positive_classes(["cat", "dog", "owl"])


def test_decisions_by_hand() -> None:
    values = np.array([[0.7, 0.1, 0.2], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    plain = Decision()
    assert not plain.decides
    assert [plain.decide(CLASSES, row) for row in values.tolist()] == ["none", "none", "70"]
    threshold = Decision(positive=("50", "70"), thresholds=(0.45,))
    assert [threshold.decide(CLASSES, row) for row in values.tolist()] == ["none", "50", "70"]
    assert [threshold.abstaining(0.4).decide(CLASSES, row) for row in values.tolist()] == ["none", "unsure", "70"]
    costs = Decision(costs=read_costs(["none:70=5"], CLASSES))
    # none costs 0.1 + 5 · 0.2, 50 costs 0.9, 70 costs 0.8
    assert [costs.decide(CLASSES, row) for row in values.tolist()] == ["70", "50", "70"]
    several = Decision(thresholds=(0.2, 0.6, 0.9), abstain=0.35)
    assert several.decide(CLASSES, (0.4, 0.6, 0.5), multi_label=True) == "none|50"
    assert several.decide(CLASSES, (0.3, 0.6, 0.5), multi_label=True) == "unsure"


def test_the_figures_of_decisions_by_hand() -> None:
    labels = np.array([0, 0, 1, 2, 2])
    values = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0.0, 0.1, 0.9]])
    rule = Decision(positive=("50", "70"), thresholds=(0.45,), abstain=0.55)
    found = judge_decisions(rule, CLASSES, labels, values, [None] * 5)
    assert (found.unsure[0], found.error, found.error_without[0]) == (0.4, (pytest.approx(1 / 3), found.error[1]), 0.6)  # type: ignore[index]
    assert found.sensitivity is not None
    assert found.specificity is not None
    assert (found.sensitivity[0], found.specificity[0]) == (1.0, 0.5)
    costs = judge_decisions(Decision(costs=read_costs(["none:70=5"], CLASSES)), CLASSES, labels, values, [None] * 5)
    assert costs.cost is not None
    assert costs.cost_without is not None
    assert costs.cost[0] == pytest.approx((0 + 1 + 1 + 0 + 0) / 5)
    assert costs.cost_without[0] == pytest.approx((0 + 1 + 1 + 5 + 0) / 5)
    nothing = judge_decisions(Decision(abstain=1.0), CLASSES, labels, values, [None] * 5)
    assert (nothing.error, nothing.unsure[0]) == (None, 1.0)
    assert set(nothing.plain()) == {"n", "unsure", "unsure_interval", "error_without", "error_without_interval"}


@pytest.mark.parametrize("word", ["none:60=5", "none=5", "none:70=x", "none:70=-1", "none:none=2"])
def test_costs_that_are_none_are_said(word: str) -> None:
    with pytest.raises(ConfigError, match="a cost is written SAID:TRUE=COST with two of the classes none, 50, 70"):
        read_costs([word], CLASSES)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": 0.0}, "a temperature must be positive"),
        ({"abstain": 1.5}, "abstain must be a probability"),
        ({"thresholds": (2.0,)}, "thresholds must lie in"),
        ({"costs": ((0.0, -1.0),)}, "costs must be at least 0"),
        ({"costs": ((0.0,),), "thresholds": (0.5,)}, "costs and thresholds decide the same thing"),
    ],
)
def test_rules_that_are_none_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Decision(**values)  # type: ignore[arg-type]
    assert Decision(positive=("cat",), thresholds=(0.5,)).fits(("cat", "dog"), multi_label=False)
    assert not Decision(positive=("owl",), thresholds=(0.5,)).fits(("cat", "dog"), multi_label=False)
    assert not Decision(thresholds=(0.5,)).fits(("cat", "dog"), multi_label=True)
    assert not Decision(costs=((0.0,),)).fits(("cat", "dog"), multi_label=False)
