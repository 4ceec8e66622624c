"""What the README says is run."""

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from foveate.cli import VERBS, Parser, main
from foveate.cli.train import read_arguments
from foveate.config.files import preset
from foveate.datasets import megapixel_mnist
from foveate.models import build_model, save_model

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))),
]
DEMO = preset("demo")
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(?!#!)(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


WORDS = commands(TEXT)
IN_TEXT = re.findall(r"(?<!`)`(foveate data megapixel-mnist [^`]+)`(?!`)", TEXT)
OURS = [words for words in [*WORDS, *map(shlex.split, IN_TEXT)] if words and words[0] == "foveate"]


def make_what_the_readme_made_before() -> None:
    """The model of `make demo`, untrained, and the images of the README's `foveate data`, one of each split."""
    classes = megapixel_mnist(replace(DEMO.data, train_images=1, test_images=1)).classes
    save_model(build_model(DEMO.model, classes, channels=1), Path("runs/demo/model"))
    (words,) = [words for words in OURS if words[1:3] == ["data", "megapixel-mnist"]]
    assert [int(words[words.index("--size") + side]) for side in (1, 2)] == list(DEMO.data.canvas)
    for option in ("--train", "--test"):
        words = [*words[: words.index(option) + 1], "1", *words[words.index(option) + 2 :]]
    assert main(words[1:]) == 0


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[0])
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    if "runs/demo" in code:
        make_what_the_readme_made_before()
    exec(code, names)
    if "patch" in names:
        assert names["patch"].shape == (*DEMO.model.patch, 1)  # type: ignore[attr-defined, misc]
        assert names["prediction"].probabilities.keys() == set("0123456789")  # type: ignore[attr-defined]
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


IN_DOCS = [words for name in DOCUMENTS[2:] for words in commands((ROOT / name).read_text()) if words[0] == "foveate"]


@pytest.mark.parametrize("words", OURS + IN_DOCS, ids=" ".join)
def test_commands_are_understood(words: list[str], tmp_path: Path) -> None:
    assert words[1] in VERBS
    module = import_module(f"foveate.cli.{words[1]}")
    if words[1] == "train":
        written = tmp_path / "config.yaml"  # what another command of the page has written
        written.write_text("seed: 1\n")
        read_arguments([str(written) if word == "config.yaml" else word for word in words[2:]])
    else:
        parser = Parser(" ".join(words[:2]))
        module.add_arguments(parser)
        parser.parse_arguments(words[2:])


def test_the_table_of_verbs_is_what_help_says() -> None:
    rows = re.findall(r"^\| `foveate (\w+)` \| (.+) \|$", TEXT, re.MULTILINE)
    assert dict(rows) == VERBS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\(([^)]+)\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target.split("#")[0]).exists(), target


def test_every_promise_names_tests_that_are_there() -> None:
    rows = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")][1:]
    files = [file.read_text() for file in (ROOT / "tests").rglob("test_*.py")]
    written = {name for file in files for name in re.findall(r"def (test_\w+)\(", file)}
    assert len(rows) > 5
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= written, row
