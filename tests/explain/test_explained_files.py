"""The files of an explanation: each opened by what it is for, and each in the right place."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from giants import write_giant
from PIL import Image
from seeing import seeing_model
from tiffs import write_pyramid

from foveate.config.settings import PriorSettings, ViewSettings
from foveate.explain import Explainer
from foveate.explain.export import compose, ring
from foveate.explain.ground import cut
from foveate.explain.picture import FAINTEST, Scale
from foveate.images import ArraySource, Georeference, Header, Masked, Source, open_image
from foveate.models import DrawOptions, Model
from foveate.types import Box

Make = Callable[..., Model]
Draw = Callable[..., np.ndarray]


def explained(model: Model, source: Source, out: Path, name: str = "image.png", **options: Any) -> Path:
    explainer = Explainer(model, out, **options)
    explainer(name, model.look(source, explainer.options))
    assert explainer.finish() == out / "index.html"
    return out / explainer.entries[0].folder


def read_map(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "attention.npz") as arrays:
        return arrays["attention"], arrays["affine"]


def peak(folder: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the map's largest cell is centred, and how large it is, in level-0 pixels."""
    attention, (a, _, c, _, e, f) = read_map(folder)
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    return (e * (row + 0.5) + f, a * (column + 0.5) + c), (e, a)


def check_peak(folder: Path, centre: tuple[int, int], side: int) -> None:
    """Within half a cell of the digit."""
    found, cell = peak(folder)
    for place, true, width in zip(found, centre, cell, strict=True):
        assert abs(place - true) <= side / 2 + width / 2


def written(kind: str, pixels: np.ndarray, path: Path) -> Source:
    if kind == "array":
        return ArraySource(pixels, name="image")
    if kind == "png":
        Image.fromarray(pixels.squeeze()).save(path / "image.png")
        return open_image(path / "image.png")
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.save_array(str(path / "image.zarr"), pixels)
        return open_image(path / "image.zarr")
    if kind == "npy":
        np.save(path / "image.npy", pixels)
        return open_image(path / "image.npy")
    write_pyramid(path / "image.tif", pixels, tile=(64, 48), levels=3, compression="deflate")
    if kind == "openslide":
        pytest.importorskip("openslide")
        return open_image(path / "image.tif", reader="openslide")
    return open_image(path / "image.tif")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", ["array", "png", "npy", "zarr", "pyramid", "openslide"])
def test_every_reader_has_its_map_where_the_digit_is(kind: str, tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    source = written(kind, canvas((417, 605), (120, 430), channels=3), tmp_path)  # levels of 2.005 and 4.01
    folder = explained(pointing(channels=3), source, tmp_path / "seen")
    check_peak(folder, (120, 430), 28)


def test_the_overlay_is_bright_where_the_digit_is(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    size, centre = (423, 611), (330, 81)
    folder = explained(pointing(patches=1), ArraySource(canvas(size, centre)), tmp_path)
    overlay = np.asarray(Image.open(folder / "overlay.png").convert("RGB")).astype(int)
    assert overlay.shape == (*size[:1], size[1] + 130, 3)
    hot = (overlay[:, : size[1], 0] + overlay[:, : size[1], 1] - overlay[:, : size[1], 2]).copy()
    box = json.loads((folder / "explanation.json").read_text())["patches"][0]["box"]
    hot[box[0] - 2 : box[0] + box[2] + 3, [box[1], box[1] + box[3] - 1]] = 0  # its frame
    row, column = np.unravel_index(hot.argmax(), hot.shape)
    _, cell = peak(folder)
    assert abs(row - centre[0]) <= 14 + cell[0] / 2 + 1
    assert abs(column - centre[1]) <= 14 + cell[1] / 2 + 1
    bar = overlay[:, size[1] + 14 : size[1] + 32]
    assert len(np.unique(bar.reshape(-1, 3), axis=0)) > 100


def test_the_map_and_its_affine_in_every_file(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    model = pointing()
    source = ArraySource(canvas((417, 605), (120, 430)))
    folder = explained(model, source, tmp_path)
    look = model.look(source)
    attention, affine = read_map(folder)
    assert look.output.attention is not None
    np.testing.assert_array_equal(attention, look.output.attention[0].numpy())
    assert attention.dtype == np.float32
    assert model.grid is not None
    assert tuple(affine) == model.grid.affine(look.grid_size, (417, 605))
    with tifffile.TiffFile(folder / "attention.tif") as file:
        np.testing.assert_array_equal(file.asarray(), attention)
        assert json.loads(file.pages[0].description)["affine"] == list(affine)  # type: ignore[union-attr]
    record = json.loads((folder / "explanation.json").read_text())
    assert record["affine"] == list(affine)
    # round trip: the box of a cell is centred on it, to half a pixel
    for patch in record["patches"]:
        top, left, height, width = patch["box"]
        row = ((top + height / 2) - affine[5]) / affine[4] - 0.5
        column = ((left + width / 2) - affine[2]) / affine[0] - 0.5
        cell = round(row), round(column)
        assert attention[cell] == pytest.approx(patch["attention"], rel=1e-5)


def test_the_heatmap_is_a_detection_for_every_cell_where_it_lies(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    folder = explained(pointing(), ArraySource(canvas((417, 605), (120, 430))), tmp_path)
    attention, affine = read_map(folder)
    features = json.loads((folder / "heatmap.geojson").read_text())["features"]
    assert len(features) == attention.size
    values = [one["properties"]["measurements"]["attention"] for one in features]
    assert values == sorted(attention.flatten().tolist(), reverse=True)
    assert {one["properties"]["objectType"] for one in features} == {"detection"}
    corners = np.array([one["geometry"]["coordinates"][0] for one in features])  # (cell, corner, x and y)
    assert (corners[:, 0] == corners[:, -1]).all()
    assert (corners.min((0, 1)) >= 0).all()
    assert (corners.max((0, 1)) <= (605, 417)).all()
    inside = (corners.min(1) > 0).all(1) & (corners.max(1) < (605, 417)).all(1)
    assert inside.any()
    for middle, value in zip((corners.min(1) + corners.max(1))[inside] / 2, np.array(values)[inside], strict=True):
        column, row = (middle[0] - affine[2]) / affine[0] - 0.5, (middle[1] - affine[5]) / affine[4] - 0.5
        assert attention[round(row), round(column)] == pytest.approx(value)


def test_geojson_is_valid_and_comes_back_as_a_mask(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    model, pixels = pointing(), canvas((200, 310), (12, 290))
    folder = explained(model, ArraySource(pixels), tmp_path, options=DrawOptions(2))
    content = json.loads((folder / "patches.geojson").read_text())
    record = json.loads((folder / "explanation.json").read_text())
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == len(record["patches"]) == 8
    assert len({feature["id"] for feature in content["features"]}) == 8
    covered = np.zeros((200, 310), bool)
    for feature, patch in zip(content["features"], record["patches"], strict=True):
        (corners,) = feature["geometry"]["coordinates"]
        assert feature["geometry"]["type"] == "Polygon"
        assert corners[0] == corners[-1]
        assert len({tuple(corner) for corner in corners}) == 4
        xs, ys = zip(*corners, strict=True)
        top, left, height, width = patch["box"]
        assert (min(xs), max(xs)) == (max(left, 0), min(left + width, 310))
        assert (min(ys), max(ys)) == (max(top, 0), min(top + height, 200))
        covered[min(ys) : max(ys), min(xs) : max(xs)] = True
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["isLocked"] is True
        assert properties["classification"]["name"] in model.classes
        assert len(properties["classification"]["color"]) == 3
        measured = properties["measurements"]
        assert measured["attention"] == patch["attention"]
        assert measured["weight"] == patch["weight"]
        assert [measured[f"contribution to {name}"] for name in model.classes] == patch["contributions"]
        spoken = model.classes.index(properties["classification"]["name"])
        assert patch["contributions"][spoken] == max(patch["contributions"])
    masked = Masked(ArraySource(pixels), folder / "patches.geojson")
    np.testing.assert_array_equal(masked.valid((200, 310)), covered)


def test_a_ring_is_cut_at_the_border() -> None:
    assert ring(Box(90, -5, 20, 10), (100, 200)) == [(0, 90), (0, 100), (5, 100), (5, 90), (0, 90)]


class OnEarth(ArraySource):
    """An image with a place on earth, its north not up."""

    place = Georeference("EPSG:32633", (0.5, 0.1, 400000.0, 0.1, -0.5, 5000000.0))

    def _measure(self) -> Header:
        return replace(super()._measure(), georeference=self.place)


def test_a_place_on_earth(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    rasterio = pytest.importorskip("rasterio")
    warp = pytest.importorskip("rasterio.warp")
    folder = explained(pointing(), OnEarth(canvas((417, 605), (120, 430))), tmp_path)
    attention, affine = read_map(folder)
    with rasterio.open(folder / "attention.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), attention)
        assert raster.crs.to_epsg() == 32633
        assert raster.dtypes == ("float32",)
        for row, column in ((0, 0), (3, 7), (attention.shape[0], attention.shape[1])):
            x, y = affine[0] * column + affine[2], affine[4] * row + affine[5]
            ground = 0.5 * x + 0.1 * y + 400000, 0.1 * x - 0.5 * y + 5000000
            a, b, c, d, e, f = tuple(raster.transform)[:6]
            assert (a * column + b * row + c, d * column + e * row + f) == pytest.approx(ground, rel=1e-12)
    pixels = json.loads((folder / "patches.geojson").read_text())
    degrees = json.loads((folder / "patches-wgs84.geojson").read_text())
    for here, there in zip(pixels["features"], degrees["features"], strict=True):
        (corners,), (turned,) = here["geometry"]["coordinates"], there["geometry"]["coordinates"]
        assert turned[0] == turned[-1]
        area = sum(x * v - u * y for (x, y), (u, v) in pairwise(turned))
        assert area > 0  # counter-clockwise, RFC 7946
        back = warp.transform("EPSG:4326", "EPSG:32633", *map(list, zip(*turned, strict=True)))
        ground = {(0.5 * x + 0.1 * y + 400000, 0.1 * x - 0.5 * y + 5000000) for x, y in corners}
        found = set(zip(*back, strict=True))
        for point in ground:
            assert min(abs(point[0] - x) + abs(point[1] - y) for x, y in found) < 1e-3
        assert here["properties"] == there["properties"]


@pytest.mark.parametrize(("epsg", "at"), [(32760, (180.0, -17.0)), (3413, (180.0, 75.0))])
def test_patches_are_cut_at_the_antimeridian(
    epsg: int, at: tuple[float, float], tmp_path: Path, pointing: Make, canvas: Draw
) -> None:
    warp = pytest.importorskip("rasterio.warp")
    (x,), (y,) = warp.transform("EPSG:4326", f"EPSG:{epsg}", [at[0]], [at[1]])
    source = OnEarth(canvas((417, 605), (120, 300)))
    source.place = Georeference(f"EPSG:{epsg}", (100.0, 0.0, x - 31000, 0.0, -100.0, y + 13000))
    folder = explained(pointing(), source, tmp_path)
    crossing = 0
    for feature in json.loads((folder / "patches-wgs84.geojson").read_text())["features"]:
        geometry = feature["geometry"]
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        crossing += geometry["type"] == "MultiPolygon"
        for (corners,) in parts:
            longitudes = [longitude for longitude, _ in corners]
            assert corners[0] == corners[-1]
            assert -180 <= min(longitudes) <= max(longitudes) <= 180
            assert max(longitudes) - min(longitudes) < 30  # none goes round the earth
            assert sum(a * d - c * b for (a, b), (c, d) in pairwise(corners)) > 0
        if len(parts) == 2:
            east, west = sorted(parts, key=lambda part: -part[0][0][0])
            assert sorted(b for a, b in east[0] if a == 180)[0] == sorted(b for a, b in west[0] if a == -180)[0]
    assert crossing


def test_a_ring_round_a_pole_is_led_along_it() -> None:
    for y in (80.0, -80.0):
        parts = cut([(0.0, y), (90.0, y), (180.0, y), (-90.0, y), (0.0, y)])
        area = sum(a * d - c * b for part in parts for (a, b), (c, d) in pairwise(part)) / 2
        assert area == pytest.approx(360 * 10)
        assert all(-180 <= x <= 180 for part in parts for x, _ in part)


def test_ground_control_points_place_a_map_and_its_patches(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    rasterio = pytest.importorskip("rasterio")
    source = OnEarth(canvas((417, 605), (120, 430)))
    grid = [(float(row), float(column)) for row in (0, 200, 417) for column in (0, 300, 605)]
    points = tuple((row, column, 10 + column * 1e-3, 45 - row * 2e-3, 0.0) for row, column in grid)
    source.place = Georeference("EPSG:4326", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), points)
    folder = explained(pointing(), source, tmp_path)
    with rasterio.open(folder / "attention.tif") as raster:
        found, crs = raster.gcps
        assert crs.to_epsg() == 4326
        rows, columns = raster.shape
    _, affine = read_map(folder)
    for one, (row, column, x, y, _) in zip(found, points, strict=True):
        assert (one.x, one.y) == (x, y)
        assert (affine[0] * one.col + affine[2], affine[4] * one.row + affine[5]) == pytest.approx((column, row))
    assert (rows, columns) == read_map(folder)[0].shape
    pixels = json.loads((folder / "patches.geojson").read_text())
    degrees = json.loads((folder / "patches-wgs84.geojson").read_text())
    for here, there in zip(pixels["features"], degrees["features"], strict=True):
        expected = {(round(10 + x * 1e-3, 9), round(45 - y * 2e-3, 9)) for x, y in here["geometry"]["coordinates"][0]}
        assert {(round(x, 9), round(y, 9)) for x, y in there["geometry"]["coordinates"][0]} == expected


def test_affine_maps_compose() -> None:
    outer, inner = (0.5, 0.1, 40.0, 0.2, -0.5, 50.0), (7.0, 0.0, 3.0, 0.0, 5.0, 2.0)
    a, b, c, d, e, f = compose(outer, inner)
    row, column = 4.5, 9.25
    x, y = 7 * column + 3, 5 * row + 2
    assert a * column + b * row + c == pytest.approx(0.5 * x + 0.1 * y + 40)
    assert d * column + e * row + f == pytest.approx(0.2 * x - 0.5 * y + 50)


def test_patches_are_the_pixels_that_were_read(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    pixels = canvas((217, 305), (5, 300), channels=3, side=10)
    folder = explained(pointing(channels=3), ArraySource(pixels), tmp_path)
    record = json.loads((folder / "explanation.json").read_text())
    files = sorted((folder / "patches").iterdir())
    assert [file.name for file in files] == [f"patch-{number:03d}-draw-1.png" for number in range(1, 5)]
    source = ArraySource(pixels)
    for file, patch in zip(files, record["patches"], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), source.read(Box(*patch["box"])))


def test_many_bands_and_odd_ranges_can_be_seen(tmp_path: Path, pointing: Make) -> None:
    bands = np.random.default_rng(0).normal(300, 20, (90, 130, 5)).astype(np.float32)
    folder = explained(pointing(channels=5, prior=PriorSettings()), ArraySource(bands), tmp_path)
    picture = np.asarray(Image.open(folder / "thumbnail.jpg"))
    assert picture.std() > 20
    assert "from the 1st to the 99th percentile" in (folder / "explanation.html").read_text()


@pytest.mark.parametrize("name", ["cnn", "uniform", "deep-mil"])
def test_models_without_a_map_or_a_draw(name: str, tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    folder = explained(pointing(name=name), ArraySource(canvas((217, 305), (60, 170))), tmp_path)
    files = {file.name for file in folder.iterdir()}
    assert ("attention.npz" in files) == (name == "deep-mil")
    assert ("patches.geojson" in files) == (name != "cnn")
    page = (folder / "explanation.html").read_text()
    assert f"A {name} model " in page
    assert ('id="opacity"' in page) == (name == "deep-mil")
    if name == "deep-mil":
        attention, affine = read_map(folder)
        assert attention.shape == (8, 9)
        assert tuple(affine) == (36.0, 0.0, 0.0, 0.0, 28.0, 0.0)


def test_the_page_of_evidence_says_what_its_map_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    folder = explained(seeing_model(), ArraySource(pixels), tmp_path)
    page = (folder / "explanation.html").read_text()
    assert 'id="opacity"' in page
    assert "An evidence model looks at the whole image once" in page
    assert "and reads no patches: the map shows which of its cells have evidence" in page
    assert "The model asked every cell of a grid over the image" in page
    for wrong in ("no attention map", "it has no map", "are all that this model tells", "Skip to the patches"):
        assert wrong not in page


def test_what_if_is_what_predict_says_with_other_seeds(tmp_path: Path, pointing: Make) -> None:
    model = pointing()
    source = ArraySource(np.random.default_rng(0).integers(0, 255, (217, 305), dtype=np.uint8), name="a/b.png")
    folder = explained(model, source, tmp_path, what_if=2, options=DrawOptions(seed=7))
    told = json.loads((folder / "explanation.json").read_text())["what_if"]
    assert [one["seed"] for one in told] == [8, 9]
    for one in told:
        direct = model.predict(source, seed=one["seed"])
        assert one["probabilities"] == direct.probabilities
        assert [Box(*box) for box in one["boxes"]] == list(direct.boxes)


def test_no_other_seed_is_tried_where_nothing_is_drawn(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    model, pixels = pointing(name="deep-mil"), canvas((217, 305), (60, 170))
    folder = explained(model, ArraySource(pixels), tmp_path, what_if=3)
    assert json.loads((folder / "explanation.json").read_text())["what_if"] == []
    assert "the same whatever the seed" in (folder / "explanation.html").read_text()


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    model = pointing()
    explainer = Explainer(model, tmp_path / "seen")
    for name in ("a/x.png", "b/x.tif", "c/../weird name?.png", "https://host/y.svs"):
        explainer(name, model.look(canvas((60, 90), (30, 60))))
    assert [entry.folder for entry in explainer.entries] == ["x", "x-2", "weird-name", "y"]
    index = explainer.finish()
    assert index is not None
    assert index.read_text().count('explanation.html">') == 4


@pytest.mark.slow
@pytest.mark.parametrize("gigapixels", [1.0])
def test_the_page_of_a_giant_image_is_small_and_soon_made(gigapixels: float, tmp_path: Path, pointing: Make) -> None:
    count = round((gigapixels * 1e9) ** 0.5 / 256)
    write_giant(tmp_path / "giant.tif", count, count, levels=6)
    model = pointing(channels=3, view=ViewSettings(longest_side=512), patch=(256, 256), patches=16)
    source = open_image(tmp_path / "giant.tif")
    look = model.look(source, DrawOptions(4))
    explainer = Explainer(model, tmp_path / "seen", DrawOptions(4))
    explainer("small.tif", model.look(np.zeros((300, 320, 3), np.uint8)))  # imports what draws
    started = time.process_time()
    explainer("giant.tif", look)
    seconds = time.process_time() - started  # of the processor: a busy machine is not the page's fault
    page = tmp_path / "seen" / "giant" / "explanation.html"
    assert page.stat().st_size < 3_000_000
    assert seconds < 5


def test_a_scale_spans_percentiles_and_never_nothing() -> None:
    values = np.zeros((20, 50), np.float32)
    values[3, 4] = 1.0
    everywhere = np.ones(values.shape, bool)
    scale = Scale.of(values, everywhere)
    assert scale.low == 0
    assert 0 < scale.high < 0.01
    colours = scale.colour(values, everywhere)
    assert colours[3, 4].tolist() != colours[0, 0].tolist()
    assert (colours[3, 4, 3], colours[0, 0, 3]) == (255, round(255 * FAINTEST))  # what is under little of it is seen
    half = everywhere.copy()
    half[:10] = False
    assert scale.colour(values, half)[:10].max() == 0
    assert len(scale.stops()) == 9
