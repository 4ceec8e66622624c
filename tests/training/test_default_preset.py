"""The default preset on pictures unlike any that it was tuned on."""

from pathlib import Path

import pytest
from defects import write_surfaces

from foveate.config.files import merge_settings, preset
from foveate.datasets import open_dataset
from foveate.evaluation.evaluate import evaluate
from foveate.models import load_model
from foveate.pipeline.loader import split_indices
from foveate.training.loop import train


@pytest.mark.slow
def test_a_defect_of_thirty_pixels_is_found_in_photographs_of_three_megapixels(tmp_path: Path) -> None:
    """150 labelled photographs, half with one small defect: at most 2 of 60 others are told wrongly."""
    folder = write_surfaces(tmp_path / "surfaces", 210)
    rows = sorted(folder.rglob("*.jpg"), key=lambda path: path.name)
    lines = [f"{path},{path.parent.name},{'test' if number >= 150 else ''}" for number, path in enumerate(rows)]
    manifest = tmp_path / "surfaces.csv"
    manifest.write_text("path,label,split\n" + "\n".join(lines) + "\n")
    changes = {"data": {"manifest": str(manifest), "cache_folder": str(tmp_path / "cache")}}
    settings = merge_settings(preset("manifest"), changes)
    result = train(settings, tmp_path / "run")
    assert result.seconds < 600  # five minutes of two quiet cores
    dataset = open_dataset(settings.data, settings.seed)
    tested = evaluate(load_model(result.model_folder), dataset, split_indices(dataset, "test"))
    assert tested.n == 60
    assert tested.error <= 0.034
