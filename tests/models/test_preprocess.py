"""What models make of images of any number of channels, and what they refuse."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from foveate.config.settings import InputSettings
from foveate.errors import ConfigError, ImageError
from foveate.images import ArraySource
from foveate.models import Intake, Model, wanted_channels
from foveate.types import Box

Models = Callable[..., Model]


def image(channels: int, name: str = "scan.png") -> ArraySource:
    pixels = np.random.default_rng(channels).integers(0, 256, (50, 60, channels), dtype=np.uint8)
    return ArraySource(pixels, name=name)


def pixels(source: object) -> np.ndarray:
    return source.read(Box(3, 4, 5, 6))  # type: ignore[attr-defined, no-any-return]


def test_an_image_that_is_as_wanted_is_left_alone() -> None:
    for channels, settings in ((5, InputSettings()), (3, InputSettings("rgb")), (1, InputSettings("grey"))):
        source = image(channels)
        assert Intake(settings, channels)(source) is source


@pytest.mark.parametrize("colour", ["auto", "rgb"])
def test_grey_becomes_rgb(colour: str) -> None:
    source = image(1)
    found = Intake(InputSettings(colour), 3)(source)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pixels(found), np.repeat(pixels(source), 3, 2))


def test_colour_and_opacity_become_what_is_asked_for() -> None:
    source = image(4)
    plain = pixels(source).astype(int)
    over_black = (plain[:, :, :3] * plain[:, :, 3:] + 127) // 255
    np.testing.assert_array_equal(pixels(Intake(InputSettings("rgb"), 3)(source)), over_black)
    luma = (over_black @ [299, 587, 114] + 500) // 1000
    np.testing.assert_array_equal(pixels(Intake(InputSettings("grey"), 1)(source))[:, :, 0], luma)
    luma = (pixels(image(3)).astype(int) @ [299, 587, 114] + 500) // 1000
    np.testing.assert_array_equal(pixels(Intake(InputSettings("grey"), 1)(image(3)))[:, :, 0], luma)


def test_bands_are_chosen_in_their_order() -> None:
    found = Intake(InputSettings(bands=(4, 0, 4)), 3)(image(5))
    np.testing.assert_array_equal(pixels(found), pixels(image(5))[:, :, [4, 0, 4]])


def test_bands_an_image_lacks_are_refused() -> None:
    with pytest.raises(
        ImageError, match=r"^scan\.png: bands must be among 0 … 2, the image's own, got 3, 1: "
    ) as caught:
        Intake(InputSettings(bands=(3, 1)), 2)(image(3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "wanted", "given", "remedy"),
    [
        (InputSettings(), 3, 4, "save it without its alpha channel, or train a model with model.input.colour rgb"),
        (InputSettings(), 1, 3, "save it in grey, or train a model with model.input.colour grey"),
        (InputSettings(), 1, 4, "save it in grey, or train a model with model.input.colour grey"),
        (InputSettings(), 5, 3, "choose its bands, or train a model on such images"),
        (InputSettings("rgb"), 3, 5, "choose its bands, or train a model on such images"),
        (InputSettings("grey"), 1, 2, "choose its bands, or train a model on such images"),
    ],
)
def test_other_channels_are_refused_with_the_remedy(
    settings: InputSettings, wanted: int, given: int, remedy: str, make_model: Models
) -> None:
    model = make_model(channels=wanted, input=settings)
    with pytest.raises(ImageError) as caught:
        model.predict(image(given))
    assert str(caught.value) == f"the model wants {wanted} channel(s), scan.png has {given}: {remedy}"
    with pytest.raises(ImageError, match=rf"^the model wants {wanted} channel\(s\), the array has {given}: "):
        model.predict(np.zeros((50, 60, given), np.uint8))


def test_prediction_takes_the_image_in(make_model: Models) -> None:
    model = make_model(channels=3)
    grey = image(1)
    triple = ArraySource(np.repeat(grey.read(Box(0, 0, 50, 60)), 3, 2), name="scan.png")
    found, wanted = model.predict(grey), model.predict(triple)
    assert found.probabilities == wanted.probabilities
    assert found.boxes == wanted.boxes
    assert 3 * found.bytes_read == wanted.bytes_read > 0
    bands = make_model(channels=2, input=InputSettings(bands=(2, 0)))
    chosen = ArraySource(image(3).read(Box(0, 0, 50, 60))[:, :, [2, 0]], name="scan.png")
    plain = make_model(channels=2).predict(chosen)
    for name, value in bands.predict(image(3)).probabilities.items():
        assert value == pytest.approx(plain.probabilities[name], abs=1e-6)


def test_it_can_be_pickled() -> None:
    intake = Intake(InputSettings(bands=(1,)), 1)
    assert pickle.loads(pickle.dumps(intake)) == intake


@pytest.mark.parametrize(
    ("channels", "settings", "wanted"),
    [
        ((3, 3), InputSettings(), 3),
        ((1, 3, 1), InputSettings(), 3),
        ((1,), InputSettings(), 1),
        ((5, 5), InputSettings(), 5),
        ((4, 4), InputSettings(), 4),
        ((1, 4), InputSettings("rgb"), 3),
        ((1, 3), InputSettings("grey"), 1),
        ((5, 7), InputSettings(bands=(4, 2)), 2),
    ],
)
def test_channels_wanted_for_some_images(channels: tuple[int, ...], settings: InputSettings, wanted: int) -> None:
    assert wanted_channels([image(count) for count in channels], settings) == wanted


def test_a_mixture_that_nothing_settles_is_refused() -> None:
    with pytest.raises(ImageError) as caught:
        wanted_channels([image(4, "b.png"), image(3, "a.png"), image(4, "c.png")], InputSettings())
    assert str(caught.value) == (
        "training images must have the same number of channels, got 3 (a.png) and 4 (b.png): "
        "set model.input.colour rgb (or grey)"
    )
    with pytest.raises(ImageError, match=r"got 3 \(a\.tif\) and 5 \(b\.tif\): set model\.input\.bands$"):
        wanted_channels([image(3, "a.tif"), image(5, "b.tif")], InputSettings())


@pytest.mark.parametrize(
    ("settings", "channels", "message"),
    [
        (
            InputSettings("rgb", bands=(0, 1, 2)),
            3,
            "model.input.bands chooses bands and model.input.colour rgb makes others: set one of them",
        ),
        (
            InputSettings(bands=(0, -1)),
            2,
            "model.input.bands must be at least 0, got [0, -1]: the first band is 0",
        ),
        (
            InputSettings("grey"),
            3,
            "model.input makes images of 1 channel(s), but the model is built for 3: build it with channels=1",
        ),
        (
            InputSettings(bands=(3, 1)),
            4,
            "model.input makes images of 2 channel(s), but the model is built for 4: build it with channels=2",
        ),
    ],
)
def test_settings_that_contradict_are_refused(
    settings: InputSettings, channels: int, message: str, make_model: Models
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_model(channels=channels, input=settings)
    assert str(caught.value) == message


def test_intake_is_the_models_own(make_model: Models) -> None:
    model = make_model(channels=3)
    assert model.intake == Intake(InputSettings(normalise="none"), 3), "what is left open is settled when it is built"
    assert not any(isinstance(value, torch.Tensor) for value in vars(model.intake).values())


def test_images_are_standardised_after_their_bands_are_chosen() -> None:
    found = Intake(InputSettings(bands=(3, 1), normalise="image"), 2)(image(5))
    values = found.read(Box(0, 0, 50, 60))
    np.testing.assert_allclose(values.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(values.std((0, 1)), 1, atol=1e-5)
    chosen = image(5).read(Box(0, 0, 50, 60))[:, :, [3, 1]].astype(float)
    np.testing.assert_allclose(np.corrcoef(values[:, :, 0].ravel(), chosen[:, :, 0].ravel())[0, 1], 1, atol=1e-6)
