"""What the README says is run."""

import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.cli import VERBS, Parser
from foveate.models import build_model, save_model
from foveate.settings import FeatureSettings, ModelSettings, ViewSettings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
WORDS = [shlex.split(line, comments=True) for line in LINES]
OURS = [words for words in WORDS if words and words[0] == "foveate"]


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[0])
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), tmp_path / "runs" / "demo" / "model", None)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    if "patch" in names:
        assert names["patch"].shape == (29, 24, 3)  # type: ignore[attr-defined]
    else:
        assert names["image_features"].shape == (2, 64)  # type: ignore[attr-defined]


def test_there_is_something_to_run() -> None:
    assert len(PYTHON) == 2
    assert len(OURS) >= 3
    assert ["make", "demo"] in WORDS
    assert ["make", "test"] in WORDS


@pytest.mark.parametrize("words", [words for words in WORDS if words and words[0] == "make"], ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    assert words[1] in VERBS
    module = import_module(f"foveate.cli.{words[1]}")
    if hasattr(module, "add_arguments"):
        parser = Parser(" ".join(words[:2]))
        module.add_arguments(parser)
        parser.parse_arguments(words[2:])


def test_the_table_of_verbs_is_what_help_says() -> None:
    rows = re.findall(r"^\| `foveate (\w+)` \| (.+) \|$", TEXT, re.MULTILINE)
    assert dict(rows) == VERBS


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_lead_somewhere(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\(([^)]+)\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target.split("#")[0]).exists(), target
