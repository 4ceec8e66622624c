from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.errors import ConfigError, ImageError
from foveate.images import ArraySource
from foveate.models import Model, make_batch, prediction_seed
from foveate.models.types import Batch
from foveate.types import Box

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "cnn", "deep-mil"])
def test_prediction_is_the_forward_pass_with_a_receipt(name: str, make_model: Models, picture: Path) -> None:
    model = make_model(name, channels=3).train()
    model.method = "des_raj"
    prediction = model.predict(picture, samples=2, seed=7)
    assert model.training
    assert model.method == "des_raj"
    assert prediction.path == str(picture)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.predicted == max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    assert prediction.patches == len(prediction.boxes) == {"cnn": 0, "deep-mil": 5 * 6}.get(name, 8)
    assert all(box.size == (22, 26) for box in prediction.boxes)
    assert prediction.bytes_read > 0
    assert prediction.seconds > 0
    source = ArraySource(np.asarray(Image.open(picture)))
    output = model.eval()(make_batch([source], model.view, [prediction_seed(7, "picture.png")]), samples=2)
    torch.testing.assert_close(
        torch.tensor(list(prediction.probabilities.values())), output.logits.softmax(1)[0], rtol=0, atol=1e-5
    )
    if output.boxes is not None:
        assert [Box(*box) for box in output.boxes.flatten(0, 1).tolist()] == list(prediction.boxes)


def test_draws_depend_on_the_seed_and_the_files_name_not_its_folder(
    make_model: Models, picture: Path, tmp_path: Path
) -> None:
    model = make_model(channels=3)
    (tmp_path / "elsewhere").mkdir()
    moved, renamed = tmp_path / "elsewhere" / "picture.png", tmp_path / "other.png"
    for copy in (moved, renamed):
        copy.write_bytes(picture.read_bytes())
    first = model.predict(picture)
    assert model.predict(str(moved)).boxes == first.boxes
    assert model.predict(renamed).boxes != first.boxes
    assert model.predict(picture, seed=1).boxes != first.boxes
    assert prediction_seed(0, "a\\b\\x.tif") == prediction_seed(0, "x.tif") != prediction_seed(0, "")


def test_top_needs_no_seed_and_arrays_no_path(make_model: Models) -> None:
    model = make_model(channels=1)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140), dtype=np.uint8)
    first = model.predict(pixels, method="top")
    assert first.path == ""
    assert first.boxes == model.predict(pixels, method="top", seed=5).boxes
    assert first.probabilities == model.predict(pixels, method="top", seed=5).probabilities
    assert model.method == "murthy"


def test_slots_left_over_are_not_counted_as_patches(make_model: Models) -> None:
    model = make_model(channels=1, patches=30)
    assert model.predict(np.zeros((28, 40), np.uint8)).patches == 20
    output = model(make_batch([ArraySource(np.zeros((28, 40), np.uint8))], model.view, [0]))
    assert torch.equal(output.read, output.draw.valid)
    assert int(output.read.sum()) == 20


def test_missing_file_and_no_samples_are_refused(make_model: Models, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        make_model().predict(tmp_path / "nowhere.png")
    with pytest.raises(ConfigError, match=r"^samples must be at least 1, got 0: "):
        make_model(channels=1).predict(np.zeros((50, 60), np.uint8), samples=0)


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "cnn", "deep-mil"])
def test_pixels_that_are_no_numbers_have_no_answer(name: str, make_model: Models) -> None:
    pixels = np.full((50, 60), 0.5, np.float32)
    pixels[30, 40] = np.nan
    with pytest.raises(ImageError, match=r"^image in memory: .* has pixels that are nan or infinite: replace them"):
        make_model(name, channels=1).predict(pixels)


def test_a_model_of_weights_that_are_no_numbers_has_no_answer(make_model: Models) -> None:
    model = make_model(channels=1)
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(ImageError, match=r"^the answer to the array is not a number: .* or in the model's weights$"):
        model.predict(np.zeros((50, 60), np.uint8))


def test_a_model_stays_as_it_was_after_a_failure(make_model: Models) -> None:
    model = make_model(channels=1).train()

    def fail(batch: Batch, samples: int = 1) -> None:
        raise ImageError("torn")

    model.start = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(ImageError, match="torn"):
        model.predict(np.zeros((50, 60), np.uint8), method="top")
    assert model.training
    assert model.method == "murthy"


def test_a_batch_needs_as_many_of_everything(make_source: Sources, make_model: Models) -> None:
    view = make_model().view
    with pytest.raises(ValueError, match="at least one image"):
        make_batch([], view, [])
    for extra in ({"seeds": [1, 2]}, {"seeds": [1], "labels": [0, 1]}, {"seeds": [1], "ids": ["a", "b"]}):
        with pytest.raises(ValueError, match=r"^1 images need as many seeds, labels, ids and views"):
            make_batch([make_source((40, 50))], view, **extra)


def test_views_made_elsewhere_are_used(make_source: Sources, make_model: Models) -> None:
    view = torch.rand(2, 5, 8)
    batch = make_batch([make_source((40, 50))], make_model().view, [1], labels=[2], ids=["a"], made=[(view, None)])
    assert torch.equal(batch.views[0], view)
    assert (batch.view_sizes, batch.labels.tolist(), batch.ids, batch.seeds) == (((5, 8),), [2], ("a",), (1,))
