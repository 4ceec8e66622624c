"""`foveate info`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from servers import FileServer

from foveate.__main__ import main
from foveate.config.settings import FeatureSettings, InputSettings, ModelSettings, ViewSettings
from foveate.convert import Conversion, convert
from foveate.images import ArraySource, Georeference, Header, open_image
from foveate.images.describe import describe
from foveate.models import build_model, load_model, save_model
from foveate.predict.forecast import forecast
from foveate.types import Level


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, a PNG, a pyramid, an array, and a broken file."""
    root = tmp_path_factory.mktemp("info")
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), root / "model", None)
    noise = np.random.default_rng(4)
    Image.fromarray(noise.integers(0, 256, (270, 313, 3), dtype=np.uint8)).save(root / "a.png")
    Image.new("L", (30, 20)).save(root / "small.png")
    large = noise.integers(0, 256, (300, 403, 3), dtype=np.uint8)
    convert(ArraySource(large, mpp=0.5), root / "pyramid.tif", Conversion(tile=32, compression="none"))
    np.save(root / "a.npy", noise.random((50, 60, 5), np.float32))
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return root


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_json_object_per_path(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(house / name) for name in ("pyramid.tif", "a.npy", "a.png")]
    assert main(["info", *paths, "--json"]) == 0
    tiff, npy, png = objects(capsys)
    assert [told["path"] for told in (tiff, npy, png)] == paths
    assert tiff["size"] == [300, 403]
    assert (tiff["channels"], tiff["dtype"]) == (3, "uint8")
    assert tiff["mpp"] == pytest.approx(0.5)
    assert tiff["levels"][1]["size"] == [150, 202]
    assert tiff["levels"][1]["factor"] == pytest.approx([2, 2], rel=0.01)
    assert len(tiff["levels"]) == 5
    assert (tiff["tile"], tiff["lazy"], tiff["reading"]) == ([32, 32], True, "in tiles of 32×32")
    assert tiff["bytes"] == (house / "pyramid.tif").stat().st_size
    assert (npy["lazy"], npy["reading"], npy["dtype"]) == (True, "any part by itself", "float32")
    assert (png["tile"], png["lazy"]) == (None, False)
    assert png["reading"] == "decoded whole: `foveate convert` makes it lazy"
    assert "prediction" not in png


def test_what_a_prediction_would_read(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["info", str(house / "pyramid.tif"), str(house / "a.png"), "--json", "--model", str(house / "model")]) == 0
    )
    tiff, png = (told["prediction"] for told in objects(capsys))
    assert tiff["view"] == [30, 40]
    assert tiff["view_level"] == 3
    assert (tiff["patches"], tiff["patch"]) == (3, [29, 24])
    assert (tiff["tiles_of"], tiff["levels"]) == (10 * 13 + 2 * 2, [0, 3])
    per_patch = (1 + 28 / 32) * (1 + 23 / 32)
    assert tiff["tiles"] == 2 * 2 + int(np.ceil(3 * per_patch))
    assert tiff["bytes"] == pytest.approx(tiff["tiles"] * 32 * 32 * 3, rel=0.1)
    assert (png["tiles"], png["bytes"]) == (None, (house / "a.png").stat().st_size)


def test_the_forecast_is_what_a_prediction_reads(house: Path) -> None:
    model = load_model(house / "model")
    for name in ("pyramid.tif", "a.npy"):
        if name == "a.npy":
            settings = ModelSettings(
                view=ViewSettings(longest_side=40), patch=(22, 24), patches=4, input=InputSettings(bands=(1, 2, 3))
            )
            model = build_model(settings, ("a", "b"), channels=3).eval()
        source = open_image(house / name)
        told = forecast(model, source)
        before = source.bytes_read
        prediction = model.predict(source)
        assert prediction.patches == told["patches"]
        assert source.bytes_read - before == pytest.approx(told["bytes"], rel=0.35)


def test_a_path_that_cannot_be_read_has_an_error_and_the_others_go_on(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(house / name) for name in ("broken.png", "a.png", "missing.tif")]
    assert main(["info", *words, "--json"]) == 3
    broken, good, missing = objects(capsys)
    assert broken["path"] == words[0]
    assert "broken image" in broken["error"]
    assert good["size"] == [270, 313]
    assert missing == {"path": words[2], "error": f"{words[2]}: no such file: check the path"}
    assert main(["info", words[0], words[2], "--json"]) == 2
    assert len(objects(capsys)) == 2


def test_an_image_that_the_model_does_not_take_is_told_and_failed(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(house / "a.npy"), "--json", "--model", str(house / "model")]) == 2
    (told,) = objects(capsys)
    assert told["size"] == [50, 60]
    assert told["error"].startswith("the model wants 3 channel(s)")


def test_lines_in_a_pipe(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["info", str(house / "pyramid.tif"), str(house / "missing"), "--model", str(house / "model")]
    assert main(words) == 3
    printed = capsys.readouterr()
    first, *lines = printed.out.splitlines()
    assert first == str(house / "pyramid.tif")
    facts = {line[2:10].strip(): line[10:] for line in lines}
    assert facts["size"].startswith("300×403 pixels (height×width), 3 channels of uint8")
    assert facts["scale"] == "0.5 microns per pixel"
    assert facts["level 1"].startswith("150×202, factor 2")
    assert facts["read"] == "in tiles of 32×32"
    assert facts["predict"].startswith("a view of 30×40 from level 3 and 3 patches of 29×24: about 14 tiles (of 134")
    assert printed.err == f"foveate: error: {house / 'missing'}: no such file: check the path\n"


def test_a_table_on_a_terminal(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "150")
    assert main(["info", str(house / "a.png")]) == 0
    printed = capsys.readouterr().out
    assert "a.png" in printed
    assert "270×313" in printed
    assert "decoded whole: `foveate convert` makes it lazy" in printed


def test_folders_and_manifests_are_what_they_hold(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("b.png", "c.png"):
        (tmp_path / "images" / name).write_bytes((house / "a.png").read_bytes())
    (tmp_path / "list.csv").write_text("path,label,mpp\nimages/b.png,x,0.25\n")
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path / "images"), str(tmp_path / "list.csv"), str(tmp_path / "empty")]
    assert main(["info", *words, "--json"]) == 3
    first, second, listed, empty = objects(capsys)
    assert [Path(told["path"]).name for told in (first, second, listed)] == ["b.png", "c.png", "b.png"]
    assert listed["mpp"] == 0.25
    assert "holds no images" in empty["error"]


def test_a_folder_of_zarr_is_an_image(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    convert(open_image(house / "a.png"), tmp_path / "a.zarr", Conversion(tile=32))
    assert main(["info", str(tmp_path / "a.zarr"), "--json"]) == 0
    (told,) = objects(capsys)
    assert (told["size"], told["tile"], len(told["levels"])) == ([270, 313], [32, 32], 5)
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "a.zarr").rglob("*") if path.is_file())


def test_an_address_transfers_the_header_only(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with FileServer({"a.tif": (house / "pyramid.tif").read_bytes()}) as server:
        assert main(["info", server.address("a.tif"), server.address("b.tif"), "--json"]) == 3
        good, missing = objects(capsys)
        assert (good["size"], good["tile"]) == ([300, 403], [32, 32])
        assert good["bytes"] == (house / "pyramid.tif").stat().st_size
        assert server.sent < 100_000
    assert missing["error"].endswith("b.tif: no such file there (404): check the address")


def test_everything_a_header_can_tell(house: Path) -> None:
    class Told(ArraySource):
        def _measure(self) -> Header:
            level = Level((6, 500), (1.0, 1.0))
            place = Georeference("EPSG:4326", (1.0, 0.0, 2.0, 0.0, -1.0, 3.0))
            return Header((level,), 2, np.dtype(np.float32), "COG", 10.0, (2, 500), ("a", "b"), float("nan"), place)

    told = describe(Told(np.zeros((6, 500, 2), np.float32)))
    assert told["reading"] == "in strips of 2 rows"
    assert describe(open_image(house / "small.png"))["reading"] == "decoded whole, for it is small"
    assert (told["nodata"], told["bands"], told["bytes"]) == ("nan", ["a", "b"], None)
    assert told["georeference"] == {"crs": "EPSG:4326", "transform": [1.0, 0.0, 2.0, 0.0, -1.0, 3.0], "points": []}
    json.dumps(told, allow_nan=False)


def test_other_models_forecast_too(house: Path) -> None:
    source = open_image(house / "a.npy")
    bands = InputSettings(bands=(0, 1, 2))
    mil = build_model(ModelSettings(name="deep-mil", patch=(25, 22), input=bands), ("a", "b"), channels=3)
    told = forecast(mil, source)
    assert (told["view"], told["patches"], told["bytes"]) == (None, 2 * 3, 6 * 25 * 22 * 5 * 4)
    cnn = build_model(ModelSettings(name="cnn", view=ViewSettings(scale=0.5), input=bands), ("a", "b"), channels=3)
    told = forecast(cnn, source)
    assert (told["view"], told["patches"], told["patch"]) == ([25, 30], 0, None)
    assert told["bytes"] == 50 * 60 * 5 * 4
