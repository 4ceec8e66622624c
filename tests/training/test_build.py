"""What is learnt of the training images before a model is built."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from squares import make_squares

from foveate.config.settings import InputSettings, ViewSettings
from foveate.datasets.types import Example
from foveate.errors import ImageError
from foveate.images import ArraySource, Source
from foveate.models import Intake, load_model
from foveate.models.gmic import Gmic
from foveate.training import build as survey
from foveate.training.build import band_statistics, build_for, typical_image
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
    assert typical_image(mixed, range(3), PLAIN) == (3, (32, 50), "")
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


KINDS = {
    "grey": ((1,), "uint8", ""),
    "RGB": ((3,), "uint8", ""),
    "grey and RGB": ((1, 3), "uint8", ""),
    "a satellite scene": ((4,), "uint16", "uint16"),
    "a microscope's": ((1,), "uint16", "uint16"),
    "floating point": ((3,), "float32", "float32"),
    "many bands": ((5,), "uint8", "of 5 bands"),
}


class Listening(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_eight_bit_grey_or_rgb_is_normalised_and_said_to_be(
    kind: str, settings_of: Callable[..., Any], tmp_path: Path
) -> None:
    channels, dtype, reason = KINDS[kind]
    noise = np.random.default_rng(3)
    arrays = [noise.integers(0, 200, (30, 40, channels[i % len(channels)])).astype(dtype) for i in range(6)]
    settings, progress = settings_of(training={"epochs": 1}), Listening()
    assert settings.model.input.normalise == "auto"
    train(settings, tmp_path / "run", dataset=Arrays.of(*arrays), progress=progress)
    model = load_model(tmp_path / "run")
    assert model.settings.input.normalise == ("bands" if reason else "none")
    assert (model.normalise is not None) == bool(reason)
    notes = [line for line in progress.said if "normalised" in line]
    assert notes == ([f"note: images are {reason}: {NORMALISED}"] if reason else [])
    if dtype == "uint16":
        view = torch.from_numpy(arrays[0]).float().permute(2, 0, 1)[None] / 65535
        seen = model.normalise(view)  # type: ignore[misc]
        assert float(seen.std()) > 0.5  # divided by 65535 alone it is 0.0009


NORMALISED = "each band is normalised by its mean and deviation over the training images (model.input.normalise bands)"


def test_runs_from_before_go_on_and_answer_as_they_were(settings_of: Callable[..., Any], tmp_path: Path) -> None:
    data = Arrays.of(*np.random.default_rng(3).integers(0, 200, (6, 30, 40, 4), np.uint16))
    old = settings_of(model={"input": {"normalise": "none"}}, training={"epochs": 2})
    train(replace(old, training=replace(old.training, epochs=1)), tmp_path / "run", dataset=data)
    progress = Listening()
    now = settings_of(training={"epochs": 2})  # which leaves the choice open
    train(now, tmp_path / "run", resume=True, dataset=data, progress=progress)
    assert not [line for line in progress.said if "normalised" in line]
    again = load_model(tmp_path / "run")
    assert (again.settings.input.normalise, again.normalise) == ("none", None)
    assert "normalise: none" in (tmp_path / "run" / "config.yaml").read_text()
    config = tmp_path / "run" / "model" / "config.json"
    plain = json.loads(config.read_text())
    assert plain["settings"]["input"].pop("normalise") == "none"
    config.write_text(json.dumps(plain))  # a folder from before there was a choice
    assert load_model(tmp_path / "run").normalise is None


@pytest.mark.parametrize(
    ("classes", "named", "background"),
    [(("none", "red"), "auto", "none"), (("blue", "red"), "auto", None), (("blue", "red"), "red", "red")],
)
def test_gmic_has_no_map_of_the_class_that_shows_nothing(
    classes: tuple[str, str], named: str, background: str | None, settings_of: Callable[..., Any]
) -> None:
    data = replace(make_squares(4), classes=classes)
    settings = settings_of(data={"background": named}, model={"name": "gmic"})
    built = build_for(settings, data, range(4), Accelerator(cpu=True))
    assert built.settings.evidence.background == background
    assert isinstance(built, Gmic)
    assert built.saliency is not None
    assert built.saliency.out_features == (2 if background is None else 1)
