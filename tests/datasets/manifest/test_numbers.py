"""Manifests whose labels are numbers: read with points and commas, faults named by their line, split at random."""

from pathlib import Path

import pytest

from foveate.config.settings import DataSettings
from foveate.datasets import open_dataset, read_manifest
from foveate.errors import ConfigError, DataError


def write(folder: Path, *rows: str, header: str = "path;label") -> Path:
    file = folder / "images.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def read(file: Path) -> list[object]:
    return [one.label for one in read_manifest(file, check_files=False, numbers=True).examples]


def test_labels_are_numbers_with_points_or_commas(tmp_path: Path) -> None:
    file = write(tmp_path, "a.png;12.5", "b.png;12,5", "c.png;-3", "d.png; 1e-3 ", "e.png;0")
    data = read_manifest(file, check_files=False, numbers=True)
    labels = [one.label for one in data.examples]
    assert labels == [12.5, 12.5, -3.0, 0.001, 0.0]
    assert all(isinstance(label, float) for label in labels)
    assert data.classes == ()
    assert data.notes == (
        "label '12,5' on line 3 is read as 12.5, with a decimal comma (1 label has one): write 12.5 if that is right",
    )


def test_two_ways_to_write_a_number_are_one_and_need_no_note(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, "a.png;1", "b.png;1.0"), check_files=False, numbers=True).notes == ()
    assert read_manifest(write(tmp_path, "a.png;1", "b.png;1.0"), check_files=False).notes != ()


@pytest.mark.parametrize("label", ["many", "nan?", "inf", "-Infinity", "1e999", "1_000", "1.000,5", "3 4", "2|3"])
def test_what_is_no_finite_number_is_named_with_its_line(label: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, "a.png;1", f"b.png;{label}", "c.png;2"))
    assert str(caught.value) == (
        f"{tmp_path / 'images.csv'} has 1 fault: line 3 (b.png): label {label!r} is no finite number, write one such "
        "as 12.5, remove the row, or set model.head.kind to classes"
    )


@pytest.mark.parametrize("label", ["", "NaN", "n/a"])
def test_an_empty_label_is_named_with_its_line(label: str, tmp_path: Path) -> None:
    message = r"line 3: label is empty, write the image's class \(or its number\) or remove the row$"
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, "a.png;1", f"b.png;{label}", "c.png;2"))


def test_class_folders_may_be_called_by_numbers(tmp_path: Path) -> None:
    for name in ("0", "2.5"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").touch()
    assert read(tmp_path) == [0.0, 2.5]


def test_splits_are_random_and_filled_though_every_label_is_another(tmp_path: Path) -> None:
    file = write(tmp_path, *(f"{number}.png,{number / 7}" for number in range(50)), header="path,label")
    data = open_dataset(DataSettings(manifest=str(file)), check_files=False, numbers=True)
    splits = [one.split for one in data.examples]
    assert {split: splits.count(split) for split in ("train", "validation", "test")} == {
        "train": 36, "validation": 4, "test": 10,
    }  # fmt: skip
    one = write(tmp_path, *(f"{number}.png,3" for number in range(50)), header="path,label")
    same = open_dataset(DataSettings(manifest=str(one)), check_files=False, numbers=True)
    assert [one.split for one in same.examples] == splits  # labels have no say


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (DataSettings(source="megapixel-mnist"), "images of megapixel-mnist, which have classes"),
        (DataSettings(manifest="a.csv", multi_label=True), "several labels an image"),
    ],
)
def test_numbers_are_those_of_a_manifest(settings: DataSettings, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_dataset(settings, numbers=True)
    assert str(caught.value) == (
        f"model.head.kind number needs a number an image, got {what}: give --data MANIFEST with numbers in the column "
        "label, or set model.head.kind to classes"
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([f"{number / 8}" for number in range(12)] * 3, True),
        ([str(number) for number in range(12)], True),
        ([str(number) for number in range(12)] * 3, False),  # classes that are called by numbers, several of each
        ([f"{number / 8}" for number in range(9)] * 3, False),
        ([*(f"{number / 8}" for number in range(12)), "none"], False),
    ],
)
def test_labels_that_look_like_measurements_are_told_how_to_be_learnt(
    labels: list[str], told: bool, tmp_path: Path
) -> None:
    file = write(tmp_path, *(f"{number}.png,{label}" for number, label in enumerate(labels)), header="path,label")
    note = "labels are 12 different numbers, each a class: to foretell the number, --model.head.kind number"
    assert read_manifest(file, check_files=False).notes == ((note,) if told else ())
    if told:
        assert read_manifest(file, check_files=False, numbers=True).notes == ()
