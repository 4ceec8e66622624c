"""An epoch over many large files holds no more at its end than after its first steps, and leaves no file open."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from epochs import watched_epoch, write_pyramids

from foveate.datasets import ManifestDataset, read_manifest
from foveate.datasets.types import ImageDataset
from foveate.images import Source

FILES, BATCH = 60, 4
"""Fifteen steps."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Hoarder:
    """The images of a data set, each of which leaves eight megabytes and an open file behind."""

    images: ManifestDataset
    hoard: list[np.ndarray] = field(default_factory=list)
    open_files: list[int] = field(default_factory=list)

    @property
    def examples(self) -> object:
        return self.images.examples

    @property
    def classes(self) -> tuple[str, ...]:
        return self.images.classes

    @property
    def multi_label(self) -> bool:
        return False

    def open(self, index: int) -> Source:
        self.hoard.append(np.ones(2**20))
        self.open_files.append(os.open(self.images.files[index], os.O_RDONLY))
        return self.images.open(index)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramids(tmp_path_factory.mktemp("pyramids") / "images", FILES)


@pytest.mark.parametrize("threads", [1, 4])
def test_memory_stays_flat_and_no_file_stays_open(threads: int, manifest: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list open files")
    found = watched_epoch(manifest, tmp_path / "run", threads, BATCH)
    assert len(found.resident) == FILES // BATCH
    assert found.growth < 0.05
    assert found.after <= found.before + 3  # what torch opens once
    assert max(found.files) <= found.before + 3 * BATCH + 20  # of a batch, and of those read ahead


def test_what_stays_is_seen(manifest: Path, tmp_path: Path) -> None:
    """The same bars, and images that break them."""
    images = read_manifest(manifest)
    assert isinstance(images, ManifestDataset)
    hoarder = Hoarder(images)
    dataset: ImageDataset = hoarder  # type: ignore[assignment]
    try:
        found = watched_epoch(manifest, tmp_path / "run", 0, BATCH, dataset)
    finally:
        for number in hoarder.open_files:
            os.close(number)
    assert found.growth > 0.05
    assert found.after >= found.before + FILES
