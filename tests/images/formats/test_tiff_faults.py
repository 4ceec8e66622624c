"""Broken TIFF files, and those of kinds that cannot be read, are refused in one line."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tiffs import SIZE, noise, write_tiff

from foveate.errors import ImageError
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box


def broken(path: Path, spoil: Any, **options: Any) -> TiffSource:
    write_tiff(path, noise(*SIZE, 3), tile=(16, 32), compression="deflate", **options)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        content = spoil(content, file.pages.first)
    path.write_bytes(content)
    return TiffSource(path)


def test_a_broken_tile_is_named(tmp_path: Path) -> None:
    def overwrite(content: bytearray, page: Any) -> bytearray:
        content[page.dataoffsets[4] : page.dataoffsets[4] + 20] = b"\xff" * 20
        return content

    source = broken(tmp_path / "a.tif", overwrite)
    source.read(Box(0, 0, 16, 77))
    for _ in range(2):
        with pytest.raises(
            ImageError, match=r"a\.tif: broken tile at row 1, column 1 of level 0 \(.+\): copy the"
        ) as e:
            source.read(Box(16, 33, 3, 4))
        assert "\n" not in str(e.value)


def test_a_file_that_was_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, noise(300, 400, 3), tile=(64, 64), compression="deflate")
    path.write_bytes(path.read_bytes()[:-5000])
    source = TiffSource(path)
    source.read(Box(0, 0, 9, 9))
    with pytest.raises(ImageError, match=r"a\.tif: broken tile at row 4, column 6 of level 0 \(it ends at byte \d+ of"):
        source.read(Box(299, 399, 1, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"IJrE and so on, and more", r"a\.tif: not a TIFF file \(it begins with b'IJrE'\): "),
        (b"II*\0\x08\0\0\0", r"a\.tif: not a TIFF file"),
        (b"II*\0\0\0\0\0" + bytes(20), r"a\.tif: broken TIFF file \(it has no page\): copy the file again"),
        (b"II*\0\xff\0\0\0" + bytes(20), r"a\.tif: broken TIFF file \(2 bytes at 255 of 28\): copy the file again"),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(20), r"a\.tif: broken TIFF file \(a page of 65535 tags\)"),
        (b"II*\0\x08\0\0\0\0\0" + bytes(20), r"a\.tif: broken TIFF page \(ValueError 0×0 pix"),
        (b"", r"a\.tif: not a TIFF file"),
    ],
)
def test_files_that_are_no_tiff_are_refused_in_a_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        _ = TiffSource(tmp_path / "a.tif").header
    assert "\n" not in str(caught.value)


def test_every_shortened_file_is_refused_or_read(tmp_path: Path) -> None:
    whole = io.BytesIO()
    tifffile.imwrite(whole, noise(20, 30, 3), tile=(16, 16), compression="lzw", metadata=None, bigtiff=True)
    content, path = whole.getvalue(), tmp_path / "a.tif"
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError):
            TiffSource(path).read(Box(0, 0, 20, 30))


def test_kinds_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(ImageError, match="pixels must be bool, integers or floating point, got complex64: convert"):
        _ = write_tiff(path, noise(*SIZE, 1).astype(np.complex64), tile=(16, 16)).header
    with pytest.raises(ImageError, match=r"a TIFF of a kind not supported here \(colours of kind 8 "):
        _ = write_tiff(path, noise(*SIZE, 3), tile=(16, 16), photometric="cielab").header
    for tag, value, told in (("Compression", 60000, ".*60000"), ("BitsPerSample", 4, "values of 4 bits")):
        write_tiff(path, noise(*SIZE, 1), tile=(16, 16))
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages.first.tags[tag].overwrite(value)
        with pytest.raises(ImageError, match=rf"a TIFF of a kind not supported here \({told}"):
            _ = TiffSource(path).header
    with pytest.raises(ImageError, match=r"Hamamatsu NDPI, which OpenSlide reads: pip install 'foveate\[openslide\]'"):
        _ = write_tiff(path, noise(*SIZE, 3), extratags=[(65420, 4, 1, 1, True)]).header
    with pytest.raises(ImageError, match=r"missing\.tif: no such file: check the path"):
        _ = TiffSource(tmp_path / "missing.tif").header


def test_two_reads_of_a_file_replaced_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    source = write_tiff(path, noise(*SIZE, 3), tile=(16, 16))
    kept = pickle.dumps(source) if source.size else b""
    write_tiff(path, noise(50, 60, 3), tile=(16, 16))
    with pytest.raises(ImageError, match=r"a\.tif: the file has changed since it was opened: open the image again"):
        pickle.loads(kept).read(Box(0, 0, 3, 4))


def test_circular_pages_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, noise(*SIZE, 3), tile=(16, 16))
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack("<I", content[4:8])
    (tags,) = struct.unpack("<H", content[first : first + 2])
    content[first + 2 + 12 * tags : first + 6 + 12 * tags] = struct.pack("<I", first)
    path.write_bytes(content)
    assert TiffSource(path).size == SIZE
