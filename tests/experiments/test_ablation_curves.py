"""The picture of the ablation is made of what is kept in the repository, and shows every method of it."""

from pathlib import Path
from typing import Any

from PIL import Image

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILE = EXPERIMENTS / "ablation_curves.py"
RESULTS = EXPERIMENTS / "results" / "ablation"


def test_it_draws_every_method(tmp_path: Path, script: Any) -> None:
    shown = {method for methods in script.PANELS.values() for method in methods}
    assert shown | {script.REFERENCE} == {path.name for path in RESULTS.iterdir() if path.is_dir()}
    script.draw(RESULTS, tmp_path / "pictures" / "ablation.png")
    with Image.open(tmp_path / "pictures" / "ablation.png") as picture:
        assert picture.size[0] > picture.size[1] > 600
