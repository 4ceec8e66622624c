"""Run folder: what may be there before a run starts, its metrics log (metrics.jsonl), and what it says about itself."""

import json
import platform
import sys
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.config.files import changed_keys, load_settings, save_settings
from foveate.config.serial import from_plain
from foveate.config.training import RunSettings
from foveate.errors import RunError
from foveate.training.checkpoint import State, load_state

LASTS = ("epochs", "max_steps", "max_minutes", "patience")
"""Settings of the training that say how long it lasts."""

WATCHES = ("watch", "watch_every", "tensorboard", "log_every")
"""Settings of the training that say what is shown and kept of it on the way."""

KEEPS = ("cache", "cache_folder", "cache_gigabytes", "memory_gigabytes", "tile_gigabytes")
"""Settings of the data that say what is kept of images, on which no result depends."""

FREE = frozenset(f"training.{name}" for name in (*LASTS, *WATCHES, "threads")) | {f"data.{name}" for name in KEEPS}
"""Settings that may change when a run is resumed."""

PLACES = ("manifest", "published")
"""Settings of the data that say where the images lie, and nothing of what they are."""

_PACKAGES = ("foveate", "torch", "accelerate", "numpy", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class TrainResult:
    """Result of a run.

    Attributes:
        folder: of the run.
        model_folder: of the best model by validation.
        validation_error: of that model; None without validation images.
        constant_error: error on these of an answer that is the same for all; None without them, or with several labels.
        epochs: epochs finished.
        steps: steps taken.
        seconds: of training and validation, over all resumptions.
    """

    folder: Path
    model_folder: Path
    validation_error: float | None
    constant_error: float | None
    epochs: int
    steps: int
    seconds: float

    @property
    def learnt(self) -> bool | None:
        """Whether the model is better than one answer for all; None where nothing tells."""
        if self.validation_error is None or self.constant_error is None:
            return None
        return self.validation_error < self.constant_error


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
            with path.open("ab") as file:
                file.truncate(min(length, file.tell()))

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on disk when this returns."""
        if self._path is None:
            return
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with self._path.open("ab") as file:
            file.write(line)
        self.length += len(line)


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
    save_settings(settings, out / "config.yaml")
    told = {**environment(), "seed": settings.seed, "processes": processes}
    replace_file(out / "environment.json", (json.dumps(told, indent=2) + "\n").encode())
    return state


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
    free = FREE | {f"data.{place}" for place in PLACES} if moved else FREE
    changed = [key for key in changed_keys(before, now) if key not in free]
    if changed:
        raise RunError(
            f"{folder} was trained with another {', '.join(changed)}: "
            "leave it as it was to resume, or choose another --out to train anew"
        )


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
        run: folder of a run, or of the model in it.

    Raises:
        RunError: it is neither.
    """
    for folder in (run, run.parent):
        if (folder / "config.yaml").is_file() and (folder == run or run.name == "model"):
            return load_settings(folder / "config.yaml")
    raise RunError(f"{run} is not a run folder (it has no config.yaml): give the folder that foveate train wrote")
