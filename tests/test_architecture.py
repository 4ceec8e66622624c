"""The floors of the house, read off the syntax trees, and what each door may load."""

import ast
import graphlib
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.cli import VERBS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "foveate"
FLOORS = (
    {
        "_version",
        "types",
        "errors",
        "seeds",
        "atomic",
        "cache",
        "disk_cache",
        "threads",
        "devices",
        "config",
        "hooks",
        "notebook",
    },
    {"sampling", "images", "networks"},
    {"models", "datasets"},
    {"pipeline"},
    {"evaluation"},
    {"training", "predict", "convert"},
    {"compare", "explain", "export"},
    {"view", "report", "classifier"},
    {"cli", "__main__", "__init__"},
)
TORCH_FREE = (
    *(
        "_version",
        "types",
        "errors",
        "seeds",
        "atomic",
        "cache",
        "disk_cache",
        "devices",
        "config",
        "hooks",
        "notebook",
    ),
    *("cli", "__init__", "__main__"),
)
LONGEST_FILE = 350

IMAGE_ROOMS = (
    {"header", "io"},
    {"area"},
    {"view"},
    {"orientation", "source"},
    {"formats", "scale"},
    {"open", "describe"},
    {"wrappers"},
    {"augment"},
    {"tensors"},
    {"__init__"},
)
"""What stands in images/: each imports from those before it, and from its own line."""


def module(file: Path) -> str:
    """The name a file is imported by."""
    return ".".join(("foveate", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {module(file): file for file in FILES}


def imports(tree: ast.AST, package: str, running: bool = False) -> Iterator[str]:
    """Absolute names of the modules that a tree imports: for types, within functions and by name, too.

    Arguments:
        tree: of a file.
        package: that the file stands in.
        running: leave out what is imported for types alone, or not before a function is called.
    """
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - child.level + 1]) if child.level else ""
            name = ".".join(part for part in (base, child.module) if part)
            members = (f"{name}.{alias.name}" for alias in child.names)
            yield from (member if member in MODULES else name for member in members)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            yield from (arg.value for arg in child.args if isinstance(arg, ast.Constant))
        is_later = isinstance(child, ast.FunctionDef | ast.Lambda)
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not (running and (is_later or is_for_types)):
            yield from imports(child, package, running)


def arrows() -> dict[str, set[str]]:
    """The graph of imports: every module, and ours that it names; the lazy front, which names all, left out."""
    graph = {}
    for name, file in MODULES.items():
        if name != "foveate":
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            graph[name] = (set(imports(ast.parse(file.read_text()), package)) & set(MODULES)) - {name}
    return graph


def room(name: str) -> str:
    """The folder or module right under `foveate` that a module belongs to."""
    return f"{name}.__init__".split(".")[1]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def is_allowed(importer: str, imported: str) -> bool:
    """Downwards; on one floor only within a room, except among the words and among the doors."""
    here, there = floor(importer), floor(imported)
    return importer == imported or there < here or (here == there and here in (0, len(FLOORS) - 1))


def test_every_room_stands_on_one_floor() -> None:
    rooms = [name for names in FLOORS for name in names]
    assert len(rooms) == len(set(rooms))
    strangers = {room(name) for name in MODULES} - set(rooms)
    assert not strangers, f"{strangers} stand on no floor: give them one in docs/architecture.md and here"


def test_imports_point_downwards() -> None:
    pairs = [(here, there) for here, names in arrows().items() for there in names]
    assert not [(here, there) for here, there in pairs if not is_allowed(room(here), room(there))]


def test_no_file_imports_itself_in_a_circle() -> None:
    tuple(graphlib.TopologicalSorter(arrows()).static_order())  # a CycleError names the files


def test_the_rooms_of_images_have_an_order() -> None:
    line = {name: number for number, names in enumerate(IMAGE_ROOMS) for name in names}
    inside = {name: f"{name}.__init__".split(".")[2] for name in MODULES if room(name) == "images"}
    assert set(inside.values()) == set(line), "give every room of images/ its line"
    wrong = [
        (here, there)
        for here, names in arrows().items()
        for there in names
        if here in inside and there in inside and line[inside[there]] > line[inside[here]]
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("importer", "source", "allowed"),
    [
        ("models", "from foveate.sampling import draw", True),
        ("sampling", "from foveate.models import Model", False),
        ("sampling", "def f():\n    import foveate.images.open", False),
        ("networks", "from foveate import images", False),
        ("images", "from importlib import import_module\nimport_module('foveate.networks')", False),
        (
            "datasets",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from foveate.models import Model",
            False,
        ),
        ("models", "from foveate import __version__", False),
        ("models", "from ..datasets import open", False),
        ("models", "from .base import Model", True),
        ("predict", "from foveate.compare import x", False),
        ("view", "from foveate.explain import explain", True),
        ("explain", "from foveate.view import Pyramid", False),
        ("errors", "from foveate.types import Box", True),
        ("cli", "from foveate.training import loop", True),
    ],
)
def test_the_rule_itself(importer: str, source: str, allowed: bool) -> None:
    names = set(imports(ast.parse(source), f"foveate.{importer}")) & set(MODULES)
    assert names or not source.startswith("from foveate")
    assert all(is_allowed(importer, room(name)) for name in names) is allowed


def test_files_are_short_and_named_for_what_they_hold() -> None:
    assert not [file for file in FILES if file.stem in {"utils", "util", "helpers", "misc", "common"}]
    lengths = {str(file.relative_to(SOURCE)): len(file.read_text().splitlines()) for file in FILES}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_images_are_no_more_than_a_quarter_of_the_house() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in MODULES.items()}
    images = sum(length for name, length in lengths.items() if room(name) == "images")
    assert images <= sum(lengths.values()) / 4


def test_of_images_only_what_becomes_a_tensor_names_torch() -> None:
    named = {
        name
        for name, file in MODULES.items()
        if room(name) == "images" and "torch" in {one.split(".")[0] for one in imports(ast.parse(file.read_text()), "")}
    }
    assert named == {"foveate.images.tensors", "foveate.images.augment.patches"}


def test_the_words_and_the_doors_do_not_import_torch() -> None:
    heavy = {"torch", "numpy", "accelerate", "sklearn", "matplotlib"}
    wrong = []
    for name, file in MODULES.items():
        if room(name) in TORCH_FREE:
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            loaded = {one.split(".")[0] for one in imports(ast.parse(file.read_text()), package, running=True)}
            wrong += [(name, loaded & heavy)] if loaded & heavy else []
    assert not wrong


def test_package_fronts_hold_no_logic() -> None:
    for file in FILES:
        if file.name != "__init__.py" or file.parent == SOURCE:
            continue
        for node in ast.parse(file.read_text()).body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_list_of_names = "__all__" in ast.unparse(node)
            fine = is_docstring or is_list_of_names or isinstance(node, ast.Import | ast.ImportFrom)
            assert fine, f"{file}: {ast.unparse(node)}"


def test_the_house_stays_small() -> None:
    lengths = [len(file.read_text().splitlines()) for file in FILES]
    assert len(FILES) <= 273
    assert sum(length < 40 for length in lengths) <= 20


def test_the_plan_names_every_file() -> None:
    plan = (ROOT / "docs" / "architecture.md").read_text()
    named = (str(file.relative_to(SOURCE)) for file in FILES if file.name != "__init__.py")
    assert [name for name in named if f"| `{name}` |" not in plan] == []


def test_an_images_way_is_short_and_is_the_one_the_plan_tells() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "image_path.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ways = json.loads(done.stdout)
    assert len(ways["training"]) <= 52
    assert len(ways["prediction"]) <= 42
    plan = (ROOT / "docs" / "architecture.md").read_text()
    for files in ways.values():
        assert " → ".join(f"`{name.removesuffix('.py')}`" for name in files) in plan


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
    """Of the processor, which a busy machine stretches less than those of the clock."""
    spent = []
    for _ in range(repeats + 1):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(used.ru_utime + used.ru_stime)
        if len(spent) <= repeats:
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return [end - begin for begin, end in pairwise(spent)]


def test_a_first_prediction_costs_little_beside_importing_torch(tmp_path: Path) -> None:
    """The whole command in a process of its own, in seconds of the processor: a busy machine is not its fault."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8)).save(tmp_path / "image.png")
    program = (
        "import time, torch; torch_cost = time.process_time(); from foveate.__main__ import main; "
        "code = main(['predict', 'megapixel-mnist', 'image.png', '--out', 'rows.csv']); "
        "print(code, torch_cost, time.process_time() - torch_cost)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    code, torch_cost, ours = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert float(ours) < max(1.0, 0.6 * float(torch_cost)), f"{ours} CPU s beside torch's own {torch_cost}"


def test_help_is_instant() -> None:
    bare = statistics.median(seconds([sys.executable, "-c", "import argparse"]))
    help_text = statistics.median(seconds([sys.executable, "-m", "foveate", "--help"]))
    assert help_text < max(0.4, 1.5 * bare), f"foveate --help {help_text:.3f} s, a bare interpreter {bare:.3f} s"
