"""`foveate convert`, as a user runs it."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from foveate.__main__ import main
from foveate.images import open_image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rows, columns = np.mgrid[:300, :203]
    pixels = np.stack([rows % 256, columns, (rows + columns) % 256], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_png_becomes_a_pyramid(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = photo.with_name("photo.tif")
    assert main(["convert", str(photo), str(path), "--tile", "64", "--mpp", "0.25"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: ")
    assert "300×203 → 150×102 → 75×51 → 38×26, 0.0" in printed.out
    assert printed.err == ""
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 4
        assert tiff.pages[0].compression == tifffile.COMPRESSION.JPEG
    assert open_image(path).mpp == pytest.approx(0.25)


def test_flags_reach_the_file(photo: Path) -> None:
    path = photo.with_name("new") / "photo.tif"
    words = ["convert", str(photo), str(path), "--compression", "zstd", "--tile", "128", "--format", "tiff"]
    assert main(words) == 0
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].tile == (128, 128)
        np.testing.assert_array_equal(tiff.pages[0].asarray(), np.asarray(Image.open(photo)))


def test_a_name_that_ends_in_zarr_is_ome_zarr(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    path = photo.with_name("photo.zarr")
    assert main(["convert", str(photo), str(path)]) == 0
    assert "OME-Zarr 0.4" in capsys.readouterr().out
    assert open_image(path).size == (300, 203)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tile", "100"], "tile must be a multiple of 16 from 16 to 4096, got 100: take 256"),
        (["--mpp", "0"], "--mpp must be above 0 microns per pixel, got 0.0: give e.g. 0.25"),
        (["--compression", "rar"], "compression in tiff must be one of jpeg, deflate, zstd, lzw, none, got rar: "),
        (["--qualty", "9"], "unknown option --qualty, did you mean --quality? See foveate convert --help"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    words: list[str], said: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(photo), str(photo.with_name("b.tif")), *words]) == 2
    assert capsys.readouterr().err.startswith(f"foveate: error: {said}")
    assert not photo.with_name("b.tif").exists()


def test_a_missing_source_and_a_destination_in_the_way(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(photo) + "x", str(photo.with_name("b.tif"))]) == 2
    assert capsys.readouterr().err == f"foveate: error: {photo}x: no such file: check the path\n"
    taken = photo.with_name("taken.tif")
    taken.write_bytes(b"something")
    assert main(["convert", str(photo), str(taken)]) == 2
    assert "is there already: give another name, or --overwrite to replace it" in capsys.readouterr().err
    assert taken.read_bytes() == b"something"
    assert main(["convert", str(photo), str(taken), "--overwrite"]) == 0
    assert open_image(taken).size == (300, 203)


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGTERM")
def test_sigterm_leaves_nothing(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    halved = __import__("foveate.convert.pyramid", fromlist=["halved"]).halved

    def stop(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return halved(*arguments)

    monkeypatch.setattr("foveate.convert.pyramid.halved", stop)
    before = signal.getsignal(signal.SIGTERM)
    path = photo.with_name("b.tif")
    assert main(["convert", str(photo), str(path), "--tile", "64"]) == 143
    assert capsys.readouterr().err == f"foveate: stopped by SIGTERM, {path} is as it was\n"
    assert [file.name for file in photo.parent.iterdir()] == ["photo.png"]
    assert signal.getsignal(signal.SIGTERM) is before
