"""Settings as plain values and back, with errors that name the key and the right one."""

import difflib
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from foveate.errors import ConfigError

__all__ = ["from_plain", "to_plain"]

Settings = TypeVar("Settings")


def to_plain(settings: Any) -> Any:
    """Turn a settings dataclass into dicts, lists, strings, numbers, booleans and None.

    Arguments:
        settings: a dataclass, or any value found inside one.

    Returns:
        What JSON and YAML can hold; `from_plain` is its inverse.

    Example:
        >>> from foveate.config.settings import ViewSettings
        >>> to_plain(ViewSettings(longest_side=180))
        {'longest_side': 180, 'scale': None, 'mpp': None}
    """
    if is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: to_plain(getattr(settings, field.name)) for field in fields(settings)}
    if isinstance(settings, dict):
        return {str(key): to_plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [to_plain(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings


def from_plain(cls: type[Settings], plain: Any, where: str = "") -> Settings:
    """Build a settings dataclass from plain values, checking every key and type.

    Arguments:
        cls: the dataclass; its fields may be numbers, strings, booleans, paths, literals, optionals, tuples, lists,
            string-keyed dicts and further dataclasses.
        plain: a mapping from field names to plain values; absent fields keep their defaults. Names in the class's
            `RETIRED` are accepted at the value given there, which did nothing.
        where: what the mapping is called in error messages, e.g. "model" or the file's name.

    Returns:
        An instance of `cls`.

    Raises:
        ConfigError: if a key is unknown (the closest known one is suggested), missing, or its value of the wrong type.

    Example:
        >>> from foveate.config.settings import ViewSettings
        >>> from_plain(ViewSettings, {"scale": 0.12}, "view")
        ViewSettings(longest_side=None, scale=0.12, mpp=None)
        >>> from_plain(ViewSettings, {"scael": 0.12}, "view")
        Traceback (most recent call last):
        ...
        foveate.errors.ConfigError: unknown key view.scael: did you mean view.scale?
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{where or 'the settings'} must be a mapping of keys to values, got {plain!r}")
    known = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    # Files of older versions name settings that are gone: at the value that did nothing, they still say nothing.
    retired = getattr(cls, "RETIRED", {})
    plain = {key: value for key, value in plain.items() if key not in retired or value != retired[key]}
    for key in plain:
        if key in retired:
            raise ConfigError(f"{_join(where, key)} is no longer a setting: leave it out")
        if key not in known:
            raise ConfigError(f"unknown key {_join(where, key)}: {_suggestion(str(key), list(known), where)}")
    values = {key: _value(hints[key], value, _join(where, key)) for key, value in plain.items()}
    for key, field in known.items():
        if key not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"missing key {_join(where, key)}: it has no default, set it")
    return cls(**values)


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _suggestion(key: str, known: list[str], where: str) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {_join(where, close[0])}?"
    return f"known keys are {', '.join(known)}"


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, where)
    if origin is Literal:
        return _literal(arguments, value, where)
    if origin in (tuple, list):
        return _sequence(origin, arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "a mapping", value)
        return {str(key): _value(arguments[1], item, _join(where, key)) for key, item in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_plain(hint, value, where)
    return _scalar(hint, value, where)


def _optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    choices = [choice for choice in arguments if choice is not type(None)]
    if value is None and len(choices) < len(arguments):
        return None
    for choice in choices[:-1]:
        try:
            return _value(choice, value, where)
        except ConfigError:
            continue
    return _value(choices[-1], value, where)


def _literal(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    listed = ", ".join(str(choice) for choice in choices)
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1, cutoff=0.5)
    hint = f": did you mean {close[0]}?" if close else ""
    raise ConfigError(f"{where} must be one of {listed}, got {value!r}{hint}")


def _sequence(origin: type, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(where, "a list", value)
    if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        hints = [arguments[0]] * len(value)
    else:
        hints = list(arguments)
        if len(hints) != len(value):
            raise ConfigError(f"{where} must have {len(hints)} values, got {len(value)}: {list(value)!r}")
    return origin(_value(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float:
        # YAML reads 1e-5, without a point, as text.
        try:
            return float(value) if not isinstance(value, bool) else _fail(where, "a number", value)
        except (TypeError, ValueError):
            raise _wrong(where, "a number", value) from None
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _fail(where, "an integer", value)
    if hint is bool:
        return value if isinstance(value, bool) else _fail(where, "true or false", value)
    if hint is str:
        return value if isinstance(value, str) else _fail(where, "text", value)
    if hint is Path:
        return Path(value) if isinstance(value, str | Path) else _fail(where, "a path", value)
    raise TypeError(f"no plain form of {hint!r} at {where}")


def _wrong(where: str, wanted: str, value: Any) -> ConfigError:
    return ConfigError(f"{where} must be {wanted}, got {value!r}")


def _fail(where: str, wanted: str, value: Any) -> Any:
    raise _wrong(where, wanted, value)
