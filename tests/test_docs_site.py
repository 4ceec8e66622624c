"""The site builds, strictly; its pages hold what they promise, and every block of Python on them runs."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from foveate.cli import VERBS
from foveate.config.flags import list_settings

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ALONE = ("how-to/methods.md",)
"""Pages whose Python needs nothing that was made before."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")  # of the extra docs, which a matrix of environments does without
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    surroundings = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=surroundings)
    assert (built.returncode, built.stderr) == (0, "")
    return out


def shown(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_is_built(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page


def test_the_command_line_has_a_section_for_every_verb(site: Path) -> None:
    text = shown(site / "reference" / "command-line.html")
    for verb, summary in VERBS.items():
        assert f"foveate {verb}" in text
        assert " ".join(summary.split())[:30].lower() in " ".join(text.split()).lower()


def test_the_settings_are_all_there_with_their_texts(site: Path) -> None:
    text = " ".join(shown(site / "reference" / "settings.html").split())
    for key, setting in list_settings().items():
        assert key in text
        assert " ".join(re.sub(r"`|\*", "", setting.text).split())[:40] in text, key


def test_equations_are_drawn_without_scripts(site: Path) -> None:
    page = (site / "reference" / "api.html").read_text()
    assert page.count("<math") > 10
    assert "arithmatex" not in page
    assert ".. math::" not in page


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\" >]+)", page.read_text())
        assert fetched == [], page


@pytest.mark.parametrize("page", ALONE)
def test_python_runs(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
