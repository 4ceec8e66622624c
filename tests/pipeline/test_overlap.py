"""Neither networks nor reading wait for each other: shown with a network and images that sleep, as a GPU and a disk.

What sleeps leaves the cores alone, so that the test says the same on any machine that is not out of breath.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foveate.config.settings import AttentionSettings, ModelSettings, ViewSettings
from foveate.config.training import TrainingSettings
from foveate.datasets.types import Example
from foveate.images import ArraySource, Source
from foveate.images.source import Known
from foveate.models import Model, base, build_model
from foveate.models.patch_reading import PatchReading
from foveate.models.types import DrawOptions
from foveate.pipeline.loader import Loader, shares
from foveate.predict import Row
from foveate.predict.predict import look_by_batches
from foveate.threads import set_reading_threads
from foveate.training.step import Stepper

IMAGES, BATCH, PATCHES, THREADS = 96, 32, 4, 4
READ, VIEW = 0.064, 0.096
"""Seconds for the patches of an image, and for its view."""
READING = (READ + VIEW) / THREADS
"""Seconds that reading takes an image, with nothing else to do."""


class Slow(ArraySource):
    """An image that takes its time, as a far one does."""

    @property
    def threaded(self) -> bool:
        return True

    def view(self, *arguments: Any) -> np.ndarray:
        time.sleep(VIEW)
        return super().view(*arguments)

    def read_known(self, *arguments: Any) -> list[Known]:
        time.sleep(READ)
        return super().read_known(*arguments)


@dataclass(frozen=True)
class SlowImages:
    examples: tuple[Example, ...] = tuple(Example(f"image{i}", i % 2) for i in range(IMAGES))
    classes: tuple[str, ...] = ("a", "b")
    multi_label: bool = False

    def open(self, index: int) -> Source:
        return Slow(np.full((60, 80, 1), index, np.uint8))


class Asleep(nn.Module):
    """A network that only sleeps, a while for each patch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, patches: Tensor) -> Tensor:
        time.sleep(self.seconds * len(patches) / PATCHES)
        return patches[:, :1, 0, 0] * self.weight


@pytest.fixture(autouse=True)
def _threads() -> Any:
    set_reading_threads(THREADS)
    yield
    set_reading_threads(None)


def model_of(seconds: float) -> tuple[Model, Asleep]:
    settings = ModelSettings(
        view=ViewSettings(longest_side=8),
        patch=(8, 6),
        patches=PATCHES,
        attention=AttentionSettings(widths=(2,), stride=1),
    )
    network = Asleep(0.0)
    model = build_model(settings, ("a", "b"), 1, seed=0, features=network)
    network.seconds = seconds
    return model, network


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_a_training_step_takes_no_longer_than_its_network_or_its_reading(share: float) -> None:
    """`share` is the network's time over the reading's."""
    model, network = model_of(share * READING)
    stepper = Stepper(replace(TrainingSettings(), parts=8), model)
    loader = Loader(SlowImages(), model.view, seed=0)
    plan = shares(range(IMAGES), BATCH)
    stepper(next(loader.training(1, plan[:1])), plan[0])  # the first step is slow for other reasons
    took = []
    for epoch in range(2):
        batches = loader.training(epoch, plan)
        stepper(next(batches), plan[0])
        start = time.perf_counter()
        for part, batch in zip(plan[1:], batches, strict=True):
            stepper(batch, part)
        took.append((time.perf_counter() - start) / (IMAGES - BATCH))
    assert min(took) <= 1.15 * max(READING, network.seconds), took


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_prediction_takes_no_longer_than_its_network_or_its_reading(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_on_a_gpu(*given: Any) -> PatchReading:
        return PatchReading(*given[:-1], ahead=True)

    monkeypatch.setattr(base, "PatchReading", as_on_a_gpu)
    model, network = model_of(share * READING)
    model.eval()
    rows = [Row(str(index), lambda index=index: SlowImages().open(index)) for index in range(IMAGES)]
    took = []
    for _ in range(2):
        start = time.perf_counter()
        with model.in_evaluation_mode():
            seen = sum(1 for _ in look_by_batches(model, rows, DrawOptions(), 8))
        took.append((time.perf_counter() - start) / IMAGES)
        assert seen == IMAGES
    # the first views and the last batch have nobody to hide behind
    assert min(took) <= 1.15 * max(READING, network.seconds) + (8 * VIEW / THREADS + 8 * network.seconds) / IMAGES, took
