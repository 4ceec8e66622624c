import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.errors import ImageError
from foveate.images import ArraySource, Masked

IMAGE = ArraySource(np.zeros((40, 60, 3), np.uint8))


def square(*corners: tuple[float, float]) -> list[list[float]]:
    return [[x, y] for x, y in (*corners, corners[0])]


def write_polygons(path: Path, *geometries: object) -> Path:
    features = [{"type": "Feature", "geometry": one, "properties": {"objectType": "annotation"}} for one in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize("scale", [1, 2, 0.5])
@pytest.mark.parametrize("value", [1, 255])
def test_a_picture_of_any_size_masks(tmp_path: Path, scale: float, value: int) -> None:
    pixels = np.zeros((int(40 * scale), int(60 * scale)), np.uint8)
    pixels[: int(20 * scale), int(40 * scale) :] = value
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    masked = Masked(IMAGE, tmp_path / "mask.png")
    expected = np.zeros((4, 6), bool)
    expected[:2, 4:] = True
    np.testing.assert_array_equal(masked.valid((4, 6)), expected)
    np.testing.assert_array_equal(masked.valid((2, 3), (0, 30, 40, 60)), [[False, True, True], [False] * 3])
    np.testing.assert_array_equal(masked.view((4, 6)), IMAGE.view((4, 6)))


def test_half_a_cell_is_enough(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:5], pixels[20:24] = 1, 1
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert Masked(IMAGE, tmp_path / "mask.png").valid((4, 1))[:, 0].tolist() == [True, False, False, False]


def test_polygons_mask_with_their_holes(tmp_path: Path) -> None:
    outline, hole = square((10, 0), (50, 0), (50, 40), (10, 40)), square((20, 10), (40, 10), (40, 30), (20, 30))
    path = write_polygons(
        tmp_path / "a.geojson",
        {"type": "Polygon", "coordinates": [outline, hole]},
        {"type": "MultiPolygon", "coordinates": [[square((0, 30), (10, 30), (10, 40), (0, 40))]]},
        {"type": "Point", "coordinates": [1, 1]},
        None,
    )
    expected = np.zeros((4, 6), bool)
    expected[:, 1:5] = True
    expected[1:3, 2:4] = False
    expected[3, 0] = True
    np.testing.assert_array_equal(Masked(IMAGE, path).valid((4, 6)), expected)
    shifted = Masked(IMAGE, path).valid((4, 6), (-20, 0, 20, 60))
    np.testing.assert_array_equal(shifted, np.concatenate([np.zeros((2, 6), bool), expected[:2]]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 39), st.integers(0, 59), st.integers(1, 40), st.integers(1, 60))
def test_a_polygon_and_a_picture_of_the_same_rectangle_agree(top: int, left: int, height: int, width: int) -> None:
    bottom, right = min(top + height, 40), min(left + width, 60)
    pixels = np.zeros((40, 60), np.uint8)
    pixels[top:bottom, left:right] = 1
    polygon = square((left, top), (right, top), (right, bottom), (left, bottom))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveate.images.wrappers.mask._is_json", lambda path: path == "polygon")
        patch.setattr("foveate.images.wrappers.mask.open_image", lambda _: ArraySource(pixels))
        patch.setattr("foveate.images.wrappers.mask._read_polygons", lambda _: [[np.array(polygon)[:, ::-1]]])
        picture, drawn = (Masked(IMAGE, kind).valid((40, 60)) for kind in ("picture", "polygon"))
    np.testing.assert_array_equal(picture, drawn)


def test_masks_of_masks_agree_on_both(tmp_path: Path) -> None:
    for name, rows in (("a", slice(0, 30)), ("b", slice(20, 40))):
        pixels = np.zeros((40, 60), np.uint8)
        pixels[rows] = 1
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    both = Masked(Masked(IMAGE, tmp_path / "a.png"), tmp_path / "b.png")
    assert both.valid((4, 1))[:, 0].tolist() == [False, False, True, False]
    again = pickle.loads(pickle.dumps(both))
    np.testing.assert_array_equal(again.valid((4, 1)), both.valid((4, 1)))
    np.testing.assert_array_equal(np.isneginf(both.guide((4, 1))), ~both.valid((4, 1)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", None, r"a.png: a mask must have the shape of its image, got 40×40 for 40×60 of image in memory: exp"),
        ("a.json", b'{"type": "FeatureCollection", "features": []}', r"a.json: no polygon in it: draw one around"),
        ("a.json", b'{"type": "Feature"}', r"a.json: not a GeoJSON file of polygons \('geometry'\): export"),
        ("a.json", b"{", r"a.json: not a GeoJSON file of polygons"),
        ("a.json", b'{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', r"a ring of 2 points"),
        ("a.json", b'{"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [2, 2]]]}', r"not a GeoJSON file"),
        ("gone.png", b"", r"gone.png: no such file: check the path"),
    ],
)
def test_what_is_no_mask_says_so(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is None:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(path)
    elif content:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        Masked(IMAGE, path).valid((4, 6))
    assert "\n" not in str(caught.value)
