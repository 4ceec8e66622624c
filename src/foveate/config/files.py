"""Configuration files: presets, YAML read, merged, compared and saved."""

from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.config.serial import from_plain, to_plain
from foveate.config.training import RunSettings
from foveate.errors import ConfigError

__all__ = ["PRESETS", "changed_keys", "load_settings", "merge_settings", "preset", "save_settings"]

PRESETS = (
    "colon-cancer-paper",
    "demo",
    "manifest",
    "megapixel-mnist",
    "megapixel-mnist-paper",
    "smoke",
    "speed-limits-paper",
)
"""Names of the settings shipped with foveate, each a commented YAML file in `config/presets`."""


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
    text = files("foveate.config").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
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
