"""Whether networks wait for reading: a training step, its networks alone and its reading alone; and prediction.

For generated canvases, photographs (JPEG, 2,000 × 1,500) and tiled pyramids, milliseconds an image of
- networks: attention, features, loss, backward, Adam, fed views and patches that were cut beforehand; no prior;
- prior: the contrast prior of the attention, where the model has one;
- views: opening, decoding and making views, by all threads;
- reading: views, and then the patches of the boxes that were drawn, by all threads;
- whole: steps as `foveate train` takes them; and whole ÷ the larger of networks and reading.
Rounds alternate; medians, and the quartiles of the ratio. "asleep" is the same with uniform draws and a feature network
that sleeps, for as long as reading alone takes, and so leaves the cores alone as a GPU does: it shows on any machine
whether anything waits. Then images a second of `foveate predict`, and for photographs its time ÷ Pillow's to decode
them with as many threads. On a GPU where there is one.

    python benchmarks/pipeline.py [--only canvases] [--batch 32] [--batches 4] [--rounds 5] [--threads 2] [--json]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from giants import write_stored
from photographs import write_photographs

from foveate.config.files import preset
from foveate.config.settings import DataSettings
from foveate.config.training import RunSettings
from foveate.datasets import open_dataset, read_manifest
from foveate.datasets.types import ImageDataset
from foveate.devices import keep_freed_memory
from foveate.images.tensors import read_patches, to_unit
from foveate.models import build_model
from foveate.models.sampling import footprints
from foveate.models.types import Batch
from foveate.pipeline.loader import Loader, LoadOptions, shares
from foveate.predict import Row, predict_rows
from foveate.threads import in_threads, reading_threads, set_reading_threads
from foveate.training.step import Stepper

KINDS = ("canvases", "canvases, paper's networks", "photographs", "pyramids")
SIDE = 8192
"""Height and width of a pyramid."""


class Asleep(nn.Module):
    """Feature network that sleeps so many seconds an image: it stands for a device that the host only waits for."""

    def __init__(self, patches: int, seconds: float = 0.0) -> None:
        super().__init__()
        self.patches, self.seconds = patches, seconds
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, patches: Tensor) -> Tensor:
        """Sleep, and hardly look at the patches."""
        time.sleep(self.seconds * len(patches) / self.patches)
        return patches[:, :1, 0, 0] * self.weight


class Bench:
    """Images of one kind, a model for them, and the stages of its steps, each timed by itself."""

    def __init__(self, kind: str, folder: Path, batch: int, batches: int, asleep: bool = False) -> None:
        settings, self.dataset = images_of(kind, folder, batch * batches)
        if asleep:
            settings = replace(settings, model=replace(settings.model, name="uniform"))
        network = Asleep(settings.model.patches) if asleep else None
        self.network = network
        channels = self.dataset.open(0).channels
        model = build_model(settings.model, self.dataset.classes, channels, seed=0, features=network)
        self.settings, self.model = settings, model
        training = settings.training if not asleep else replace(settings.training, parts=8)
        self.stepper = Stepper(training, model)
        self.plan = shares(range(batch * batches), batch)
        self.images = batch * batches
        self.cut = list(self._cut())

    def _loader(self, ahead: int = 2) -> Loader:
        """A loader that has seen no image yet: nothing is kept from epoch to epoch."""
        model, settings = self.model, self.settings
        loading = LoadOptions(ahead=ahead)
        return Loader(self.dataset, model.view, 0, model.intake, settings.augment, loading, model.reads_patches)

    def _cut(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        for batch in self._loader().training(1, self.plan):
            with torch.no_grad():
                output = self.model(batch.to(self.model.device))
            assert output.boxes is not None
            patches = to_unit(read_patches(batch.sources, output.boxes).to(self.model.device))
            yield batch.to(self.model.device), patches, output.boxes

    def networks(self) -> None:
        """Attention, features, loss, backward, update, on what was cut beforehand."""
        model, optimizer = self.model, self.stepper.optimizer
        model.train()
        for batch, patches, _ in self.cut:
            views = batch.views.contiguous(memory_format=torch.channels_last)
            scores = (views.mean(1) if self.network is not None else model.attention(views)).flatten(1)
            features = model.features(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
            mean = (scores[:, : patches.shape[1]].softmax(1)[:, :, None] * features).sum(1)
            nn.functional.cross_entropy(model.head(mean), batch.labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def prior(self) -> None:
        """The contrast prior, of views that are there."""
        model = self.model
        for batch, _, _ in self.cut if model.prior is not None else ():
            cells = model.grid.cell_mask(batch.mask, batch.view_sizes)
            where = (batch.mask, cells, batch.view_sizes, footprints(batch, model.settings.patch))
            model.prior(batch.views, *where, model.attention.stride, model.grid.field)

    def views(self) -> list[Batch]:
        """Images opened, decoded and seen, by all threads."""
        return list(self._loader(ahead=len(self.plan)).training(1, self.plan))

    def reading(self) -> None:
        """Views and patches, by all threads."""
        for batch, (_, _, boxes) in zip(self.views(), self.cut, strict=True):
            read_patches(batch.sources, boxes)

    def whole(self) -> None:
        """Steps, as a run takes them."""
        for share, batch in zip(self.plan, self._loader().training(1, self.plan), strict=True):
            self.stepper(batch, share, rate=0.0)

    def predict(self) -> None:
        """Predictions, as `foveate predict` makes them."""
        rows = [Row(str(index), partial(self.dataset.open, index)) for index in range(self.images)]
        predict_rows(self.model, rows, [])

    def decode(self) -> None:
        """Every file decoded to an array by Pillow, by as many threads."""
        files = [self.dataset.open(index).name for index in range(self.images)]
        in_threads(_decoded, files, reading_threads())

    def seconds(self, stage: str) -> float:
        """Seconds an image of a stage."""
        self._wait()
        start = time.perf_counter()
        getattr(self, stage)()
        self._wait()
        return (time.perf_counter() - start) / self.images

    def _wait(self) -> None:
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize()


def _decoded(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def images_of(kind: str, folder: Path, count: int) -> tuple[RunSettings, ImageDataset]:
    """Settings of a run, and images for it."""
    if kind.startswith("canvases"):
        settings = preset("megapixel-mnist-paper" if "paper" in kind else "megapixel-mnist")
        data = DataSettings(source="megapixel-mnist", train_images=count, test_images=10, validation=0.0)
        return replace(settings, model=replace(settings.model, patches=10)), open_dataset(data, seed=0)
    settings = preset("manifest")
    if kind == "photographs":
        write_photographs(folder / kind, count)
    else:
        (folder / kind / "b").mkdir(parents=True)
        (folder / kind / "a").mkdir()
        one = write_stored(folder / "one.tif", SIDE, levels=4)
        for number in range(count):
            (folder / kind / "ab"[number % 2] / f"{number:03d}.tif").hardlink_to(one)
    return with_stride(settings), read_manifest(folder / kind)


def with_stride(settings: RunSettings) -> RunSettings:
    """The preset for photographs with its stride settled, as a run settles it by the images' size."""
    attention = replace(settings.model.attention, stride=12)
    return replace(settings, model=replace(settings.model, attention=attention))


def measured(bench: Bench, rounds: int, stages: tuple[str, ...]) -> dict[str, list[float]]:
    """Stage → seconds an image, round by round, in turn; one round before that is not counted."""
    times: dict[str, list[float]] = {stage: [] for stage in stages}
    for number in range(rounds + 1):
        for stage in stages:
            took = bench.seconds(stage)
            if number:
                times[stage].append(took)
    return times


def summary(times: dict[str, list[float]], larger: Callable[[int], float]) -> dict[str, Any]:
    """Medians in milliseconds an image, and the ratio of the whole to what nothing can hide."""
    ratios = sorted(whole / larger(number) for number, whole in enumerate(times["whole"]))
    quarter = len(ratios) // 4
    medians = {f"{stage}_ms": 1e3 * statistics.median(values) for stage, values in times.items()}
    return medians | {"ratio": statistics.median(ratios), "ratio_quartiles": [ratios[quarter], ratios[-quarter - 1]]}


def steps(kind: str, folder: Path, batch: int, batches: int, rounds: int) -> dict[str, Any]:
    """Everything that is measured of one kind of images."""
    bench = Bench(kind, folder / "awake", batch, batches)
    times = measured(bench, rounds, ("networks", "prior", "views", "reading", "whole"))
    found = summary(times, lambda number: max(times["networks"][number], times["reading"][number]))
    asleep = Bench(kind, folder / "asleep", batch, batches, asleep=True)
    assert asleep.network is not None
    asleep.network.seconds = statistics.median(times["reading"])
    slept = measured(asleep, rounds, ("networks", "reading", "whole"))
    found["asleep"] = summary(slept, lambda number: max(slept["networks"][number], slept["reading"][number]))
    predicted = measured(bench, rounds, ("predict", "decode") if kind == "photographs" else ("predict",))
    found["predict_images_per_second"] = 1 / statistics.median(predicted["predict"])
    if "decode" in predicted:
        both = zip(predicted["predict"], predicted["decode"], strict=True)
        found["predict_over_pillow"] = statistics.median(one / other for one, other in both)
    return found


def main() -> None:
    """Measure each kind of images, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=KINDS, help="one kind of images (default: all)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="threads that read (default: one a core)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    set_reading_threads(arguments.threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
    found: dict[str, Any] = {
        "device": device,
        "reading_threads": reading_threads(),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": arguments.batch,
        "kinds": {},
    }
    for kind in KINDS if arguments.only is None else (arguments.only,):
        with tempfile.TemporaryDirectory() as folder:
            found["kinds"][kind] = steps(kind, Path(folder), arguments.batch, arguments.batches, arguments.rounds)
        if not arguments.json:
            show(kind, found["kinds"][kind])
    if arguments.json:
        print(json.dumps(found, indent=2))


def show(kind: str, one: dict[str, Any]) -> None:
    """A few lines for one kind of images."""
    for name, part in ((kind, one), ("  asleep", one["asleep"])):
        stages = ", ".join(f"{stage} {part[f'{stage}_ms']:.2f}" for stage in ("networks", "reading", "whole"))
        low, high = part["ratio_quartiles"]
        print(f"{name}: {stages} ms/image; whole ÷ larger {part['ratio']:.3f} ({low:.3f}–{high:.3f})")
    prior = f"prior {one['prior_ms']:.2f} ({100 * one['prior_ms'] / one['whole_ms']:.0f} % of whole)"
    print(f"  views {one['views_ms']:.2f} ms/image; {prior}; predict {one['predict_images_per_second']:.1f} images/s")
    if "predict_over_pillow" in one:
        print(f"  predict ÷ Pillow's decode with as many threads {one['predict_over_pillow']:.2f}")


if __name__ == "__main__":
    main()
