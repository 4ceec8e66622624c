from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.config.settings import DataSettings
from foveate.datasets import megapixel_mnist, open_dataset
from foveate.errors import ConfigError, DataError


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[list[str]], DataSettings]:
    def do(lines: list[str]) -> DataSettings:
        for line in lines:
            Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / line.split(",")[0])
        (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(lines))
        return DataSettings(manifest=str(tmp_path / "labels.csv"))

    return do


def test_megapixel_mnist_holds_validation_canvases_out_of_the_training_ones() -> None:
    settings = DataSettings(
        source="megapixel-mnist", canvas=(200, 300), train_images=100, test_images=20, validation=0.15
    )
    data = open_dataset(settings, seed=3)
    plain = megapixel_mnist(settings)
    assert Counter(e.split for e in data.examples) == {"train": 85, "validation": 15, "test": 20}
    assert [replace(e, split=None) for e in data.examples] == [replace(e, split=None) for e in plain.examples]
    assert all(e.id.startswith("test") == (e.split == "test") for e in data.examples)
    assert data.open(119).size == (200, 300)
    assert open_dataset(settings, seed=3).examples == data.examples != open_dataset(settings, seed=4).examples


def test_a_manifest_gets_the_splits_it_lacks(manifest: Callable[[list[str]], DataSettings]) -> None:
    data = open_dataset(manifest([f"{i}.png,{'ab'[i % 2]}," for i in range(40)]), seed=1)
    assert Counter(e.split for e in data.examples) == {"train": 29, "validation": 3, "test": 8}
    assert data.classes == ("a", "b")
    assert data.open(5).size == (2, 3)


def test_nothing_to_open_is_the_users_fault() -> None:
    with pytest.raises(
        ConfigError, match="no images to train on: give --data MANIFEST, a CSV file or a folder with a fol"
    ):
        open_dataset(DataSettings())


def test_one_class_cannot_be_learnt(manifest: Callable[[list[str]], DataSettings]) -> None:
    with pytest.raises(
        DataError, match=r"every image of .*labels.csv has the label 'a': a classifier needs two classes"
    ):
        open_dataset(manifest([f"{i}.png,a," for i in range(9)]))


def test_a_manifest_of_test_images_cannot_train(manifest: Callable[[list[str]], DataSettings]) -> None:
    with pytest.raises(
        DataError, match=r"no image of .*labels.csv is left to train on: its split column must name some t"
    ):
        open_dataset(manifest(["1.png,a,test", "2.png,b,test"]))
