"""Settings of a comparison: methods, folds and seeds, as a frozen dataclass that is also the YAML file.

The string under each field is its help text. Nothing here imports torch.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from foveate.atomic import replace_file
from foveate.config.files import changed_keys, merge_settings, preset, read_yaml
from foveate.config.serial import from_plain, to_plain
from foveate.config.training import RunSettings
from foveate.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names that are folder names on every system."""


@dataclass(frozen=True)
class MethodSettings:
    """Method of a comparison, as its YAML file gives it."""

    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the base, nested like a run's YAML file."""
    seeds: tuple[int, ...] = ()
    """Seeds of its runs; those of the comparison if empty. A slow method may run fewer."""
    as_long_as: str | None = None
    """A method before it, whose training time this one must at least be given; its epochs are raised until it is."""
    cost_batch: int | None = None
    """Images per step when its cost is measured, where `cost.batch` at once do not fit into memory."""


@dataclass(frozen=True)
class CostSettings:
    """Cost measurement: how it is done."""

    batch: int = 8
    """Training images on which every method is measured, in one step."""
    rounds: int = 7
    """Rounds that count; in each every method takes its turn, so that a busy machine disturbs all alike."""
    warm_up: int = 1
    """Rounds before these, which do not count."""
    process: bool = True
    """Also measure the memory of a training step in a process of its own, one per method (not on CUDA)."""
    relative_to: str | None = None
    """Method by whose cost that of the others is divided in the table; the reference if None."""

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("rounds", 1), ("warm_up", 0)):
            _at_least(f"cost.{name}", getattr(self, name), least)


@dataclass(frozen=True)
class Method:
    """Method of a comparison, with everything settled.

    Attributes:
        name: what the tables call it; also its folder.
        settings: of its runs, but for their seeds.
        seeds: of its runs.
        as_long_as: name of a method before it, whose training time it must at least be given; or None.
        cost_batch: images per step when its cost is measured.
    """

    name: str
    settings: RunSettings
    seeds: tuple[int, ...]
    as_long_as: str | None
    cost_batch: int


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison: methods × seeds × folds, or one split."""

    RETIRED: ClassVar[dict[str, Any]] = {"reported": {}}
    preset: str | None = None
    """Settings shipped with foveate to start from; the defaults if None."""
    base: dict[str, Any] = field(default_factory=dict)
    """Settings of all runs, nested like a run's YAML file, over those of the preset."""
    methods: dict[str, MethodSettings] = field(default_factory=dict)
    """Name → method, in the order of the tables."""
    folds: int | None = None
    """Cross-validate so often; None tests on the one split that the data name or `base.data.test` holds out."""
    seeds: tuple[int, ...] = ()
    """Seeds of the runs: initial weights, order of the images, draws; that of the base if empty."""
    split_seed: int | None = None
    """Seed of the division into folds or splits; None divides anew for every seed of the runs, with that seed."""
    reference: str | None = None
    """Method that the others are compared with, image by image; the first if None."""
    begun_below: float | None = None
    """Training error below which a run has begun to learn (0.8, say, where a guess is wrong in 0.9 of the images); its
    first step there is then listed. Nothing is listed if None."""
    by_group: bool = False
    """Judge groups (patients, scenes) by the mean probabilities of their images, and not images."""
    resamples: int = 10_000
    """Bootstrap samples behind every interval."""
    minutes: float | None = None
    """Minutes that every run is to train, data work included and validation not: a timed trial before it settles how
    many steps these are, and its schedule ends there. None trains the epochs that are set."""
    cost: CostSettings = field(default_factory=CostSettings)
    """The cost measurement."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigError("there is nothing to compare: give at least one method under methods")
        for name in self.methods:
            if not NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} cannot name a method, whose folder it names, too: use letters, digits, . _ and -"
                )
        if len({name.casefold() for name in self.methods}) < len(self.methods):
            raise ConfigError("methods must differ in more than upper and lower case: rename one")
        for key, named in (("reference", self.reference), ("cost.relative_to", self.cost.relative_to)):
            if named is not None and named not in self.methods:
                raise ConfigError(f"{key} {named!r} is none of the methods {', '.join(self.methods)}: name one of them")
        if self.folds is not None:
            _at_least("folds", self.folds, 2)
        _at_least("resamples", self.resamples, 100)
        if self.minutes is not None:
            leading = next((name for name, one in self.methods.items() if one.as_long_as is not None), None)
            if not self.minutes > 0:
                raise ConfigError(f"minutes must be positive, got {self.minutes}: set it to e.g. 5, or leave it out")
            if leading is not None:
                raise ConfigError(f"minutes gives all methods the same time: leave out as_long_as of {leading}")
        self._check_seeds()
        self._check_order()

    @property
    def reference_name(self) -> str:
        """The method that the others are compared with."""
        return self.reference or next(iter(self.methods))

    @property
    def run_seeds(self) -> tuple[int, ...]:
        """Seeds of the runs of methods that name none of their own."""
        return self.seeds or (self._base().seed,)

    def resolved(self) -> tuple[Method, ...]:
        """Methods with everything settled, in order.

        Raises:
            ConfigError: a key of the base or of a method is unknown or wrong, or methods would see other images.
        """
        base = self._base()
        resolved = []
        for name, method in self.methods.items():
            settings = _merged(base, method.settings, f"methods.{name}.settings")
            unfair = [key for key in changed_keys(base, settings) if key == "seed" or key.startswith("data.")]
            if unfair:
                raise ConfigError(
                    f"{name} differs from the base in {', '.join(unfair)}: compare on the same images, set it under "
                    "base (or seeds) for all"
                )
            if settings.model.head.numeric:
                raise ConfigError(
                    f"{name} answers with a number (model.head.kind), and a comparison is of classes: train methods by "
                    "foveate train, and let foveate evaluate judge them"
                )
            seeds = method.seeds or self.run_seeds
            batch = min(method.cost_batch or self.cost.batch, self.cost.batch)
            resolved.append(Method(name, settings, seeds, method.as_long_as, batch))
        return tuple(resolved)

    def _base(self) -> RunSettings:
        return _merged(RunSettings() if self.preset is None else preset(self.preset), self.base, "base")

    def _check_seeds(self) -> None:
        lists = {"seeds": self.seeds, **{f"methods.{name}.seeds": one.seeds for name, one in self.methods.items()}}
        for key, seeds in lists.items():
            if len(set(seeds)) < len(seeds) or min(seeds, default=0) < 0:
                raise ConfigError(f"{key} must be different numbers from 0 up, got {list(seeds)}: remove the others")
        for name, method in self.methods.items():
            if method.cost_batch is not None:
                _at_least(f"methods.{name}.cost_batch", method.cost_batch, 1)

    def _check_order(self) -> None:
        before = list[str]()
        for name, method in self.methods.items():
            if method.as_long_as is not None and method.as_long_as not in before:
                raise ConfigError(f"{name} is to train as long as {method.as_long_as!r}: list that method before it")
            if method.as_long_as is not None:
                other = self.methods[method.as_long_as].seeds or self.seeds
                missing = set(method.seeds or self.seeds) - set(other)
                if missing:
                    raise ConfigError(
                        f"{name} is to train as long as {method.as_long_as}, which has no run of seed "
                        f"{min(missing)}: give both the same seeds"
                    )
            before.append(name)


def load_comparison(path: Path | str) -> CompareSettings:
    """Comparison read from a YAML file.

    Arguments:
        path: the file.

    Raises:
        ConfigError: the file is missing, is not YAML, names an unknown key or has a value of the wrong type.
    """
    plain = read_yaml(Path(path), "comparison")
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, methods among them: see foveate compare --help")
    settings = from_plain(CompareSettings, _named(plain))
    settings.resolved()
    return settings


def with_images(settings: CompareSettings, path: Path | str) -> CompareSettings:
    """Comparison on images that lie elsewhere.

    Arguments:
        settings: the comparison.
        path: the images, as `data.source` wants them: a manifest, or the files of a published data set.

    Raises:
        ConfigError: its images are generated and lie nowhere.
    """
    source = settings.resolved()[0].settings.data.source
    if source == "megapixel-mnist":
        raise ConfigError(
            f"--data {path} is of no use where images are generated (base.data.source {source}): leave one of them out"
        )
    place = "manifest" if source == "manifest" else "published"
    data = {**settings.base.get("data", {}), place: str(Path(path).resolve())}
    return replace(settings, base={**settings.base, "data": data})


def save_comparison(settings: CompareSettings, path: Path | str) -> None:
    """YAML file of a comparison: written with everything settled, as `load_comparison` reads it back."""
    import yaml

    path, base = Path(path), settings._base()
    methods = {}
    for one in settings.resolved():
        changes = _changes(to_plain(base), to_plain(one.settings))
        method = replace(settings.methods[one.name], settings=changes, seeds=one.seeds)
        methods[one.name] = method
    settled = replace(
        settings, preset=None, base=to_plain(base), methods=methods, seeds=settings.run_seeds,
        reference=settings.reference_name,
    )  # fmt: skip
    content = yaml.safe_dump(to_plain(settled), sort_keys=False, allow_unicode=True, default_flow_style=None).encode()
    if not path.is_file() or path.read_bytes() != content:
        replace_file(path, content)


def _named(plain: dict[Any, Any]) -> dict[Any, Any]:
    """The mapping with method names as text, however YAML read them, and methods without settings as empty ones."""
    methods = plain.get("methods")
    if not isinstance(methods, dict):
        return plain
    return {**plain, "methods": {str(name): {} if one is None else one for name, one in methods.items()}}


def _merged(base: RunSettings, changes: dict[str, Any], where: str) -> RunSettings:
    try:
        return merge_settings(base, changes)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The part of `after` that differs, nested alike; a view is given whole, as one way to set it replaces another."""
    changed: dict[str, Any] = {}
    for key, value in after.items():
        if value == before[key]:
            continue
        nested = isinstance(value, dict) and key != "view"
        changed[key] = _changes(before[key], value) if nested else value
    return changed


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}: set it to {least} or more")
