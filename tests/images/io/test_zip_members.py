"""Images in zip archives are read like the files they are, without unpacking."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.errors import ImageError
from foveate.images import open_zip_member
from foveate.images.io.open import ZipMember
from foveate.types import Box


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "some.zip"
    for i in range(3):
        Image.fromarray(np.full((20 + i, 31, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.bmp")
    (tmp_path / "notes.txt").write_text("not an image\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in ("0.bmp", "1.bmp", "2.bmp", "notes.txt"):
            out.write(tmp_path / name, f"a folder/{name}")
    return path


def test_members_are_images_of_their_own(archive: Path) -> None:
    for i in range(3):
        source = open_zip_member(archive, f"a folder/{i}.bmp", mpp=0.5)
        assert (source.name, source.size, source.mpp) == (f"{archive}/a folder/{i}.bmp", (20 + i, 31), 0.5)
        again = pickle.loads(pickle.dumps(source))
        for one in (source, again):
            assert (one.read(Box(0, 0, 20 + i, 31)) == 40 * i).all()


def test_bytes_are_those_in_the_archive(archive: Path) -> None:
    source = open_zip_member(archive, "a folder/2.bmp")
    source.read(Box(0, 0, 3, 3))
    source.view((4, 4))
    with zipfile.ZipFile(archive) as directory:
        assert source.bytes_read == directory.getinfo("a folder/2.bmp").compress_size


def test_an_archive_written_anew_is_read_anew(archive: Path) -> None:
    member = ZipMember(archive, "a folder/notes.txt")
    assert member.open().read() == b"not an image\n"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("a folder/notes.txt", "other words, and more of them\n")
    os.utime(archive, ns=(1, 1))
    assert member.open().read() == b"other words, and more of them\n"


def test_what_cannot_be_read_says_so(archive: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.zip"
    whole = archive.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(whole[:60] + bytes(20) + whole[80:])
    lzma = tmp_path / "lzma.zip"
    with zipfile.ZipFile(lzma, "w", zipfile.ZIP_LZMA) as out:
        out.write(tmp_path / "0.bmp", "0.bmp")
    lzma.write_bytes(lzma.read_bytes()[:60] + bytes(20) + lzma.read_bytes()[80:])
    cases = [
        (archive, "a folder/9.bmp", "no such file in the zip archive: check its name"),
        (archive, "a folder/notes.txt", "not an image that can be read here: give one of JPEG, PNG,"),
        (tmp_path / "missing.zip", "0.bmp", "no such file: check the path"),
        (torn, "a folder/0.bmp", "broken or encrypted zip archive (BadZipFile "),
        (damaged, "a folder/0.bmp", "broken or encrypted zip archive ("),
        (lzma, "0.bmp", "broken or encrypted zip archive (LZMAError "),
        (tmp_path, "0.bmp", "a folder, not an image: name a file in it"),
    ]
    for path, member, message in cases:
        with pytest.raises(ImageError) as caught:
            open_zip_member(path, member)
        assert str(caught.value).startswith(f"{path}/{member}: {message}")
        assert "\n" not in str(caught.value)
