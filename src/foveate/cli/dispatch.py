"""Dispatch of the command line: from its words to a verb, and from whatever happens there to an exit code."""

import errno
import os
import sys
import traceback
from importlib import import_module
from types import ModuleType

from foveate.atomic import FULL, not_written
from foveate.cli.parser import Parser, did_you_mean
from foveate.devices import keep_freed_memory, let_waiting_threads_sleep
from foveate.errors import ConfigError, FoveateError, Interrupted, WriteError

VERBS: dict[str, str] = {
    "demo": "train attention sampling and two baselines on megapixel images it makes itself",
    "train": "train a model from a preset or a configuration file",
    "evaluate": "measure a trained model's error on labelled images, with its confidence interval",
    "report": "say on a page what a trained model learnt, how sure it is, and where it is wrong",
    "calibrate": "make a model's probabilities mean what they say, and decide by thresholds, costs or not at all",
    "predict": "classify images with a trained model",
    "explain": "show where a trained model looked in images, what it saw there, and what that was worth",
    "view": "show images of any size on a local page, with what a trained model saw in them",
    "compare": "train and test several methods on the same images, and say what each costs",
    "data": "make data sets, check manifests, split them",
    "info": "say what images are, and what a prediction would read of them",
    "convert": "make a tiled pyramid of an image, of which only what is looked at is read",
    "export": "write a trained model as ONNX or torch.export graphs that need no foveate, or push it to a hub",
    "doctor": "check this installation, or dry-run a configuration, and say what to do about what is wrong",
}
"""Verb → what `foveate --help` says of it; equal to its module's SUMMARY, without importing the module."""

DONE, OUR_FAULT, USERS_FAULT, BROKEN_PIPE, INTERRUPTED = 0, 1, 2, 141, 130

_SURROUNDINGS = {
    **FULL,
    errno.EACCES: "change its permissions or use another place",
    errno.EPERM: "change its permissions or use another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.ELOOP: "remove the link that leads back to itself",
    errno.EISDIR: "give a file instead of a folder",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit with ulimit -n",
    errno.ENFILE: "close some programs",
    errno.EIO: "check the disk",
}

_LOST = ("gloo/transport/", "remote process exited")
"""What torch says of a connection to a process that is no more: gloo, and NCCL."""

_NEVER_MET = ("DistStoreError", "DistNetworkError")
"""Errors of torch by which processes miss each other before they work, or when the one that holds their store ends."""


def main(arguments: list[str] | None = None) -> int:
    """Command line of foveate, from its words to the exit code.

    Arguments:
        arguments: the words after the program's name; those of the process if None.

    Returns:
        The exit code: 0 done · 1 foveate's own fault · 2 the user's input or surroundings · 3 done, but some inputs
        failed · 130 and 143 stopped by Ctrl-C and SIGTERM · 141 nobody reads the output any more.

    Example:
        >>> main(["--version"])
        foveate 0.1.0
        0
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be text in this terminal's encoding
    try:
        code = _dispatch(sys.argv[1:] if arguments is None else arguments)
        _flush()
    except Interrupted as stop:
        return _say(str(stop), 128 + stop.signal)
    except FoveateError as error:
        return _say(f"error: {error}", USERS_FAULT)
    except KeyboardInterrupt:
        return _say("stopped by Ctrl-C", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        return BROKEN_PIPE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else DONE if stop.code is None else _say(str(stop.code), 2)
    except Exception as error:
        refusal = _of_output(error) or _refusal(error)
        if refusal is not None:
            return _say(f"error: {refusal}", USERS_FAULT)
        traceback.print_exc()
        return _say(
            "this is a fault of foveate, not yours: please report the lines above and `foveate doctor`", OUR_FAULT
        )
    return code


def _of_output(error: Exception) -> str | None:
    """What is wrong with the standard output, if a fault that names no file is its."""
    if not isinstance(error, OSError) or error.errno not in FULL or error.filename is not None:
        return None
    try:
        os.write(sys.stdout.fileno(), b"\n")  # what could not be flushed is forgotten, so flushing again says nothing
        return None
    except (OSError, ValueError) as again:
        told = not_written("the standard output", again)
        return str(told) if isinstance(told, WriteError) else None


def _flush() -> None:
    """Write out what was printed; where that cannot be, the interpreter is not to try once more when it exits."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise not_written("the standard output", error) from error


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        _parser().print_help(sys.stderr)
        return USERS_FAULT
    verb, *rest = arguments
    if verb.startswith("-"):
        _parser().parse_arguments(arguments)
        raise ConfigError(f"{verb} stands before the verb: write foveate VERB {verb} …")
    if verb == "help":
        verb, rest = (rest[0], ["--help"]) if rest else ("--help", [])
        return _dispatch([verb, *rest])
    if verb not in VERBS:
        raise ConfigError(f"{verb!r} is not a verb of foveate{did_you_mean(verb, VERBS) or '.'} See foveate --help")
    keep_freed_memory()
    let_waiting_threads_sleep()
    module = import_module(f"foveate.cli.{verb}")
    if hasattr(module, "main"):
        return int(module.main(rest))
    return int(module.run(_verb_parser(verb, module).parse_arguments(rest)))


def _verb_parser(verb: str, module: ModuleType) -> Parser:
    summary = VERBS[verb]
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = Parser(f"foveate {verb}", description=description, epilog=getattr(module, "EPILOG", None))
    module.add_arguments(parser)
    return parser


def _parser() -> Parser:
    from foveate._version import __version__

    width = max(map(len, VERBS))
    parser = Parser(
        "foveate",
        usage="foveate VERB …",
        description="Train and run image classifiers on images too large for a network, by attention sampling.\n\n"
        "verbs:\n" + "\n".join(f"  {verb:{width}}  {summary}" for verb, summary in VERBS.items()),
        epilog="foveate VERB --help says what a verb takes.",
    )
    parser.add_argument("--version", action="version", version=f"foveate {__version__}")
    return parser


def _refusal(error: Exception) -> str | None:
    """What the user's surroundings refused, in a line; None if the error is foveate's own."""
    text = str(error)
    if isinstance(error, OSError) and isinstance(error.__context__, WriteError):  # and once more, when it was closed
        return str(error.__context__)
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        where = f" ({error.filename})" if error.filename is not None else ""
        return f"{error.strerror}{where}: {_SURROUNDINGS[error.errno]}"
    if "No space left on device" in text or "StorageFull" in text:  # a writer of another language hides the errno
        return f"no space left on device: {_SURROUNDINGS[errno.ENOSPC]}"
    lost = any(words in text for words in _LOST) or type(error).__name__ in _NEVER_MET
    if isinstance(error, RuntimeError) and lost:
        return "another process of this call has ended: see what was said before, and go on with --resume"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "out of memory: use fewer images a batch, fewer patches, or a smaller view"
    return None


def _say(message: str, code: int) -> int:
    print(f"foveate: {' '.join(message.split())}", file=sys.stderr)
    return code
