"""The default preset on pictures unlike any that it was tuned on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from defects import write_surfaces
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from textures import write_textures

from foveate.config.files import merge_settings, preset
from foveate.datasets import open_dataset
from foveate.evaluation.evaluate import Evaluation, evaluate
from foveate.models import load_model
from foveate.networks.timm import BackboneChoice, stage_maps
from foveate.pipeline.loader import split_indices
from foveate.training.find import Stage
from foveate.training.loop import TrainResult, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def listed(write: Callable[[Path, int], Path], count: int, training: int, folder: Path) -> tuple[Path, list[Path]]:
    """A manifest of files whose folders are their classes, of which the first so many train; and the files."""
    files = sorted(write(folder / "images", count).rglob("*.jpg"), key=lambda path: path.name)
    lines = [f"{path},{path.parent.name},{'test' if number >= training else ''}" for number, path in enumerate(files)]
    manifest = folder / "images.csv"
    manifest.write_text("path,label,split\n" + "\n".join(lines) + "\n")
    return manifest, files


def trained(manifest: Path, folder: Path, stage: Stage = "all") -> tuple[TrainResult, Evaluation, list[int]]:
    """Run of the default preset, what its model makes of the test images, and the numbers of those it learnt from."""
    changes = {"data": {"manifest": str(manifest), "cache_folder": str(folder / "cache")}}
    settings = merge_settings(preset("manifest"), changes)
    result = train(settings, folder / "run", stage=stage)
    dataset = open_dataset(settings.data, settings.seed)
    tested = evaluate(load_model(result.model_folder), dataset, split_indices(dataset, "test"))
    return result, tested, list(split_indices(dataset, "train"))


def mean_features(files: Sequence[Path]) -> np.ndarray:
    """(N, D) features of the preset's eyes, averaged over the whole of each picture."""
    maps = stage_maps(BackboneChoice("timm:tf_efficientnet_lite0", 3, weights="bundled"), (3, 4)).eval()
    rows = []
    for path in files:
        pixels = torch.from_numpy(np.asarray(Image.open(path), np.float32) / 255).permute(2, 0, 1)
        with torch.no_grad():
            rows.append(torch.cat([one.mean((2, 3)) for one in maps(pixels[None])], 1)[0])
    return torch.stack(rows).numpy()


def test_a_defect_of_thirty_pixels_is_found_in_photographs_of_three_megapixels(tmp_path: Path) -> None:
    """150 labelled photographs, half with one small defect: at most one of 60 others is told wrongly."""
    manifest, _ = listed(write_surfaces, 210, 150, tmp_path)
    result, tested, _ = trained(manifest, tmp_path)
    assert result.seconds < 600  # five minutes of two quiet cores
    assert tested.n == 60
    assert tested.error <= 0.03


def test_kinds_of_texture_are_told_as_well_as_by_their_mean_features(tmp_path: Path) -> None:
    """48 labelled pictures of four kinds, none of them a background, each all of one kind; 120 others.

    The linear model of mean features learns from the images that the run learns from, not from those it validates on.
    """
    manifest, files = listed(write_textures, 168, 48, tmp_path)
    _, tested, rows = trained(manifest, tmp_path, stage="find")
    features, labels = mean_features(files), np.array([path.parent.name for path in files])
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features[rows], labels[rows])
    assert tested.n == 120
    assert tested.error <= float((linear.predict(features[48:]) != labels[48:]).mean())
