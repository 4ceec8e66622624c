"""Images with any number of classes: how manifests say so, and how they are split."""

import re
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.datasets import fill_splits, k_folds, read_manifest
from foveate.datasets.splits import crossing_groups, fold_numbers
from foveate.datasets.stratify import deal, units
from foveate.datasets.types import Example
from foveate.errors import DataError


def manifest(folder: Path, *labels: str) -> Path:
    lines = ["path,label"]
    for i, label in enumerate(labels):
        (folder / f"{i}.png").touch()
        lines.append(f"{i}.png,{label}")
    (folder / "findings.csv").write_text("\n".join(lines) + "\n")
    return folder / "findings.csv"


def test_labels_are_sorted_indices_of_all_classes_that_occur(tmp_path: Path) -> None:
    data = read_manifest(manifest(tmp_path, "dog| cat", "", "cat", " 10 |9|dog "), multi_label=True)
    assert data.multi_label
    assert data.classes == ("9", "10", "cat", "dog")
    assert [example.label for example in data.examples] == [(2, 3), (), (2,), (0, 1, 3)]


def test_one_label_each_is_not_several(tmp_path: Path) -> None:
    path = manifest(tmp_path, "dog", "cat")
    assert [example.label for example in read_manifest(path).examples] == [1, 0]
    assert not read_manifest(path).multi_label
    assert [example.label for example in read_manifest(path, multi_label=True).examples] == [(1,), (0,)]


def test_classes_of_a_model_keep_their_order_for_several_labels(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a|b", "b", "")
    read = read_manifest(path, classes=("c", "b", "a"), multi_label=True)
    assert [example.label for example in read.examples] == [(1, 2), (1,), ()]
    with pytest.raises(DataError, match=r"1 fault: line 2 \(0.png\): label 'a' is none of the model's classes b, c$"):
        read_manifest(path, classes=("b", "c"), multi_label=True)
    read = read_manifest(path, classes=("b", "c"), require_labels=False, multi_label=True)
    assert [example.label for example in read.examples] == [None, (0,), ()]


def test_prediction_needs_no_labels_where_there_could_be_several(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("path\na.png\n")
    read = read_manifest(tmp_path / "rows.csv", require_labels=False, check_files=False, multi_label=True)
    assert [example.label for example in read.examples] == [None]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("a|a", "line 3: label 'a|a' names 'a' twice, write it once"),
        ("a | b|a", "line 3: label 'a | b|a' names 'a' twice, write it once"),
        ("a|", "line 3: label 'a|' has a | without a name beside it, write names with one | between"),
        ("a||b", "line 3: label 'a||b' has a | without a name beside it, write names with one | between"),
        ("|", "line 3: label '|' has a | without a name beside it, write names with one | between"),
    ],
)
def test_labels_that_are_no_names_are_faults(tmp_path: Path, label: str, message: str) -> None:
    with pytest.raises(DataError, match=f"findings.csv has 1 fault: {re.escape(message)}$"):
        read_manifest(manifest(tmp_path, "a", label), multi_label=True)


def test_several_labels_read_as_one_are_refused_with_the_setting(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a", "a|b", "")
    with pytest.raises(
        DataError,
        match=r"findings.csv: line 3 has several labels \(a\|b\): say so with --data.multi_label true \(foveate data "
        r"check and split: --multi-label\), or write one name without \|$",
    ):
        read_manifest(path)
    assert len(read_manifest(path, require_labels=False)) == 3  # prediction does not care


def test_a_folder_may_stand_for_several_classes(tmp_path: Path) -> None:
    for name in ("cat", "cat|dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    data = read_manifest(tmp_path, multi_label=True)
    assert [(example.id, example.label) for example in data.examples] == [
        ("cat/1.png", (0,)),
        ("cat|dog/1.png", (0, 1)),
    ]
    with pytest.raises(DataError, match=r"cat\|dog/1.png has several labels \(cat\|dog\): say so with"):
        read_manifest(tmp_path)


@st.composite
def several(draw: st.DrawFn, grouped: bool | None = None) -> list[Example]:
    """Images of up to four classes each, some of none; grouped or not."""
    if grouped is None:
        grouped = draw(st.booleans())
    random = Random(draw(st.integers(0, 10**6)))
    shares = [random.choice([0.05, 0.2, 0.5]) for _ in range(4)]
    count = draw(st.integers(12, 120))
    labels = [tuple(label for label, share in enumerate(shares) if random.random() < share) for _ in range(count)]
    group_of = [f"patient {random.randrange(count // 3)}" if grouped else None for _ in range(count)]
    return [
        Example(f"{i}.png", label, None, group) for i, (label, group) in enumerate(zip(labels, group_of, strict=True))
    ]


def classes(examples: list[Example]) -> Counter[int | None]:
    """Images per class; None for those without any."""
    return Counter(
        label for example in examples if isinstance(example.label, tuple) for label in example.label or (None,)
    )


@settings(max_examples=40, deadline=None)
@given(several(), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.2, 0.5]), st.integers(0, 9), st.randoms())
def test_every_class_trains_no_group_is_cut_and_the_order_of_rows_is_nothing(
    examples: list[Example], validation: float, test: float, seed: int, random: Random
) -> None:
    try:
        filled = fill_splits(examples, validation, test, seed)
    except DataError:
        return  # too few to hold any out, which has its own test
    trained = {label for example in filled if example.split == "train" for label in example.label or ()}
    assert trained == {label for example in examples for label in example.label or ()}
    assert not crossing_groups(filled)
    shuffled = random.sample(examples, len(examples))
    expected = {example.id: example.split for example in filled}
    assert {example.id: example.split for example in fill_splits(shuffled, validation, test, seed)} == expected


@settings(max_examples=40, deadline=None)
@given(several(), st.integers(2, 5), st.integers(0, 9), st.randoms())
def test_folds_hold_every_image_out_once_and_keep_classes_and_groups(
    examples: list[Example], k: int, seed: int, random: Random
) -> None:
    try:
        numbers = fold_numbers(examples, k, seed)
    except DataError:
        return  # too few groups, or a fold would train without a class, which have their own test
    of_group = defaultdict(set)
    for example, number in zip(examples, numbers, strict=True):
        of_group[example.group or example.id].add(number)
    assert {len(found) for found in of_group.values()} == {1}
    for fold in k_folds(examples, k, seed):
        trained = [example for example in fold if example.split == "train"]
        assert classes(trained).keys() - {None} == classes(examples).keys() - {None}
    shuffled = random.sample(examples, len(examples))
    expected = {example.id: number for example, number in zip(examples, numbers, strict=True)}
    assert dict(zip([e.id for e in shuffled], fold_numbers(shuffled, k, seed), strict=True)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_ungrouped_images_are_held_out_in_proportion(seed: int) -> None:
    random = Random(seed)
    shares = (0.5, 0.3, 0.2, 0.1, 0.05)
    examples = [Example(f"{i}", tuple(j for j, p in enumerate(shares) if random.random() < p)) for i in range(600)]
    total = classes(examples)
    held = classes([example for example in fill_splits(examples, 0, 0.2, seed) if example.split == "test"])
    assert all(abs(held[label] - 0.2 * count) <= 1 for label, count in total.items())
    for fold in k_folds(examples, 5, seed):
        held = classes([example for example in fold if example.split == "test"])
        assert all(abs(held[label] - count / 5) <= 1 for label, count in total.items())


def test_an_image_counts_once_for_each_of_its_classes() -> None:
    (unit,) = units([Example("a", (0, 2), group="g"), Example("b", (2,), group="g"), Example("c", (), group="g")])
    assert (unit.counts, unit.images) == (Counter({2: 2, 0: 1, None: 1}), 3)


def test_images_of_no_class_are_a_stratum_of_their_own() -> None:
    examples = [Example(f"{i}", () if i % 2 else (0,)) for i in range(40)]
    held = [example for example in fill_splits(examples, 0, 0.2) if example.split == "test"]
    assert classes(held) == {None: 4, 0: 4}
    assert set(Counter(deal(units(examples), 4, 0).values()).values()) == {10}


def test_allowed_crossing_leaves_what_is_named_and_adds_nothing_to_the_test() -> None:
    named = [
        Example("a", 0, "test", "p"),
        Example("b", 1, "train", "p"),
        Example("c", 0, None, "p"),
        *[Example(f"{i}", i % 2) for i in range(40)],
    ]
    with pytest.raises(DataError, match=r"or accept it with --data.allow_crossing_groups true$"):
        fill_splits(named)
    for rows in (named, named[::-1]):
        found = {e.id: e.split for e in fill_splits(rows, 0.5, 0.2, allow_crossing=True)}
        assert found["a"] == "test"
        assert found["b"] == found["c"] != "test"
        assert Counter(found.values())["test"] == 1
    with pytest.raises(DataError, match="group 'p' is in the splits test and train"):
        fold_numbers(named, 2)
    for fold in k_folds(named, 2, allow_crossing=True):
        assert [example.id for example in fold if example.split == "test"] == ["a"]
        assert fold[1].split == fold[2].split
