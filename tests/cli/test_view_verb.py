"""`foveate view`, as a user runs it."""

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.__main__ import main
from foveate.cli import Parser
from foveate.cli.view import EPILOG, add_arguments
from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.models import build_model, save_model
from foveate.view import ViewServer


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("view")
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), root / "model", None)
    for name, size in {"a.png": (70, 113), "b.png": (131, 64)}.items():
        Image.fromarray(np.random.default_rng(4).integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return root


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise")
def test_it_serves_until_ctrl_c(house: Path) -> None:
    words = [sys.executable, "-m", "foveate", "view", "model", "a.png", "broken.png", "--port", "0", "--no-browser"]
    # what is started in the background of a shell ignores Ctrl-C, and so do its children unless they are told
    running = subprocess.Popen(
        words, cwd=house, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        found = re.fullmatch(r"2 images: open (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert found is not None, line
        with urllib.request.urlopen(f"{found[1]}images/0.json", timeout=60) as reply:
            assert json.load(reply)["size"] == [70, 113]
        with urllib.request.urlopen(f"{found[1]}images/1.json", timeout=60) as reply:
            assert "broken.png" in json.load(reply)["error"]
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out, err) == (130, "", "foveate: stopped by Ctrl-C\n")


def test_the_browser_opens_where_there_is_a_screen(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(ViewServer, "serve_forever", lambda _: None)
    monkeypatch.setattr("sys.platform", "linux")
    words = ["view", str(house / "model"), str(house / "a.png"), "--port", "0"]
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(words) == 0
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert main([*words, "--no-browser"]) == 0
    assert opened == []
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"1 image: open {opened[0]} (Ctrl-C ends it)"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.png", "--samples", "0"], "--samples must be at least 1, got 0"),
        (["a.png", "--port", "70000"], "--port must be from 0 to 65535, got 70000"),
        (["a.png", "--device", "banana"], "banana"),
        (["missing.png"], "missing.png"),
        (["broken.png"], "broken.png"),
        (["broken.png", "missing.png"], "none of 2 images can be opened; the first: "),
    ],
    ids=str,
)
def test_what_is_wrong_is_code_2_and_one_line(
    words: list[str],
    told: str,
    house: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(house)
    monkeypatch.setattr(ViewServer, "serve_forever", lambda _: None)
    assert main(["view", "model", *words, "--no-browser"]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert told in line
    assert said.out == ""


def test_the_examples_are_understood() -> None:
    examples = [line.split("   ")[0].strip() for line in EPILOG.splitlines() if line.startswith("  foveate view")]
    assert len(examples) == 3
    for example in examples:
        parser = Parser("foveate view")
        add_arguments(parser)
        parser.parse_arguments(shlex.split(example)[2:])
