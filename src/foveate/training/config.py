"""What a run is made of: one frozen dataclass that is the Python object, the YAML file and the flags.

The string under each field is its help text. Nothing here imports torch.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from foveate.errors import ConfigError
from foveate.serial import from_plain, to_plain
from foveate.settings import AugmentSettings, DataSettings, ModelSettings
from foveate.training.replace import replace_file

__all__ = [
    "PRESETS",
    "AnnealSettings",
    "Ramp",
    "RunSettings",
    "TrainingSettings",
    "changed_keys",
    "load_settings",
    "merge_settings",
    "preset",
    "save_settings",
]

PRESETS = (
    "colon-cancer-paper",
    "demo",
    "manifest",
    "megapixel-mnist",
    "megapixel-mnist-paper",
    "smoke",
    "speed-limits-paper",
)
"""Names of the settings shipped with foveate, each a commented YAML file in `training/presets`."""


@dataclass(frozen=True)
class Ramp:
    """A number that moves while a model is trained: held where it starts, then straight to where it ends."""

    first: float | None = None
    """Where it starts; the setting itself if None."""
    last: float | None = None
    """Where it ends; the setting itself if None."""
    hold: float = 0.0
    """Share of all steps over which it stays where it starts."""
    over: float = 0.5
    """Share of all steps over which it then moves; 0 makes a jump of it."""

    @property
    def moves(self) -> bool:
        """Whether it does anything."""
        return self.first is not None or self.last is not None


@dataclass(frozen=True)
class AnnealSettings:
    """What is more, or less, early in training than late."""

    prior: Ramp = field(default_factory=Ramp)
    """Strength of the contrast prior, otherwise `model.prior.contrast`. A model predicts with the strength it had when
    it was saved."""
    entropy: Ramp = field(default_factory=Ramp)
    """Weight of the attention's entropy, otherwise `training.entropy`."""
    undrawn: Ramp = field(default_factory=Ramp)
    """Weight of the attention that was not drawn, otherwise `training.undrawn`."""
    variety: Ramp = field(default_factory=Ramp)
    """Weight of the variety of what is drawn, otherwise `training.variety`."""
    patches: Ramp = field(default_factory=Ramp)
    """Patches drawn per training image, rounded; validation and prediction read `model.patches`."""

    def __post_init__(self) -> None:
        for name, least in (("prior", -math.inf), ("entropy", 0), ("undrawn", 0), ("variety", 0), ("patches", 1)):
            ramp: Ramp = getattr(self, name)
            for end in ("first", "last"):
                value = getattr(ramp, end)
                _at_least(f"anneal.{name}.{end}", least if value is None else value, least)
            if not (ramp.hold >= 0 and ramp.over >= 0 and ramp.hold + ramp.over <= 1):
                raise ConfigError(
                    f"training.anneal.{name} must hold and move within the run, got hold {ramp.hold} and over "
                    f"{ramp.over}: set both to at least 0 and together to at most 1"
                )


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained."""

    epochs: int = 30
    """Passes over the training images."""
    batch: int = 32
    """Images per step, over all processes together."""
    learning_rate: float = 2e-3
    """Learning rate, the peak of the schedule."""
    schedule: Literal["one-cycle", "cosine", "constant", "step"] = "one-cycle"
    """"one-cycle" and "cosine" warm up and fall to zero along a cosine; "step" multiplies by `drop` at `drop_epoch`."""
    warm_up: float = 0.3
    """Share of all steps over which the learning rate rises; not for "step"."""
    drop_epoch: int = 250
    """Epoch, counted from 1, after which schedule "step" drops."""
    drop: float = 0.1
    """Factor of the drop of schedule "step"."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam, AdamW, or gradient descent with Nesterov momentum 0.9."""
    weight_decay: float = 0.0
    """Weight decay, as the optimizer defines it."""
    clip_norm: float = 1.0
    """Largest Euclidean norm of the gradient; 0 does not clip."""
    entropy: float = 1e-4
    """Weight λ of the attention's entropy in nats: loss = cross-entropy − λ · mean entropy."""
    undrawn: float = 0.0
    """Weight μ of the attention's mass on cells that were not drawn: loss + μ · mean(1 − Σ a_s). It makes attention fit
    into the patches that are read, so that a prediction hardly depends on the draw. Anneal it from 0: before anything
    is learnt, it would keep the attention where the first draws fell."""
    variety: float = 0.0
    """Weight ν of the variety of the drawn patches' features: loss − ν · mean(log of the share that differs within an
    image). It sends attention, before anything is learnt, where an image is not like most of itself, which is what the
    contrast prior knows beforehand. Try 0.3, annealed to 0."""
    anneal: AnnealSettings = field(default_factory=AnnealSettings)
    """What is more, or less, early in training than late."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weighs an image by 1 / (number of classes · its class's share of the training images)."""
    averaging: float = 0.0
    """Decay per step of a moving average of the weights, which then is validated and saved; 0 switches it off."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Precision of the networks; sampling weights are always float64."""
    workers: int = 0
    """Processes that prepare views; the result does not depend on it."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    patience: int = 0
    """Stop after so many epochs without a better validation; 0 never stops early."""
    watch: int = 0
    """Validation images whose attention maps are kept, in RUN/attention."""
    watch_every: int = 1
    """Epochs from one time that they are kept to the next; they also are before training and after the last epoch."""
    tensorboard: bool = False
    """Whether curves, and the maps that are kept, go to RUN/tensorboard as well; needs pip install tensorboard."""
    log_every: int = 10
    """Steps between two lines of RUN/metrics.jsonl."""
    max_steps: int | None = None
    """Stop after so many steps, and let the schedule end there; None trains all epochs."""
    max_minutes: float | None = None
    """Stop after so many minutes of training, wherever the schedule is; None trains all epochs."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "validate_every", "watch_every", "log_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("workers", "patience", "watch", "clip_norm", "weight_decay", "entropy", "undrawn", "variety"):
            _at_least(name, getattr(self, name), 0)
        for name in ("warm_up", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be in [0, 1), got {getattr(self, name)}: set it to e.g. 0.1")
        for name in ("learning_rate", "max_steps", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"training.{name} must be positive, got {value}: set it to a number above 0")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"training.{name} must be at least {least}, got {value}: set it to {least} or more")


@dataclass(frozen=True)
class RunSettings:
    """Everything that determines a run."""

    seed: int = 0
    """Seed of the run: initial weights, order of the images, augmentation, draws, splits."""
    data: DataSettings = field(default_factory=DataSettings)
    """The images."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """The model."""
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """Random changes of the training images."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """The training."""

    def __post_init__(self) -> None:
        if self.augment.stain and self.model.input.normalise == "image":
            raise ConfigError(
                f"augment.stain is {self.augment.stain}, but model.input.normalise image leaves no colours to stain: "
                "set augment.stain to 0, or model.input.normalise to none"
            )


def preset(name: str) -> RunSettings:
    """Settings shipped with foveate.

    Arguments:
        name: one of `PRESETS`.

    Raises:
        ConfigError: there is no such preset; the message names the nearest.

    Example:
        >>> preset("megapixel-mnist-paper").training.batch
        128
    """
    if name not in PRESETS:
        raise ConfigError(f'unknown preset "{name}": choose one of {", ".join(PRESETS)}, or give --config FILE')
    text = files("foveate.training").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return merge_settings(RunSettings(), _read_yaml(text, f"preset {name}"))


def load_settings(path: Path | str, base: RunSettings | None = None) -> RunSettings:
    """Settings from a YAML file.

    Arguments:
        path: the file.
        base: where what the file leaves out comes from; the defaults if None.

    Raises:
        ConfigError: the file is missing, is not YAML, names an unknown key or has a value of the wrong type.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {_reason(error)}; give an existing YAML file"
        ) from error
    return merge_settings(base or RunSettings(), _read_yaml(text, str(path)))


def save_settings(settings: RunSettings, path: Path | str) -> None:
    """Write settings as the YAML file that `load_settings` reads back; a file that says the same is left alone."""
    import yaml

    path = Path(path)
    content = yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True, default_flow_style=None).encode()
    if not path.is_file() or path.read_bytes() != content:
        replace_file(path, content)


def merge_settings(settings: RunSettings, changes: dict[str, Any]) -> RunSettings:
    """`settings` with some keys changed.

    Arguments:
        settings: what keeps its value.
        changes: nested like the YAML file, e.g. `{"model": {"patches": 5}}`. One way to set the view takes the place
            of another, and a manifest that of generated images.

    Raises:
        ConfigError: an unknown key, with the one that was meant; or a value of the wrong type.

    Example:
        >>> merge_settings(RunSettings(), {"training": {"epochs": 3}}).training.epochs
        3
    """
    from_plain(RunSettings, changes)  # first, for a section that is no mapping
    plain = to_plain(settings)
    view = changes.get("model", {}).get("view", {})
    if any(value is not None for value in view.values()):
        plain["model"]["view"] = {}
    data = changes.get("data", {})
    if data.get("manifest") is not None and "source" not in data:
        plain["data"]["source"] = "manifest"
    return from_plain(RunSettings, _merged(plain, changes))


def changed_keys(before: RunSettings, after: RunSettings) -> list[str]:
    """Dotted names of the settings that differ.

    Example:
        >>> changed_keys(RunSettings(), RunSettings(seed=1))
        ['seed']
    """
    return list(_differences(before, after, ""))


def _differences(before: Any, after: Any, prefix: str) -> list[str]:
    names: list[str] = []
    for one in fields(before):
        left, right, name = getattr(before, one.name), getattr(after, one.name), prefix + one.name
        if is_dataclass(left):
            names += _differences(left, right, name + ".")
        elif left != right:
            names.append(name)
    return names


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        result[key] = _merged(base[key], value) if isinstance(base.get(key), dict) else value
    return result


def _read_yaml(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = (
            f" (line {error.problem_mark.line + 1})"
            if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark
            else ""
        )
        raise ConfigError(f"{where} is not YAML{line}: write `key: value` lines, nested by two spaces") from error
    if plain is not None and not isinstance(plain, dict):
        raise ConfigError(f"{where} must hold `key: value` lines, got {type(plain).__name__}: see a saved config.yaml")
    return plain or {}


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"
