"""The files around the code agree with it and with each other."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matrix import LOWEST, OLDEST, ROWS, lowest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from foveate import __version__

ROOT = Path(__file__).parent.parent
TARGETS = ("setup", "demo", "test", "test-slow", "test-matrix", "lint", "bench", "dist")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_a_pin_is_a_name_and_a_version_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.+!]+", line), line
        assert "://" not in line


def test_every_requirement_is_pinned_within_its_bounds(project: dict[str, Any], pins: dict[str, str]) -> None:
    installed = re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert installed is not None
    extras = project["optional-dependencies"]
    for text in [
        *project["dependencies"],
        *(one for extra in (*installed[1].split(","), "bench") for one in extras[extra]),
    ]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:  # extras made of others
            assert requirement.extras <= set(installed[1].split(","))
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_the_matrix_tests_what_is_promised(project: dict[str, Any]) -> None:
    """Every Python of the classifiers, and of each dependency the version that its bound names."""
    versions = [text.rpartition(" ")[2] for text in project["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert set(ROWS) == {LOWEST, *versions}
    assert project["requires-python"] == f">={OLDEST}"
    held = dict(line.split("==") for line in lowest(project))
    for text in (*project["dependencies"], *project["optional-dependencies"]["geo"], "pytest>=8.3"):
        requirement = Requirement(text)
        for one in requirement.specifier:
            assert one.operator not in (">=", "==") or held[canonicalize_name(requirement.name)] == one.version, text


def third_party_imports(node: ast.AST, at_once: bool = True) -> Iterator[tuple[str, bool]]:
    """Packages that a tree imports when it runs, each with whether it does so when it is itself imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
        if isinstance(child, ast.ImportFrom) and child.module and not child.level:
            names = [child.module]
        for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"foveate"}:
            yield name, at_once
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from third_party_imports(child, at_once and not is_function)


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_what_is_imported_is_declared(project: dict[str, Any]) -> None:
    """A dependency, if a module cannot be imported without it; a dependency or an extra, if it is imported when used.

    What comes along with another package is declared, too: it may stop coming along.
    """
    needed = declared(project["dependencies"])
    extras = project["optional-dependencies"]
    offered = needed.union(*(declared(extras[name]) for name in extras if name not in {"dev", "bench"}))
    providers = packages_distributions()
    for file in (ROOT / "src").rglob("*.py"):
        for name, at_once in third_party_imports(ast.parse(file.read_text())):
            allowed = needed if at_once else offered
            found = {canonicalize_name(one) for one in providers.get(name, [name])}
            assert found & allowed, f"{file.name} imports {name}: declare it in pyproject.toml"


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{__version__}}}" in (ROOT / "README.md").read_text()
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[:1] == ["Unreleased"]
    assert sections[1:2] in ([], [__version__]), "before the first release there is nothing else"


def test_the_command_is_the_modules_main(project: dict[str, Any]) -> None:
    assert project["scripts"] == {"foveate": "foveate.__main__:main"}


def test_types_are_shipped() -> None:
    assert (ROOT / "src" / "foveate" / "py.typed").exists()


def test_weights_of_a_shipped_model_are_not_left_out_of_the_package() -> None:
    """The wheel takes all files under the package but those that git ignores."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/foveate"]}
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    files = [f"src/foveate/shipped/name/{one}" for one in ("config.json", "model.safetensors", "README.md")]
    found = subprocess.run([git, "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, ""), "1: none of them is ignored"


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tests_come_last_in_make_test() -> None:
    dry_run = ["make", "--dry-run", "--no-print-directory", "test"]
    commands = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m pytest" in commands.splitlines()[-1]
    assert commands.index("ruff check") < commands.index("ruff format --check") < commands.index("pytest")


def test_continuous_integration_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("exec make test")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make setup` looks at, in a folder where it has been done."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def planned(clone: Path, *words: str) -> str:
    command = ["make", "-n", "setup", *words]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout


def test_a_torch_that_is_asked_for_is_installed_even_if_all_is_set_up(clone: Path) -> None:
    assert "install" not in planned(clone)
    assert "install" not in planned(clone, "TORCH= ")
    lines = [line for line in planned(clone, "TORCH=torch==9.9").splitlines() if "pip " in line]
    assert lines[0].endswith("install --force-reinstall torch==9.9")
    assert "--editable" in lines[-1]


def test_a_half_made_environment_is_removed(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    python = clone / "python"
    python.write_text(
        """#!/bin/sh
case "$*" in
  *venv*) mkdir -p .venv/bin; touch .venv/bin/python; exit 1;;
  *"import torch"*) exit 1;;
esac
"""
    )
    python.chmod(0o755)
    done = subprocess.run(["make", "setup", f"PYTHON={python}"], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "install" not in done.stdout
    assert not (clone / ".venv").exists()


PACKAGE = ROOT / "src" / "foveate"


def built(kind: str, where: Path, source: Path = ROOT) -> Path:
    """A wheel or an sdist, built by hatchling as pip would: nothing is fetched."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(where)]
    subprocess.run(build, cwd=source, capture_output=True, text=True, check=True)
    (file,) = where.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return file


def test_a_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    """Pages, scripts, presets, the card, the shipped model: what is no Python is in it, too, and nothing else."""
    expected = {file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    names = ("openseadragon.min.js", "openseadragon-LICENSE.txt", "page.html", "report.html", "index.js", "card.md")
    names += ("predict.py.txt", "py.typed", "model.safetensors", "photographs.yaml")
    assert set(names) <= {file.name for file in expected}
    with zipfile.ZipFile(built("wheel", tmp_path)) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith("foveate/")}
        assert inside == {f"foveate/{file.relative_to(PACKAGE).as_posix()}" for file in expected}
        for file in expected:
            assert wheel.read(f"foveate/{file.relative_to(PACKAGE).as_posix()}") == file.read_bytes()


@pytest.mark.slow
def test_what_is_released_works_from_an_empty_folder(tmp_path: Path) -> None:
    """The sdist makes the wheel that the checkout makes, to the byte; installed by pip, it predicts and explains."""
    (tmp_path / "of-sdist").mkdir()
    with tarfile.open(built("sdist", tmp_path)) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    for name in ("tests/test_packaging.py", "Makefile", "constraints.txt", "docs/index.md", "examples/onnx_predict.py"):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()
    assert not {".venv", "runs", "dist", "build"} & {file.name for file in source.iterdir()}
    wheel, ours = built("wheel", tmp_path / "of-sdist", source), built("wheel", tmp_path)
    assert wheel.read_bytes() == ours.read_bytes()

    venv.create(tmp_path / "fresh", with_pip=False)
    python = tmp_path / "fresh" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True, text=True)
    (packages,) = (tmp_path / "fresh" / "lib").glob("*/site-packages")
    assert (packages / "foveate" / "__init__.py").is_file()
    # What foveate needs is not installed again; `foveate` itself is found where it was installed, before these.
    there = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "there.pth").write_text("\n".join(there) + "\n")

    empty = tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900), np.uint8)).save(empty / "digits.png")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def said(program: str, *words: str) -> str:
        command = [str(python.with_name(program)), *words]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("python", "-c", "import foveate; print(foveate.__file__)").startswith(str(packages))
    assert said("foveate", "--version").split()[-1] == __version__
    assert "predict" in said("foveate", "--help")
    assert "digits.png" in said("foveate", "predict", "megapixel-mnist", "digits.png")
    said("foveate", "explain", "megapixel-mnist", "digits.png", "--out", "seen")
    assert (empty / "seen" / "index.html").is_file()
    code = "from foveate import load_model; from foveate.models import save_model; from foveate.export import program;"
    said("python", "-c", f"{code} save_model(load_model('megapixel-mnist'), 'copy', None); print(program())")
    assert (empty / "copy" / "README.md").is_file()


def test_what_only_benchmarks_need_is_installed_for_them_alone(clone: Path) -> None:
    assert "[bench]" not in planned(clone)
    bench = subprocess.run(["make", "-n", "bench"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert '--editable ".[bench]"' in bench
    (clone / ".venv" / ".installed-bench").touch()
    bench = subprocess.run(["make", "-n", "bench"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert "install" not in bench
