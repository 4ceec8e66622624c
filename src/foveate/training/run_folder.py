"""Run folder: what may be there before a run starts, its metrics log (metrics.jsonl), and what it says about itself."""

import json
import platform
import sys
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file, sweep, writing
from foveate.config.files import changed_keys, load_settings, save_settings
from foveate.config.serial import from_plain
from foveate.config.training import RunSettings
from foveate.errors import RunError
from foveate.evaluation.number_verdict import AnyVerdict
from foveate.evaluation.numbers import AnyEvaluation, NumberEvaluation
from foveate.notebook import History
from foveate.training.checkpoint import Position, State, load_state
from foveate.training.optimisation import Annealed
from foveate.training.step import receipt_record

LASTS = ("epochs", "max_steps", "max_minutes", "patience")
"""Settings of the training that say how long it lasts."""

WATCHES = ("watch", "watch_every", "tensorboard", "log_every")
"""Settings of the training that say what is shown and kept of it on the way."""

KEEPS = ("cache", "cache_folder", "cache_gigabytes", "memory_gigabytes", "tile_gigabytes")
"""Settings of the data that say what is kept of images, on which no result depends."""

SKIPS = ("on_error", "skip_limit")
"""Settings of the training that say what becomes of images that cannot be read."""

FREE = frozenset(f"training.{name}" for name in (*LASTS, *WATCHES, *SKIPS, "threads")) | {
    f"data.{name}" for name in KEEPS
}
"""Settings that may change when a run is resumed."""

PLACES = ("manifest", "published", "images")
"""Settings of the data that say where the images lie, and nothing of what they are."""

_PACKAGES = ("foveate", "torch", "accelerate", "numpy", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class TrainResult:
    """Result of a run.

    Attributes:
        folder: of the run.
        model_folder: of the best model by validation.
        validation_error: of that model; None without validation images.
        verdict: whether it has learnt anything, by these images; None without them.
        epochs: epochs finished.
        steps: steps taken.
        seconds: of training and validation, over all resumptions.
    """

    folder: Path
    model_folder: Path
    validation_error: float | None
    verdict: AnyVerdict | None
    epochs: int
    steps: int
    seconds: float

    @property
    def learnt(self) -> bool | None:
        """Whether the model has learnt anything; None where nothing tells."""
        return None if self.verdict is None else self.verdict.learnt

    @property
    def history(self) -> History:
        """What was measured epoch by epoch, as its folder has it."""
        log = self.folder / "metrics.jsonl"
        chance = None if self.verdict is None else self.verdict.constant
        return History.of(read_metrics(log, "epoch") if log.is_file() else (), chance)

    def _repr_html_(self) -> str:
        """Curves of the history, which a notebook shows."""
        return self.history._repr_html_()


class MetricsLog:
    """Metrics log (JSON lines): appends records to a file; a disabled one writes nothing.

    Arguments:
        path: the file, or None to write nothing (every process but the first).
        length: bytes to keep of what is there already.
    """

    def __init__(self, path: Path | None, length: int = 0) -> None:
        self._path = path
        self.length = length
        """Bytes written so far."""
        if path is not None:
            with writing(path), path.open("ab") as file:
                file.truncate(min(length, file.tell()))

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on disk when this returns."""
        if self._path is None:
            return
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with writing(self._path), self._path.open("ab") as file:
            file.write(line)
        self.length += len(line)


def step_record(position: Position, sums: dict[str, float], rate: float, now: Annealed) -> dict[str, Any]:
    """Metrics record of a step: means over its global batch; "annealed" where something is."""
    images = max(1, sums["images"])  # none where all of a batch were skipped
    return {
        "kind": "step",
        "step": position.step,
        "epoch": position.epoch,
        "loss": sums["loss"] / images,
        "error": sums["errors"] / images,
        "entropy": sums["entropy"] / images,
        "learning_rate": rate,
        "seconds": round(position.seconds, 3),
        **({"annealed": now} if now else {}),
    }


def epoch_record(
    position: Position, result: AnyEvaluation | None, *, rate: float, better: bool, complete: bool
) -> dict[str, Any]:
    """Metrics record of an epoch: means over its images as they were seen in training.

    "loss" is what is minimised; "training_loss" the cross-entropy alone, without class weights and entropy, and so the
    like of "validation_loss". "validation_covered" are the objects that were covered per image, where they are known.
    "attention_warnings" says what is wrong with the attention maps of most validation images, if anything. "receipt"
    says what the steps read of how much, and their seconds by stage. Of numbers "validation_r_squared" is known, errors
    are mean absolute errors in their unit, and losses squared errors in deviations. "training_seconds" are those of its
    steps, "seconds" those of the whole run so far, validation included.

    Arguments:
        position: after the epoch's last step.
        result: its validation, where one was due.
        rate: learning rate of the last step.
        better: whether this validation is the best so far.
        complete: False if time or steps ran out within the epoch.
    """
    sums, images = position.sums, max(1, position.sums["images"])
    return {
        "kind": "epoch",
        "epoch": position.epoch,
        "step": position.step,
        "complete": complete,
        "loss": sums["loss"] / images,
        "training_loss": sums["cross_entropy"] / images,
        "training_error": sums["errors"] / images,
        "entropy": sums["entropy"] / images,
        "learning_rate": rate,
        "validation_error": None if result is None else result.error,
        "validation_loss": None if result is None else result.loss,
        **_r_squared(result),
        "validation_covered": None if result is None or result.coverage is None else result.coverage.covered_per_image,
        "attention_warnings": {} if result is None else result.attention_warnings | _by_heart(position, result),
        "best": better,
        "patches_per_second": round((sums["patches"] + sums.get("kept", 0)) / max(sums["seconds"], 1e-9), 1),
        "training_seconds": round(sums["seconds"], 3),
        "seconds": round(position.seconds, 3),
        "receipt": receipt_record(sums),
    }


def _r_squared(result: AnyEvaluation | None) -> dict[str, float]:
    """R² of a validation of numbers, where there is one."""
    figure = result.r_squared if isinstance(result, NumberEvaluation) else None
    return {} if figure is None else {"validation_r_squared": figure.value}


def _by_heart(position: Position, result: AnyEvaluation) -> dict[str, str]:
    """Warning that images are learnt by heart: these are known, and others are told no better than by chance."""
    chance, known = result.constant_error, position.sums["errors"] / max(1, position.sums["images"])
    if chance is None or not (known < 0.5 * chance and result.error > 0.9 * chance):
        return {}
    numeric = isinstance(result, NumberEvaluation)
    always, digits = ("the mean", ".4g") if numeric else ("one class", ".2f")
    errors = [format(one, digits) for one in (known, result.error, chance)]
    return {
        "by heart": f"images are learnt by heart: the training error is {errors[0]}, that of validation images "
        f"{errors[1]}, and {errors[2]} if {always} is always answered; look where patches are drawn (foveate "
        "explain), begin with evidence (model.attention.name timm:…), freeze features (model.features.frozen), or "
        "change patches more (augment.patch_…)"
    }


def read_metrics(path: Path | str, kind: str | None = None) -> list[dict[str, Any]]:
    """Metrics log: the records of a metrics.jsonl.

    Arguments:
        path: the file.
        kind: "step" or "epoch" reads only these.
    """
    records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [record for record in records if kind in (None, record["kind"])]


def prepare_folder(
    out: Path, settings: RunSettings, resume: bool, fingerprint: int, processes: int = 1
) -> State | None:
    """Run folder: make that of a run, or find the state to resume from.

    Arguments:
        out: the folder.
        settings: of the run.
        resume: continue from the state there, if there is one.
        fingerprint: of the training images' ids and labels; must not change on the way.
        processes: number of processes, for the record.

    Returns:
        The state to resume from, or None to start.

    Raises:
        RunError: the folder is in the way, or what is there is of another run; says what to do.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, a run needs a folder: choose another --out")
    state = load_state(out / "state") if resume else None
    if state is not None:
        before = from_plain(RunSettings, state.plain["settings"])
        refuse_changes(out, _resolved(before), _resolved(settings))
        if state.plain["fingerprint"] != fingerprint:
            raise RunError(f"the images or labels of {out} have changed since: choose another --out to train anew")
    elif not resume and out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty: add --resume to continue the run there, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)  # of a process that was killed while it wrote
    if (out / "config.yaml").is_file() and state is not None:
        settings = as_left_open(settings, load_settings(out / "config.yaml"))
    save_settings(settings, out / "config.yaml")
    told = {**environment(), "seed": settings.seed, "processes": processes}
    replace_file(out / "environment.json", (json.dumps(told, indent=2) + "\n").encode())
    return state


def diverged(folder: Path, step: int, rate: float) -> RunError:
    """Error of a run whose loss or gradient is no number at a step."""
    return RunError(
        f"loss or gradient is not finite at step {step} (learning rate {rate:.3g}): train anew with a lower "
        f"training.learning_rate or training.clip_norm; {folder} keeps the state before that step"
    )


def refuse_changes(folder: Path, before: RunSettings, now: RunSettings, moved: bool = False) -> None:
    """Settings check: refuse to go on with a run whose settings are others now, except those that may change.

    Arguments:
        folder: of the run.
        before: what it was begun with.
        now: what it would go on with.
        moved: whether the images may lie elsewhere.

    Raises:
        RunError: a setting has changed; says which, and what to do.
    """
    now = as_begun(now, before)
    before = as_begun(before, now)  # what was left open has been settled since
    free = FREE | {f"data.{place}" for place in PLACES} if moved else FREE
    changed = [key for key in changed_keys(before, now) if key not in free]
    if changed:
        raise RunError(
            f"{folder} was trained with another {', '.join(changed)}: "
            "leave it as it was to resume, or choose another --out to train anew"
        )


def as_begun(settings: RunSettings, before: RunSettings) -> RunSettings:
    """Settings in which what is left open (`model.input.normalise auto`) is as a run was begun with.

    Runs begun when nothing was left open so go on as they were.

    Arguments:
        settings: what the run would go on with.
        before: what it was begun with.
    """
    begun, model = before.model.input.normalise, settings.model
    if model.input.normalise != "auto" or begun == "auto":
        return settings
    return replace(settings, model=replace(model, input=replace(model.input, normalise=begun)))


def as_left_open(settings: RunSettings, before: RunSettings) -> RunSettings:
    """Settings in which what a run's own left open is so again: what says the same is left alone."""
    if before.model.input.normalise != "auto":
        return settings
    return replace(settings, model=replace(settings.model, input=replace(settings.model.input, normalise="auto")))


def _resolved(settings: RunSettings) -> RunSettings:
    """The settings with paths of data that read the same however they were written."""
    paths = {place: getattr(settings.data, place) for place in PLACES}
    data: dict[str, Any] = {place: None if path is None else str(Path(path).resolve()) for place, path in paths.items()}
    return replace(settings, data=replace(settings.data, **data))


def environment() -> dict[str, object]:
    """Environment of a run, to repeat it: versions and machine; no path and no name of the machine or its user."""
    import torch

    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed as a package"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "byte_order": sys.byteorder,
    }


def run_settings(run: Path) -> RunSettings:
    """Settings that a run was trained with.

    Arguments:
        run: folder of a run, or of the model or the evidence in it.

    Raises:
        RunError: it is none of them.
    """
    for folder in (run, run.parent):
        if (folder / "config.yaml").is_file() and (folder == run or run.name in ("model", "find")):
            return load_settings(folder / "config.yaml")
    raise RunError(f"{run} is not a run folder (it has no config.yaml): give the folder that foveate train wrote")
