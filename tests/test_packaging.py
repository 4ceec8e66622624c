"""The files around the code agree with it and with each other."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from foveate import __version__

ROOT = Path(__file__).parent.parent
TARGETS = ("setup", "demo", "viewer", "test", "test-slow", "lint", "bench")


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


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
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
    assert commands.index("ruff check") < commands.index("mypy") < commands.index("pytest")


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


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The build hook as hatchling would make it, over a source tree of its own; what it warns of is in `warnings`."""
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    place = tmp_path / "tree" / "src" / "foveate" / "view"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "foveate" / "view" / "openseadragon.py", place)
    made = runpy.run_path(str(ROOT / "hatch_build.py"))["OpenSeadragonHook"]()
    warnings: list[str] = []
    made.root, made.app = str(tmp_path / "tree"), SimpleNamespace(display_warning=warnings.append)
    return SimpleNamespace(made=made, warnings=warnings, vendor=place / "vendor", root=tmp_path / "tree")


def test_a_wheel_is_built_without_npm_and_says_what_it_lacks(hook: SimpleNamespace) -> None:
    hook.made.initialize("standard", {})
    (warning,) = hook.warnings
    assert warning.startswith("foveate view is left without its page: npm, which fetches OpenSeadragon, is not inst")
    assert not hook.vendor.exists()


def test_an_editable_installation_fetches_nothing(hook: SimpleNamespace) -> None:
    hook.made.initialize("editable", {})
    assert hook.warnings == []


def test_what_was_fetched_before_is_taken_as_it_is(hook: SimpleNamespace) -> None:
    hook.vendor.mkdir()
    for name in ("openseadragon.min.js", "openseadragon-LICENSE.txt"):
        (hook.vendor / name).touch()
    hook.made.initialize("standard", {})
    assert hook.warnings == []


def test_a_package_beside_it_is_used_if_it_is_the_right_one(hook: SimpleNamespace) -> None:
    (hook.root / "openseadragon-6.1.1.tgz").write_bytes(b"another")
    hook.made.initialize("standard", {})
    (warning,) = hook.warnings
    assert "openseadragon-6.1.1.tgz is not the package openseadragon@6.1.1, its SHA-512 is" in warning
    assert not hook.vendor.exists()


def test_what_git_ignores_of_the_viewer_goes_into_the_wheel() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert built["artifacts"] == ["src/foveate/view/vendor/*.js", "src/foveate/view/vendor/*.txt"]
    assert "custom" in built["hooks"]
    assert "/src/foveate/view/vendor/" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_only_benchmarks_need_is_installed_for_them_alone(clone: Path) -> None:
    assert "[bench]" not in planned(clone)
    bench = subprocess.run(["make", "-n", "bench"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert '--editable ".[bench]"' in bench
    (clone / ".venv" / ".installed-bench").touch()
    bench = subprocess.run(["make", "-n", "bench"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert "install" not in bench
