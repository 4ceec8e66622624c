"""Training epochs over pyramids, watched: memory, open files and seconds, step by step."""

import ctypes
import gc
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from giants import levels_of, write_giant

from foveate.config.files import preset
from foveate.datasets import read_manifest
from foveate.datasets.types import ImageDataset
from foveate.training.loop import train
from foveate.training.progress import Plan, SilentProgress

SETTLED = 10
"""The step from which memory must not grow."""


@dataclass
class Watched(SilentProgress):
    """What an epoch took; one entry a step in each list.

    Attributes:
        resident: bytes that this process holds resident. They go up and down by a tenth, with what the C library keeps
            of memory that the networks have let go of.
        used: the same without what is kept so: after step `SETTLED`, and after the last one.
        files: files and sockets that this process has open.
        at: seconds, of any clock.
        before: files open before the run.
        after: files open after it.
        bytes_read: of images.
    """

    resident: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    before: int = 0
    after: int = 0
    bytes_read: int = 0
    total: int = 0

    @property
    def growth(self) -> float:
        """How much more is used at the end than when things had settled, as a share of that."""
        return self.used[1] / self.used[0] - 1

    def begin(self, plan: Plan) -> None:
        self.total = plan.total
        self.at.append(time.perf_counter())

    def step(self, record: dict[str, Any]) -> None:
        self.at.append(time.perf_counter())
        process = psutil.Process()
        self.resident.append(process.memory_info().rss)
        self.files.append(process.num_fds())
        if record["step"] in (SETTLED, self.total):
            _give_back()
            self.used.append(process.memory_info().rss)

    def epoch(self, record: dict[str, Any]) -> None:
        self.bytes_read += record["receipt"]["bytes_read"]


def _give_back() -> None:
    """Have the C library hand the memory that nobody uses back to the system, where it knows how to."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def write_pyramids(folder: Path, count: int, tiles: int = 79) -> Path:
    """A manifest of square pyramids of `tiles` × `tiles` tiles of 256×256 pixels, a few hundred kilobytes each."""
    folder.mkdir()
    write_giant(folder / "0.tif", tiles, tiles, levels=levels_of(256 * tiles))
    for number in range(1, count):
        shutil.copy(folder / "0.tif", folder / f"{number}.tif")
    rows = [f"{number}.tif,{('left', 'right')[number % 2]},train" for number in range(count)]
    manifest = folder / "images.csv"
    manifest.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return manifest


def watched_epoch(
    manifest: Path, run: Path, threads: int | None = None, batch: int = 8, dataset: ImageDataset | None = None
) -> Watched:
    """Train the preset `smoke` (ATS-10) for an epoch.

    Arguments:
        manifest: of the images.
        run: folder of the run.
        threads: that read; one a core if None.
        batch: images of a step; there must be more than `SETTLED` steps.
        dataset: the images of the manifest, if they are to be opened otherwise.
    """
    settings = preset("smoke")
    training = replace(settings.training, epochs=1, max_steps=None, batch=batch, threads=threads)
    settings = replace(settings, training=training)
    watched = Watched(before=psutil.Process().num_fds())
    train(settings, run, dataset=dataset or read_manifest(manifest), progress=watched)
    watched.after = psutil.Process().num_fds()
    return watched
