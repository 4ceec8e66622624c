"""Matrix: the fast tests on every Python that foveate supports, and with the lowest dependencies that it says it takes.

`python tests/matrix.py` makes an environment for each row, tests in it and removes it again, one after the other: an
environment takes some six gigabytes. `--rows lowest,3.13` runs some rows alone, and what comes last is given to pytest:
`python tests/matrix.py --rows lowest tests/images tests/sampling`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOWEST = "lowest"
ROWS = (LOWEST, "3.11", "3.12", "3.13")
OLDEST = "3.11"
"""The Python that has wheels of the lowest dependencies."""

OTHERS = ("docs", "bench")
"""Extras that no test needs."""


def main() -> int:
    """Every row, and what became of it; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas between (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that the tests run on (default: 1)")
    parser.add_argument("--torch", default="", help='what pip installs first, e.g. "torch torchvision --index-url …"')
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "matrix", help="of the environments")
    parser.add_argument("tests", nargs="*", help="files and folders of tests (default: all)")
    arguments, more = parser.parse_known_args()
    rows = arguments.rows.replace(",", " ").split()
    if unknown := set(rows) - set(ROWS):
        parser.error(f"there is no row {', '.join(unknown)}: rows are {', '.join(ROWS)}")
    said = {row: _row(row, arguments, [*arguments.tests, *more]) for row in rows}
    print("\n".join(f"{row:8} {outcome}" for row, outcome in said.items()))
    return int(any(not outcome.startswith("passed") for outcome in said.values()))


def _row(row: str, arguments: argparse.Namespace, tests: list[str]) -> str:
    """Make an environment, test in it and remove it; in words, what came of it."""
    name = f"python{OLDEST if row == LOWEST else row}"
    python = shutil.which(name)
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        return f"not run: there is no {name}"
    print(f"== {row}: {name}", flush=True)
    folder = arguments.folder / row
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        began = time.monotonic()
        if not _install(row, python, folder, arguments.torch):
            return "not installed"
        made = time.monotonic()
        print(f"== {row}: installed in {made - began:.0f} s", flush=True)
        # What an old library warns of on its own account is no fault of foveate's, its types are others, and the plugin
        # that checks shapes in tests comes too late in old versions.
        options = "addopts=--import-mode=importlib -m 'not slow' --ignore=tests/test_types.py"
        warn = ["-W", "default", "-o", options] if row == LOWEST else []
        several = ["--numprocesses", str(arguments.jobs)] if arguments.jobs > 1 else ["-p", "no:xdist"]
        command = [str(folder / "bin" / "python"), "-m", "pytest", "-q", *warn, *several, *tests]
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        code = subprocess.run(command, cwd=ROOT, env=plain | {"OMP_NUM_THREADS": "1"}, check=False).returncode
        return f"{'passed' if code == 0 else 'FAILED'} in {time.monotonic() - made:.0f} s"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(row: str, python: str, folder: Path, torch: str) -> bool:
    """The environment of a row: foveate as it is here, its extras, and what its tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    held = "\n".join(lowest(project)) if row == LOWEST else (ROOT / "constraints.txt").read_text()
    (folder / "constraints.txt").write_text(held + "\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    steps = [[python, "-m", "venv", str(folder)]]
    if torch and row != LOWEST:
        steps.append([*pip, *torch.split()])
    steps.append([*pip, "--constraint", str(folder / "constraints.txt"), "--editable", ".[all,dev]"])
    return all(subprocess.run(step, cwd=ROOT, check=False).returncode == 0 for step in steps)


def lowest(project: dict[str, Any]) -> Iterator[str]:
    """Constraints: every lower bound, of what users install and of what tests it, as the version itself."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name in extras if name not in OTHERS for one in extras[name])]
    bounds = {}
    for requirement in map(Requirement, wanted):
        for one in requirement.specifier:
            if one.operator in (">=", "=="):
                bounds[canonicalize_name(requirement.name)] = one.version
    yield from (f"{name}=={version}" for name, version in sorted(bounds.items()))


if __name__ == "__main__":
    sys.exit(main())
