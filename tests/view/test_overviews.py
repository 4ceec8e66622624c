"""Coarse tiles of a file without levels: the file is read once for all of them, and they are what they were."""

from pathlib import Path

import numpy as np
import pytest
from pyramid_files import values
from tiffs import write_tiff

import foveate.view.pyramid as overviews
from foveate.cache import DECODED, OVERHEAD, TILES
from foveate.images.formats.tiled import TiledSource
from foveate.models import Model
from foveate.predict import find_rows
from foveate.view import Gallery, tile_pixels
from foveate.view.pyramid import overview_level


def test_all_coarse_tiles_of_a_file_in_strips_decode_it_once(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overviews, "MOST_VALUES", 3 * 307 * 554)  # the level of half the size, two by three tiles
    monkeypatch.setattr(overviews, "NEAR", 1)
    monkeypatch.setattr(TILES, "limit", 2**12)  # no strip is kept
    write_tiff(tmp_path / "flat.tif", values((613, 1107)), rowsperstrip=16, compression="deflate")
    gallery = Gallery(model, find_rows([tmp_path / "flat.tif"]))
    pyramid, source = gallery.seen(0).pyramid, gallery._open(0)
    assert isinstance(source, TiledSource)
    coarse = overview_level(source, pyramid)
    assert coarse == pyramid.last - 1
    assert pyramid.grid(coarse) == (2, 3)
    before, tiles = source.tiles_decoded, []
    for level in range(coarse + 1):
        rows, columns = pyramid.grid(level)
        for row, column in np.ndindex(rows, columns):
            assert gallery.tile(0, level, row, column) is not None
            tiles.append((level, pyramid.tile(level, row, column)))
    assert source.tiles_decoded - before == source.grid()[0] == 39
    for level, box in tiles:
        assert box is not None
        expected = tile_pixels(source, pyramid, level, box)
        np.testing.assert_allclose(gallery._pixels(0, gallery.seen(0), level, box), expected, rtol=0, atol=3e-7)


def test_overviews_are_bounded(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "MOST_VALUES", 3 * 60 * 80)
    monkeypatch.setattr(overviews, "NEAR", 1)
    paths = [tmp_path / f"{number}.tif" for number in range(6)]
    for path in paths:
        write_tiff(path, values((120, 160)), rowsperstrip=16)
    gallery = Gallery(model, find_rows(paths))
    monkeypatch.setattr(DECODED, "limit", 4 * (OVERHEAD + 4 * 3 * 60 * 80))
    for number, level in (*((number, 0) for number in range(6)), (0, 1)):
        assert gallery.tile(number, level, 0, 0) is not None
        assert gallery._overviews.holds(gallery.seen(number).look)
        assert sum(gallery._overviews.holds(other) for other in range(1, 7)) <= 4
    assert [other for other in range(1, 7) if gallery._overviews.holds(other)] == [1, 4, 5, 6]


def test_an_image_with_a_level_near_needs_none(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    source, pyramid = gallery._open(1), gallery.seen(1).pyramid  # 571 × 389, 191 × 130 and 64 × 44
    monkeypatch.setattr(overviews, "MOST_VALUES", 3 * 18 * 13)
    assert overview_level(source, pyramid) is None
    monkeypatch.setattr(overviews, "NEAR", 3)
    assert overview_level(source, pyramid) == pyramid.last - 5
