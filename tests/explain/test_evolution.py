"""The picture and the animation of the attention: drawn from what a run kept, and each map where its image is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from foveate.config.settings import AttentionSettings, DataSettings, ModelSettings, ViewSettings
from foveate.config.training import RunSettings, TrainingSettings
from foveate.datasets import open_dataset
from foveate.errors import ConfigError, DataError, RunError
from foveate.explain import animate_evolution, draw_evolution
from foveate.training.attention_log import keep_watched
from foveate.training.loop import train
from foveate.training.progress import SilentProgress

SETTINGS = RunSettings(
    data=DataSettings(
        source="megapixel-mnist", canvas=(120, 170), train_images=16, test_images=2, noise=2, validation=0.25
    ),
    model=ModelSettings(
        view=ViewSettings(scale=0.25), patch=(30, 26), patches=3, attention=AttentionSettings(widths=(4,), stride=4)
    ),
    training=TrainingSettings(epochs=3, batch=8, watch=2),
)


def test_a_run_that_watches_can_be_drawn(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "attention").iterdir())
    assert kept == [f"epoch-{epoch:03d}.npz" for epoch in range(4)]
    dataset = open_dataset(SETTINGS.data, SETTINGS.seed)
    draw_evolution(tmp_path / "run", dataset, tmp_path / "wide.png", columns=4)
    draw_evolution(tmp_path / "run", dataset, tmp_path / "narrow.png", columns=2)
    wide, narrow = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("wide", "narrow"))
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] / narrow.shape[1] == pytest.approx(5 / 3, abs=0.02)
    assert len(np.unique(wide.reshape(-1, 3), axis=0)) > 50  # maps in colour, not empty panels


def test_a_model_that_reads_every_patch_has_a_map_over_the_image(tmp_path: Path) -> None:
    settings = replace(SETTINGS, model=replace(SETTINGS.model, name="deep-mil"))
    settings = replace(settings, training=replace(settings.training, epochs=1))
    train(settings, tmp_path / "run")
    with np.load(tmp_path / "run" / "attention" / "epoch-001.npz") as kept:
        assert kept["attention"].shape == (2, 4, 7)
        assert "boxes" not in kept
    draw_evolution(tmp_path / "run", open_dataset(settings.data, settings.seed), tmp_path / "maps.png")
    drawn = np.asarray(Image.open(tmp_path / "maps.png").convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_a_run_without_maps_is_refused_in_one_line(tmp_path: Path) -> None:
    dataset = open_dataset(SETTINGS.data, SETTINGS.seed)
    with pytest.raises(
        RunError, match=r"holds no attention maps: train a model that attends with --training\.watch 4$"
    ):
        draw_evolution(tmp_path, dataset, tmp_path / "picture.png")


def hot(name: str, cell: tuple[int, int], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """What a run keeps of one image all of whose attention is in one cell of 6 × 8."""
    attention = np.full((1, 6, 8), 1e-3, np.float32)
    attention[0][cell] = 1.0
    extent = np.array([[0.0, 0.0, *size]])
    return {"ids": np.array([name]), "attention": attention, "cells": np.array([[6, 8]]), "extent": extent}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A run that kept maps of one image: all in the top left cell, then in the bottom right one, then in the middle."""
    dataset = open_dataset(SETTINGS.data, SETTINGS.seed)
    for epoch, cell in {0: (0, 0), 5: (5, 7), 10: (3, 4)}.items():
        keep_watched(tmp_path / "run", epoch, hot(dataset.examples[0].id, cell, dataset.open(0).size))
    return tmp_path / "run"


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as animation:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(animation)]


@pytest.mark.parametrize("ending", ["png", "gif", "webp"])
def test_a_frame_per_epoch_shows_the_map_over_the_image(ending: str, kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"moving.{ending}"
    animate_evolution(kept, open_dataset(SETTINGS.data, SETTINGS.seed), path, seconds=0.5)
    frames = frames_of(path)
    assert len(frames) == 3
    assert frames[0].shape == (260, 200, 3)
    moved = (frames[0] - frames[1]).sum(2)[60:]  # without the titles: the image, 120 × 170, stands in 137 × 194 pixels
    for pixel, (row, column) in ((moved.argmax(), (0, 0)), (moved.argmin(), (5, 7))):
        down, along = np.unravel_index(pixel, moved.shape)
        assert int((down + 60 - (160 - 137 / 2)) / 137 * 6) == row
        assert int(along / 194 * 8) == column
    with Image.open(path) as animation:
        times = [(frame.load(), frame.info["duration"])[1] for frame in ImageSequence.Iterator(animation)]
    assert times == [500, 500, 2000]


def test_the_animation_of_a_run_has_all_its_images_and_boxes(tmp_path: Path) -> None:
    settings = replace(SETTINGS, training=replace(SETTINGS.training, watch=3, watch_every=2))
    train(settings, tmp_path / "run", progress=SilentProgress())
    animate_evolution(tmp_path / "run", open_dataset(settings.data, settings.seed), tmp_path / "moving.png")
    frames = frames_of(tmp_path / "moving.png")
    assert len(frames) == 3  # before training, after epochs 2 and 3
    assert frames[0].shape == (490, 400, 3)  # two by two panels, one of them empty
    for frame in frames:
        assert (frame[300:, 210:] == 255).all()
        assert (frame[60:200, :190] != 255).any()


def test_images_watched_from_the_start_are_shown(kept: Path, tmp_path: Path) -> None:
    dataset = open_dataset(SETTINGS.data, SETTINGS.seed)
    both = [hot(dataset.examples[index].id, (1, 1), dataset.open(index).size) for index in (0, 1)]
    keep_watched(kept, 11, {key: np.concatenate([one[key] for one in both]) for key in both[0]})
    animate_evolution(kept, dataset, tmp_path / "moving.png")
    assert [frame.shape for frame in frames_of(tmp_path / "moving.png")] == [(260, 200, 3)] * 4
    keep_watched(kept, 12, both[1])
    with pytest.raises(RunError, match="watched other images in every epoch: train anew"):
        animate_evolution(kept, dataset, tmp_path / "moving.png")


def test_what_cannot_be_animated_is_said_in_one_line(kept: Path, tmp_path: Path) -> None:
    dataset = open_dataset(SETTINGS.data, SETTINGS.seed)
    with pytest.raises(ConfigError, match=r"^an animation is a \.gif, \.png, \.webp file, got film\.avi: choose"):
        animate_evolution(kept, dataset, tmp_path / "film.avi")
    strange = replace(dataset, examples=dataset.examples[1:])  # type: ignore[type-var]
    with pytest.raises(DataError, match="is not among its images: give the images as they were"):
        draw_evolution(kept, strange, tmp_path / "picture.png")
