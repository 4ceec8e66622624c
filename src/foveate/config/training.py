"""Settings of a run and its training: a frozen dataclass each, the same in Python, in YAML and as flags.

The string under each field is its help text. Nothing here imports torch.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from foveate.config.augment import AugmentSettings
from foveate.config.settings import DataSettings, ModelSettings
from foveate.errors import ConfigError


@dataclass(frozen=True)
class Ramp:
    """Ramp: a number that moves while a model is trained, held where it starts, then straight to where it ends."""

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
    """Annealing: what is more, or less, early in training than late."""

    RETIRED: ClassVar[dict[str, Any]] = {"undrawn": {"first": None, "last": None, "hold": 0.0, "over": 0.5}}
    prior: Ramp = field(default_factory=Ramp)
    """Strength of the contrast prior, otherwise `model.prior.contrast`. A model predicts with the strength it had when
    it was saved."""
    entropy: Ramp = field(default_factory=Ramp)
    """Weight of the attention's entropy, otherwise `training.entropy`."""
    variety: Ramp = field(default_factory=Ramp)
    """Weight of the variety of what is drawn, otherwise `training.variety`."""
    patches: Ramp = field(default_factory=Ramp)
    """Patches drawn per training image, rounded; validation and prediction read `model.patches`."""

    def __post_init__(self) -> None:
        for name, least in (("prior", -math.inf), ("entropy", 0), ("variety", 0), ("patches", 1)):
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
class FindSettings:
    """Finding: how evidence is taught, before anything is drawn, where the attention network has a backbone."""

    starts: int = 4
    """Small networks that are taught at once and begin differently; those that fail are left out. 0 finds nothing
    beforehand."""
    novel: float = 0.5
    """Share of the starts that at first look among the cells that are least like those of background images, if there
    are any: for what is small and rare, upon which few starts hit by chance."""
    epochs: int = 40
    """Passes over what was seen of the training images."""
    least_steps: int = 300
    """Steps, at least, where the images are few."""
    batch: int = 16
    """Images per step."""
    learning_rate: float = 2e-3
    """Peak of the learning rate, of AdamW."""
    weight_decay: float = 1e-2
    """Its weight decay."""
    tops: tuple[float, ...] = (3.0, 0.1)
    """Values of `model.evidence.top` that are tried; that with the lowest loss on images that were not trained on is
    taken. If empty, `model.evidence.top` is."""
    linear: bool = True
    """Whether, beside `tops`, a linear model of the mean over all cells is tried: for images that are all of one kind,
    with nothing to look for."""
    share: float = 0.5
    """Share of the first answer, evidence as it was found, in the answers of attention sampling that begins with it;
    what patches teach does not depend on it."""
    kind_steps: int = 300
    """Steps in which the classes that are no background are told apart."""

    def __post_init__(self) -> None:
        for name, least in (("starts", 0), ("epochs", 1), ("least_steps", 0), ("batch", 1), ("weight_decay", 0)):
            _at_least(f"find.{name}", getattr(self, name), least)
        _at_least("find.kind_steps", self.kind_steps, 0)
        if not 0 <= self.novel <= 1:
            raise ConfigError(f"training.find.novel must be in [0, 1], got {self.novel}: set it to e.g. 0.5")
        if not 0 <= self.share < 1:
            raise ConfigError(f"training.find.share must be in [0, 1), got {self.share}: set it to e.g. 0.5")
        if not self.learning_rate > 0 or not all(top > 0 for top in self.tops):
            raise ConfigError(
                f"training.find.learning_rate and tops must be positive, got {self.learning_rate} and "
                f"{list(self.tops)}: set them to e.g. 1e-3 and 3"
            )


@dataclass(frozen=True)
class TrainingSettings:
    """Training: epochs, learning rate, regularisation, validation, what is kept and when it ends."""

    RETIRED: ClassVar[dict[str, Any]] = {"undrawn": 0.0, "workers": ...}
    find: FindSettings = field(default_factory=FindSettings)
    """Teaching evidence beforehand."""
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
    """Precision of the networks in a training step: weights stay float32, sampling weights float64. Validation,
    evaluation and prediction compute in float32."""
    threads: int | None = None
    """Threads that read, decode and make views ahead, which changes no result; as many as there are cores to use if
    None."""
    parts: int | None = None
    """Parts of a batch whose patches are read one by one, each while the feature network works on the one before; 4 on
    a GPU and 1 on a CPU if None. It changes how sums are rounded; set it on a CPU that waits for a far disk."""
    on_error: Literal["raise", "skip"] = "raise"
    """What becomes of an image that cannot be read: "raise" ends the run, which --resume goes on with; "skip" goes on
    without it, and RUN/skipped.csv names it."""
    skip_limit: float = 0.05
    """Share of the images that may be skipped, or be gone from the manifest when a run is resumed; one always may."""
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
    """End after so many minutes of training and validation, finding evidence included, if the epochs are not over
    before; learning rate and ramps follow the share of the time, so that both have come to their end. None trains all
    epochs."""
    calibrate: bool = False
    """Fit a temperature to the answers to the validation images at the end, so that probabilities mean what they say;
    `foveate calibrate RUN` does it afterwards."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "validate_every", "watch_every", "log_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("threads", "parts"):
            _at_least(name, getattr(self, name) or 1, 1)
        for name in ("patience", "watch", "clip_norm", "weight_decay", "entropy", "variety"):
            _at_least(name, getattr(self, name), 0)
        if not 0 <= self.skip_limit <= 1:
            raise ConfigError(f"training.skip_limit must be in [0, 1], got {self.skip_limit}: set it to e.g. 0.05")
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
    """Run: everything that determines one."""

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
