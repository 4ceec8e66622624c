"""The summary against hand-computed figures, the bootstrap against brute force."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from foveate.compare.store import Predictions
from foveate.compare.summary import Quality, summarise
from foveate.errors import DataError
from foveate.evaluation.intervals import Tally, interval, resampled_errors, tally, wilson_interval

CLASSES = ("a", "b", "c")


def run(
    method: str,
    said: dict[str, str],
    labels: str = "aabbcc",
    *,
    seed: int = 0,
    fold: int | None = None,
    groups: tuple[str | None, ...] | None = None,
    training_loss: float = 0.5,
    seconds: float = 10.0,
) -> Predictions:
    """A run that tested the images 0 … 5, or those of `said`, and is sure of what it says."""
    ids = tuple(sorted(said))
    rows = tuple(tuple(0.8 if said[one] == name else 0.1 for name in CLASSES) for one in ids)
    return Predictions(
        method=method,
        seed=seed,
        fold=fold,
        classes=CLASSES,
        multi_label=False,
        ids=ids,
        groups=groups or (None,) * len(ids),
        labels=tuple(CLASSES.index(labels[int(one)]) for one in ids),
        probabilities=rows,
        error=0.0,
        loss=1.0,
        training_loss=training_loss,
        training_error=0.25,
        epochs=3,
        steps=9,
        seconds=seconds,
        test_seconds=1.0,
        patches_per_image=10,
        settings={},
        fingerprint=0,
    )


def answers(text: str, first: int = 0) -> dict[str, str]:
    return {str(first + number): one for number, one in enumerate(text)}


def only(runs: list[Predictions]) -> Quality:
    (quality,) = summarise({"m": runs}, "m", resamples=300)
    return quality


def test_one_run_by_hand() -> None:
    quality = only([run("m", answers("aabcca"))])  # wrong: image 3 (b as c) and image 5 (c as a)
    assert quality.error == pytest.approx(2 / 6)
    assert quality.interval == pytest.approx(wilson_interval(2, 6))
    assert quality.confusion == ((2, 0, 0), (0, 1, 1), (1, 0, 1))
    assert quality.recalls == {"a": 1.0, "b": 0.5, "c": 0.5}
    assert quality.balanced_error == pytest.approx(1 / 3)
    assert (quality.n, quality.runs, quality.seeds, quality.fold_errors) == (6, 1, (0,), ((pytest.approx(2 / 6),),))
    assert quality.standard_error_seeds is None
    assert quality.standard_error_folds is None
    assert quality.train_loss_deviation is None
    assert quality.difference is None
    assert (quality.train_seconds, quality.total_seconds) == (10.0, 11.0)


def test_folds_are_pooled_by_image_and_seeds_averaged() -> None:
    runs = [
        run("m", answers("aabc"), seed=0, fold=1, training_loss=0.1),  # 1 of 4 wrong
        run("m", answers("ab", 4), seed=0, fold=2, training_loss=0.3),  # both wrong
        run("m", answers("bab"), seed=1, fold=1, training_loss=0.5),  # 1 of 3 wrong
        run("m", answers("bcc", 3), seed=1, fold=2, training_loss=0.7),  # none wrong
    ]
    quality = only(runs)
    assert quality.seed_errors == pytest.approx((3 / 6, 1 / 6))
    assert quality.error == pytest.approx(2 / 6)
    assert [pytest.approx(one) for one in ((1 / 4, 1.0), (1 / 3, 0.0))] == list(quality.fold_errors)
    assert quality.standard_error_seeds == pytest.approx((2 / 6) / 2)  # sd of two values d apart is d/√2
    assert quality.standard_error_folds == pytest.approx((3 / 4 / 2 + 1 / 3 / 2) / 2)
    assert quality.train_loss == pytest.approx(0.4)
    assert quality.train_loss_deviation == pytest.approx(np.std([0.1, 0.3, 0.5, 0.7], ddof=1))
    assert (quality.n, quality.runs) == (6, 4)
    assert quality.confusion is not None
    assert sum(map(sum, quality.confusion)) == 12


def test_an_area_under_the_curve_is_the_mean_over_seeds() -> None:
    two = [
        replace(
            run("m", answers("aabb"), labels, seed=seed),
            classes=("a", "b"),
            probabilities=((0.9, 0.1), (0.6, 0.4), (0.7, 0.3), (0.2, 0.8)),
        )
        for seed, labels in enumerate(("aabb", "abab"))
    ]
    # Seed 0: pairs (b, a) ranked rightly: image 3 above both, image 2 above image 0 only: 3/4. Seed 1: 1 beats 0 and 2,
    # 3 beats both: 1.
    assert only(two).auc == pytest.approx((3 / 4 + 1) / 2)


def test_several_labels_count_wrong_answers_per_class() -> None:
    one = replace(
        run("m", answers("aaa"), "aaa"),
        multi_label=True,
        labels=((0, 2), (), (1,)),
        probabilities=((0.9, 0.2, 0.1), (0.1, 0.2, 0.3), (0.7, 0.9, 0.2)),
    )
    quality = only([one])
    assert quality.error == pytest.approx(2 / 9)  # class c missed in image 0, class a invented in image 2
    assert quality.confusion is None
    assert quality.recalls == {"a": 1.0, "b": 1.0, "c": 0.0}


def test_groups_are_judged_by_their_mean_probabilities() -> None:
    groups = ("p", "p", "q", "q", None, None)
    one = run("m", answers("abbbca"), groups=groups)
    sure = tuple((0.6, 0.3, 0.1) if number == 0 else row for number, row in enumerate(one.probabilities))
    (quality,) = summarise({"m": [replace(one, probabilities=sure)]}, "m", by_group=True, resamples=300)
    # p: mean (0.35, 0.55, 0.1) says b, wrong; q says b, right; image 4 right; image 5 wrong.
    assert (quality.n, quality.error) == (4, 0.5)
    mixed = run("m", answers("abbbca"), "abbbcc", groups=groups)
    with pytest.raises(DataError, match=r"^images of group p have different labels: correct the manifest's group"):
        summarise({"m": [mixed]}, "m", by_group=True)


def test_a_method_is_compared_on_the_seeds_it_shares_with_the_reference() -> None:
    runs = {
        "m": [run("m", answers("aabbcc"), seed=0), run("m", answers("bbbbcc"), seed=1)],
        "slow": [run("slow", answers("aabbca"), seed=1)],
        "other": [run("other", answers("aabbca"), seed=9)],
    }
    reference, slow, other = summarise(runs, "m", resamples=500)
    assert reference.difference is None
    assert other.difference is None
    assert slow.difference is not None
    assert slow.difference.seeds == (1,)
    assert slow.difference.error == pytest.approx(1 / 6 - 2 / 6)
    low, high = slow.difference.interval
    assert low < slow.difference.error < high
    assert 0.5 < slow.difference.share_below < 1


def test_a_method_is_compared_on_the_folds_it_shares_with_the_reference() -> None:
    both = [run("m", answers("bba"), fold=1), run("m", answers("bca", 3), fold=2)]  # 3 of 3 and 1 of 3 wrong
    runs = {
        "m": both,
        "same": [replace(both[1], method="same")],
        "worse": [run("worse", answers("baa", 3), fold=2)],  # 2 of 3
        "apart": [run("apart", answers("aab"), fold=3)],
    }
    _, same, worse, apart = summarise(runs, "m", resamples=20_000)
    assert apart.difference is None
    assert same.difference is not None
    assert (same.difference.error, same.difference.interval) == (0.0, (0.0, 0.0))
    assert worse.difference is not None
    assert worse.difference.error == pytest.approx(2 / 3 - 1 / 3)
    drawn = [np.mean(one) for one in itertools.product((0, 1, 0), repeat=3)]  # image 4 alone is told apart
    assert worse.difference.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")))
    assert worse.difference.share_below == 0


def enumerated(tallies: list[Tally]) -> list[list[float]]:
    """Errors of each method over all G^G equally likely resamples of its units, one image at a time."""
    units = tallies[0].errors.shape[1]
    found: list[list[float]] = [[] for _ in tallies]
    for drawn in itertools.product(range(units), repeat=units):
        for values, one in zip(found, tallies, strict=True):
            seeds = [
                sum(one.errors[seed, unit] for unit in drawn) / sum(one.counts[seed, unit] for unit in drawn)
                for seed in range(len(one.errors))
            ]
            values.append(sum(seeds) / len(seeds))
    return found


def test_the_paired_bootstrap_has_the_distribution_of_brute_force() -> None:
    counts = np.array([[1.0, 2.0, 1.0, 3.0], [1.0, 2.0, 1.0, 3.0]])
    first = Tally(np.array([[1.0, 0.0, 1.0, 1.0], [0.0, 2.0, 0.0, 1.0]]), counts)
    second = Tally(np.array([[1.0, 1.0, 0.0, 0.0]]), counts[:1])
    exact = np.subtract(*enumerated([first, second]))
    resamples = 40_000
    drawn = np.subtract(*resampled_errors([first, second], resamples, seed=3))
    deviation = float(np.std(exact))
    assert abs(drawn.mean() - exact.mean()) < 4 * deviation / resamples**0.5
    below = float(np.mean(exact < 0))
    assert abs(np.mean(drawn < 0) - below) < 4 * (below * (1 - below) / resamples) ** 0.5
    low, high = interval(drawn)
    assert np.mean(exact < low - 1e-9) <= 0.03  # quantiles of a discrete distribution
    assert np.mean(exact <= low + 1e-9) >= 0.02
    assert np.mean(exact > high + 1e-9) <= 0.03
    assert np.mean(exact >= high - 1e-9) >= 0.02
    assert set(np.round(drawn, 9)) <= set(np.round(exact, 9))


def test_a_method_differs_from_itself_by_nothing_however_it_is_drawn() -> None:
    runs = {name: [run(name, answers("abbbca"))] for name in ("m", "twin")}
    _, twin = summarise(runs, "m", resamples=300)
    assert twin.difference is not None
    assert (twin.difference.error, twin.difference.interval, twin.difference.share_below) == (0.0, (0.0, 0.0), 0.0)


def test_groups_are_drawn_whole() -> None:
    wrong = [[("p", 1.0), ("p", 1.0), ("q", 0.0), ("q", 0.0)]]
    (values,) = resampled_errors([tally(wrong, ["p", "q"])], 1000, seed=1)
    assert set(values) == {0.0, 0.5, 1.0}


def test_a_sample_without_an_image_of_one_seed_leaves_that_seed_out() -> None:
    one = Tally(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    (values,) = resampled_errors([one], 1000, seed=1)
    assert set(values) == {0.0, 0.5, 1.0}  # both units: (1 + 0)/2; the first alone: 1; the second alone: 0


@pytest.mark.parametrize(("said", "errors"), [("aabbcc", 0), ("bbccaa", 6)])
def test_where_all_agree_the_interval_is_wilsons_over_units(said: str, errors: int) -> None:
    runs = [run("m", answers(said), seed=seed) for seed in (0, 1, 2)]
    assert only(runs).interval == wilson_interval(errors, 6)
    groups = ("p", "p", "q", "q", None, None)
    assert only([run("m", answers(said), groups=groups)]).interval == wilson_interval(errors * 4 // 6, 4)
    mixed = only([*runs[:2], run("m", answers("aabcaa"), seed=2)])
    assert mixed.interval[0] < mixed.error < mixed.interval[1]


def test_images_of_all_seeds_are_counted() -> None:
    runs = [run("m", answers("aab"), seed=0), run("m", answers("bcc", 2), seed=1)]
    assert only(runs).n == 5
