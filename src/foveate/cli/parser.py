"""Argument parser of every verb, whose errors are one line and suggest what was meant."""

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Never, get_args

from foveate.errors import ConfigError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggestion of the known word that is nearest to a misspelt one, or "".

    Example:
        >>> did_you_mean("--sampels", ["--samples", "--seed"])
        ', did you mean --samples?'
        >>> did_you_mean("--colour", ["--samples", "--seed"])
        ''
    """
    near = get_close_matches(word, sorted(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


class Parser(argparse.ArgumentParser):
    """Argument parser that raises a one-line `ConfigError` instead of printing its usage and leaving.

    Abbreviated flags are refused: what a script says must still mean the same when a flag is added.

    Example:
        >>> parser = Parser(prog="foveate predict")
        >>> _ = parser.add_argument("--samples", type=int)
        >>> parser.parse_arguments(["--sampels", "3"])
        Traceback (most recent call last):
        ...
        foveate.errors.ConfigError: unknown option --sampels, did you mean --samples? See foveate predict --help
    """

    def __init__(self, prog: str | None = None, **settings: Any) -> None:
        self._declared: list[argparse.Action] = []
        self._found = argparse.Namespace()
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, **{**settings, "allow_abbrev": False, "exit_on_error": False})

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Declare an argument, which argparse keeps in no public place."""
        self._declared.append(super().add_argument(*names, **settings))
        return self._declared[-1]

    def add_subparsers(self, **settings: Any) -> Any:
        """Declare that there are verbs within this one."""
        self._declared.append(super().add_subparsers(**settings))
        return self._declared[-1]

    def options(self) -> set[str]:
        """Flags of this parser, and of the verbs within it."""
        found = {option for action in self._declared for option in action.option_strings}
        within = [action.choices.values() for action in self._declared if isinstance(action.choices, dict)]
        return found.union(*(parser.options() for parsers in within for parser in parsers))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # verbs within are parsed by it, too
        """Parse what is known, as argparse does, but raise `ConfigError`."""
        self._found = argparse.Namespace() if namespace is None else namespace
        try:
            return super().parse_known_args(args, self._found)
        except argparse.ArgumentError as error:
            if error.argument_name is None:
                self.error(error.message)
            raise ConfigError(self._see(f"{error.argument_name}: {error.message}")) from None

    def error(self, message: str) -> Never:
        """Raise `ConfigError` with what is missing, or else argparse's message, and where to read on."""
        missing = [
            "/".join(action.option_strings) or str(action.metavar or action.dest)
            for action in self._declared
            if action.required and getattr(self._found, action.dest, None) is None
        ]
        raise ConfigError(self._see(f"missing {', '.join(missing)}" if missing else message))

    def _see(self, message: str) -> str:
        return f"{message}{'' if message.endswith('?') else '.'} See {self.prog} --help"

    def _called(self, arguments: Sequence[str]) -> "Parser":
        """The verb within this one that the words are for, which knows its own options; itself if there is none."""
        within = [action.choices for action in self._declared if isinstance(action.choices, dict)]
        return next((verbs[word] for verbs in within for word in arguments if word in verbs), self)

    def parse_arguments(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Namespace of the words after the program's and the verb's name.

        Raises:
            ConfigError: if an option is unknown, with the one that was meant, missing or has a wrong value.
        """
        namespace: argparse.Namespace
        namespace, left_over = self.parse_known_args(arguments)
        if left_over:
            option = left_over[0].split("=")[0]
            called = self._called(arguments)
            if not option.startswith("-"):
                called.error(f"one argument too many, {left_over[0]!r}")
            called.error(f"unknown option {option}{did_you_mean(option, called.options())}")
        return namespace


class Instead(argparse.Action):
    """Flag beside which an argument may be left out that is needed without it.

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


def add_model(parser: argparse.ArgumentParser, name: str) -> None:
    """Arguments of which model, and what code it may bring along."""
    parser.add_argument(name, metavar="RUN", help="a run or model folder, a shipped model's name, or a hub id")
    add_code(parser)


def add_code(parser: argparse.ArgumentParser) -> None:
    """Argument of what a model folder or a configuration file may have executed."""
    parser.add_argument(
        "--allow-code",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a function that RUN or FILE may import and call, to build a feature network (default: none)",
    )


def add_looking(parser: argparse.ArgumentParser) -> argparse.Action:
    """Arguments of which model looks at which images, and how it draws; the one that names the images is returned."""
    add_model(parser, "run")
    paths = parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="images, folders of images, or manifests (.csv)"
    )
    add_method(parser)
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="draws to average (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    add_loading(parser)
    add_layout(parser)
    return paths


def add_method(parser: argparse.ArgumentParser) -> None:
    """Argument of how patches are drawn."""
    from foveate.config.settings import Method  # here, so that `foveate --help` does without dataclasses

    methods = get_args(get_args(Method)[0])
    parser.add_argument("--method", choices=methods, help="how patches are drawn (default: as in training)")


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Arguments of how a manifest is laid out that is not as foveate writes it."""
    parser.add_argument(
        "--columns", action="append", default=[], metavar="THEIRS=OURS", help="columns: slide_id=path,patient=group"
    )
    parser.add_argument("--images", metavar="DIR", help="what the manifest's paths are relative to (default: itself)")


def add_abstain(parser: argparse.ArgumentParser) -> None:
    """Argument of how sure a decision has to be."""
    parser.add_argument(
        "--abstain", type=float, metavar="P", help='decide "unsure" below this probability (default: as calibrated)'
    )


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Argument of whether to go on where an earlier call was stopped."""
    parser.add_argument(
        "--resume", action="store_true", help="go on with what a call that was stopped has done; else begin anew"
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Arguments of how images come to a model, none of which changes a result."""
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="images at a time on a GPU (default: 32)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that read (default: one a core)")


def check_looking(arguments: argparse.Namespace) -> None:
    """Check of these arguments.

    Raises:
        ConfigError: fewer than one draw, image at a time or thread is asked for.
    """
    for name in ("samples", "batch", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            what = "1 is one draw, 4 averages four" if name == "samples" else "leave it out, or give 1 or more"
            raise ConfigError(f"--{name} must be at least 1, got {value}: {what}")
