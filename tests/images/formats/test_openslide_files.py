"""Slides through OpenSlide: levels read on their own grid, errors that do not stay, handles that are bounded."""

from pathlib import Path

import numpy as np
import pytest
from pyramid_files import check_absent, check_spoiled, obeys, sliced, spoil, values, write_pyramid

from foveate.errors import ImageError
from foveate.images import open_image
from foveate.images.formats import openslide as reader
from foveate.images.formats.library import LIBRARY_HANDLES, over_fill
from foveate.images.formats.openslide import OpenSlideSource
from foveate.types import Box

openslide = pytest.importorskip("openslide")

SLIDES = Path(__file__).parents[4] / "shared/data/slides"


def pyramid(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [values(size, seed=number) for number, size in enumerate(sizes)]


def test_levels_on_whole_pixels_read_like_slices(tmp_path: Path) -> None:
    arrays = pyramid((256, 384), (128, 192), (64, 96))
    source = OpenSlideSource(write_pyramid(tmp_path / "slide", arrays, resolution=(20000, 20000), resolutionunit=3))
    obeys(source, arrays)
    assert source._steps == (1.0, 2.0, 4.0)
    assert source.header.format == "OpenSlide, generic-tiff"
    assert source.header.tile == (64, 48)
    assert source.mpp == pytest.approx(0.5)
    assert OpenSlideSource(source.name, mpp=2.0).mpp == 2.0
    printed = write_pyramid(tmp_path / "printed", arrays, resolution=(72, 72), resolutionunit=2)
    assert OpenSlideSource(printed).mpp is None


def test_levels_off_the_grid_read_like_slices_too(tmp_path: Path) -> None:
    """4.0006 and 16.04: wherever OpenSlide is told to start, it would blend neighbouring pixels."""
    arrays = pyramid((1001, 1403), (250, 351), (62, 88))
    path = write_pyramid(tmp_path / "slide", arrays)
    with openslide.OpenSlide(path) as slide:
        step = slide.level_downsamples[1]
        blended = np.asarray(slide.read_region((round(80 * step), 0), 1, (8, 8)))[:, :, :3]
    assert not np.array_equal(blended, arrays[1][:8, 80:88])  # or else there is nothing to take care of
    source = OpenSlideSource(path)
    obeys(source, arrays)
    assert source._steps == (1.0, None, None)
    assert source.levels[1].factor == (1001 / 250, 1403 / 351)


def test_large_levels_off_the_grid_are_left_out_openly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = pyramid((1001, 1403), (250, 351), (62, 88))
    monkeypatch.setattr(reader, "WHOLE_PIXELS", 62 * 88)
    source = OpenSlideSource(write_pyramid(tmp_path / "slide", arrays))
    assert source.header.format == "OpenSlide, generic-tiff, level 1 left out, off the grid"
    obeys(source, [arrays[0], arrays[2]])


def test_bytes_are_those_of_the_pixels_decoded(tmp_path: Path) -> None:
    source = OpenSlideSource(write_pyramid(tmp_path / "slide", pyramid((100, 150))))
    _ = source.header
    assert source.bytes_read == 0
    source.read(Box(-3, 5, 10, 20))
    assert source.bytes_read == 7 * 20 * 3


def test_what_was_not_scanned_has_the_background_colour() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 51, 51]]], np.uint8)
    assert over_fill(rgba, (255, 255, 0))[0].tolist() == [[200, 100, 50], [255, 255, 0], [244, 224, 10]]
    assert reader._background("FFF001") == (255, 240, 1)
    assert reader._background(None) == reader._background("white") == (0, 0, 0)


def test_an_error_does_not_stay(tmp_path: Path) -> None:
    arrays = pyramid((200, 300))
    source = OpenSlideSource(spoil(write_pyramid(tmp_path / "slide", arrays), tile=0))
    check_spoiled(source, arrays[0], "", "convert it, e.g. to a tiled TIFF")


def test_few_slides_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIBRARY_HANDLES, "most", 3)
    arrays = [values((40, 50), seed=seed) for seed in range(6)]
    sources = [OpenSlideSource(write_pyramid(tmp_path / f"{i}", [array])) for i, array in enumerate(arrays)]
    for _ in range(2):
        for source, array in zip(sources, arrays, strict=True):
            np.testing.assert_array_equal(source.read(Box(3, 4, 20, 30)), sliced(array, Box(3, 4, 20, 30)))
            assert len(LIBRARY_HANDLES) <= 3
    before = len(LIBRARY_HANDLES)
    sources[-1].close()
    assert len(LIBRARY_HANDLES) == before - 1


def test_files_that_are_no_slides_say_so(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no slide")
    with pytest.raises(ImageError, match="broken image, or of a kind not supported here \\(OpenSlideUnsupported"):
        open_image(path, reader="openslide")
    with pytest.raises(ImageError, match="nowhere: no such file: check the path"):
        open_image(tmp_path / "nowhere", reader="openslide")
    with pytest.raises(ImageError, match="a folder, not an image: name a file in it"):
        open_image(tmp_path, reader="openslide")


def test_without_the_library_the_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pyramid(tmp_path / "slide", pyramid((40, 50)))
    check_absent(path, "openslide", "openslide", "openslide", monkeypatch)


@pytest.mark.skipif(not SLIDES.exists(), reason=f"{SLIDES} is not there")
@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs", "boxes.tiff"])
def test_real_slides_read_as_openslide_shows_them(name: str) -> None:
    source = OpenSlideSource(SLIDES / name)
    with openslide.OpenSlide(SLIDES / name) as slide:
        assert [level.size[::-1] for level in source.levels] == list(slide.level_dimensions)
        for level, (width, height) in enumerate(slide.level_dimensions):
            if width * height > 10**7:
                continue
            whole = np.asarray(slide.read_region((0, 0), level, (width, height)))[:, :, :3]
            for box in (Box(-3, -5, 40, 50), Box(height // 2, width // 3, 33, 21), Box(height - 9, width - 7, 20, 20)):
                np.testing.assert_array_equal(source.read(box, level), sliced(whole, box))
