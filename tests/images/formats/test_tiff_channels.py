"""Channels of a TIFF on pages of their own are the bands of one image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from servers import FileServer
from tiffs import check_tiff, noise

from foveate.convert import Conversion, convert
from foveate.images import open_image
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box

NAMES = ("DAPI", "CD8 & CD4", "PanCK")
TILED: dict[str, Any] = {"tile": (32, 48), "photometric": "minisblack"}
QPTIFF = (
    "<?xml version='1.0' encoding='utf-16'?><PerkinElmer-QPI-ImageDescription><ImageType>{}</ImageType>"
    "<Name>{}</Name><Biomarker>{}</Biomarker></PerkinElmer-QPI-ImageDescription>"
)


def planes(dtype: str = "uint16") -> np.ndarray:
    """(3, 107, 160) pixels, page after page."""
    return np.ascontiguousarray(np.moveaxis(noise(107, 160, 3, dtype), 2, 0))


def ome(path: Path, array: np.ndarray, **options: Any) -> None:
    told = {"axes": "CYX", "Channel": {"Name": list(NAMES)}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(array, subifds=1, metadata=told, **(TILED | options))
        writer.write(array[:, ::2, ::2], subfiletype=1, **(TILED | options))


def qptiff(path: Path, array: np.ndarray) -> None:
    common: dict[str, Any] = TILED | {"compression": "lzw", "metadata": None, "software": "PerkinElmer-QPI"}
    with tifffile.TiffWriter(path) as writer:
        for page, name in zip(array, NAMES, strict=True):
            told = QPTIFF.format("FullResolution", f"Cy{len(name)}", name.replace("&", "&amp;"))
            writer.write(page, description=told, **common)
        writer.write(np.zeros((30, 40, 3), np.uint8), photometric="rgb", metadata=None, description="Thumbnail")
        for page in array[:, ::2, ::2]:
            writer.write(page, subfiletype=1, description=QPTIFF.format("ReducedResolution", "", ""), **common)


def imagej(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "CYX"})


WRITERS: dict[str, tuple[Callable[[Path, np.ndarray], None], tuple[str, ...], int]] = {
    "OME": (ome, NAMES, 2),
    "OME in strips": (lambda path, array: ome(path, array, tile=None, rowsperstrip=16), NAMES, 2),
    "QPTIFF": (qptiff, NAMES, 2),
    "ImageJ": (imagej, ("channel 0", "channel 1", "channel 2"), 1),
}
"""What writes such a file; names of its channels, and its levels."""


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", WRITERS)
def test_they_read_like_bands_on_every_level(kind: str, dtype: str, tmp_path: Path) -> None:
    write, names, levels = WRITERS[kind]
    array = planes(dtype)
    write(tmp_path / "panel.tif", array)
    source = open_image(tmp_path / "panel.tif")
    assert isinstance(source, TiffSource)
    assert (len(source.levels), source.header.bands, source.header.unused) == (levels, names, ())
    assert source.header.format.endswith(", 3 channels")
    for level in range(levels):
        step = 2**level
        check_tiff(source, np.moveaxis(array[:, ::step, ::step], 0, 2), level)


def test_they_read_alike_from_a_server_a_tile_at_a_time(tmp_path: Path) -> None:
    ome(tmp_path / "panel.ome.tif", planes(), compression="zlib")
    with FileServer({"panel.ome.tif": (tmp_path / "panel.ome.tif").read_bytes()}) as server:
        far, near = open_image(server.address("panel.ome.tif")), open_image(tmp_path / "panel.ome.tif")
        assert far.header.bands == near.header.bands == NAMES
        assert far.header.pixel == near.header.pixel == (0.25, 0.5)
        box = Box(33, 50, 20, 30)
        np.testing.assert_array_equal(far.read(box), near.read(box))
        assert far.tiles_decoded == near.tiles_decoded == 1


def test_the_file_says_which_page_is_which_channel(tmp_path: Path) -> None:
    path, array = tmp_path / "panel.ome.tif", planes()
    told = '<?xml version="1.0"?><OME><Image><Pixels DimensionOrder="XYCZT" SizeC="3" SizeZ="1" SizeT="1">'
    told += "".join(f'<Channel Name="{name}"/>' for name in ("one", "two", "three"))
    told += "".join(f'<TiffData IFD="{page}" FirstC="{2 - page}" PlaneCount="1"/>' for page in range(3))
    told += "</Pixels></Image></OME>"
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(array):
            writer.write(page, description=told if number == 0 else None, metadata=None, **TILED)
    source = TiffSource(path)
    assert source.header.bands == ("one", "two", "three")
    check_tiff(source, np.moveaxis(array[::-1], 0, 2))


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "TCYX", "CYXS"])
def test_depths_times_and_colours_are_no_channels(axes: str, tmp_path: Path) -> None:
    array = {"TCYX": planes()[None].repeat(2, 0), "CYXS": noise(107, 160)[None].repeat(2, 0)}.get(axes, planes())
    kind = "rgb" if axes == "CYXS" else "minisblack"
    with tifffile.TiffWriter(tmp_path / "stack.ome.tif", ome=True) as writer:
        writer.write(array, metadata={"axes": axes}, photometric=kind)
    source = TiffSource(tmp_path / "stack.ome.tif")
    assert source.channels == (3 if axes == "CYXS" else 1)
    assert source.header.unused == ("the other pages: the first is read",)


def test_a_second_image_is_said_not_to_be_used(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        for _ in range(2):
            writer.write(planes(), metadata={"axes": "CYX"}, **TILED)
    source = TiffSource(tmp_path / "two.ome.tif")
    check_tiff(source, np.moveaxis(planes(), 0, 2))
    assert source.header.unused == ("the other pages: the first image is read",)


def test_what_is_not_stored_of_one_channel_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "panel.tif"
    qptiff(path, planes())
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in (324, 325):
            places = list(file.pages[1].tags[tag].value)  # type: ignore[union-attr]
            places[0] = 0
            file.pages[1].tags[tag].overwrite(places)  # type: ignore[union-attr]
    pixels, missing = TiffSource(path).read_known([Box(0, 0, 60, 70)])[0]
    assert missing is not None
    inside = np.zeros((60, 70), bool)
    inside[:32, :48] = True
    np.testing.assert_array_equal(missing.any(2), inside)
    assert (pixels[:32, :48, 1] == 0).all()
    np.testing.assert_array_equal(pixels[~inside], np.moveaxis(planes(), 0, 2)[:60, :70][~inside])


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
def test_they_are_converted_with_their_names(suffix: str, tmp_path: Path) -> None:
    ome(tmp_path / "panel.ome.tif", planes())
    convert(tmp_path / "panel.ome.tif", tmp_path / f"out.{suffix}", Conversion(tile=32))
    source = open_image(tmp_path / f"out.{suffix}")
    assert source.header.bands == NAMES
    np.testing.assert_array_equal(source.read(Box(0, 0, 107, 160)), np.moveaxis(planes(), 0, 2))
