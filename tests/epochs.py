"""Training epochs over pyramids, watched: memory, open files and seconds, step by step."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from giants import levels_of, write_giant

from foveate.datasets import read_manifest
from foveate.training.config import preset
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.types import ImageDataset

SETTLED = 10
"""The step from which memory must not grow."""


@dataclass
class Watched(SilentProgress):
    """What an epoch took; one entry a step in each list.

    Attributes:
        resident: bytes that this process holds resident.
        shared: the same of this process and its workers together, what n of them share counted 1/n each; 0 where the
            system does not tell.
        files: files and sockets that this process has open.
        at: seconds, of any clock.
        before: files open before the run.
        after: files open after it.
        bytes_read: by this process, of images; views made by workers are not counted.
    """

    resident: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    before: int = 0
    after: int = 0
    bytes_read: int = 0

    def begin(self, total: int, done: int) -> None:  # noqa: ARG002
        self.at.append(time.perf_counter())

    def step(self, record: dict[str, Any]) -> None:  # noqa: ARG002
        self.at.append(time.perf_counter())
        process = psutil.Process()
        self.resident.append(process.memory_info().rss)
        self.shared.append(sum(_proportional(one) for one in [process, *process.children(recursive=True)]))
        self.files.append(process.num_fds())

    def epoch(self, record: dict[str, Any]) -> None:
        self.bytes_read += record["receipt"]["bytes_read"]


def growth(held: Sequence[int]) -> float:
    """How much more is held at most in all steps than at most in those up to `SETTLED`, as a share of that.

    The most, and not what is held at a step: that goes up and down by a tenth with what the allocator keeps of the
    networks' memory.
    """
    return max(held) / max(held[:SETTLED]) - 1


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


def watched_epoch(manifest: Path, run: Path, workers: int = 2, dataset: ImageDataset | None = None) -> Watched:
    """Train the preset `smoke` (ATS-10) for an epoch, in batches of eight.

    Arguments:
        manifest: of the images.
        run: folder of the run.
        workers: processes that make views, beside this one.
        dataset: the images of the manifest, if they are to be opened otherwise.
    """
    settings = preset("smoke")
    training = replace(settings.training, epochs=1, max_steps=None, batch=8, workers=workers)
    settings = replace(settings, training=training)
    watched = Watched(before=psutil.Process().num_fds())
    train(settings, run, dataset=dataset or read_manifest(manifest), progress=watched)
    watched.after = psutil.Process().num_fds()
    return watched


def _proportional(process: psutil.Process) -> int:
    if not Path("/proc/self/smaps_rollup").exists():
        return 0
    return int(process.memory_full_info().pss)
