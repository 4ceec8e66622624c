"""OpenSeadragon, the deep zoom of the page: which one it is, where it lies, and how it gets there from npm.

It is put into the wheel when that is built (`hatch_build.py`), and into a clone by `make viewer`, which runs this file.
Only the standard library is needed for that.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

__all__ = ["ARCHIVE", "FOLDER", "fetch", "is_there", "missing", "script", "unpack"]

PACKAGE = "openseadragon@6.1.1"
ARCHIVE = "openseadragon-6.1.1.tgz"
INTEGRITY = "g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrlYWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw=="
"""SHA-512 of the package, in base64."""

FOLDER = Path(__file__).parent / "vendor"
FILES = {
    "openseadragon.min.js": "package/build/openseadragon/openseadragon.min.js",
    "openseadragon-LICENSE.txt": "package/LICENSE.txt",
}
"""What is needed of it: here → in the package."""

SECONDS = 120


def is_there(folder: Path = FOLDER) -> bool:
    """Whether all that is needed of it lies in a folder."""
    return all((folder / name).is_file() for name in FILES)


def missing() -> str | None:
    """What to tell a user whose installation lacks it; None if it does not.

    Example:
        >>> missing() is None or missing().startswith("the page needs OpenSeadragon")
        True
    """
    if is_there():
        return None
    return (
        "the page needs OpenSeadragon, which this installation lacks because there was no npm when it was built: "
        f"install npm and run {sys.executable} {Path(__file__)} (in a clone: make viewer)"
    )


def script() -> Path:
    """The file that the page loads."""
    return FOLDER / "openseadragon.min.js"


def fetch(folder: Path = FOLDER, archive: Path | None = None) -> None:
    """Get it with npm, check it and unpack it.

    Arguments:
        folder: where to put it.
        archive: the package, if it was fetched before; else npm fetches it.

    Raises:
        OSError: npm is missing or fails, the folder cannot be written, or the package is not the one expected; in a
            line.
    """
    if archive is not None:
        unpack(archive, folder)
        return
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm, which fetches OpenSeadragon, is not installed: install it, or put " + ARCHIVE + " here")
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", PACKAGE, "--pack-destination", place, "--fetch-retries=1", "--loglevel=error"]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"npm pack {PACKAGE} took more than {SECONDS} s: is there a network?") from error
        if done.returncode:
            told = " ".join((done.stderr or done.stdout).split())[:300]
            raise OSError(f"npm pack {PACKAGE} failed ({told or done.returncode}): is there a network?")
        unpack(Path(place) / ARCHIVE, folder)


def unpack(archive: Path, folder: Path = FOLDER) -> None:
    """Take what is needed out of the package, if it is the one expected to the last bit.

    Arguments:
        archive: the package as npm has it.
        folder: where to put it.

    Raises:
        OSError: it is another one, or cannot be read or written.
    """
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise OSError(f"{archive} is not the package {PACKAGE}, its SHA-512 is {found}: fetch it again")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        for name, inside in FILES.items():
            member = package.extractfile(inside)
            assert member is not None
            unfinished = folder / f".{name}"
            unfinished.write_bytes(member.read())
            unfinished.replace(folder / name)


if __name__ == "__main__":
    try:
        fetch(archive=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except OSError as error:
        sys.exit(f"foveate: error: {error}")
    print(f"OpenSeadragon is in {FOLDER}")
