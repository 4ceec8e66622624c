"""Serialisation of settings: dataclasses to plain values and back, with errors that name the key and the right one."""

import difflib
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from foveate.errors import ConfigError
from foveate.hooks import Own, is_own

Kind = TypeVar("Kind")

SCALARS = {float: "a number", int: "an integer", bool: "true or false", str: "text", Path: "a path"}
"""Type of a single value → what an error calls it."""


def to_plain(settings: Any) -> Any:
    """Plain form of a settings dataclass: dicts, lists, strings, numbers, booleans and None.

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


def from_plain(kind: type[Kind], plain: Any, where: str = "") -> Kind:
    """Settings of plain values, every key and type checked.

    Arguments:
        kind: a dataclass, or the type of one of its fields: number, text, boolean, path, literal, optional, tuple,
            list, string-keyed dict or a further dataclass.
        plain: for a dataclass, a mapping from field names to plain values; absent fields keep their defaults. Names in
            the class's `RETIRED` are accepted at the value given there, which did nothing.
        where: what the value is called in error messages, e.g. "model" or the file's name.

    Returns:
        An instance of `kind`.

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
    value: Any = plain
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        value = _union(arguments, plain, where)
    elif origin is Literal:
        value = _literal(arguments, plain, where)
    elif origin in (tuple, list):
        value = _sequence(origin, arguments, plain, where)
    elif origin is dict:
        if not isinstance(plain, dict):
            raise ConfigError(f"{where} must be a mapping, got {plain!r}")
        value = {str(key): from_plain(arguments[1], item, _join(where, key)) for key, item in plain.items()}
    elif is_dataclass(kind):
        value = plain if isinstance(plain, kind) else _dataclass(kind, plain, where)
    elif kind is not Any:
        value = _scalar(kind, plain, where)
    return value  # type: ignore[no-any-return]


def _dataclass(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise ConfigError(f"{where or 'the settings'} must be a mapping of keys to values, got {plain!r}")
    known = {field.name: field for field in fields(kind) if field.init}
    kinds = typing.get_type_hints(kind)
    # Files of older versions name settings that are gone: at the value that did nothing, they still say nothing; `...`
    # stands for a setting that never changed a result.
    retired = getattr(kind, "RETIRED", {})
    plain = {key: value for key, value in plain.items() if key not in retired or retired[key] not in (value, ...)}
    for key in plain:
        if key in retired:
            raise ConfigError(f"{_join(where, key)} is no longer a setting: leave it out")
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            remedy = f"did you mean {_join(where, close[0])}?" if close else f"known keys are {', '.join(known)}"
            raise ConfigError(f"unknown key {_join(where, key)}: {remedy}")
    values = {key: from_plain(kinds[key], value, _join(where, key)) for key, value in plain.items()}
    for key, field in known.items():
        if key not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"missing key {_join(where, key)}: it has no default, set it")
    return kind(**values)


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _union(kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and type(None) in kinds:
        return None
    if Own in kinds:
        if isinstance(plain, str) and is_own(plain):
            return plain
        kinds = tuple(kind for kind in kinds if kind is not Own)
        try:
            return from_plain(kinds[0], plain, where)
        except ConfigError as error:
            hint = "" if str(error).endswith("?") else "; your own is to be registered first (foveate.register)"
            raise ConfigError(f"{error}{hint}") from error
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        try:
            return from_plain(kind, plain, where)
        except ConfigError:
            continue
    return from_plain(last, plain, where)


def _literal(choices: tuple[Any, ...], plain: Any, where: str) -> Any:
    if any(plain == choice and type(plain) is type(choice) for choice in choices):  # True is not 1
        return plain
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(plain), names, n=1, cutoff=0.5)
    remedy = f": did you mean {close[0]}?" if close else ""
    raise ConfigError(f"{where} must be one of {', '.join(names)}, got {plain!r}{remedy}")


def _sequence(origin: Any, kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    if not isinstance(plain, list | tuple):
        raise ConfigError(f"{where} must be a list, got {plain!r}")
    if origin is list or kinds[1:] == (Ellipsis,):
        kinds = kinds[:1] * len(plain)
    if len(kinds) != len(plain):
        raise ConfigError(f"{where} must have {len(kinds)} values, got {len(plain)}: {list(plain)!r}")
    return origin(
        from_plain(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, plain, strict=True))
    )


def _scalar(kind: Any, plain: Any, where: str) -> Any:
    if kind not in SCALARS:
        raise TypeError(f"no plain form of {kind!r} at {where}")
    is_boolean = isinstance(plain, bool)  # which Python takes for an integer
    if kind is float and not is_boolean:
        try:
            return float(plain)  # also of text: YAML reads 1e-5, without a point, as such
        except (TypeError, ValueError):
            pass
    elif kind is Path and isinstance(plain, str):
        return Path(plain)
    elif isinstance(plain, kind) and is_boolean == (kind is bool):
        return plain
    raise ConfigError(f"{where} must be {SCALARS[kind]}, got {plain!r}")
