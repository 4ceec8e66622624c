"""Flags of settings: every field of the dataclasses as `--section.key VALUE`, checked like the key of a file."""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from foveate.config.serial import from_plain
from foveate.config.training import RunSettings
from foveate.errors import ConfigError
from foveate.hooks import Own

METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "{true,false}", type(None): "null", Ellipsis: "…"}


@dataclass(frozen=True)
class Setting:
    """Setting, or a section of them: the type of its values, its default and its help text."""

    kind: Any
    default: Any
    text: str


@cache
def list_settings() -> dict[str, Setting]:
    """Settings by their dotted keys, each section before what it holds.

    Example:
        >>> list_settings()["model.patches"]
        Setting(kind=<class 'int'>, default=10, text='Patches read per image and draw.')
    """
    return dict(_settings_within(RunSettings(), ""))


def _settings_within(section: Any, prefix: str) -> Iterator[tuple[str, Setting]]:
    cls = type(section)
    kinds, texts = get_type_hints(cls), _field_texts(cls.__module__)
    for one in fields(section):
        key, default = prefix + one.name, getattr(section, one.name)
        yield key, Setting(kinds[one.name], default, texts.get(f"{cls.__name__}.{one.name}", ""))
        if is_dataclass(default):
            yield from _settings_within(default, f"{key}.")


@cache
def _field_texts(module: str) -> dict[str, str]:
    """The string under each field of a module's classes, which Python itself throws away, by `Class.field`."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # bytecode was installed without its source
        return {}
    return {
        f"{node.name}.{ast.unparse(field.target)}": " ".join(ast.literal_eval(text.value).split())
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for field, text in pairwise(node.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Flags of all settings, declared; `settings` is what they set, nested like the YAML file.

    A section is a flag that takes a mapping, `--model '{patches: 5}'`; help leaves that to the YAML file.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_settings(parser)
        >>> parser.parse_args(["--model.patches", "5", "--model.patch=50, 60"]).settings
        {'model': {'patches': 5, 'patch': [50, 60]}}
    """
    parser.set_defaults(settings={})
    groups = {"": parser.add_argument_group("Everything that determines a run")}
    for key, one in list_settings().items():
        group, metavar, text = groups[key.rpartition(".")[0]], None, argparse.SUPPRESS
        if is_dataclass(one.default):
            title, stop, rest = one.text.removesuffix(".").partition(". ")
            groups[key] = parser.add_argument_group(title, f"{rest}." if stop else None)
        else:
            metavar, text = _metavar(one.kind), f"{one.text} (default: {_typed(one.default)})".replace("%", "%%")
        group.add_argument(f"--{key}", action=_Set, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _metavar(kind: Any) -> str:
    """What is written after a flag: `INTEGER INTEGER`, `NUMBER|null`, `{adam,adamw,sgd}`."""
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    between = " " if get_origin(kind) is tuple else "|"
    kinds = [one for one in get_args(kind) or (kind,) if one is not Own]
    return between.join(METAVARS[one] if get_origin(one) is None else _metavar(one) for one in kinds)


def _typed(default: Any) -> str:
    if isinstance(default, tuple):
        return " ".join(map(_typed, default)) or "none"
    return default if isinstance(default, str) else json.dumps(default)


class _Set(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, words: Any, *_: object) -> None:
        """Take one flag; what comes later on the command line wins."""
        try:
            _set(namespace.settings, self.dest, _read(words, list_settings()[self.dest].kind))
        except ConfigError as error:
            parser.error(str(error))


def _read(words: str, kind: Any) -> Any:
    """Plain value of what is written after a flag: as in YAML, or the words themselves where text is wanted."""
    import yaml

    choices = get_args(kind) or (kind,)
    if kind == tuple[str, ...]:
        return [one.strip() for one in words.removeprefix("[").removesuffix("]").split(",") if one.strip()]
    if get_origin(kind) is tuple and not words.startswith("["):
        words = f"[{words}]"
    plain: Any = words
    with suppress(yaml.YAMLError):
        plain = yaml.safe_load(words) if words.strip() else words
    with suppress(ValueError):
        plain = int(words)  # 010 is ten, as on any command line; in YAML it is eight
    if any(one is str or isinstance(one, str) for one in choices) and not (plain is None and type(None) in choices):
        return words
    return plain


def _set(settings: dict[str, Any], key: str, plain: Any) -> None:
    known = list_settings()
    if key not in known:
        raise ConfigError(f"unknown key {key}: {_suggestion(key, known)}")
    if is_dataclass(known[key].default) and isinstance(plain, dict):
        for name, value in plain.items():
            _set(settings, f"{key}.{name}", value)
        return
    from_plain(known[key].kind, plain, key)
    *sections, last = key.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
    settings[last] = plain


def spell_flags(words: list[str], options: Iterable[str]) -> list[str]:
    """Words of the command line as argparse reads them, once all their flags are known.

    Arguments:
        words: those after the verb.
        options: what the verb takes besides settings, e.g. `--out`.

    Raises:
        ConfigError: an unknown flag, with the one that was meant.

    Example:
        >>> spell_flags(["--augment.bias", "-1e-3", "0", "--seed", "1"], [])
        ['--augment.bias=-1e-3, 0', '--seed', '1']
    """
    known = list_settings()
    names = [*known, *(option.lstrip("-") for option in options), ""]
    spelt: list[str] = []
    is_list = False
    for word in words:
        name, *value = word[2:].split("=", 1)
        if word.startswith("--"):
            if name not in names:
                raise ConfigError(f"unknown {'key' if '.' in name else 'option'} {name}: {_suggestion(name, names)}")
            is_list = name in known and get_origin(known[name].kind) is tuple and not value
            spelt.append(f"{word}=" if is_list else word)
        elif is_list and not (word.startswith("-") and word[1:2].isalpha()):  # -1e-3 is one, to argparse it is a flag
            spelt[-1] += word if spelt[-1].endswith("=") else f", {word}"
        else:
            is_list = False
            spelt.append(word)
    return spelt


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    if not near or "." not in name:  # `--patches` is meant to be model.patches rather than some option like it
        near = [key for key in known if key.endswith(f".{name}")][:1] or near
    return f"did you mean {near[0]}?" if near else "`foveate train --help` lists them"
