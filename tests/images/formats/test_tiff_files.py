"""TIFF files of every layout, codec and type read like the array that was written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from tiffs import SIZE, check_tiff, noise, sliced, write_tiff

from foveate.images import area_average
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box

LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled": {"tile": (16, 32)},
    "striped": {"rowsperstrip": 7},
    "one strip": {"rowsperstrip": 45},
    "planar tiled": {"tile": (32, 16), "planarconfig": "separate"},
    "planar striped": {"rowsperstrip": 9, "planarconfig": "separate"},
    "big": {"tile": (16, 16), "bigtiff": True},
    "big end": {"tile": (16, 32), "byteorder": ">"},
    "big end striped": {"rowsperstrip": 4, "byteorder": ">", "bigtiff": True},
    "one tile": {"tile": (64, 96)},
}
CODECS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "deflate predictor": {"compression": "deflate", "predictor": True},
    "zstd": {"compression": "zstd"},
    "packbits": {"compression": "packbits"},
}
LAYOUT_CODECS = [(layout, codec) for layout in LAYOUTS for codec in CODECS]
TYPES = [("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint16", 3), ("uint16", 5), ("float16", 2), ("float32", 1),
         ("float32", 4), ("float64", 3), ("bool", 1)]  # fmt: skip

boxes = st.builds(Box, st.integers(-20, 50), st.integers(-20, 80), st.integers(1, 60), st.integers(1, 90))


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("layout", "codec"), LAYOUT_CODECS)
def test_layouts_and_codecs_read_like_the_array(layout: str, codec: str, tmp_path: Path) -> None:
    array = noise(*SIZE, 3, "uint16")
    source = write_tiff(tmp_path / "a", array, **LAYOUTS[layout], **CODECS[codec])
    check_tiff(source, array)
    with tifffile.TiffFile(tmp_path / "a") as file:
        kind = "tiled" if file.pages.first.is_tiled else "striped"
    whole = layout == "one strip" and codec != "none"
    assert source.header.format.startswith("TIFF, one strip, decoded whole" if whole else f"TIFF, {kind}")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("dtype", "channels"), TYPES)
@pytest.mark.parametrize("layout", ["striped", "planar tiled", "big end"])
def test_types_read_like_the_array(dtype: str, channels: int, layout: str, tmp_path: Path) -> None:
    array = noise(*SIZE, channels, dtype)
    for codec in ("none", "deflate") if dtype in ("bool", "float16") else ("none", "lzw"):
        check_tiff(write_tiff(tmp_path / codec, array, **LAYOUTS[layout], **CODECS[codec]), array)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("layout", ["tiled", "planar striped", "one strip"])
def test_any_box_reads_and_any_region_is_seen_like_the_array(layout: str, tmp_path: Path) -> None:
    array = noise(*SIZE, 3)
    source = write_tiff(tmp_path / "a", array, **LAYOUTS[layout], compression="deflate")

    @settings(max_examples=30, deadline=None)
    @given(boxes)
    def law(box: Box) -> None:
        np.testing.assert_array_equal(source.read(box), sliced(array, box))
        region = (box.top / 3, box.left, box.bottom / 3, box.right + 0.5)
        np.testing.assert_allclose(source.view((4, 7), region), area_average(array, (4, 7), region), atol=1e-6)

    law()


def test_bytes_are_those_of_the_tiles_touched(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a", noise(*SIZE, 3), tile=(16, 16), compression="deflate")
    with tifffile.TiffFile(tmp_path / "a") as file:
        lengths = file.pages.first.databytecounts
    source.read(Box(0, 0, 1, 1))
    before = source.bytes_read
    source.read(Box(17, 33, 16, 10))  # columns 2, rows 1 and 2, of five columns
    assert source.bytes_read - before == lengths[7] + lengths[12]
    assert source.tiles_decoded == 3
    source.read(Box(16, 32, 16, 16))
    assert source.bytes_read - before == lengths[7] + lengths[12]
    assert source.table_bytes == 15 * (4 + 4) or source.table_bytes == 15 * (4 + 2)


def test_pixels_uncompressed_in_one_strip_are_read_in_parts(tmp_path: Path) -> None:
    array = noise(700, 500, 3)
    source = write_tiff(tmp_path / "a", array)
    check_tiff(source, array)
    source = TiffSource(tmp_path / "a")
    _ = source.header
    before = source.bytes_read
    source.read(Box(350, 100, 4, 5))
    assert source.bytes_read - before < array.nbytes // 5
    assert source.header.tile is not None
