"""Patches that settled predictions save, against fixed numbers: `python benchmarks/settled.py [IMAGES]`.

The shipped model on canvases that it never saw. A row for each fixed number of patches, and for each confidence at
which `foveate predict --max-patches 160 --confidence C` stops: error with its 95 % interval, mean patches, share of the
images whose answer was settled, and how often the answer is that of 160 patches with the same draws.
"""

import sys
import time
from collections.abc import Iterable

import torch

from foveate import load_model
from foveate.config.settings import DataSettings
from foveate.datasets import open_dataset
from foveate.datasets.types import ImageDataset
from foveate.evaluation.intervals import wilson_interval
from foveate.models import Model
from foveate.models.types import DrawOptions, Prediction

MOST = 160
FIRST = 5
"""Patches of the first round, and the fewest that are tried."""
FIXED = (FIRST, 10, 20, 40, MOST)
CONFIDENCES = (0.8, 0.9, 0.95, 0.99)


def main(images: int = 200) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model = load_model("megapixel-mnist")
    dataset = open_dataset(
        DataSettings(source="megapixel-mnist", test_images=images, train_images=20, generator_seed=2026), seed=0
    )
    indices = [number for number, one in enumerate(dataset.examples) if one.split == "test"][:images]
    truth = [dataset.classes[int(str(dataset.examples[index].label))] for index in indices]
    print(f"{'':22}  error (95 %)             patches  settled  as with {MOST}  CPU s an image")
    reference: list[Prediction] = []
    for patches in reversed(FIXED):
        model.patches = patches
        found, seconds = predictions(model, dataset, indices, DrawOptions())
        reference = reference or found
        tell(f"{patches} patches", found, truth, reference, seconds)
    model.patches = FIRST
    for confidence in CONFIDENCES:
        options = DrawOptions(max_patches=MOST, confidence=confidence)
        found, seconds = predictions(model, dataset, indices, options)
        tell(f"until settled at {confidence}", found, truth, reference, seconds)


def predictions(
    model: Model, dataset: ImageDataset, indices: Iterable[int], options: DrawOptions
) -> tuple[list[Prediction], float]:
    """Predictions, and the CPU seconds of all together."""
    began = time.process_time()
    return [model.look(dataset.open(index), options).prediction for index in indices], time.process_time() - began


def tell(name: str, found: list[Prediction], truth: list[str], reference: list[Prediction], seconds: float) -> None:
    """Print a row."""
    n = len(found)
    errors = sum(one.predicted != label for one, label in zip(found, truth, strict=True))
    low, high = wilson_interval(errors, n)
    patches = sum(one.patches for one in found) / n
    settled = f"{sum(bool(one.settled) for one in found) / n:7.3f}" if found[0].settled is not None else "      –"
    same = sum(one.predicted == other.predicted for one, other in zip(found, reference, strict=True)) / n
    figures = f"{errors / n:.3f} ({low:.3f} to {high:.3f})  {patches:7.1f}  {settled}  {same:11.3f}  {seconds / n:.3f}"
    print(f"{name:22}  {figures}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
