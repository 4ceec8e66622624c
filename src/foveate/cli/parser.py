"""An argument parser whose errors are one line and suggest what was meant."""

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Never, get_args

from foveate.config.settings import Method
from foveate.errors import ConfigError

__all__ = ["Instead", "Parser", "add_looking", "check_looking", "did_you_mean"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Say which known word is nearest to a misspelt one, or nothing.

    Arguments:
        word: what the user wrote.
        known: what would have been right.

    Returns:
        "" or ", did you mean …?".

    Example:
        >>> did_you_mean("--sampels", ["--samples", "--seed"])
        ', did you mean --samples?'
        >>> did_you_mean("--colour", ["--samples", "--seed"])
        ''
    """
    near = get_close_matches(word, sorted(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises a one-line `ConfigError` instead of printing its usage and leaving.

    Abbreviated flags are refused: what a script says must still mean the same when a flag is added.

    Example:
        >>> parser = Parser(prog="foveate predict")
        >>> _ = parser.add_argument("--samples", type=int)
        >>> parser.parse_arguments(["--sampels", "3"])
        Traceback (most recent call last):
        ...
        foveate.errors.ConfigError: unknown option --sampels, did you mean --samples? See foveate predict --help
    """

    def __init__(self, prog: str | None = None, **settings: object) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, **{**settings, "allow_abbrev": False})  # type: ignore[arg-type]

    def error(self, message: str) -> Never:
        """Raise `ConfigError` with argparse's message and where to read on."""
        message = re.sub(r"^argument (\S+): ", r"\1: ", message)
        message = re.sub(r"^the following arguments are required: ", "missing ", message)
        raise ConfigError(f"{message}. See {self.prog} --help")

    def parse_arguments(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse like `parse_args`, with a suggestion for an unknown option.

        Arguments:
            arguments: the words after the program's and the verb's name.

        Returns:
            The parsed namespace.

        Raises:
            ConfigError: if an option is unknown, missing or has a wrong value.
        """
        namespace, left_over = self.parse_known_args(arguments)
        if not left_over:
            return namespace
        option = left_over[0].split("=")[0]
        if not option.startswith("-"):
            self.error(f"one argument too many, {option!r}")
        raise ConfigError(
            f"unknown option {option}{did_you_mean(option, self._options()) or '.'} See {self.prog} --help"
        )

    def _options(self) -> set[str]:
        options = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    options |= parser._options()
        return options


class Instead(argparse.Action):
    """A flag beside which an argument may be left out that is needed without it.

    Arguments:
        of: that argument.

    Example:
        >>> parser = Parser(prog="foveate explain")
        >>> path = parser.add_argument("path", nargs="+")
        >>> _ = parser.add_argument("--evolution", action=Instead, of=path)
        >>> parser.parse_arguments(["--evolution"])
        Namespace(path=None, evolution=True)
    """

    def __init__(self, option_strings: Sequence[str], dest: str, *, of: argparse.Action, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **settings)
        self._of = of

    def __call__(self, _parser: object, namespace: argparse.Namespace, *_: object) -> None:
        """Take the flag."""
        self._of.required = False
        setattr(namespace, self.dest, True)


def add_looking(parser: argparse.ArgumentParser) -> argparse.Action:
    """Declare which model looks at which images, and how it draws.

    Returns:
        The argument that names the images.
    """
    parser.add_argument("run", metavar="RUN", help="a run or model folder, a shipped model's name, or a hub id")
    paths = parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="images, folders of images, or manifests (.csv)"
    )
    parser.add_argument("--method", choices=get_args(Method), help="how patches are drawn (default: as in training)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="draws to average (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    return paths


def check_looking(arguments: argparse.Namespace) -> None:
    """Refuse what no model can do.

    Raises:
        ConfigError: fewer than one draw is to be averaged.
    """
    if arguments.samples < 1:
        raise ConfigError(f"--samples must be at least 1, got {arguments.samples}: 1 is one draw, 4 averages four")
