"""Cost of each method on the same training images: time, memory, pixels and bytes."""

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from foveate.atomic import replace_file
from foveate.compare.memory import activation_bytes, measured_model, step_growth, step_peak
from foveate.compare.settings import CostSettings
from foveate.compare.trial import Trial, lasting
from foveate.config.serial import to_plain
from foveate.datasets.types import ImageDataset
from foveate.devices import best_device
from foveate.errors import RunError
from foveate.models import Model
from foveate.models.types import Batch
from foveate.pipeline.loader import Loader, Share, epoch_order, shares, split_indices
from foveate.training.run_folder import LASTS, WATCHES, environment
from foveate.training.step import Stepper

Quartiles = tuple[float, float]


@dataclass(frozen=True)
class MethodCost:
    """Cost of a method per image; every method on the same images.

    Attributes:
        train_ms_per_image: median over rounds of a training step per image: view, reading, forward, backward, update.
            The images were seen before, as in every epoch but the first.
        train_ms_quartiles: first and third quartile over rounds.
        predict_ms_per_image: median over rounds of prediction per image, the images opened anew.
        predict_ms_quartiles: first and third quartile over rounds.
        activation_mb_per_image: 10⁶ bytes kept for the backward pass.
        peak_mb: 10⁶ bytes by which a process, or a CUDA device's tensors, grow in training steps of `batch` images;
            None if not measured.
        batch: images per step.
        patches_per_image: full-resolution patches read per prediction.
        pixels_read_share: share of an image's pixels looked at, view included.
        bytes_read_per_image: bytes read from an image's file, or memory, for a prediction.
        parameters: number of trained parameters.
    """

    train_ms_per_image: float
    train_ms_quartiles: Quartiles
    predict_ms_per_image: float
    predict_ms_quartiles: Quartiles
    activation_mb_per_image: float
    peak_mb: float | None
    batch: int
    patches_per_image: float
    pixels_read_share: float
    bytes_read_per_image: float
    parameters: int


def measure_costs(
    trials: Sequence[Trial],
    images: ImageDataset,
    settings: CostSettings,
    check: Callable[[], None] | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, MethodCost]:
    """Measurement of all methods side by side.

    In every round each method takes its turn, and each round begins with another one: what disturbs the machine for a
    while disturbs all alike, and the medians over rounds compare like with like.

    Arguments:
        trials: a finished one of each method, on `images`.
        images: the images; the first training images of the first epoch are used.
        settings: how.
        check: called after every measurement; may raise to stop.
        tell: receives a line for every step of the work.

    Returns:
        Method → cost.
    """
    chosen = epoch_order(split_indices(images, "train"), trials[0].settings.seed, 1)[: settings.batch]
    benches = [_Bench(one, images, chosen) for one in trials]
    times: dict[str, tuple[list[float], list[float]]] = {one.method.name: ([], []) for one in trials}
    total = settings.warm_up + settings.rounds
    tell(f"measuring cost: {total} rounds of {len(benches)} methods on {len(chosen)} images")
    for round_number in range(total):
        turn = round_number % len(benches)
        for bench in benches[turn:] + benches[:turn]:
            found = bench.train(round_number + 1), bench.predict()
            if round_number >= settings.warm_up:
                for kept, seconds in zip(times[bench.name], found, strict=True):
                    kept.append(1e3 * seconds / len(chosen))
            if check is not None:
                check()
    costs = {}
    for bench in benches:
        costs[bench.name] = bench.cost(*times[bench.name], process=settings.process)
        if check is not None:
            check()
    return costs


class _Bench:
    """Bench of one method: everything it needs to be measured."""

    def __init__(self, trial: Trial, images: ImageDataset, indices: Sequence[int]) -> None:
        self.name, self._trial, self._images, self._indices = trial.method.name, trial, images, tuple(indices)
        self._model: Model = measured_model(trial.folder, trial.settings, images, indices)
        self._model.to(best_device())
        self._stepper = Stepper(trial.settings.training, self._model)
        self._plan = shares(indices, trial.method.cost_batch)
        self._training = self._loader(augmented=True)

    def _loader(self, augmented: bool = False) -> Loader:
        settings = self._trial.settings
        return Loader.of(self._model, self._images, settings.seed, settings.augment if augmented else None)

    def train(self, epoch: int) -> float:
        """Seconds of training on the images once."""
        self._wait()
        start = time.perf_counter()
        for share, batch in zip(self._plan, self._training.training(epoch, self._plan), strict=True):
            self._stepper(batch, share, rate=0.0)  # what it costs does not depend on the rate, what it draws does
        self._wait()
        return time.perf_counter() - start

    def predict(self) -> float:
        """Seconds of predicting the images once, each opened anew."""
        loader = self._loader()
        self._wait()
        start = time.perf_counter()
        with self._model.evaluating():
            for batch in loader.evaluation(self._plan):
                self._model(batch.to(self._model.device))
        self._wait()
        return time.perf_counter() - start

    def cost(self, training: Sequence[float], prediction: Sequence[float], process: bool) -> MethodCost:
        """Everything else, and the times summed up."""
        trial, model = self._trial, self._model
        patches, share, read = self._looked_at()
        first: Share = self._plan[0]
        (batch,) = self._loader(augmented=True).training(1, [first])
        activations = activation_bytes(model, batch.to(model.device), trial.settings.training.mixed_precision)
        return MethodCost(
            train_ms_per_image=statistics.median(training),
            train_ms_quartiles=_quartiles(training),
            predict_ms_per_image=statistics.median(prediction),
            predict_ms_quartiles=_quartiles(prediction),
            activation_mb_per_image=activations / len(batch) / 1e6,
            peak_mb=self._peak() if process or model.device.type == "cuda" else None,
            batch=trial.method.cost_batch,
            patches_per_image=patches,
            pixels_read_share=share,
            bytes_read_per_image=read,
            parameters=model.parameter_count,
        )

    def _looked_at(self) -> tuple[float, float, float]:
        """Patches, share of pixels and bytes read per image, of predictions on images opened anew."""
        model = self._model
        patches, pixels, read = 0.0, 0.0, 0.0
        with model.evaluating():
            for batch in self._loader().evaluation(self._plan):
                output = model(batch.to(model.device))
                counts = output.patches_read.tolist()
                patches += sum(counts)
                pixels += sum(_shares(model, batch, counts))
                read += sum(source.bytes_read for source in batch.sources)
        count = len(self._indices)
        return patches / count, pixels / count, read / count

    def _peak(self) -> float | None:
        settings, job = self._trial.settings, (self._images, self._plan[0].indices, self._trial.method.cost_batch)
        if self._model.device.type == "cuda":
            grown: int | None = step_growth(self._model, settings, *job)
        else:
            grown = step_peak(self._trial.folder, settings, *job)
        return None if grown is None else grown / 1e6

    def _wait(self) -> None:
        if self._model.device.type != "cpu":
            torch.accelerator.synchronize()


def pixels_read_share(model: Model, batch: Batch) -> float:
    r"""Share of an image's pixels that a prediction looks at, view included.

    .. math:: \min\Bigl(1, \frac{n\,h_p w_p + h_v w_v}{H W}\Bigr)

    with n patches of h_p × w_p pixels, a view of h_v × w_v (none, if the model wants none) and an image of H × W; the
    mean over the batch. Pixels that patches share count as often as they are read, up to the whole. It says what a
    pyramid would have to deliver; a file without one is decoded further.

    Arguments:
        model: the model.
        batch: images, on the model's device.
    """
    with model.evaluating():
        counts = model(batch).patches_read.tolist()
    return sum(_shares(model, batch, counts)) / len(batch)


def _shares(model: Model, batch: Batch, patches: Sequence[int]) -> list[float]:
    patch = math.prod(model.patch) if model.patch else 0
    views = [0 if model.view is None else math.prod(size) for size in batch.view_sizes]
    return [
        min(1.0, (count * patch + view) / math.prod(source.size))
        for count, view, source in zip(patches, views, batch.sources, strict=True)
    ]


def _quartiles(values: Sequence[float]) -> Quartiles:
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def machine() -> dict[str, Any]:
    """Machine that costs are measured on: processor, cores, threads, versions and date; no name of machine or user."""
    import psutil

    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = [line for line in information.read_text(errors="replace").splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "processor": model,
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
    }


def _determining(trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Method → what determines its cost: everything about a run but how long it lasts and where it begins."""
    determining = {}
    for trial in trials:
        plain = lasting(trial.settings)
        for key in (*LASTS, *WATCHES):
            del plain["training"][key]
        del plain["seed"]
        determining[trial.method.name] = {"batch": trial.method.cost_batch, **plain}
    return determining


def write_costs(
    path: Path, costs: Mapping[str, MethodCost], trials: Sequence[Trial], settings: CostSettings
) -> dict[str, Any]:
    """JSON of the costs, written: the machine, what was measured how, and what came of it.

    Returns:
        The machine.
    """
    place = machine()
    plain = {
        "machine": place,
        "how": to_plain(settings),
        "methods": {name: {**asdict(costs[name]), "settings": what} for name, what in _determining(trials).items()},
    }
    replace_file(path, (json.dumps(plain, indent=2) + "\n").encode())
    return place


def read_costs(
    path: Path, trials: Sequence[Trial], settings: CostSettings
) -> tuple[dict[str, MethodCost], dict[str, Any]] | None:
    """JSON of the costs, read: these and the machine they were measured on; None if not of these methods.

    Raises:
        RunError: the file is damaged.
    """
    if not path.exists():
        return None
    names = {field.name for field in fields(MethodCost)}
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        found = plain["methods"]
        same = {**plain["how"], "relative_to": settings.relative_to} == to_plain(settings)
        wanted = _determining(trials)
        if not same or any(name not in found or found[name]["settings"] != wanted[name] for name in wanted):
            return None
        costs = {}
        for name in wanted:
            values = {key: value for key, value in found[name].items() if key in names}
            for key in ("train_ms_quartiles", "predict_ms_quartiles"):
                values[key] = tuple(values[key])
            costs[name] = MethodCost(**values)
        return costs, plain["machine"]
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is damaged: delete it, or measure again with --force-cost") from error
