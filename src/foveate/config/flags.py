"""Settings as flags: jsonargparse checks the types, this file speaks plainly about what it finds."""

import re
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_type_hints

from foveate.config.training import RunSettings
from foveate.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["join_lists", "known_keys", "read_flags", "settings_parser"]


def known_keys(settings: type = RunSettings, prefix: str = "") -> dict[str, Any]:
    """Dotted name of every setting → its type.

    Example:
        >>> known_keys()["model.patches"]
        <class 'int'>
    """
    hints = get_type_hints(settings)
    keys: dict[str, Any] = {}
    for one in fields(settings):
        hint = hints[one.name]
        if is_dataclass(hint):
            keys |= known_keys(hint, f"{prefix}{one.name}.")  # type: ignore[arg-type]
        else:
            keys[prefix + one.name] = hint
    return keys


def settings_parser(**arguments: Any) -> "ArgumentParser":
    """A parser that knows every setting as a flag, with the string under its field as help.

    Arguments:
        arguments: for `jsonargparse.ArgumentParser`.
    """
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, **arguments)
    parser.add_class_arguments(RunSettings, None)
    for action in parser._actions:
        if type(action).__name__ == "_ActionConfigLoad":  # `--model FILE`: a second door to `--config FILE`
            action.help = jsonargparse.SUPPRESS
    return parser


def read_flags(arguments: list[str], parser: "ArgumentParser") -> dict[str, Any]:
    """What was set by flags such as `--model.patches 5`, nested like the YAML file; nothing that was not.

    Arguments:
        arguments: the words after the verb.
        parser: of `settings_parser`, and whatever options were added to it.

    Raises:
        ConfigError: an unknown setting, with the one that was meant; or a value of the wrong type.
    """
    keys = known_keys()
    options = {option[2:] for action in parser._actions for option in action.option_strings}
    for word in arguments:
        name = word[2:].split("=")[0]
        if word.startswith("--") and name not in options:
            raise ConfigError(
                f"unknown {'key' if '.' in name else 'option'} {name}: {_suggestion(name, keys, options)}"
            )
    return _spoken(lambda: parser.parse_args(join_lists(arguments, keys), defaults=False))


def join_lists(arguments: list[str], keys: dict[str, Any]) -> list[str]:
    """Flags of several values as jsonargparse reads them.

    Example:
        >>> join_lists(["--model.patch", "50", "60", "--seed", "1"], known_keys())
        ['--model.patch=[50, 60]', '--seed', '1']
    """
    result: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not str(keys.get(word[2:], "")).startswith("tuple"):
            result.append(word)
            continue
        values: list[str] = []
        while position < len(arguments) and not re.match(r"-+[a-z]", arguments[position]):
            values.append(arguments[position])
            position += 1
        text = ", ".join(values)
        result.append(f"{word}={text}" if text.startswith(("[", "(")) else f"{word}=[{text}]")
    return result


def _suggestion(name: str, keys: dict[str, Any], options: set[str]) -> str:
    near = get_close_matches(name, options, n=1)
    if not near or "." not in name:  # `--patches` is meant to be model.patches rather than some option like it
        near = [key for key in keys if key.endswith(f".{name}")][:1] or near
    return f"did you mean {near[0]}?" if near else "`foveate train --help` lists them"


def _spoken(parse: Any) -> dict[str, Any]:
    """What `parse` returns, as plain dictionaries; its error in one line."""
    import argparse

    try:
        plain: dict[str, Any] = parse().as_dict()
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        text = re.sub(r'^(argument \S+: )?Parser key "([^"]+)": ', r"\2: ", text)
        text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("a int", "an int")
        text = text.replace("Expected", "expected").replace(". Got value:", ", got")
        raise ConfigError(f"{text}: `foveate train --help` says what each setting takes") from None
    return plain
