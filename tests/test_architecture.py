"""The floors of the house, read off the syntax trees, and what each door may load."""

import ast
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foveate.cli import VERBS

SOURCE = Path(__file__).parent.parent / "src" / "foveate"
FLOORS = (
    {"_version", "types", "errors", "seeds", "allocator", "atomic", "cache", "threads", "devices", "config"},
    {"sampling", "images", "networks"},
    {"models", "datasets"},
    {"pipeline"},
    {"evaluation"},
    {"training", "predict", "convert"},
    {"compare", "explain"},
    {"view"},
    {"cli", "__main__", "__init__"},
)
TORCH_FREE = (
    *("_version", "types", "errors", "seeds", "allocator", "atomic", "cache", "devices", "config"),
    *("cli", "__init__", "__main__"),
)
LONGEST_FILE = 350

FILES = sorted(SOURCE.rglob("*.py"))
IDS = [str(file.relative_to(SOURCE)) for file in FILES]


def room(file: Path) -> str:
    """The folder or module right under `foveate` that a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, package: tuple[str, ...], everywhere: bool = True) -> Iterator[str]:
    """Absolute names of the modules that a tree imports at run time; of its top level only unless `everywhere`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = ".".join(package[: len(package) - child.level + 1]) if child.level else ""
            module = ".".join(part for part in (base, child.module) if part)
            yield from (f"{module}.{alias.name}" for alias in child.names) if module == "foveate" else (module,)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            yield from (arg.value for arg in child.args if isinstance(arg, ast.Constant))
        if is_typing_only(child) or (not everywhere and isinstance(child, ast.FunctionDef | ast.Lambda)):
            continue
        yield from imports(child, package, everywhere)


def imported_rooms(source: str, package: tuple[str, ...] = ("foveate",)) -> set[str]:
    names = imports(ast.parse(source), package)
    return {name.split(".")[1] for name in names if name.startswith("foveate.")} - {"__version__"}


def is_allowed(importer: str, imported: str) -> bool:
    """Downwards; on one floor only within a room, except among the words and among the doors."""
    here, there = floor(importer), floor(imported)
    return importer == imported or there < here or (here == there and here in (0, len(FLOORS) - 1))


def test_every_room_stands_on_one_floor() -> None:
    rooms = [name for names in FLOORS for name in names]
    assert len(rooms) == len(set(rooms))
    strangers = {room(file) for file in FILES} - set(rooms)
    assert not strangers, f"{strangers} stand on no floor: give them one in docs/architecture.md and here"


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_imports_point_downwards(file: Path) -> None:
    package = ("foveate", *file.relative_to(SOURCE).parts[:-1])
    if room(file) == "__init__":
        return  # the lazy front door names everything; that it imports nothing is tested below
    wrong = {name for name in imported_rooms(file.read_text(), package) if not is_allowed(room(file), name)}
    assert not wrong, f"{room(file)} (floor {floor(room(file))}) may not import {wrong}"


@pytest.mark.parametrize(
    ("importer", "source", "allowed"),
    [
        ("models", "from foveate.sampling import draw", True),
        ("sampling", "from foveate.models import Model", False),
        ("sampling", "def f():\n    import foveate.images.open", False),
        ("networks", "from foveate import images", False),
        ("images", "from importlib import import_module\nimport_module('foveate.networks')", False),
        ("datasets", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from foveate.models import Model", True),
        ("predict", "from foveate.compare import x", False),
        ("view", "from foveate.explain import explain", True),
        ("explain", "from foveate.view import Pyramid", False),
        ("errors", "from foveate.types import Box", True),
        ("cli", "from foveate.training import loop", True),
    ],
)
def test_the_rule_itself(importer: str, source: str, allowed: bool) -> None:
    assert all(is_allowed(importer, name) for name in imported_rooms(source)) is allowed


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_files_are_short_and_named_for_what_they_hold(file: Path) -> None:
    assert file.stem not in {"utils", "util", "helpers", "misc", "common"}
    assert len(file.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_the_words_and_the_doors_do_not_import_torch(file: Path) -> None:
    name = str(file.relative_to(SOURCE))
    if not any(name == free or room(file) == free for free in TORCH_FREE):
        return
    package = ("foveate", *file.relative_to(SOURCE).parts[:-1])
    heavy = {"torch", "numpy", "accelerate", "sklearn", "matplotlib"}
    loaded = {module.split(".")[0] for module in imports(ast.parse(file.read_text()), package, everywhere=False)}
    assert not loaded & heavy


@pytest.mark.parametrize("file", [file for file in FILES if file.name == "__init__.py"], ids=lambda f: f.parent.name)
def test_package_fronts_hold_no_logic(file: Path) -> None:
    if file.parent == SOURCE:
        return
    for node in ast.parse(file.read_text()).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_list_of_names = "__all__" in ast.unparse(node)
        assert is_docstring or is_list_of_names or isinstance(node, ast.Import | ast.ImportFrom), ast.unparse(node)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_help_loads_torch() -> None:
    calls = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)]
    code = (
        "import sys, json, io, contextlib\n"
        "from foveate.__main__ import main\n"
        f"for words in {calls!r}:\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out): code = main(words)\n"
        "    heavy = [name for name in ('torch', 'accelerate', 'sklearn', 'matplotlib') if name in sys.modules]\n"
        "    print(json.dumps([words, code, len(out.getvalue()), heavy]))"
    )
    told = [json.loads(line) for line in run_python(code).splitlines()]
    assert [words for words, *_ in told] == calls
    for words, exit_code, length, heavy in told:
        assert exit_code == 0, words
        assert length > 10, words
        assert heavy == [], words


def test_importing_foveate_loads_nothing_heavy() -> None:
    loaded = run_python("import sys, foveate\nprint([m for m in ('torch', 'numpy', 'argparse') if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_reading_images_loads_no_torch() -> None:
    assert run_python("import sys, foveate.images.source\nprint('torch' in sys.modules)").strip() == "False"


def seconds(command: list[str], repeats: int = 5) -> list[float]:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return times


def test_help_is_instant() -> None:
    bare = statistics.median(seconds([sys.executable, "-c", "import argparse"]))
    help_text = statistics.median(seconds([sys.executable, "-m", "foveate", "--help"]))
    assert help_text < max(0.4, 1.5 * bare), f"foveate --help {help_text:.3f} s, a bare interpreter {bare:.3f} s"
