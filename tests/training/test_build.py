"""What is learnt of the training images before a model is built."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.config.settings import InputSettings, ViewSettings
from foveate.datasets.types import Example
from foveate.errors import ImageError
from foveate.images import ArraySource, Source
from foveate.models import Intake, load_model
from foveate.training import build as survey
from foveate.training.build import band_statistics, typical_image
from foveate.training.loop import train
from foveate.training.progress import SilentProgress

PLAIN = InputSettings()


@dataclass(frozen=True)
class Arrays:
    """Arrays by id."""

    arrays: dict[str, np.ndarray]
    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ("a", "b")
    multi_label: bool = False

    @classmethod
    def of(cls, *arrays: np.ndarray) -> "Arrays":
        names = [f"{number}.tif" for number in range(len(arrays))]
        examples = tuple(Example(name, number % 2, "train") for number, name in enumerate(names))
        return cls(dict(zip(names, arrays, strict=True)), examples)

    def open(self, index: int) -> Source:
        name = self.examples[index].id
        return ArraySource(self.arrays[name], name=name)


def scenes(count: int = 6, bands: int = 4) -> Arrays:
    noise = np.random.default_rng(8)
    return Arrays.of(*(noise.normal(270 + 5 * i, 3 + i, (30 + i, 20, bands)).astype(np.float32) for i in range(count)))


def test_statistics_are_those_of_all_view_pixels_together() -> None:
    data = scenes()
    found = band_statistics(data, range(6), Intake(PLAIN, 4), ViewSettings(scale=1.0))
    together = np.concatenate([one.reshape(-1, 4) for one in data.arrays.values()]).astype(np.float64)
    assert np.allclose(found.mean, together.mean(0), rtol=1e-12)
    assert np.allclose(found.deviation, together.std(0), rtol=1e-12)
    chosen = band_statistics(data, range(6), Intake(InputSettings(bands=(2, 0)), 2), ViewSettings(scale=1.0))
    assert np.allclose(chosen.mean, together.mean(0)[[2, 0]], rtol=1e-12)


def test_neither_the_order_of_the_rows_nor_a_thumbnail_of_a_small_image_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survey, "MEASURED", 3)
    data = scenes()
    intake, view = Intake(PLAIN, 4), ViewSettings(scale=1.0)
    expected = band_statistics(data, range(6), intake, view)
    assert band_statistics(data, range(6), intake, None) == expected, "smaller than 256, it is as large as the view"
    rows = list(data.examples)
    random.Random(1).shuffle(rows)
    assert band_statistics(replace(data, examples=tuple(rows)), range(6), intake, view) == expected
    subsets = [np.concatenate([data.arrays[f"{i}.tif"].reshape(-1, 4) for i in some]).mean(0).astype(np.float64)
               for some in ((0, 1, 2), (3, 4, 5))]  # fmt: skip
    assert not any(np.allclose(expected.mean, mean, rtol=1e-6) for mean in subsets), "not simply the first or last"


def test_pixels_that_are_no_numbers_do_not_count_and_a_constant_band_keeps_its_scale() -> None:
    array = np.random.default_rng(2).normal(0, 1, (9, 7, 3)).astype(np.float32)
    array[..., 1] = 0.3
    array[2, 3, 0], array[4, 4, 0] = np.nan, np.inf
    found = band_statistics(Arrays.of(array, array), range(2), Intake(PLAIN, 3), ViewSettings(scale=1.0))
    finite = array[..., 0][np.isfinite(array[..., 0])].astype(np.float64)
    assert (found.mean[0], found.deviation[0]) == (pytest.approx(finite.mean()), pytest.approx(finite.std()))
    assert (found.mean[1], found.deviation[1]) == (pytest.approx(0.3), 1.0)
    array[..., 2] = np.nan
    with pytest.raises(ImageError) as caught:
        band_statistics(Arrays.of(array), range(1), Intake(PLAIN, 3), ViewSettings(scale=1.0))
    assert str(caught.value) == (
        "band 2 has no finite pixel in 1 training images: choose others with model.input.bands, or set "
        "model.input.normalise to none"
    )


def test_channels_of_all_and_the_size_of_a_typical_one() -> None:
    sizes = [(30, 20), (31, 90), (32, 50)]
    mixed = Arrays.of(*(np.zeros((*size, channels), np.uint8) for size, channels in zip(sizes, (1, 3, 1), strict=True)))
    assert typical_image(mixed, range(3), PLAIN) == (3, (32, 50))
    assert typical_image(mixed, range(3), InputSettings(colour="grey"))[0] == 1
    five = Arrays.of(np.zeros((9, 8, 5), np.uint8), np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(ImageError, match=r"must have the same number of channels, got 3 \(1.tif\) and 5 \(0.tif\)"):
        typical_image(five, range(2), PLAIN)


def test_bands_that_an_image_lacks_are_refused_before_a_run(settings_of: Callable[..., Any], tmp_path: Path) -> None:
    settings = settings_of(model={"input": {"bands": [0, 4]}})
    with pytest.raises(ImageError, match=r"^0\.tif: bands must be among 0 … 3, the image's own, got 0, 4: "):
        train(settings, tmp_path / "run", dataset=scenes(), progress=SilentProgress())
    assert not (tmp_path / "run").exists()


def test_a_grey_image_among_hundreds_is_seen() -> None:
    arrays = [np.zeros((9, 8, 3), np.uint8) for _ in range(200)]
    arrays[173] = np.zeros((9, 8, 1), np.uint8)
    arrays[0] = np.zeros((9, 8, 1), np.uint8)
    assert typical_image(Arrays.of(*arrays), range(200), PLAIN)[0] == 3


def test_a_model_keeps_the_statistics_of_its_images(settings_of: Callable[..., Any], tmp_path: Path) -> None:
    data = scenes(8)
    settings = settings_of(model={"input": {"normalise": "bands"}}, training={"epochs": 1})
    train(settings, tmp_path / "run", dataset=data, progress=SilentProgress())
    kept = load_model(tmp_path / "run").normalise
    assert kept is not None
    expected = band_statistics(data, range(8), Intake(PLAIN, 4), settings.model.view)
    assert np.allclose(kept.statistics.mean, expected.mean, rtol=1e-6)
    assert np.allclose(kept.statistics.deviation, expected.deviation, rtol=1e-6)
