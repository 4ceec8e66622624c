"""Models go to a hub and come back: huggingface_hub's own client against an endpoint on this machine."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

from foveate.__main__ import main
from foveate.config.settings import ModelSettings
from foveate.models import build_model, load_model, save_model

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as pushing a folder and fetching it again needs."""

    files: dict[str, bytes]
    asked: list[dict[str, Any]]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _json(self, answer: Any) -> None:
        self._send(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content)), "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body, place = self.rfile.read(int(self.headers["Content-Length"])), urlsplit(self.path).path
        here = f"http://{self.headers['Host']}/somebody/animals"
        if place == "/api/repos/create":
            self.asked.append(json.loads(body))
            self._json({"url": here, "name": "somebody/animals"})
        elif place.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(body)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif place.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{here}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        else:
            self._json({"valid": True})  # of the card's header

    def do_GET(self) -> None:
        place = unquote(urlsplit(self.path).path)
        name = place.rpartition("/")[2]
        if "/resolve/" in place and name in self.files:
            content = self.files[name]
            self._send(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"})
        elif "/tree/" in place:
            listed = [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in self.files.items()]
            self._json(listed)
        elif place.startswith("/api/models/somebody/animals"):
            siblings = [{"rfilename": one} for one in self.files]
            self._json({"id": "somebody/animals", "sha": COMMIT, "siblings": siblings, "tags": [], "private": True})
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    kind = type("OneHub", (Hub,), {"files": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()


def foveate(endpoint: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, since the client reads its endpoint when it is imported."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_TOKEN": "secret", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "foveate", *words], cwd=folder, capture_output=True, text=True, env=os.environ | own
    )


def test_a_model_goes_to_the_hub_and_comes_back(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, kept = hub
    model = build_model(ModelSettings(patch=(24, 26), patches=3), ("cat", "dog"), channels=3)
    told = {"metrics": {"validation error": 0.25}, "data": "Trained on animals.csv."}
    save_model(model, tmp_path / "run" / "model", told)
    figures = {"split": "test", "error": 0.125, "interval": [0.05, 0.25], "n": 80, "auc": 0.97}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(figures))
    done = foveate(endpoint, tmp_path, "export", "run", "--push", "somebody/animals", "--license", "mit", "--private")
    assert (done.returncode, done.stderr) == (0, "")
    assert "load_model('somebody/animals')" in done.stdout
    assert kept.asked[0]["name"] == "animals"
    assert kept.asked[0].get("private") or kept.asked[0].get("visibility") == "private"
    assert set(kept.files) == {"config.json", "model.safetensors", "README.md"}
    card = kept.files["README.md"].decode()
    for line in (
        "license: mit",
        "library_name: foveate",
        "pipeline_tag: image-classification",
        "Trained on animals.csv.",
        "| validation error | 0.25 |",
        "| test error | 0.125 (0.050–0.250), 80 images |",
    ):
        assert line in card
    script = (
        "import torch; from foveate import load_model; model = load_model('somebody/animals'); "
        "torch.save(model.state_dict(), 'back.pt')"
    )
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env=os.environ | own)
    back, sent = torch.load(tmp_path / "back.pt"), load_model(tmp_path / "run").state_dict()
    assert back.keys() == sent.keys()
    assert all(torch.equal(back[key], sent[key]) for key in sent)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--push", "somebody/animals"), "a published model needs a licence"),
        (("--push", "animals", "--license", "mit"), "a hub id is an owner and a name, got 'animals'"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(build_model(ModelSettings(patch=(24, 26), patches=3), ("cat", "dog"), channels=3), tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("foveate: error: ")
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    save_model(build_model(ModelSettings(patch=(24, 26), patches=3), ("cat", "dog"), channels=3), tmp_path / "model")
    words = ("export", "model", "--push", "somebody/animals", "--license", "mit")
    done = foveate("http://127.0.0.1:9", tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("foveate: error: somebody/animals could not be pushed (")
    assert len(done.stderr.splitlines()) == 1
