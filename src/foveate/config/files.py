"""Configuration files: presets, and YAML read, merged, compared and saved."""

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.config.serial import from_plain, to_plain
from foveate.config.settings import ModelSettings
from foveate.config.training import RunSettings
from foveate.errors import ArgumentTypeError, ConfigError

PRESETS = (
    "colon-cancer-paper",
    "demo",
    "manifest",
    "megapixel-mnist",
    "megapixel-mnist-paper",
    "pathology",
    "photographs",
    "remote-sensing",
    "smoke",
    "speed-limits-paper",
)
"""Names of the settings shipped with foveate, each a commented YAML file in `config/presets`."""


def preset(name: str, /, **changes: Any) -> RunSettings:
    """Preset: settings shipped with foveate, and some of them changed.

    Arguments:
        name: one of `PRESETS`.
        changes: settings by their dotted keys, `**{"training.epochs": 5}`, as `changed` takes them.

    Raises:
        ConfigError: there is no such preset, the message lists them; an unknown key, or a value of the wrong type.

    Example:
        >>> preset("megapixel-mnist-paper").training.batch
        128
        >>> preset("manifest", **{"training.epochs": 5, "model.patch": (96, 96)}).model.patch
        (96, 96)
    """
    if name not in PRESETS:
        raise ConfigError(f'unknown preset "{name}": choose one of {", ".join(PRESETS)}, or give --config FILE')
    return changed(_load(files("foveate.config") / "presets" / f"{name}.yaml", RunSettings()), changes)


def changed(settings: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """Settings with some changed, by dotted keys.

    Arguments:
        settings: what keeps its value.
        changes: `{"training.epochs": 5}`, `{"training": {"epochs": 5}}` or settings in the place of a section; numbers
            of NumPy, tuples and paths will do.

    Raises:
        ConfigError: an unknown key, with the one that was meant; a value of the wrong type; or a key that is set twice.

    Example:
        >>> changed(RunSettings(), {"data.manifest": Path("images.csv"), "seed": 3}).data.manifest
        'images.csv'
    """
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        *sections, last = str(key).split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{key} is set, and {section} as a whole as well: set one of them")
        if last in inner:
            raise ConfigError(f"{key} is set twice, by itself and within {last}: set it once")
        inner[last] = _settled(value)
    return merge_settings(settings, nested) if nested else settings


def combined(name: str | None, given: object, changes: Mapping[str, Any]) -> RunSettings:
    """Settings of a preset, with others over them or in its place, and some changed.

    Arguments:
        name: of the preset; None for the defaults.
        given: `RunSettings`, which take the place of the preset; a mapping as `changed` takes it; or None.
        changes: what is changed last.

    Raises:
        ConfigError: as `preset` and `changed`.
        ArgumentTypeError: what is given is none of these.
    """
    base = RunSettings() if name is None else preset(name)
    if isinstance(given, Mapping):
        base = changed(base, given)
    elif given is not None:
        if not isinstance(given, RunSettings):
            raise ArgumentTypeError(f"settings are RunSettings or a mapping of keys, got {type(given).__name__}")
        base = given
    return changed(base, changes)


def _settled(value: Any) -> Any:
    """Plain value of what Python code may hand over: settings, paths, numbers and arrays of NumPy."""
    if isinstance(value, Mapping):
        return {str(key): _settled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_settled(one) for one in value]
    return to_plain(value.tolist() if hasattr(value, "tolist") else value)


def load_settings(path: Path | str, base: RunSettings | None = None) -> RunSettings:
    """Settings from a YAML file.

    Arguments:
        path: the file.
        base: where what the file leaves out comes from; the defaults if None.

    Raises:
        ConfigError: the file is missing, is not YAML, names an unknown key or has a value of the wrong type.
    """
    return _load(Path(path), base or RunSettings())


def _load(path: Path | Traversable, base: RunSettings) -> RunSettings:
    plain = read_yaml(path, "configuration")
    if not isinstance(plain, dict | None):
        raise ConfigError(f"{path} must hold `key: value` lines, got {type(plain).__name__}: see a saved config.yaml")
    return merge_settings(base, plain or {})


def read_yaml(path: Path | Traversable, what: str) -> Any:
    """YAML file as plain values; None if it is empty.

    Arguments:
        path: the file.
        what: what it holds, for the error.

    Raises:
        ConfigError: the file is missing, or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the {what} {path}: {reason}; give an existing YAML file") from error
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f" (line {mark.line + 1})" if mark else ""
        raise ConfigError(f"{path} is not YAML{line}: write `key: value` lines, nested by two spaces") from error


Value = tuple[str, Any, str]
"""Dotted key of a setting, its plain value, and the reason for it."""

WIDTH = 118
"""Columns of a commented file."""


def commented_yaml(head: Iterable[str], values: Sequence[Value]) -> str:
    """Commented YAML: settings, each with its reason, beside it where there is room and above it elsewhere.

    Arguments:
        head: lines at the top; "" is an empty comment.
        values: those of a section one after the other.

    Example:
        >>> print(commented_yaml(["mine"], [("model.patches", 5, "there are few"), ("training.epochs", 3, "try")]))
        # mine
        <BLANKLINE>
        model:
          patches: 5                                # there are few
        <BLANKLINE>
        training:
          epochs: 3                                 # try
        <BLANKLINE>
    """
    import yaml

    lines = [f"# {part}".rstrip() for line in head for part in textwrap.wrap(line, WIDTH - 2) or [""]]
    before: list[str] = []
    for key, value, reason in values:
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if before[: depth + 1] != sections[: depth + 1]:
                lines += [*([] if depth else [""]), f"{'  ' * depth}{section}:"]
                before = sections[: depth + 1]
        before, indent = sections, "  " * len(sections)
        written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
        line = f"{indent}{name}: {written.removesuffix('...' + chr(10)).strip()}"
        room = max(44, len(line) + 2)
        if room + len(reason) + 2 <= WIDTH:
            lines.append(f"{line:{room}}# {reason}")
        else:
            lines += [*(f"{indent}# {part}" for part in textwrap.wrap(reason, WIDTH - len(indent) - 2)), line]
    return "\n".join(lines) + "\n"


def save_settings(settings: RunSettings, path: Path | str) -> None:
    """Settings as the YAML file that `load_settings` reads back; a file that says the same is left alone."""
    import yaml

    path = Path(path)
    content = yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True, default_flow_style=None).encode()
    if not path.is_file() or path.read_bytes() != content:
        replace_file(path, content)


def merge_settings(settings: RunSettings, changes: dict[str, Any]) -> RunSettings:
    """Settings with some keys changed.

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
    plain = to_plain(settings)
    match changes:
        case {"model": {"view": {**view}}} if any(value is not None for value in view.values()):
            plain["model"]["view"] = {}
    match changes:
        case {"data": {"manifest": str(), **others}} if "source" not in others:
            plain["data"]["source"] = "manifest"
    return from_plain(RunSettings, _merged(plain, changes))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Changes over a base, section by section; what stands in place of a section stays, for `from_plain` to refuse."""
    result = base | changes
    for key in base.keys() & changes.keys():
        if isinstance(base[key], dict) and isinstance(changes[key], dict):
            result[key] = _merged(base[key], changes[key])
    return result


def check_code(settings: ModelSettings, allowed: Collection[str], where: Path | str) -> None:
    """Check that settings which came from somewhere import nothing but what the caller allows by name.

    Arguments:
        settings: of a model.
        allowed: functions that may be imported and called, "package.module:function".
        where: they come from, for the error.

    Raises:
        ConfigError: they name another one.

    Example:
        >>> check_code(ModelSettings(), allowed=(), where="config.yaml")
    """
    for name in settings.own_code:
        if name not in allowed:
            raise ConfigError(
                f"{where} would import and call {name}, which does not come with foveate: if you trust it, allow it by "
                f"name, --allow-code {name} (in Python load_model(folder, allow_code=[{name!r}]))"
            )


def changed_keys(before: RunSettings, after: RunSettings) -> list[str]:
    """Dotted names of the settings that differ.

    Example:
        >>> changed_keys(RunSettings(), RunSettings(seed=1))
        ['seed']
    """
    return list(_differences(before, after, ""))


def _differences(before: Any, after: Any, prefix: str) -> Iterator[str]:
    for one in fields(before):
        left, right, name = getattr(before, one.name), getattr(after, one.name), prefix + one.name
        if is_dataclass(left):
            yield from _differences(left, right, f"{name}.")
        elif left != right:
            yield name
