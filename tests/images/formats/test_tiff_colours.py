"""Every way TIFF has to store colours becomes grey, RGB or bands."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiffs import SIZE, check_tiff, noise, sliced, write_tiff

from foveate.images import area_average
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box


@pytest.mark.parametrize(
    ("options", "lossy"),
    [
        ({"compression": "jpeg", "tile": (32, 48)}, True),
        ({"compression": "jpeg", "rowsperstrip": 16}, True),
        ({"compression": "jpeg", "tile": (32, 48), "photometric": "ycbcr", "subsampling": (2, 2)}, True),
        ({"compression": "jpeg", "tile": (32, 48), "photometric": "ycbcr", "subsampling": (1, 1)}, True),
        ({"compression": "jpeg", "tile": (32, 32), "planarconfig": "separate"}, True),
        ({"compression": "jpeg2000", "tile": (32, 48)}, False),
        ({"compression": "aperio_jp2000_rgb", "tile": (32, 48)}, False),
        ({"compression": "webp", "tile": (32, 48), "compressionargs": {"level": 80}}, True),
    ],
)
def test_lossy_codecs_read_what_tifffile_reads(options: dict[str, Any], lossy: bool, tmp_path: Path) -> None:
    array = noise(*SIZE, 3)
    source = write_tiff(tmp_path / "a", array, **options)
    with tifffile.TiffFile(tmp_path / "a") as file:
        decoded = file.pages.first.asarray()
    decoded = np.moveaxis(decoded, 0, 2) if options.get("planarconfig") else decoded
    assert lossy or np.array_equal(decoded, array)
    check_tiff(source, decoded)


def test_aperios_ycbcr_jpeg_2000_becomes_rgb(tmp_path: Path) -> None:
    import imagecodecs

    array = noise(32, 48, 3)
    levels = array.astype(np.float64) @ np.array(
        [[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]]
    ) + [0, 128, 128]
    ycbcr = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    data = imagecodecs.jpeg2k_encode(ycbcr, level=0, codecformat="j2k", mct=False, reversible=True)
    with tifffile.TiffWriter(tmp_path / "a") as writer:
        writer.write(iter([data]), shape=array.shape, dtype="uint8", tile=(32, 48), compression=33003,
                     photometric="rgb", metadata=None)  # fmt: skip
    read = TiffSource(tmp_path / "a").read(Box(0, 0, 32, 48))
    assert np.abs(read.astype(int) - array).max() <= 3


def test_white_that_is_zero_is_turned_round(tmp_path: Path) -> None:
    for dtype, most in (("uint8", 255), ("uint16", 65535)):
        array = noise(*SIZE, 1, dtype)
        check_tiff(write_tiff(tmp_path / "a", array, tile=(16, 32), photometric="miniswhite"), most - array)
    array = noise(*SIZE, 1, "bool")
    check_tiff(write_tiff(tmp_path / "a", array, rowsperstrip=8, photometric="miniswhite"), ~array)


def test_faxes_read_like_the_array(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", minversion="2026.3.6")  # decodes faxes; those before are refused in a line
    pytest.importorskip("tifffile", minversion="2026.3.3")
    array = noise(*SIZE, 1, "bool")
    for compression in ("group3", "group4"):
        Image.fromarray(array[:, :, 0]).save(tmp_path / "a", "TIFF", compression=compression)
        check_tiff(TiffSource(tmp_path / "a"), array)


def test_palettes_become_rgb(tmp_path: Path) -> None:
    indices, colours = noise(*SIZE, 1), np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint16)
    for scale in (1, 257):
        source = write_tiff(
            tmp_path / "a", indices, photometric="palette", colormap=colours.T * scale, tile=(16, 32), compression="lzw"
        )
        check_tiff(source, colours[indices[:, :, 0]].astype(np.uint8))


def test_cmyk_becomes_rgb_as_pillow_does_it(tmp_path: Path) -> None:
    array = noise(*SIZE, 4)
    source = write_tiff(tmp_path / "a", array, photometric="separated", tile=(16, 32))
    check_tiff(source, np.asarray(Image.fromarray(array, "CMYK").convert("RGB")))


@pytest.mark.parametrize(("extra", "channels"), [("unassalpha", 3), ("assocalpha", 3), ("unspecified", 4)])
def test_opacity_is_laid_over_black_and_other_bands_are_kept(extra: str, channels: int, tmp_path: Path) -> None:
    array = noise(*SIZE, 4)
    source = write_tiff(tmp_path / "a", array, photometric="rgb", extrasamples=[extra], tile=(16, 32))
    wide = array.astype(np.uint32)
    expected = {
        "unassalpha": ((wide[:, :, :3] * wide[:, :, 3:] + 127) // 255).astype(np.uint8),
        "assocalpha": array[:, :, :3],
        "unspecified": array,
    }[extra]
    assert source.channels == channels
    check_tiff(source, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_laid_down_as_its_orientation_says(orientation: int, tmp_path: Path) -> None:
    array = noise(*SIZE, 3)
    turned = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.swapaxes(0, 1),
        6: np.rot90(array, -1), 7: np.rot90(array, 2).swapaxes(0, 1), 8: np.rot90(array),
    }[orientation]  # fmt: skip
    source = write_tiff(tmp_path / "a", array, tile=(16, 32), extratags=[(274, 3, 1, orientation, True)])
    check_tiff(source, np.ascontiguousarray(turned))
    region = (-3.5, 4, 31.25, 60)
    np.testing.assert_allclose(source.view((6, 9), region), area_average(turned, (6, 9), region), atol=1e-6)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(Box(3, 4, 20, 30)), sliced(turned, Box(3, 4, 20, 30)))
