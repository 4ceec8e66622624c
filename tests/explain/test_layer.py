"""The layer of predictions: footprints where rasterio says the images lie."""

import json
from pathlib import Path

import numpy as np
import pytest

from foveate.cli import main
from foveate.config.settings import ModelSettings
from foveate.models import build_model, save_model

rasterio = pytest.importorskip("rasterio")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = ModelSettings(patch=(24, 26), patches=3)
    save_model(build_model(settings, ("field", "town"), channels=3), tmp_path / "model")
    return tmp_path / "model"


def scene(path: Path, left: float | None) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 60), dtype=np.uint8)
    known = {} if left is None else {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, left, 0, -10, 5_000_000)}
    with rasterio.open(path, "w", driver="GTiff", height=40, width=60, count=3, dtype="uint8", **known) as file:
        file.write(pixels)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_footprints_lie_where_the_images_do(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, left in (("a", 500_000.0), ("b", 510_000.0), ("nowhere", None)):
        scene(tmp_path / f"{name}.tif", left)
    words = ["predict", str(model), "a.tif", "b.tif", "nowhere.tif", "--out", "rows.csv", "--geojson", "layer.geojson"]
    assert main(words) == 0
    assert "2 footprints in layer.geojson; 1 without a place on earth are not in it" in capsys.readouterr().out
    layer = json.loads(Path("layer.geojson").read_text())
    header, *rows = (line.split(",") for line in Path("rows.csv").read_text().splitlines())
    assert [one["properties"]["path"] for one in layer["features"]] == ["a.tif", "b.tif"]
    for feature, row in zip(layer["features"], rows, strict=False):
        told, written = feature["properties"], dict(zip(header, row, strict=True))
        assert told["predicted"] == written["predicted"]
        assert told["p_town"] == pytest.approx(float(written["p_town"]))
        corners = np.array(feature["geometry"]["coordinates"][0])
        with rasterio.open(told["path"]) as file:
            west, south, east, north = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        assert corners.min(0) == pytest.approx((west, south), abs=1e-6)
        assert corners.max(0) == pytest.approx((east, north), abs=1e-6)
        (x, y), (u, v) = corners[:-1].T, corners[1:].T
        assert (x * v - u * y).sum() > 0  # counter-clockwise


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--geojson", "layer.geojson"], "--geojson writes a layer when all is predicted: add --out FILE"),
        (["--out", "rows.csv", "--geojson", "."], "is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_beforehand(
    words: list[str], message: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    scene(tmp_path / "a.tif", 500_000.0)
    assert main(["predict", str(model), "a.tif", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("rows.csv").exists()
