"""Images looked at in batches, as on a GPU: each as alone, whatever its neighbours are or do. Run here on the CPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.config.heads import MilSettings
from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.images import ArraySource, Masked, Source, open_image
from foveate.images.source import Known
from foveate.models import Look, Model, build_model
from foveate.models.look import look_again
from foveate.models.types import DrawOptions
from foveate.predict import Failure, Row
from foveate.predict.predict import look_by_batches
from foveate.types import Box

SIZES = [(70, 110)] * 5 + [(64, 90), (70, 110), (70, 110), (33, 80)]
MODELS = ("attention-sampling", "uniform", "cnn", "deep-mil", "ips")


def model_of(name: str) -> Model:
    settings = ModelSettings(
        name=name,  # type: ignore[arg-type]
        view=ViewSettings(longest_side=40),
        patch=(29, 24),
        patches=3,
        features=FeatureSettings(width=8),
        mil=MilSettings(chunk=4),
    )
    return build_model(settings, ("left", "right"), channels=3, seed=5).eval()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    root = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(3)
    made = []
    for number, size in enumerate(SIZES):
        path = root / f"{number}.png"
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        made.append(Row(str(path), partial(open_image, path)))
    return made


def looks(model: Model, rows: list[Row], options: DrawOptions, batch: int) -> list[Look | Failure]:
    with model.in_evaluation_mode(options.method):
        return list(look_by_batches(model, rows, options, batch))


def same(one: Look, other: Look) -> None:
    torch.testing.assert_close(one.output.logits, other.output.logits)
    assert one.prediction.boxes == other.prediction.boxes
    assert one.prediction.bytes_read == other.prediction.bytes_read
    assert one.grid_size == other.grid_size
    for name in ("attention", "cell_mask", "boxes", "read", "features"):
        mine, theirs = getattr(one.output, name), getattr(other.output, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs)
    if one.output.draw is not None:
        assert other.output.draw is not None
        assert torch.equal(one.output.draw.index, other.output.draw.index)
        torch.testing.assert_close(one.output.draw.weight, other.output.draw.weight, rtol=1e-5, atol=0)  # of float32


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_in_a_batch_as_alone(name: str, batch: int, rows: list[Row]) -> None:
    model, options = model_of(name), DrawOptions(samples=2, seed=4)
    found = looks(model, rows, options, batch)
    assert len(found) == len(rows)
    for row, look in zip(rows, found, strict=True):
        assert isinstance(look, Look)
        same(look, model.look(row.open(), options))


class Unreadable(ArraySource):
    """An image whose view can be had, and no patch of it."""

    def read_known(self, *_: object) -> list[Known]:  # type: ignore[override]
        raise OSError("the disk is gone")


def broken() -> Source:
    raise OSError("no such file")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("opened", "stage", "message"),
    [
        (broken, "open", "no such file"),
        (lambda: Unreadable(np.zeros((70, 110, 3), np.uint8)), "read", "the disk is gone"),
        (lambda: ArraySource(np.full((70, 110, 3), np.nan, np.float32), name="x"), "read", "x: its view has pixels"),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 9])
def test_an_image_that_fails_takes_no_other_along(
    opened: Callable[[], Source], stage: str, message: str, place: int, rows: list[Row]
) -> None:
    model, options = model_of("attention-sampling"), DrawOptions()
    mixed = [*rows[:place], Row("broken", opened), *rows[place:]]
    found = looks(model, mixed, options, 4)
    failure = found.pop(place)
    assert isinstance(failure, Failure)
    assert (failure.path, failure.stage) == ("broken", stage)
    assert failure.message.startswith(message)
    for row, look in zip(rows, found, strict=True):
        assert isinstance(look, Look)
        same(look, model.look(row.open(), options))


def test_other_seeds_are_told_without_another_look(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    model, options = model_of("attention-sampling"), DrawOptions(samples=2, seed=4)
    found = looks(model, rows, options, 3)
    others = [DrawOptions(samples=2, seed=seed) for seed in (5, 6, 7)]
    expected = {row.path: [model.look(row.open(), one).prediction for one in others] for row in rows}

    def refuse(self: Source, size: object, region: object = None) -> np.ndarray:
        raise AssertionError("the image was looked at again")

    monkeypatch.setattr(Source, "view", refuse)
    for row, look in zip(rows, found, strict=True):
        assert isinstance(look, Look)
        again = look_again(model, look, others)
        assert [one.boxes for one in again] == [one.boxes for one in expected[row.path]]
        for one, other in zip(again, expected[row.path], strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_patches_are_read_in_parts_and_ahead_to_the_same_features(rows: list[Row]) -> None:
    from foveate.models.patch_reading import PatchReading

    sources = [row.open() for row in rows]
    boxes = torch.randint(-5, 60, (len(rows), 4, 4), generator=torch.Generator().manual_seed(0))
    boxes[:, :, 2:] = torch.tensor([11, 14])
    valid = torch.ones(len(rows), 4, dtype=torch.bool)
    valid[1, 2:], valid[4] = False, False
    network, cpu = torch.nn.Flatten(), torch.device("cpu")
    whole = PatchReading(sources, boxes, valid, cpu).features(network)
    assert not whole[4].any()
    assert torch.equal(whole[0, 1].view(3, 11, 14)[:, :, 0] * 255, _column(sources[0], boxes[0, 1]))
    for parts, ahead in ((1, True), (2, True), (4, False), (9, True)):
        reading = PatchReading(sources, boxes, valid, cpu, parts=parts, ahead=ahead)
        assert torch.equal(reading.features(network), whole)


def _column(source: Source, box: torch.Tensor) -> torch.Tensor:
    top, left, height, _ = box.tolist()
    return torch.from_numpy(source.read(Box(top, left, height, 1))[:, 0].T.copy()).float()


class _Overflowing(ArraySource):
    """An image whose decoder stumbles over an absurd offset as soon as pixels are asked for."""

    def _read(self, box: Box, level: int) -> np.ndarray:
        del box, level
        raise OverflowError("Python int too large to convert to C ssize_t")


def _spoilt(how: str, folder: Path) -> Source:
    pixels = np.zeros((70, 110, 3), np.float32)
    if how == "overflow":
        return _Overflowing(pixels, name=how)
    if how == "empty mask":
        Image.fromarray(np.zeros((7, 11), np.uint8)).save(folder / "mask.png")
        return Masked(ArraySource(pixels, name=how), folder / "mask.png")
    return ArraySource(np.full_like(pixels, 3.4e38), name=how)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("how", ["overflow", "empty mask", "huge values"])
@pytest.mark.parametrize("name", MODELS)
def test_no_spoilt_image_takes_its_batch_along(rows: list[Row], name: str, how: str, tmp_path: Path) -> None:
    model = model_of(name)
    company = [*rows[:2], Row("bad", partial(_spoilt, how, tmp_path)), *rows[2:4]]
    found = looks(model, company, DrawOptions(), batch=5)
    alone = looks(model, [*rows[:4]], DrawOptions(), batch=1)
    for one, other in zip([found[0], found[1], *found[3:]], alone, strict=True):
        assert isinstance(one, Look)
        assert isinstance(other, Look)
        same(one, other)
    if name != "cnn" or how == "overflow":  # a network that looks once, at all of a view, need not mind the others
        assert isinstance(found[2], Failure)
