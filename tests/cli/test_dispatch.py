"""From words to verbs and from errors to exit codes."""

import argparse
import errno
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest
from torch import distributed

from foveate.__main__ import main
from foveate.cli import VERBS, Parser
from foveate.errors import FoveateError, ImageError, Interrupted, MissingExtra

Verb = Callable[[argparse.Namespace], int]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Verb], None]:
    """Put a verb `probe` in the house that does what the test says."""

    def install(act: Verb) -> None:
        module = ModuleType("foveate.cli.probe")
        module.add_arguments = lambda parser: parser.add_argument("--samples", type=int, default=1)  # type: ignore[attr-defined]
        module.run = act  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "foveate.cli.probe", module)
        monkeypatch.setitem(VERBS, "probe", "a verb for this test")

    return install


def raising(error: BaseException) -> Verb:
    def act(_: argparse.Namespace) -> int:
        raise error

    return act


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_summary_is_what_help_says(verb: str) -> None:
    module = import_module(f"foveate.cli.{verb}")
    assert VERBS[verb] == module.SUMMARY
    assert hasattr(module, "main") or (hasattr(module, "add_arguments") and hasattr(module, "run"))


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for verb, summary in VERBS.items():
        assert f"{verb} " in printed
        assert summary in printed


@pytest.mark.parametrize("words", [["predict", "--help"], ["help", "predict"]])
def test_help_of_a_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: foveate predict ")


@pytest.mark.parametrize("verb", VERBS)
def test_help_speaks_of_words_to_type_not_of_types(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert not re.search(r"typing\.|Literal\[|<class '|foveate\.\w+\.\w+", capsys.readouterr().out)


def test_no_words_at_all_prints_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "verbs:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from foveate import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"foveate {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["pedict", "x"],
            "foveate: error: 'pedict' is not a verb of foveate, did you mean predict? See foveate --help\n",
        ),
        (["zzz"], "foveate: error: 'zzz' is not a verb of foveate. See foveate --help\n"),
        (["--vresion"], "foveate: error: unknown option --vresion, did you mean --version? See foveate --help\n"),
        (["predict"], "foveate: error: missing RUN, PATH. See foveate predict --help\n"),
        (
            ["predict", "run", "a.png", "--sampels", "3"],
            "foveate: error: unknown option --sampels, did you mean --samples? See foveate predict --help\n",
        ),
        (
            ["predict", "run", "a.png", "--samples", "many"],
            "foveate: error: --samples: invalid int value: 'many'. See foveate predict --help\n",
        ),
    ],
)
def test_a_usage_error_is_one_line_and_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err == said
    assert printed.out == ""


def test_abbreviations_are_refused(install: Callable[[Verb], None], capsys: pytest.CaptureFixture[str]) -> None:
    install(lambda arguments: arguments.samples)
    assert main(["probe", "--samples", "3"]) == 3
    assert main(["probe", "--samp", "3"]) == 2
    assert "did you mean --samples?" in capsys.readouterr().err


def test_the_verbs_code_is_the_programs(install: Callable[[Verb], None]) -> None:
    install(lambda _: 3)
    assert main(["probe"]) == 3


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FoveateError("no\n  such   thing"), 2, "foveate: error: no such thing\n"),
        (ImageError("a.png is not an image: remove it"), 2, "foveate: error: a.png is not an image: remove it\n"),
        (MissingExtra("pip install 'package>=2'"), 2, "foveate: error: pip install 'package>=2'\n"),
        (Interrupted("stopped after step 3", 15), 143, "foveate: stopped after step 3\n"),
        (Interrupted("stopped after step 3", 2), 130, "foveate: stopped after step 3\n"),
        (KeyboardInterrupt(), 130, "foveate: stopped by Ctrl-C\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            2,
            "foveate: error: No space left on device (runs/a): free some space or write elsewhere\n",
        ),
        (
            OSError(errno.ELOOP, "Too many levels of symbolic links", "runs/a"),
            2,
            "foveate: error: Too many levels of symbolic links (runs/a): remove the link that leads back to itself\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a"),
            2,
            "foveate: error: Permission denied (/a): change its permissions or use another place\n",
        ),
        (
            RuntimeError("[/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:3970: Connection reset by peer."),
            2,
            "foveate: error: another process of this call has ended: see what was said before, and go on with "
            "--resume\n",
        ),
        (
            distributed.DistNetworkError("failed to recv, got 0 bytes"),
            2,
            "foveate: error: another process of this call has ended: see what was said before, and go on with "
            "--resume\n",
        ),
        (
            distributed.DistStoreError("Timed out after 601 seconds waiting for clients. 1/2 clients joined."),
            2,
            "foveate: error: another process of this call has ended: see what was said before, and go on with "
            "--resume\n",
        ),
        (
            RuntimeError("IoError(Os { code: 28, kind: StorageFull })"),
            2,
            "foveate: error: no space left on device: free some space or write elsewhere\n",
        ),
        (
            MemoryError(),
            2,
            "foveate: error: out of memory: use fewer images a batch, fewer patches, or a smaller view\n",
        ),
    ],
)
def test_an_error_becomes_one_line_and_a_code(
    error: BaseException, code: int, said: str, install: Callable[[Verb], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(error))
    assert main(["probe"]) == code
    assert capsys.readouterr().err == said


def test_our_own_fault_shows_its_traceback(install: Callable[[Verb], None], capsys: pytest.CaptureFixture[str]) -> None:
    install(raising(ZeroDivisionError("division by zero")))
    assert main(["probe"]) == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ZeroDivisionError: division by zero"
    assert last.startswith("foveate: this is a fault of foveate, not yours")


def test_a_reader_who_leaves_early_is_no_error() -> None:
    code = "import sys\nfrom foveate.__main__ import main\nsys.exit(main(['--help']))"
    command = [sys.executable, "-c", f"import time; time.sleep(0.3)\n{code}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.close()
    _, said = child.communicate(timeout=60)
    assert said == ""
    assert child.returncode in (0, 141)


def test_suggestions_reach_into_sub_verbs() -> None:
    parser = Parser(prog="foveate data")
    make = parser.add_subparsers(dest="kind").add_parser("check")
    make.add_argument("--manifest")
    with pytest.raises(FoveateError, match="did you mean --manifest\\? See foveate data check --help"):
        parser.parse_arguments(["check", "--manifets", "x"])
    with pytest.raises(FoveateError, match=r"one argument too many, 'y=z'\. See foveate data check --help"):
        parser.parse_arguments(["check", "y=z"])
