"""Which pages of a TIFF file are its levels, and what it tells of its scale; real slides among them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from giants import giant_tile_at, write_giant
from tiffs import check_tiff, noise, write_pyramid, write_tiff

from foveate.errors import ImageError
from foveate.images import area_average
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box

SLIDES = Path(__file__).parents[4] / "shared" / "data" / "slides"

real = pytest.mark.skipif(not SLIDES.is_dir(), reason="the real slides in shared/data/slides are not here")


@pytest.mark.parametrize("subifds", [False, True])
@pytest.mark.parametrize("compression", ["deflate", "lzw", None])
def test_every_level_reads_like_its_array(subifds: bool, compression: str | None, tmp_path: Path) -> None:
    levels = write_pyramid(tmp_path / "a", noise(201, 133, 3), (32, 48), 4, compression, subifds)
    source = TiffSource(tmp_path / "a")
    assert len(source.levels) == 4
    for i, level in enumerate(levels):
        check_tiff(source, level, i)
        assert source.levels[i].factor == (201 / level.shape[0], 133 / level.shape[1])
    assert source.levels[2].factor == (201 / 51, 133 / 34)  # 3.94 and 3.91, not 4
    assert source.header.format == "TIFF, tiled, " + {"lzw": "LZW", None: "uncompressed"}.get(compression, "deflate")


def test_views_are_taken_from_the_nearest_finer_level(tmp_path: Path) -> None:
    levels = write_pyramid(tmp_path / "a", noise(200, 136, 3), (32, 48), 3, "deflate")
    source = TiffSource(tmp_path / "a")
    np.testing.assert_allclose(source.view((40, 30)), area_average(levels[2], (40, 30)), atol=1e-6)
    assert source.tiles_decoded == 2 * 1
    np.testing.assert_allclose(source.view((100, 68)), levels[1] / 255, atol=1e-6)


def test_pages_without_a_flag_are_levels_if_they_have_the_shape(tmp_path: Path) -> None:
    fine = noise(120, 90, 3)
    with tifffile.TiffWriter(tmp_path / "a") as writer:
        for array in (fine, fine[::2, ::2], fine[:60, :50], fine[::4, ::4], fine[::8, ::8, 0]):
            writer.write(array, tile=(16, 16), metadata=None, photometric="rgb" if array.ndim == 3 else "minisblack")
    source = TiffSource(tmp_path / "a")
    assert [level.size for level in source.levels] == [(120, 90), (60, 45), (30, 23)]
    assert source.header.format == "TIFF, tiled, uncompressed, page 1 of 3"


def test_of_a_stack_the_first_page_is_read_and_told(tmp_path: Path) -> None:
    stack = np.stack([noise(45, 77, 1, seed=i)[:, :, 0] for i in range(5)])
    tifffile.imwrite(tmp_path / "a", stack, rowsperstrip=8, metadata=None)
    source = TiffSource(tmp_path / "a")
    assert source.header.format == "TIFF, striped, uncompressed, page 1 of 5"
    check_tiff(source, stack[0][:, :, None])


def test_masks_and_a_reduced_page_in_front_are_not_the_image(tmp_path: Path) -> None:
    fine = noise(120, 90, 3)
    with tifffile.TiffWriter(tmp_path / "a") as writer:
        for array, kind in ((fine[::4, ::4], 1), (fine, 0), (fine[::3, ::3], 1), (fine[::2, ::2], 1)):
            writer.write(array, tile=(16, 16), subfiletype=kind, photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a", mode="r+") as file:
        file.pages[2].tags[254].overwrite(5)
    source = TiffSource(tmp_path / "a")
    assert [level.size for level in source.levels] == [(120, 90), (60, 45)]
    check_tiff(source, fine)
    assert source.header.format == "TIFF, tiled, uncompressed"


def aperio(path: Path) -> np.ndarray:
    """A slide as Aperio's scanners write it: level, thumbnail, level, label, photograph of the glass."""
    fine = noise(400, 300, 3)
    text = "Aperio Image Library v12\r\n300x400 (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990|Left = 25.1"
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "description": text}
        writer.write(fine, tile=(64, 64), compression="jpeg", **options)
        writer.write(fine[::2, ::2], rowsperstrip=16, **options)
        writer.write(fine[::4, ::4], tile=(64, 64), compression="jpeg", **options)
        writer.write(fine[:90, :80], rowsperstrip=7, subfiletype=1, compression="lzw", **options)
        writer.write(fine[:50, :120], rowsperstrip=7, subfiletype=9, **options)
    return fine


def test_an_aperio_slide_has_its_tiled_pages_for_levels(tmp_path: Path) -> None:
    aperio(tmp_path / "a")
    source = TiffSource(tmp_path / "a")
    assert [level.size for level in source.levels] == [(400, 300), (100, 75)]
    assert (source.header.format, source.mpp) == ("Aperio SVS, tiled, JPEG", 0.499)
    assert TiffSource(tmp_path / "a", mpp=0.25).mpp == 0.25
    with tifffile.TiffFile(tmp_path / "a") as file:
        check_tiff(source, file.pages[2].asarray(), 1)


OME = '<?xml version="1.0"?><OME xmlns="x"><Image ID="0"><Pixels {} Type="uint8"></Pixels></Image></OME>'


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5"', 0.5),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="0.5" PhysicalSizeYUnit="&#181;m"', 0.5),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.001" PhysicalSizeYUnit="mm"', 0.5),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.5" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="0" PhysicalSizeY="0"', None),
        ('PhysicalSizeX="0.5"', None),
    ],
)
def test_ome_tells_microns(attributes: str, mpp: float | None, tmp_path: Path) -> None:
    text = OME.format(attributes).encode()
    write_pyramid(tmp_path / "a", noise(120, 90, 3), (32, 32), 3, "deflate", subifds=True, description=text)
    source = TiffSource(tmp_path / "a")
    assert source.mpp == pytest.approx(mpp) if mpp else source.mpp is None
    assert source.header.format == "OME-TIFF, tiled, deflate"
    assert len(source.levels) == 3


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20_000, 20_000), "centimeter", 0.5),
        ((50_800, 50_800), "inch", 0.5),
        ((20_000, 5_000), "centimeter", 1.0),  # of pixels that are not square, the geometric mean
        ((72, 72), "inch", None),
        ((28.35, 28.35), "centimeter", None),
        ((96, 96), "inch", None),
        ((300, 300), "inch", None),
        ((118.11, 118.11), "centimeter", None),
        ((1200, 1200), "inch", None),
        ((10, 10), "centimeter", None),
        ((20_000, 20_000), "none", None),
        ((20_000, 20), "centimeter", None),
        ((0, 0), "centimeter", None),
    ],
)
def test_resolution_tags_count_if_they_are_no_screens(
    resolution: tuple[float, float], unit: str, mpp: float | None, tmp_path: Path
) -> None:
    source = write_tiff(tmp_path / "a", noise(45, 77, 3), resolution=resolution, resolutionunit=unit)
    assert source.mpp == pytest.approx(mpp, rel=1e-3) if mpp else source.mpp is None


@pytest.mark.parametrize(
    ("unit", "mpp"), [("micron", 0.5), ("um", 0.5), ("\\u00B5m", 0.5), ("mm", 500), ("pixel", None)]
)
def test_imagej_tells_its_unit(unit: str, mpp: float | None, tmp_path: Path) -> None:
    text = f"ImageJ=1.53c\nimages=1\nunit={unit}\nloop=false\n"
    source = write_tiff(tmp_path / "a", noise(45, 77, 1), resolution=(2, 2), resolutionunit="none", description=text)
    assert source.mpp == pytest.approx(mpp) if mpp else source.mpp is None


def test_giants_have_levels_that_repeat_their_tiles(tmp_path: Path) -> None:
    tiles = write_giant(tmp_path / "a", 40, 60, tile=64, different=3, levels=4, compression="deflate")
    source = TiffSource(tmp_path / "a")
    assert [level.size for level in source.levels] == [(2560 >> i, 3840 >> i) for i in range(4)]
    for level, row, column in ((0, 39, 59), (1, 3, 4), (2, 9, 14), (3, 0, 1)):
        expected = tiles[giant_tile_at(level, row, column, 3)]
        np.testing.assert_array_equal(source.read(Box(row * 64, column * 64, 64, 64), level), expected)
    write_giant(tmp_path / "b", 5, 6, tile=64, levels=3)
    with tifffile.TiffFile(tmp_path / "b") as file:
        for level, page in enumerate(file.pages):
            check_tiff(TiffSource(tmp_path / "b"), page.asarray(), level)


@real
@pytest.mark.parametrize(
    ("name", "pages", "how", "mpp"),
    [
        ("cmu-1-small-region.svs", [0], "Aperio SVS, tiled, JPEG", 0.499),
        ("tcga-cr-7395-01a-01-ts1.svs", [0, 2], "Aperio SVS, tiled, JPEG 2000", None),
        ("boxes.tiff", [0, 1, 2, 3], "TIFF, tiled, deflate", None),
    ],
)
def test_real_slides_read_like_their_pages(name: str, pages: list[int], how: str, mpp: float | None) -> None:
    source = TiffSource(SLIDES / name)
    assert (source.header.format, source.mpp, len(source.levels)) == (how, mpp, len(pages))
    with tifffile.TiffFile(SLIDES / name) as file:
        for level, page in enumerate(pages):
            whole = file.pages[page].asarray()
            height, width = whole.shape[:2]
            for box in (Box(0, 0, 30, 20), Box(height - 20, width - 25, 20, 25), Box(height // 3, width // 4, 9, 19)):
                part = whole[box.top : box.bottom, box.left : box.right]
                np.testing.assert_array_equal(source.read(box, level), part)
    assert 0 < source.view((20, 30)).mean() < 1
    assert source.bytes_read < 4_000_000


@real
def test_broken_slides_give_one_line() -> None:
    with pytest.raises(ImageError, match=r"broken\.svs: not a TIFF file \(it begins with b'IJrE'\)"):
        _ = TiffSource(SLIDES / "broken.svs").header
    with pytest.raises(
        ImageError, match=r"unreadable\.svs: broken tile at row 0, column 0 of level 0 \(Jpeg8Error "
    ) as e:
        TiffSource(SLIDES / "unreadable.svs").read(Box(0, 0, 16, 16))
    assert "\n" not in str(e.value)
