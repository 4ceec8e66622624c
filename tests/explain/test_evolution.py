"""The picture of the attention: drawn from what a run kept, and each map where its image is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.datasets import open_dataset
from foveate.errors import RunError
from foveate.explain import draw_evolution
from foveate.settings import AttentionSettings, DataSettings, ModelSettings, ViewSettings
from foveate.training.config import RunSettings, TrainingSettings
from foveate.training.loop import train

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
