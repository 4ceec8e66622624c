"""Pages without their file decode tiles as tifffile does with it: fails where a release of tifffile changes that."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tiffs import noise, write_tiff

from foveate.images.formats.tiff.source import TiffSource


def test_decode_is_public_and_documented() -> None:
    told = inspect.getdoc(tifffile.TiffPage.decode) or ""
    assert "jpegtables" in told
    assert "Index of segment" in told


@pytest.mark.parametrize(
    ("channels", "dtype", "options"),
    [
        (1, "uint8", {"compression": "jpeg"}),
        (3, "uint8", {"compression": "jpeg"}),
        (3, "uint8", {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}),
        (3, "uint8", {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 1)}),
        (4, "uint8", {"compression": "jpeg", "photometric": "minisblack"}),
        (3, "uint8", {"compression": "deflate", "predictor": True}),
        (3, "uint16", {"compression": "lzw", "predictor": True, "byteorder": ">"}),
        (5, "float32", {"compression": "zstd", "predictor": True, "planarconfig": "separate"}),
        (3, "uint8", {"compression": "packbits", "tile": None, "rowsperstrip": 16}),
        (1, "uint16", {"compression": "jpeg2000"}),
        (1, "bool", {"compression": "deflate"}),
    ],
)
def test_tiles_decode_as_with_the_file(channels: int, dtype: str, options: dict[str, Any], tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", noise(150, 210, channels, dtype), **({"tile": (64, 48)} | options))
    source = TiffSource(tmp_path / "a.tif")
    rows, columns = source.grid()
    file, (segments,) = source._ready()
    with tifffile.TiffFile(tmp_path / "a.tif") as theirs:
        page = theirs.pages.first
        for name in ((row, column) for row in range(rows) for column in range(columns)):
            numbers = segments.numbers([name])
            data = file.read_many(segments.table.parts(numbers, file))
            planes = [
                page.decode(part, number, jpegtables=page.jpegtables)[0][0]
                for part, number in zip(data, numbers, strict=True)
            ]
            np.testing.assert_array_equal(segments.pixels(numbers, data), np.concatenate(planes, axis=2))
