import pickle

import numpy as np
import pytest

from foveate.errors import ImageError
from foveate.images import ArraySource, Inset, Mosaic, area_average
from foveate.types import Box

TILE = (5, 8)
PICTURES = {name: np.random.default_rng(k).integers(0, 256, TILE, dtype=np.uint8) for k, name in enumerate("abcdx")}


def read(name: str, box: Box) -> np.ndarray:
    assert box.within(0, 0, *TILE) == box
    return PICTURES[name][box.top : box.bottom, box.left : box.right]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", [(10, 24), (8, 21), (6, 17)])
@pytest.mark.parametrize("inset", [None, Box(6, 10, 2, 5), Box(0, 0, 5, 8)])
def test_a_mosaic_reads_as_its_pixels_put_side_by_side(size: tuple[int, int], inset: Box | None) -> None:
    if inset is not None and inset.bottom > size[0]:
        inset = Box(size[0] - 1, 16, 1, size[1] - 16)  # what is left of the last tile
    tiles = ["abc", "dab"]
    whole = np.block([[PICTURES[name] for name in row] for row in tiles])[: size[0], : size[1]].copy()
    if inset is not None:
        rest = np.block([[PICTURES["x"]] * 3] * 2)
        place = np.s_[inset.top : inset.bottom, inset.left : inset.right]
        whole[place] = rest[place]
    mosaic = Mosaic(read, tiles, TILE, size, None if inset is None else Inset(inset, "x"), 0.5, "board")
    assert (mosaic.size, mosaic.channels, mosaic.dtype, mosaic.mpp, mosaic.name) == (size, 1, np.uint8, 0.5, "board")
    array = ArraySource(whole)
    boxes = [Box(top, left, 1 + top % 4, 1 + left % 7) for top in range(-4, 11) for left in range(-7, 25)]
    for mine, theirs in zip(mosaic.read_many(boxes), array.read_many(boxes), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(mosaic.read(Box(0, 0, *size)), whole[:, :, None])
    for view, region in (((3, 4), None), ((2, 5), (-1.5, 2.25, 7, 30))):
        np.testing.assert_array_equal(mosaic.view(view, region), area_average(whole[:, :, None], view, region))
    assert mosaic.bytes_read > 0


def test_opening_reads_nothing_and_a_read_asks_for_what_it_shows() -> None:
    asked: list[tuple[str, Box]] = []

    def noted(name: str, box: Box) -> np.ndarray:
        asked.append((name, box))
        return read(name, box)

    mosaic = Mosaic(noted, ["ab", "cd"], TILE, (10, 16), Inset(Box(6, 9, 2, 2), "x"))
    assert (mosaic.size, mosaic.thumbnail(4).shape, len(asked) > 0) == ((10, 16), (3, 4, 1), True)
    asked.clear()
    first, second = mosaic.read(Box(4, 7, 2, 2)), mosaic.read(Box(7, 10, 1, 1))
    assert asked == [
        ("a", Box(4, 7, 1, 1)), ("b", Box(4, 0, 1, 1)), ("c", Box(0, 7, 1, 1)), ("d", Box(0, 0, 1, 1)),
        ("d", Box(2, 2, 1, 1)), ("x", Box(2, 2, 1, 1)),
    ]  # fmt: skip
    assert first[1, 1, 0] == PICTURES["d"][0, 0]
    assert second[0, 0, 0] == PICTURES["x"][2, 2]


def test_a_mosaic_can_be_pickled() -> None:
    mosaic = Mosaic(read, ["ab"], TILE, (5, 16))
    copy = pickle.loads(pickle.dumps(mosaic))
    np.testing.assert_array_equal(copy.read(Box(0, 0, 5, 16)), mosaic.read(Box(0, 0, 5, 16)))


@pytest.mark.parametrize("tiles", [["ab"], ["ab", "c"], ["ab", "cd", "ab"], []])
def test_tiles_that_do_not_fit_the_size_are_refused(tiles: list[str]) -> None:
    with pytest.raises(ImageError, match=r"image in memory: 10×9 pixels are 2×2 tiles of 5×8, got rows of .*: name as"):
        Mosaic(read, tiles, TILE, (10, 9))


@pytest.mark.parametrize("box", [Box(4, 0, 2, 2), Box(0, 7, 1, 2), Box(5, 8, 2, 2), Box(0, 12, 1, 1), Box(-1, 0, 1, 1)])
def test_an_inset_across_tiles_or_beyond_the_border_is_refused(box: Box) -> None:
    with pytest.raises(ImageError, match=r"an inset must lie within one tile of 5×8 and within 6×12 pixels, got Box"):
        Mosaic(read, ["ab", "cd"], TILE, (6, 12), Inset(box, "x"))


def test_mosaics_of_the_same_pictures_in_the_same_places_have_one_key() -> None:
    def key(inset: Box | None, tiles: tuple[str, str] = ("ab", "cd"), place: str | None = "boards.zip") -> object:
        shown = None if inset is None else Inset(inset, "x")
        return Mosaic(read, tiles, TILE, (10, 16), shown, pictures=None if place is None else (place, 9, 1)).cache_key()

    box = Box(6, 9, 2, 2)
    assert key(box) == key(box)
    assert len({key(box), key(None), key(Box(6, 9, 2, 3)), key(box, ("ab", "dc")), key(box, place="b.zip")}) == 5
    assert key(box, place=None) is None
