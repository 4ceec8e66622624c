"""Where the deep zoom of the page comes from: one package, to the last bit, or none."""

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from foveate.view import openseadragon
from foveate.view.openseadragon import ARCHIVE, FILES, PACKAGE, fetch, is_there, unpack

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that passes for the right one."""
    archive = tmp_path / "made" / ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as stream:
        for inside in (*FILES.values(), "package/README.md"):
            entry = tarfile.TarInfo(inside)
            entry.size = len(inside)
            stream.addfile(entry, io.BytesIO(inside.encode()))
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    monkeypatch.setattr(openseadragon, "INTEGRITY", digest)
    return archive


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an npm of a few lines of shell in the place of the real one."""
    if sys.platform == "win32":
        pytest.skip("needs a shell")

    def make(script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "npm"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return make


def test_what_is_needed_is_unpacked_and_nothing_else(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not is_there(out)
    unpack(package, out)
    assert is_there(out)
    assert {file.name: file.read_text() for file in out.iterdir()} == FILES


def test_another_package_is_refused(package: Path, tmp_path: Path) -> None:
    package.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(OSError, match=rf"{ARCHIVE} is not the package {PACKAGE}, its SHA-512 is .+: fetch it again$"):
        unpack(package, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_npm_is_asked_for_this_version(package: Path, tmp_path: Path, npm: Callable[[str], None]) -> None:
    npm(f'echo "$@" > {tmp_path}/asked; cp {package} "$4"')
    fetch(tmp_path / "out")
    assert is_there(tmp_path / "out")
    assert (tmp_path / "asked").read_text().startswith(f"pack {PACKAGE} --pack-destination ")


def test_an_npm_that_fails_is_a_line(tmp_path: Path, npm: Callable[[str], None]) -> None:
    npm("echo 'npm error network\nnpm error more' >&2; exit 1")
    with pytest.raises(OSError, match=r"failed \(npm error network npm error more\): is there a network\?$") as caught:
        fetch(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_without_npm_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="npm, which fetches OpenSeadragon, is not installed: install it, or put "):
        fetch(tmp_path / "out")


def test_the_file_runs_by_itself(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(b"something else")
    words = [sys.executable, "-I", openseadragon.__file__, str(tmp_path / ARCHIVE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"foveate: error: {tmp_path / ARCHIVE} is not the package")
    assert len(done.stderr.splitlines()) == 1


def test_no_address_of_a_registry_is_named() -> None:
    for file in ("hatch_build.py", "src/foveate/view/openseadragon.py", "Makefile"):
        assert "://" not in (ROOT / file).read_text()
