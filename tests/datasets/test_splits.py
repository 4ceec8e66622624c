from collections import Counter, defaultdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.datasets import fill_splits, k_folds
from foveate.datasets.splits import crossing_groups, fold_numbers
from foveate.datasets.types import Example
from foveate.errors import DataError


def rows(count: int, classes: int = 2, prefix: str = "", **fields: str) -> list[Example]:
    return [Example(id=f"{prefix}{i:04d}.png", label=i % classes, **fields) for i in range(count)]


def splits(examples: list[Example]) -> Counter[str | None]:
    return Counter(example.split for example in examples)


@st.composite
def ungrouped(draw: st.DrawFn) -> list[Example]:
    counts = draw(st.lists(st.integers(2, 40), min_size=1, max_size=5))
    return [Example(f"{label}-{i}", label) for label, count in enumerate(counts) for i in range(count)]


@st.composite
def grouped(draw: st.DrawFn) -> list[Example]:
    """Groups of one label or of several, some of them with named splits."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=6, max_size=20))
    examples = []
    for g, size in enumerate(sizes):
        named = draw(st.sampled_from([None, None, None, "train"]))
        for i in range(size):
            label = draw(st.integers(0, 2)) if g % 3 == 2 else g % 3
            examples.append(Example(f"{g}-{i}", label, named if i == 0 else None, f"patient {g}"))
    return examples


SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.33, 0.5])


@settings(max_examples=40, deadline=None)
@given(ungrouped(), SHARES, SHARES, st.integers(0, 9))
def test_shares_are_stratified_to_within_one_image_a_class(
    examples: list[Example], validation: float, test: float, seed: int
) -> None:
    try:
        filled = fill_splits(examples, validation, test, seed)
    except DataError:
        return  # too few to hold any out, which has its own test
    assert [example.id for example in filled] == [example.id for example in examples]
    for name, share, of in (
        ("test", test, filled),
        ("validation", validation, [e for e in filled if e.split != "test"]),
    ):
        total, held = Counter(e.label for e in of), Counter(e.label for e in filled if e.split == name)
        if share == 0:
            assert not held
        for label, count in total.items():
            exact = count * max(1, len(of) * share) / len(of) if share else 0
            assert abs(held[label] - exact) < 1.5
            assert held[label] < count or count == 0  # every class keeps an image to train on
    assert set(splits(filled)) <= {"train", "validation", "test"}


@settings(max_examples=40, deadline=None)
@given(grouped(), SHARES, SHARES, st.integers(0, 9))
def test_groups_never_cross_and_named_splits_stay(
    examples: list[Example], validation: float, test: float, seed: int
) -> None:
    try:
        filled = fill_splits(examples, validation, test, seed)
    except DataError:
        return  # too few to hold any out, which has its own test
    assert not crossing_groups(filled)
    assert all(new.split != "test" for old, new in zip(examples, filled, strict=True) if old.split == "train")
    assert {e.label for e in filled} == {e.label for e in filled if e.split == "train"}


@settings(max_examples=30, deadline=None)
@given(st.one_of(ungrouped(), grouped()), st.integers(0, 9), st.randoms())
def test_the_order_of_rows_does_not_matter(examples: list[Example], seed: int, random: Random) -> None:
    shuffled = random.sample(examples, len(examples))
    try:
        expected = {e.id: e.split for e in fill_splits(examples, 0.2, 0.3, seed)}
    except DataError:
        return
    assert {e.id: e.split for e in fill_splits(shuffled, 0.2, 0.3, seed)} == expected


@settings(max_examples=30, deadline=None)
@given(ungrouped(), st.integers(0, 9), st.randoms())
def test_the_order_of_rows_does_not_matter_for_folds(examples: list[Example], seed: int, random: Random) -> None:
    shuffled = random.sample(examples, len(examples))
    folds = dict(zip([e.id for e in examples], fold_numbers(examples, 2, seed), strict=True))
    assert dict(zip([e.id for e in shuffled], fold_numbers(shuffled, 2, seed), strict=True)) == folds


def test_seeds_choose_differently_and_each_the_same_way() -> None:
    examples = rows(200)
    chosen = [tuple(e.split for e in fill_splits(examples, seed=seed)) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_every_image_has_the_same_chance() -> None:
    examples = rows(20, classes=1)
    counts = Counter(e.id for seed in range(400) for e in fill_splits(examples, 0, 0.25, seed) if e.split == "test")
    assert len(counts) == 20
    # binomial(400, 1/4): 100 ± 8.7; one of twenty beyond 5 σ has a chance of 1.2e-5
    assert all(abs(count - 100) < 44 for count in counts.values())


def test_the_whole_share_is_held_out_where_classes_are_small() -> None:
    filled = fill_splits(rows(40, classes=10), validation=0, test=0.1)
    assert splits(filled)["test"] == 4  # 0.4 of each class, 4 of all
    assert max(Counter(e.label for e in filled if e.split == "test").values()) == 1


def test_named_splits_stay_and_only_what_is_missing_is_made() -> None:
    named = rows(60, split="train", prefix="t") + rows(20, split="test", prefix="e")
    filled = fill_splits(named, validation=0.1, test=0.5)
    assert splits(filled) == {"train": 54, "validation": 6, "test": 20}
    assert all(e.split == "test" for e in filled[60:])
    complete = [*named, *rows(9, split="validation", prefix="v")]
    assert fill_splits(complete, 0.5, 0.5) == complete
    only_train = rows(10, split="train")
    assert splits(fill_splits(only_train, 0.0, 0.2)) == {"train": 10}


def test_images_without_a_split_join_their_group() -> None:
    examples = [
        *[Example(f"a{i}", i % 2, "test" if i == 0 else None, "patient a") for i in range(4)],
        *[Example(f"b{i}", i % 2, "train" if i == 0 else None, "patient b") for i in range(4)],
        *rows(20),
    ]
    filled = fill_splits(examples, validation=0.0, test=0.2)
    assert [e.split for e in filled[:8]] == ["test"] * 4 + ["train"] * 4
    assert splits(filled[8:]) == {"train": 20}


def test_few_large_groups_still_give_a_test_split() -> None:
    examples = [Example(f"{g}-{i}", i % 2, None, f"p{g}") for g in range(3) for i in range(50 - 10 * g)]
    filled = fill_splits(examples, validation=0, test=0.1)
    assert {e.group for e in filled if e.split == "test"} == {"p2"}  # 30 images are nearest to 12


def test_a_class_of_one_image_trains() -> None:
    examples = [*rows(40, classes=1), Example("rare.png", 1)]
    for seed in range(20):
        assert {e.id: e.split for e in fill_splits(examples, 0.3, 0.3, seed)}["rare.png"] == "train"


@pytest.mark.parametrize("fields", [{"split": "validation"}, {"split": "test"}])
def test_a_group_in_two_splits_is_refused(fields: dict[str, str]) -> None:
    examples = [Example("a", 0, "train", "patient 7"), Example("b", 1, group="patient 7", **fields), *rows(9)]
    with pytest.raises(
        DataError,
        match=r"group 'patient 7' is in the splits .* and .*, which makes the test worthless: give all images of",
    ):
        fill_splits(examples)


def test_too_few_images_are_refused_with_a_remedy() -> None:
    with pytest.raises(
        DataError,
        match=r"no image is left for the test split: 2 images in 2 groups are too few to hold out 0.2 and keep every "
        "class for training; add images or set data.test to 0",
    ):
        fill_splits(rows(2))
    assert splits(fill_splits(rows(2), 0, 0)) == {"train": 2}


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(
        DataError, match=f"the test share must be at least 0 and below 1, got {share}: set data.test to"
    ):
        fill_splits(rows(9), test=share)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.integers(2, 6), st.integers(0, 9))
def test_folds_are_stratified_to_within_one_image(counts: list[int], k: int, seed: int) -> None:
    examples = [Example(f"{label}-{i}", label) for label, count in enumerate(counts) for i in range(count)]
    if len(examples) < k:
        return
    numbers = fold_numbers(examples, k, seed)
    sizes = Counter(numbers)
    assert set(sizes) == set(range(k))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for label in range(len(counts)):
        per_fold = Counter(f for e, f in zip(examples, numbers, strict=True) if e.label == label)
        assert max(per_fold.values()) - min(per_fold[f] for f in range(k)) <= 1


@settings(max_examples=30, deadline=None)
@given(grouped(), st.integers(2, 4), st.integers(0, 9))
def test_folds_keep_groups_together_and_hold_every_image_out_once(examples: list[Example], k: int, seed: int) -> None:
    try:
        folds = k_folds(examples, k, seed)
    except DataError:
        return  # a fold would train without a class, which has its own test
    of_group = defaultdict(set)
    for example, number in zip(examples, fold_numbers(examples, k, seed), strict=True):
        of_group[example.group].add(number)
    assert all(len(numbers) == 1 for numbers in of_group.values())
    for held in zip(*folds, strict=True):
        assert sorted(e.split for e in held) == sorted(["test"] + ["train"] * (k - 1))
    for fold in folds:
        assert {e.label for e in fold if e.split == "train"} == {e.label for e in examples}


def test_folds_beside_a_named_test_split_hold_out_validation_images() -> None:
    examples = rows(30, split="train", prefix="t") + rows(10, split="test", prefix="e")
    for fold in k_folds(examples, 3):
        assert splits(fold) == {"train": 20, "validation": 10, "test": 10}
        assert fold[30:] == examples[30:]
        assert fill_splits(fold, 0.5, 0.5) == fold


def test_folds_leave_room_for_a_validation_split() -> None:
    fold = k_folds(rows(50), 5)[0]
    assert splits(fill_splits(fold, validation=0.1, test=0.5)) == {"train": 36, "validation": 4, "test": 10}


@pytest.mark.parametrize(
    ("examples", "k", "message"),
    [
        (rows(9), 1, "cross-validation needs at least 2 folds, got 1: set folds to e.g. 5"),
        (rows(3), 5, "5 folds need at least 5 images or groups of images, got 3: use fewer folds"),
        (
            [*rows(9, classes=1), Example("x", 1)],
            3,
            "class number 1 has all its images in one of 3 folds, .*: use fewer",
        ),
        ([Example("a", 0, "train", "g"), Example("b", 0, "test", "g")], 2, "group 'g' is in the splits test and train"),
    ],
)
def test_impossible_folds_are_refused(examples: list[Example], k: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fold_numbers(examples, k)
