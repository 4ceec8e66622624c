"""The law of missing data for models: the answer does not change with the bytes under the mask."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from missing import BYTES, KINDS, SIZE, hole, tiff

from foveate.config.settings import GuideSettings, InputSettings
from foveate.errors import ImageError
from foveate.images import ArraySource, open_image
from foveate.models import Model, make_batch
from foveate.networks.normalise import BandStatistics
from foveate.types import Box

Models = Callable[..., Model]
NODATA = {"zeros": 0.0, "extreme": -3.4028234663852886e38, "odd": float("nan")}


def scene(path: Path, what: str, seed: int = 0) -> Path:
    """Floating-point numbers of two bands, of which a part is no data, by another value each time."""
    pixels = np.random.default_rng(seed).random((*SIZE, 2)).astype(np.float32) + 0.1
    return tiff(path, np.where(hole(aligned=False)[:, :, None], np.float32(NODATA[what]), pixels), NODATA[what])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("normalise", ["none", "bands", "image"])
@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "deep-mil", "ips", "cnn"])
def test_an_answer_does_not_change_with_the_bytes_under_the_mask(
    name: str, normalise: str, make_model: Models, tmp_path: Path
) -> None:
    bands = {"bands": BandStatistics((0.6, 0.7), (0.3, 0.2))} if normalise == "bands" else {}
    model = make_model(name, input=InputSettings(normalise=normalise), extras=bands, patches=3)  # type: ignore[arg-type]
    scene(tmp_path / "zeros", "zeros")
    found = []
    for what in BYTES:
        scene(tmp_path / "a.tif", what)
        found.append(model.predict(tmp_path / "a.tif"))
    for other in found[1:]:
        assert other.probabilities == found[0].probabilities
        assert other.boxes == found[0].boxes
    missing = hole(aligned=False)
    for box in found[0].boxes:
        seen = missing[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right]
        assert not seen.all()


@pytest.mark.parametrize("given", ["mask", "prior", "ignore"])
def test_nor_does_it_where_nothing_is_masked(given: str, make_model: Models, tmp_path: Path) -> None:
    settings = InputSettings(guide=GuideSettings(given=given, tissue="prior"))  # type: ignore[arg-type]
    model, found = make_model(input=settings), []
    for what in BYTES:
        scene(tmp_path / "a.tif", what)
        found.append(model.predict(tmp_path / "a.tif").probabilities)
    assert found[0] == found[1] == found[2]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_nor_with_the_kind_of_file(kind: str, make_model: Models, tmp_path: Path) -> None:
    for word, module in (("raster", "rasterio"), ("mask", "rasterio"), ("zarr", "zarr"), ("slide", "openslide")):
        if word in kind:
            pytest.importorskip(module)
    model, found = None, []
    for what in BYTES:
        (tmp_path / what).mkdir()
        source = KINDS[kind](tmp_path / what / ("a.zarr" if "zarr" in kind else "a"), what)[0]
        source.name = "a"  # draws depend on it
        model = model or make_model(channels=source.channels, patches=3)
        found.append(model.predict(source))
    assert found[0].probabilities == found[1].probabilities == found[2].probabilities
    assert found[0].boxes == found[1].boxes == found[2].boxes


def test_missing_data_is_zero_once_bands_are_normalised(make_model: Models, tmp_path: Path) -> None:
    statistics = BandStatistics((271.3, -0.7), (8.1, 0.3))
    model = make_model(input=InputSettings(normalise="bands"), extras={"bands": statistics}, patches=3)
    source = model.intake(open_image(scene(tmp_path / "a.tif", "extreme")))
    batch = make_batch([source], model.view, [0])
    views = model.normalised(batch).views[0]
    missing = ~batch.mask[0]
    assert missing.any()
    share = source.average_of(batch.view_sizes[0], (0, 0, *SIZE), Box(0, 0, *SIZE))[1]
    assert share is not None
    assert (views[:, torch.from_numpy(share[:, :, 0] < 1e-9)] == 0).all()


@pytest.mark.parametrize("normalise", ["none", "bands", "image"])
@pytest.mark.parametrize("name", ["attention-sampling", "deep-mil", "cnn"])
def test_an_image_of_nothing_is_refused_by_name(name: str, normalise: str, make_model: Models, tmp_path: Path) -> None:
    bands = {"bands": BandStatistics((0.6,), (0.3,))} if normalise == "bands" else {}
    settings = InputSettings(normalise=normalise, guide=GuideSettings(given="mask"))  # type: ignore[arg-type]
    model = make_model(name, channels=1, input=settings, extras=bands)
    tiff(tmp_path / "a.tif", np.full((*SIZE, 1), -9999, np.float32), -9999)
    with pytest.raises(ImageError, match=r"a\.tif: there is nothing to look at: all of it is no data or outside its m"):
        model.predict(tmp_path / "a.tif")


def test_a_whole_batch_reads_as_its_images_do(make_model: Models, tmp_path: Path) -> None:
    """One image with missing data makes floats of the patches of all: the others' numbers stay as they are."""
    pixels = np.random.default_rng(3).integers(1, 256, (*SIZE, 2), dtype=np.uint8)
    source = open_image(tiff(tmp_path / "a.tif", np.where(hole(aligned=False)[:, :, None], 0, pixels), 0))
    plain, model = ArraySource(pixels, name="b"), make_model().eval()
    with torch.no_grad():
        both = model(make_batch([source, plain], model.view, [1, 2]))
        alone = model(make_batch([plain], model.view, [2]))
    torch.testing.assert_close(both.logits[1], alone.logits[0], rtol=0, atol=1e-5)
