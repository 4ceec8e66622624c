"""The commands of the pages on zoom and on several scales do what they say."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from foveate.__main__ import main

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "sides"), [("zoom.md", {100}), ("scales.md", {100, 400})])
def test_the_commands_of_the_page_run(
    page: str, sides: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(8):
        image = Image.new("RGB", (1200, 830), ("red", "green")[number % 2])
        image.save(tmp_path / "images" / f"{number}.png")
    rows = "".join(f"{number}.png,{('red', 'green')[number % 2]}\n" for number in range(8))
    (tmp_path / "images" / "images.csv").write_text("path,label\n" + rows)
    block = re.search(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert block is not None
    commands = [shlex.split(line)[1:] for line in block[1].strip().splitlines()]
    assert [words[0] for words in commands] == ["train", "predict", "explain"]
    for words in commands:
        small = ["--training.max_steps", "1", "--training.batch", "4", "--data.cache", "off", "--model.patches", "3"]
        assert main(words + (small if words[0] == "train" else [])) == 0
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 9
    explained = next((tmp_path / "explained").glob("*/explanation.json")).parent
    patches = json.loads((explained / "explanation.json").read_text())["patches"]
    assert {patch["box"][2] for patch in patches} == sides
    assert ("dashed frames" in (explained / "explanation.html").read_text()) == (page == "zoom.md")
