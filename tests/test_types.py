"""Types are right: mypy, as strict as pyproject.toml has it, beside the other tests."""

import subprocess
import sys
from pathlib import Path


def test_types_are_right() -> None:
    mypy = [sys.executable, "-m", "mypy", "--no-color-output"]
    done = subprocess.run(mypy, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
